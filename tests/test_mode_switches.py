"""Texts read partly as text and partly with ends special: one definition, all ways to read.

A byte that was read with ends special belongs to no end, for good. So what a text weighs depends on how each
of its bytes was read, and not on which other tokens happen to share a node with an end.
"""

from __future__ import annotations

import math
import random
from itertools import product
from typing import Any

import numpy as np
import pytest
from fuzz.truth import Truth
from toy import EOS_STRING, BatchingToy, ToyLM

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.byte_lm.heal import TokenHealer
from genlm.bytes.trie import EOS, TrieMode

MODES = {True: TrieMode.WITHOUT_EOS, False: TrieMode.WITH_EOS}
VOCABULARIES = [
    [b"<", b"e", b">", b"<e>"],
    [b"a", b"<e>"],  # nothing else begins as the end does
    [b"<", b"<e", b"e>", b">", b"<e>", b"<e>a", b"a<e>", b"a", b"e"],
]


async def begin(llm: Any, **params: Any) -> Any:
    return await ByteBeamState.initial(llm, BeamParams(eos_byte_strings={EOS_STRING}, heal=False, **params))


async def read(beam: Any, text: bytes, plain: tuple[bool, ...]) -> Any:
    for byte, as_text in zip(text, plain, strict=True):
        beam = await (beam.with_mode(MODES[as_text]) << byte)
    return beam


@pytest.mark.parametrize("plain", list(product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("words", VOCABULARIES, ids=str)
async def test_an_end_of_which_some_bytes_are_text(words: list[bytes], plain: tuple[bool, ...]) -> None:
    """`exact` stays exact: in both modes after it, for the next byte too, with equal bounds."""
    llm = ToyLM(words, seed=1)
    truth: Any = Truth.begin(llm, [EOS_STRING], [])
    for byte, as_text in zip(EOS_STRING, plain, strict=True):
        truth = truth.then(byte, as_text)
    there = await read(await begin(llm, exact=True), EOS_STRING, plain)
    for as_text in (True, False):
        beam = there.with_mode(MODES[as_text])
        assert math.exp(beam.logZ) == pytest.approx(truth.prefix(as_text), rel=1e-9, abs=1e-300)
        assert beam.bounds().lower == beam.bounds().upper and beam.slack.bound == 0.0
        want = truth.next(as_text)
        if want is not None:
            found = np.exp((await beam.logp_next()).ps)
            assert all(found[symbol] == pytest.approx(p, abs=1e-9) for symbol, p in want.items())


async def test_it_does_not_matter_who_shares_the_node() -> None:
    """What was read with ends special stays so, however the rest is cut into calls."""
    beam = await begin(ToyLM(VOCABULARIES[0], seed=1), exact=True)
    begun = await (beam << ord("<"))
    one = await begun.prefill(b"e>")
    two = await (await (begun << ord("e"))).prefill(b">")
    three = await (await begun.prefill(b"e")).prefill(b">")
    text = await beam.prefill(EOS_STRING)
    assert one.logZ == pytest.approx(two.logZ) == pytest.approx(three.logZ)
    assert text.logZ > one.logZ + 1.0
    for parts in ((b"<", b"e>"), (b"<e", b">"), (b"<", b"e", b">")):
        again = beam
        for part in parts:
            again = await again.prefill(part)
        assert again.logZ == pytest.approx(text.logZ)


@pytest.mark.parametrize(
    "params", [{"exact": True}, {"tolerance": 0.02}, {"tolerance": 0.3}, {"K": 2}, {}], ids=str
)
@pytest.mark.parametrize("kind", [ToyLM, BatchingToy])
async def test_random_switches(kind: Any, params: dict[str, Any]) -> None:
    """Also for those who waited, who are read again as each byte was read; pruned or not."""
    rng = random.Random(5)
    for seed in range(12):
        llm = kind(VOCABULARIES[2], seed=seed)
        beam, truth = await begin(llm, **params), Truth.begin(llm, [EOS_STRING], [])
        mode = False
        for _ in range(5):
            byte = rng.choice(b"<e>a")
            mode = rng.random() < 0.5
            beam = beam.with_mode(MODES[mode])
            beam = await ((beam.prune() if rng.random() < 0.5 else beam) << byte)
            truth = truth.then(byte, mode)  # type: ignore[assignment]
            p, (lower, upper) = truth.prefix(mode), beam.bounds()
            assert math.exp(lower) <= p * (1 + 3e-5) and p <= math.exp(upper) * (1 + 3e-5)
            if "exact" in params:
                assert math.exp(beam.logZ) == pytest.approx(p, rel=3e-5)


async def state_after(llm: Any, text: bytes, plain: tuple[bool, ...]) -> Any:
    """The candidate that has committed nothing."""
    beam = await read(await begin(llm, exact=True), text, plain)
    return max(beam, key=lambda state: len(state.partial))


@pytest.mark.parametrize("plain", [(True, False, True), (False, True, True), (False, False, True)])
async def test_healing_makes_no_end_of_what_was_none(plain: tuple[bool, ...]) -> None:
    """`<e>x` cut anew: `<e>` is one of its tokens only where all three bytes were text."""
    llm = ToyLM([b"<e>x", EOS_STRING, b"y"], seed=3)
    for as_text in (True, False):
        state = (await state_after(llm, EOS_STRING, plain)).with_mode(MODES[as_text])
        assert state.committable == []
        assert await TokenHealer().try_heal(state, ord("y")) is None


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("symbol", [ord("y"), EOS])
async def test_healing_keeps_ends_that_are_text(symbol: int, as_text: bool) -> None:
    """`<e><e>`, all of it text, is cut into two, whatever mode the next byte is read in."""
    llm = ToyLM([b"<e><e>x", EOS_STRING, b"y"], seed=3)
    state = (await state_after(llm, 2 * EOS_STRING, (True,) * 6)).with_mode(MODES[as_text])
    healed = await TokenHealer().try_heal(state, symbol)
    if symbol == EOS and as_text:
        assert healed is None
        return
    assert healed is not None and healed.mode is MODES[as_text] and healed.lm_state.context == [1, 1]
