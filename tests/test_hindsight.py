"""Scores with hindsight: what is found late counts where it belongs. Against brute force."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteBeamState, ByteLM
from genlm.bytes.score.hindsight import Hindsight
from genlm.bytes.score.reading import Reading, read
from genlm.bytes.score.window import Window, read_sliding
from genlm.bytes.trie import TrieMode

WORDS = [bytes(word) for n in (1, 2, 3) for word in itertools.product(b"ab", repeat=n)]
TOLERANCES = (0.5, 0.2, 0.05, 0.01)
texts = st.lists(st.sampled_from(b"abc"), min_size=1, max_size=7).map(bytes)


@dataclass(eq=False)
class Toy(ToyLM):
    """A toy that remembers, as brute force asks it for the same again and again."""

    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    def probs(self, context: Sequence[int]) -> np.ndarray:
        if tuple(context) not in self.known:
            self.known[tuple(context)] = super().probs(context)
        return self.known[tuple(context)]


def toy(seed: int) -> Toy:
    """A vocabulary in which much is found late."""
    return Toy([*WORDS, b"c", EOS_STRING], seed=seed)


def some_text(seed: int, length: int = 7) -> bytes:
    return bytes(np.random.default_rng(seed).choice(list(b"abc"), p=[0.45, 0.45, 0.1], size=length).tolist())


async def beams(llm: ToyLM, params: BeamParams, text: bytes) -> list[ByteBeamState]:
    """The pruned beams before each byte, and the last beam: what is known at once."""
    found = [await ByteBeamState.initial(llm, params)]
    for byte in text:
        found[-1] = found[-1].prune()
        found.append(await (found[-1] << byte))
    return found


def evaluated(llm: ToyLM, text: bytes) -> list[float]:
    """The definition: the sum over all contexts that the model was ever asked for, by place."""
    spelling = [bytes(token) for token in llm.byte_vocab]
    sums = [1.0, *[0.0] * len(text)]
    for context in set(llm.asked):
        path = b"".join(spelling[token] for token in context)
        if not text.startswith(path) or EOS_STRING in path:
            continue
        weight = math.prod(llm.probs(context[:i])[token] for i, token in enumerate(context))
        for place in range(len(path) + 1, len(text) + 1):
            rest = text[len(path) : place]
            probs = llm.probs(context)
            sums[place] += weight * sum(probs[i] for i, s in enumerate(spelling) if s.startswith(rest))
    return sums


@examples(30)
@given(vocabularies(), st.integers(0, 2**20), st.sampled_from(TOLERANCES), texts)
def test_every_hypothesis_ever_evaluated_counts_where_it_covers(
    words: list[bytes], seed: int, tolerance: float, text: bytes
) -> None:
    llm = Toy([*words, EOS_STRING], seed=seed)
    score = ByteLM(llm, BeamParams(tolerance=tolerance), eos=[EOS_STRING]).score(text)
    sums = np.concatenate([[0.0], np.cumsum(score.logprobs)])
    np.testing.assert_allclose(np.exp(sums), evaluated(llm, text), rtol=1e-6)
    assert (score.logprobs <= 0.0).all() and score.above_one == 0


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_bytes_are_nearer_to_the_truth(tolerance: float) -> None:
    """At every place at least as near as what is known at once, on average by far; the sum is the same."""
    off, off_at_once = [], []
    for seed in range(4):
        llm, text = toy(seed), some_text(seed)
        params = BeamParams(tolerance=tolerance, eos_byte_strings=[EOS_STRING])
        brute = Brute(llm, eos=[EOS_STRING])
        truth = np.log([brute.prefix(text[:i]) for i in range(len(text) + 1)])
        at_once = np.array([beam.logZ for beam in asyncio.run(beams(llm, params, text))])
        score = ByteLM(llm, params, eos=[EOS_STRING]).score(text)
        sums = np.concatenate([[0.0], np.cumsum(score.logprobs)])
        assert (at_once - 1e-6 <= sums).all() and (sums <= truth + 1e-9).all()
        assert score.logprob == pytest.approx(at_once[-1], abs=1e-6)
        off.append(np.abs(score.logprobs - np.diff(truth)).mean())
        off_at_once.append(np.abs(np.diff(at_once) - np.diff(truth)).mean())
        assert off[-1] <= off_at_once[-1] + 1e-9
    assert np.mean(off) < 0.75 * np.mean(off_at_once)


def test_distributions_are_nearer_too() -> None:
    """`byte_logprobs`, at the bytes and in between; a word's end is asked of the same beams."""
    off, off_at_once = [], []
    for seed, tolerance in itertools.product(range(2), (0.3, 0.1)):
        llm, text = toy(seed), some_text(seed)
        params = BeamParams(tolerance=tolerance, eos_byte_strings=[EOS_STRING])
        brute = Brute(llm, eos=[EOS_STRING])

        async def rows(known: list[ByteBeamState]) -> list[np.ndarray]:
            return [np.delete((await beam.logp_next()).ps, 256) for beam in known[:-1]]

        at_once = asyncio.run(rows(asyncio.run(beams(llm, params, text))))
        found = ByteLM(llm, params, eos=[EOS_STRING]).byte_logprobs(text)
        for i in range(len(text)):
            truth = brute.next(text[:i])
            want = np.array([truth.get(byte, 0.0) for byte in [*range(256), 257]])
            off.append(np.abs(np.exp(found[i]) - want).sum() / 2)
            off_at_once.append(np.abs(np.exp(at_once[i]) - want).sum() / 2)
    assert np.mean(off) < 0.8 * np.mean(off_at_once)


@examples(30)
@given(
    vocabularies(),
    st.integers(0, 99),
    st.sampled_from(TOLERANCES),
    texts,
    texts,
    st.booleans(),
)
def test_never_above_probability_1(
    words: list[bytes],
    seed: int,
    tolerance: float,
    context: bytes,
    text: bytes,
    narrow: bool,
) -> None:
    """After a context, part of which is found late; with few candidates; by words, with their ends."""
    llm = Toy([*words, EOS_STRING], seed=seed, zeros=0.2)
    params = BeamParams(tolerance=tolerance, K=2 if narrow else None)
    lm = ByteLM(llm, params, eos=[EOS_STRING])
    try:
        score = lm.score(text, context, end=True, on_impossible="inf")
        rows = lm.word_surprisal(text, context=context, sep="c", on_impossible="inf")
    except ValueError:
        return  # the context is impossible
    known = score.logprobs[~np.isnan(score.logprobs)]
    assert (known <= 0.0).all() and not (score.end is not None and score.end > 0.0)
    assert all(not row.surprisal < 0.0 for row in rows)


@examples(30)
@given(vocabularies(), st.integers(0, 2**20), texts, st.sampled_from([(1, 0.0), (1, 0.3), (2, 0.1)]))
def test_nor_where_a_beam_has_healed(
    words: list[bytes], seed: int, text: bytes, settings: tuple[int, float]
) -> None:
    """What was dropped and is found again by healing: earlier places have at least as much."""
    llm = Toy([*words, EOS_STRING], seed=seed, zeros=0.3)
    lm = ByteLM(llm, BeamParams(*settings), eos=[EOS_STRING])
    score = lm.score(text, on_impossible="inf", end=True)
    assert not (score.logprobs > 0.0).any() and not (score.end or 0.0) > 0.0


def test_what_healing_finds_was_there_before() -> None:
    """Here a figure would be at +1.6: what was dropped is found again, and weighs more than what was kept."""
    llm = Toy([b"a", b"aac", b"abbc", b"b", b"baba", b"caa", EOS_STRING], seed=187)
    score = ByteLM(llm, BeamParams(1), eos=[EOS_STRING]).score(b"babaaaa")
    assert (score.logprobs <= 0.0).all()


@pytest.mark.parametrize("seed", range(2))
def test_windows_that_slide(seed: int) -> None:
    """What is found late is booked on its side of a slide, and what is dropped there is expected later."""
    llm, text = toy(seed), some_text(seed, 30)
    params = BeamParams(tolerance=0.1, eos_byte_strings=[EOS_STRING])

    async def once(most: int) -> Reading:
        return await read(await ByteBeamState.initial(llm, params), text, Window(most, 3))

    reading, whole = asyncio.run(once(8)), asyncio.run(once(1000))
    assert max(map(len, llm.asked)) > 8  # the whole text, without a slide
    assert (reading.logprobs <= 0.0).all() and not np.allclose(reading.logprobs, whole.logprobs)
    assert reading.unfound is not None
    assert (reading.unfound >= 0.0).all() and reading.unfound[-1] > reading.unfound[0] == 0.0
    assert (np.diff(reading.unfound) != 0.0).mean() > 0.5  # within windows too, not where they slide alone
    assert reading.last.slack.nats == pytest.approx(reading.unfound[-1], rel=1e-6)


def test_nobody_is_counted_and_waits_too() -> None:
    """What was found late is no longer deferred in the beams before it."""
    late = 0
    for seed in range(6):
        llm, text = toy(seed), some_text(seed)
        params = BeamParams(tolerance=0.2, eos_byte_strings=[EOS_STRING])

        async def known(llm: Toy = llm, text: bytes = text, params: BeamParams = params) -> Hindsight:
            start = await ByteBeamState.initial(llm, params)
            hindsight = Hindsight(start, len(text), range(len(text)))
            await read_sliding(start, list(text), None, TrieMode.WITH_EOS, hindsight.hear)
            return hindsight

        for beam in asyncio.run(known()).beams().values():
            counted = {tuple(state.lm_state.context) for state in beam.states}
            assert not counted & {tuple(waits.state.lm_state.context) for waits in beam.deferred}
            late += len(beam.data.foreseen)
    assert late > 0


def test_what_a_slice_lacks_is_told_by_its_ends() -> None:
    score = ByteLM(toy(3), BeamParams(tolerance=0.05), eos=[EOS_STRING]).score(some_text(3, 12))
    unfound = score.unfound
    assert unfound is not None and unfound[0] == 0.0 < unfound[-1]
    assert score.missing == pytest.approx(unfound[-1])
    for start, stop in itertools.combinations(range(len(score) + 1), 2):
        assert score[start:stop].missing == pytest.approx(abs(unfound[stop] - unfound[start]))
        assert score[start:stop].slack == pytest.approx(1.0 - math.exp(-abs(unfound[stop] - unfound[start])))
        assert score[start:stop][1:].missing == pytest.approx(score[start + 1 : stop].missing)
    exact = ByteLM(toy(3), BeamParams(exact=True), eos=[EOS_STRING]).score(some_text(3))
    assert exact.slack == exact[2:4].slack == 0.0


def test_who_waits_is_expected_since_it_waits() -> None:
    """Over many models, what is expected to be lacking at a place is about what is."""
    lacking, expected = [], []
    for seed in range(12):
        llm, text = toy(seed), some_text(seed)
        brute = Brute(llm, eos=[EOS_STRING])
        truth = np.log([brute.prefix(text[:i]) for i in range(len(text) + 1)])
        score = ByteLM(llm, BeamParams(tolerance=0.1), eos=[EOS_STRING]).score(text)
        sums = np.concatenate([[0.0], np.cumsum(score.logprobs)])
        assert score.unfound is not None
        lacking += list(truth - sums)
        expected += list(score.unfound)
    assert 0.3 < np.mean(expected) / np.mean(lacking) < 3.0
