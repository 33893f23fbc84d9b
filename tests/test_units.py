"""Atomic units: symbols of their own, read where a token ends; their bytes one by one are not they."""

from __future__ import annotations

import math
from typing import Any

import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import BatchingToy, FixedLM, ToyLM

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.byte_lm.heal import TokenHealer
from genlm.bytes.byte_lm.tokenized_prefill import METHODS
from genlm.bytes.errors import ImpossibleByteError

UNIT = b"<s>"
WORDS = [UNIT, b"<s>a", b"<s", b"<", b"a", b"s", b"aa<", b">", b"a<s>"]
symbols = st.lists(st.sampled_from([*b"<s>a", *b"<s>", UNIT]), min_size=1, max_size=7)
rules = st.sampled_from(
    [
        {"K": 1},
        {"K": 2, "prune_threshold": 0.3},
        {"tolerance": 0.4},
        {"tolerance": 0.05},
        {"K": 1, "tolerance": 0.4},
    ]
)


async def start(words: list[bytes], seed: int, **rule: Any) -> tuple[ToyLM, ByteBeamState]:
    lm = BatchingToy([w for w in WORDS if w in words or w == UNIT], seed=seed)
    return lm, await ByteBeamState.initial(lm, BeamParams(**rule), {"atomic_byte_strings": [UNIT]})


@given(st.sets(st.sampled_from(WORDS[1:]), min_size=2), symbols, rules, st.integers(0, 999))
@examples(100)
async def test_healing_included_no_beam_is_above_the_truth(words, text, rule, seed):
    lm, beam = await start(words, seed, **rule)
    brute = Brute(lm, units=[UNIT])
    for i, symbol in enumerate(text):
        beam = await (beam.prune() << symbol)
        p = brute.prefix(text[: i + 1])
        assert beam.logZ <= (math.log(p) if p else -math.inf) + 1e-6
        for state in beam:  # what it stands on was read in these symbols
            assert not state.symbols or list(text[: i + 1])[-len(state.symbols) :] == state.symbols
        if not len(beam):
            return
        logp, want = await beam.logp_next(), brute.next(text[: i + 1], units=[UNIT])
        assert logp.units.keys() == {UNIT}
        sure = logp.slack.bound == 0.0  # nobody waits, to whom all symbols are open
        assert not sure or all(p > 0.0 or logp[s] == -math.inf for s, p in want.items() if s != 257)


@given(
    st.sets(st.sampled_from(WORDS[1:]), min_size=3), symbols, st.integers(0, 7), st.sampled_from(METHODS),
    rules, st.integers(0, 999),
)  # fmt: skip
@examples(100)
async def test_every_method_reads_these_symbols_and_no_others(words, text, cut, method, rule, seed):
    """A tokenizer's path may spell a unit by its bytes, or take bytes for a unit: it is not the text's."""
    lm, beam = await start(words, seed, **rule)
    try:
        beam = await (await beam.prefill(text[:cut])).prefill(text[cut:], method=method)
    except ImpossibleByteError:
        return
    p = Brute(lm, units=[UNIT]).prefix(text)
    assert beam.logZ <= math.log(p) + 1e-6 if p else beam.logZ == -math.inf


async def test_bytes_one_by_one_are_not_healed_to_a_unit():
    """`<s>` inside `<s>a`, then `b`: only the unit would let `b` follow."""
    lm = FixedLM([UNIT, b"<s>a", b"b"], rule=lambda _: [0.25, 0.5, 0.25])
    beam = await ByteBeamState.initial(lm, BeamParams(K=5), {"atomic_byte_strings": [UNIT]})
    one_by_one = await beam.prefill(list(UNIT))
    assert one_by_one.states[0].symbols == list(UNIT)
    assert await TokenHealer().try_heal(one_by_one.states[0], ord("b")) is None
    assert (await (one_by_one << ord("b"))).is_empty
    whole = await (await (beam << UNIT) << ord("b"))
    assert math.exp(whole.logZ) == pytest.approx(0.25 * 0.25)


async def test_inside_a_token_a_unit_has_an_entry():
    lm = FixedLM([UNIT, b"ab", b"a"], rule=lambda _: [0.25, 0.7, 0.05])
    found = {}
    for threshold in (0.0, 0.5):
        beam = await ByteBeamState.initial(lm, BeamParams(5, threshold), {"atomic_byte_strings": [UNIT]})
        beam = await (beam << ord("a"))
        (inside,) = beam.states
        assert inside.logp_next.units == {UNIT: -math.inf} and inside.logp_next[UNIT] == -math.inf
        found[threshold] = (await beam.logp_next())[UNIT]
    want = Brute(lm, units=[UNIT]).next(b"a", units=[UNIT])[UNIT]
    assert math.exp(found[0.0]) == pytest.approx(want) and found[0.5] == -math.inf


async def test_whoever_waits_may_go_on_with_a_unit():
    lm = FixedLM([UNIT, b"ab", b"a"], rule=lambda _: [0.25, 0.74, 0.01])
    beam = await ByteBeamState.initial(lm, BeamParams(tolerance=0.1), {"atomic_byte_strings": [UNIT]})
    logp = await (await (beam << ord("a"))).logp_next()
    assert -math.inf < logp[UNIT] < math.log(1e-3)
    assert sum(math.exp(x) for x in [*logp.ps, *logp.units.values()]) == pytest.approx(1.0)
