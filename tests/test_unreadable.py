"""Bytes that cannot be read: said at once where the vocabulary tells, else after a stated effort."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from test_beam_exact import models, texts
from toy import EOS_STRING, TOY, BatchingToy, FixedLM, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState
from genlm.bytes.errors import EmptyBeamError, ImpossibleByteError, InvalidValueError
from genlm.bytes.trie import EOS, TrieMode

SETTINGS = [BeamParams(), BeamParams(tolerance=0.3), BeamParams(K=3), BeamParams(K=3, prune_threshold=0.1)]
WORDS = [b"a", b"b", b"ab", b"ba", b"aab", b"bb"]


@pytest.mark.parametrize("kind", [ToyLM, BatchingToy])
@pytest.mark.parametrize("params", SETTINGS, ids=repr)
async def test_a_byte_that_no_token_contains_asks_the_model_nothing(kind: Any, params: BeamParams) -> None:
    lm = kind(WORDS, seed=1)
    start = await ByteBeamState.initial(lm, params)
    beam = await start.prefill(b"aab")
    asked = len(lm.asked)
    for method in ("beam", "tokenize", "heal"):
        with pytest.raises(ImpossibleByteError, match=r"0x04.*offset 5.*no token of this model") as caught:
            await beam.prefill(b"ababa\x04ab", method=method)
        assert (caught.value.byte, caught.value.offset, caught.value.producible) == (4, 5, False)
    for symbol in (4, EOS):  # nothing ends a sequence here
        after = await (beam << symbol)
        assert after.is_empty and after.logZ == -math.inf and (await (after << ord("a"))).is_empty
    assert len(lm.asked) == asked


async def test_everywhere() -> None:
    lm = ToyLM(WORDS, seed=1, bos=0)
    async with AsyncByteLM(lm) as byte_lm:
        await byte_lm.next("a")
        lm.asked.clear()
        for call in (
            lambda: byte_lm.score("ab\x04"),
            lambda: byte_lm.score("ab", "a\x04"),
            lambda: byte_lm.score(["ab", "\x04"]),
            lambda: byte_lm.complete("ab\x04", max_tokens=3),
            lambda: byte_lm.complete("ab\x04", max_bytes=3, unit="byte"),
            lambda: byte_lm.word_surprisal("ab\x04"),
        ):
            with pytest.raises(ImpossibleByteError) as caught:
                await call()
            assert caught.value.byte == 4 and len(lm.asked) <= 12  # starts, and the text beside it
        score = await byte_lm.score("ab\x04ab", on_impossible="inf")
        assert np.isfinite(score.logprobs[:2]).all() and score.logprobs[2] == -math.inf
        with pytest.raises(ImpossibleByteError, match=r"`text` has byte 0x04.*offset 2"):
            await byte_lm.score("ab\x04ab")


@given(models(), texts, st.sampled_from([0.3, 1e-3]))
@examples(60)
async def test_what_the_vocabulary_rules_out_has_probability_0(
    model: Any, text: bytes, tolerance: float
) -> None:
    """In either mode, EOS strings and units included; and smoothing gives it none."""
    lm, eos = model
    brute = Brute(lm, eos)
    start = await ByteBeamState.initial(lm, BeamParams(tolerance=tolerance, eos_byte_strings=list(eos)))
    trie = start.trie.trie
    for symbol in [*range(256), EOS]:
        plain = trie.may_read(symbol, TrieMode.WITHOUT_EOS)
        assert plain == (symbol in trie.producible)
        if not trie.may_read(symbol, TrieMode.WITH_EOS) and symbol != EOS:
            assert brute.prefix([*text[:3], symbol]) == 0.0
    beam = start
    for byte in text:
        beam = await (beam.prune() << byte)
        if beam.is_empty or beam.logZ == -math.inf:
            return
    logp = await beam.logp_next()
    assert all(logp[b] == -math.inf for b in range(256) if not trie.may_read(b, TrieMode.WITH_EOS))


class Forbidding(BatchingToy):
    """Never lets a token with a `z` come next, though the vocabulary has one."""

    def probs(self, context: Any) -> np.ndarray:
        p = ToyLM.probs(self, context)
        p[[b"z" in bytes(token) for token in self.byte_vocab]] = 0.0
        return p / p.sum()


MANY = [b"a", b"b", b"ab", b"ba", b"aa", b"bb", b"aba", b"bab", b"z"]


@pytest.mark.parametrize("heal", [True, False])
@pytest.mark.parametrize("kind", [Forbidding])
@pytest.mark.parametrize("most", [20, 100])
async def test_a_byte_that_the_model_rules_out_costs_a_stated_effort(
    kind: Any, most: int, heal: bool
) -> None:
    """Hundreds of ways to cut the text wait, and every one that is looked at brings more."""
    lm = kind(MANY, seed=2)
    params = BeamParams(tolerance=0.05, max_late_contexts=most, heal=heal)
    beam = await (await ByteBeamState.initial(lm, params)).prefill(b"abababbababbabab")
    before = len(lm.asked)
    with pytest.raises(ImpossibleByteError, match="no kept tokenization"):
        await beam.prefill(b"z")
    after = await (beam.prune() << ord("z"))
    healing = 1000 if heal else 0  # MAX_TRIED, which ends long before: the partial is short
    extensions = sum(len(state.extend_all()) for state in beam)
    assert most / 2 < len(lm.asked) - before <= most + extensions + min(healing, 16)
    assert after.is_empty and after.bounds().upper > -math.inf and after.slack.expected == 1.0
    with pytest.raises(EmptyBeamError):
        await after.logp_next()


async def test_who_was_not_looked_at_in_time_waits_on() -> None:
    """While a candidate can read, the bound only puts off."""
    lm = FixedLM([b"a"] * 9 + [b"ab", b"b"], rule=lambda _: [0.005] * 9 + [0.95, 0.005])
    found = []
    for most in (2, 1000):
        beam = await ByteBeamState.initial(lm, BeamParams(tolerance=0.02, max_late_contexts=most))
        beam = await (await (beam << ord("a")) << ord("b"))
        assert len(beam.deferred) == 9
        beam = await (beam << ord("b"))
        found.append(beam)
    few, all_of_them = found
    assert len(few.deferred) >= len(all_of_them.deferred) and few.logZ <= all_of_them.logZ
    assert few.bounds().upper == pytest.approx(all_of_them.bounds().upper, abs=1.0)


@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (True, TypeError), (1.5, TypeError)])
def test_settings_that_make_no_sense(value: Any, kind: Any) -> None:
    with pytest.raises(kind, match="max_late_contexts"):
        BeamParams(max_late_contexts=value)


# --- contexts that end inside an end ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [ToyLM, BatchingToy])
@pytest.mark.parametrize("params", SETTINGS, ids=repr)
async def test_a_context_that_only_an_end_goes_on_with(kind: Any, params: BeamParams) -> None:
    """`<` begins `<e>` and no other token: nothing follows it, whatever is asked."""
    params = BeamParams(K=params.K, tolerance=params.tolerance, eos_byte_strings={EOS_STRING})
    beam = await (await ByteBeamState.initial(kind(TOY), params)).prefill(b"ab<")
    for asked in (beam, beam.prune()):
        with pytest.raises(EmptyBeamError):
            await asked.logp_next()
        assert (await (asked << ord("a"))).logZ == -math.inf
    for text in (b"a", b"<"):
        with pytest.raises((ImpossibleByteError, EmptyBeamError)):
            await (await (beam.prune() << ord("a"))).prefill(text)
    assert (await beam.prefill(b"e>a")).logZ > -math.inf  # as text it goes on
    async with AsyncByteLM(kind(TOY), params=params) as lm:
        with pytest.raises(ImpossibleByteError, match="inside a string that ends a sequence"):
            await lm.score("a", "ab<")
        score = await lm.score("ab", "ab<", on_impossible="inf")
        assert score.logprobs[0] == -math.inf
        assert (await lm.complete("ab<", max_tokens=2)).finish_reason == "dead_end"


async def test_who_waits_goes_on_where_the_others_end() -> None:
    """`<`, then `e`, waits beside the heavy `<e>`; after the context it is all there is."""
    lm = FixedLM([b"a", EOS_STRING, b"<", b"e"], rule=lambda _: [0.5, 0.48, 0.01, 0.01])
    params = BeamParams(tolerance=0.2, eos_byte_strings={EOS_STRING})
    beam = await (await ByteBeamState.initial(lm, params)).prefill(b"a<e")
    want = Brute(lm, {EOS_STRING})
    assert beam.logZ == pytest.approx(math.log(want.prefix(b"a<e", plain=3)))
    assert math.exp((await beam.logp_next())[ord("a")]) == pytest.approx(want.next(b"a<e", plain=3)[ord("a")])
    after = await (beam.prune() << ord("a"))
    assert after.logZ == pytest.approx(math.log(0.5 * 0.01 * 0.01 * 0.5)) and after.mode is TrieMode.WITH_EOS


def test_a_beam_made_of_nothing_says_so() -> None:
    with pytest.raises(EmptyBeamError, match="the beam is empty"):
        ByteBeamState([], BeamParams()).trie  # noqa: B018
    assert issubclass(ImpossibleByteError, InvalidValueError)
