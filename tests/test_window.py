"""A window that slides over a long text: what is forgotten, what is kept, and what it must not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from budget import examples
from hypothesis import example, given
from hypothesis import strategies as st
from test_canonical_beam import END, USUAL, build
from toy import EOS_STRING, ToyLM

from genlm.bytes import BeamParams, ByteBeamState, ByteLM
from genlm.bytes.score.window import Window, slide
from genlm.bytes.trie import TrieMode

NEARLY = BeamParams(tolerance=1e-12)
OVERLAP, WINDOW = 4, 12


class Forgets(ToyLM):
    """Sees the first token, where there is one before the text, and the latest `OVERLAP`."""

    def probs(self, context):
        begun = 0 if self.bos is None else 1
        return super().probs([*context[:begun], *context[begun:][-OVERLAP:]])


class ForgetsCanonical(ToyLM):
    """The same for the toys of canonical tokenizations, all of which begin with a token of their own."""

    def probs(self, context):
        return super().probs([*context[:1], *context[1:][-OVERLAP:]])


class TestNothingIsLost:
    """Where the model itself sees no more than is kept: nothing if exactly that much is."""

    @examples(4)
    @example(seed=0, bos=6, text="a" * 27)  # a token a byte, the last of them unfinished when the rest fits
    @given(
        seed=st.integers(0, 2**20),
        bos=st.sampled_from([None, 6]),
        text=st.text("abc", min_size=20, max_size=28),
    )
    def test_what_is_kept_is_enough(self, seed, bos, text):
        llm = Forgets([b"a", b"b", b"c", b"abc", b"ca", EOS_STRING, b"<s>"], seed=seed, bos=bos)
        lm = ByteLM(llm, NEARLY, eos=[EOS_STRING])
        full = lm.score(text, end=True)
        llm.asked.clear()
        lm.forget()
        slid = lm.score(text, end=True, window=WINDOW, overlap=OVERLAP)
        assert max(map(len, llm.asked)) <= WINDOW
        np.testing.assert_allclose(slid.logprobs, full.logprobs, atol=1e-8)
        assert slid.end == pytest.approx(full.end, abs=1e-8)

    @examples(4)
    @given(seed=st.integers(0, 2**20), text=st.text("abs' 1é", min_size=16, max_size=22))
    @pytest.mark.parametrize("name", ["gpt2", "digits", "whole"])
    def test_canonical_tokenizations_stay_canonical(self, name, seed, text):
        llm, _ = build(USUAL, name, ForgetsCanonical, seed=seed)
        params = BeamParams(tolerance=1e-12, canonical=True)
        lm = ByteLM(llm, params, eos=[END.encode()])
        full = lm.score(text, end=True)
        slid = lm.score(text, end=True, window=WINDOW, overlap=OVERLAP)
        np.testing.assert_allclose(slid.logprobs, full.logprobs, atol=1e-8)
        assert slid.end == pytest.approx(full.end, abs=1e-8)


@examples(20)
@given(
    seed=st.integers(0, 99),
    header=st.lists(st.sampled_from([0, 1, 4]), max_size=3),
    text=st.text("abc", min_size=1, max_size=12),
    overlap=st.integers(1, 5),
)
async def test_what_is_forgotten(seed, header, text, overlap):
    """All but the header and exactly the latest tokens; weights, bytes and order stay."""
    llm = ToyLM([b"a", b"b", b"c", b"ab", b"bca", EOS_STRING], seed=seed)
    params = BeamParams(K=6, eos_byte_strings=[EOS_STRING])
    beam = await ByteBeamState.initial(llm, params, initial_context=header)
    beam = (await beam.prefill(text.encode())).prune().with_mode(TrieMode.WITH_EOS)
    after = await slide(beam, Window(40, overlap))
    begun = len(header)
    want = []
    for state in beam:
        tokens = state.lm_state.context[begun:]
        want.append((header + tokens[-overlap:], state.partial, state.committed))
    found = [(state.lm_state.context, state.partial, state.committed) for state in after]
    assert sorted(map(repr, found)) == sorted(map(repr, want)) and after.begun == begun


async def test_candidates_begin_at_one_place():
    """So that they share contexts, also where one has cut a word into more tokens than another."""
    read, latest = 0, 0
    for seed in range(8):
        llm = ToyLM([b"a", b"b", b"c", b"ab", b"bca", EOS_STRING], seed=seed)
        beam = await ByteBeamState.initial(llm, BeamParams(K=6, eos_byte_strings=[EOS_STRING]))
        text = bytes(np.random.default_rng(seed).choice(list(b"abc"), 120).tolist())
        beam = (await beam.prefill(text)).prune()
        after = await slide(beam, Window(80, 32))
        kept = [state.lm_state.context for state in after]
        assert {len(tokens) for tokens in kept} <= set(range(32, 37))
        whole = [state.lm_state.context for state in beam]
        assert all(any(w[-len(tokens) :] == tokens for w in whole) for tokens in kept)
        read += _nodes(kept)
        latest += _nodes([tokens[-32:] for tokens in whole])
    assert read < 0.8 * latest, (read, latest)


def _nodes(contexts):
    """How many tokens a model reads that reads no beginning twice."""
    return len({tuple(tokens[:n]) for tokens in contexts for n in range(1, len(tokens) + 1)})


@pytest.mark.parametrize("mode", list(TrieMode))
async def test_bytes_stay_as_they_were_read(mode):
    """Inside an end that was read as text, or not; in both modes after it."""
    llm = ToyLM([b"a", b"<", b"<e", b"e", EOS_STRING], seed=1)
    params = BeamParams(exact=True, eos_byte_strings=[EOS_STRING])
    beam = (await ByteBeamState.initial(llm, params)).with_mode(mode)
    for byte in b"a<e":
        beam = await (beam << byte)
    for left in TrieMode:
        after = await slide(beam.with_mode(left), Window(40, 5))
        for then in TrieMode:
            want = sorted(s.weight for s in beam.with_mode(then))
            assert sorted(s.weight for s in after.with_mode(then)) == pytest.approx(want)


async def test_an_atomic_unit_stays_one():
    llm = ToyLM([b"a", b"b", b"ab", b"abb", EOS_STRING], seed=1)
    opts = {"atomic_byte_strings": [b"ab"]}
    beam = await ByteBeamState.initial(llm, BeamParams(K=5), trie_opts=opts)
    beam = (await ((await (beam << 98)).prune() << b"ab")).prune()
    after = await slide(beam, Window(40, 1))
    assert [(s.partial, s.node) for s in after] == [(s.partial, s.node) for s in beam]
    assert {s.node for s in beam} == {beam.states[0].trie.trie.arrays.unit_node[b"ab"]}


LONG = [pytest.mark.thorough, pytest.mark.timeout(1500)]


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("size", "window"),
    [pytest.param(240, 32, marks=pytest.mark.slow), pytest.param(1200, 128, marks=LONG)],
)
def test_canonical_prose(default_llm, size, window):
    """There is one a text, as a rule, read by a window as without; what differs is what the model forgets."""
    field = "the river had risen in the night, and by morning the lower fields were under water. "
    text = "".join(f"On day {day}, {field}" for day in range(size // 80 + 1))[:size]
    lm = ByteLM(default_llm, BeamParams(canonical=True))
    full, slid = lm.score(text), lm.score(text, window=window, overlap=window // 2)
    assert np.isfinite(slid.logprobs).all() and slid.logprob != full.logprob
    np.testing.assert_allclose(slid.logprobs[: window // 2], full.logprobs[: window // 2], atol=1e-3)
    assert slid.bits_per_byte == pytest.approx(full.bits_per_byte, abs=0.6)


@pytest.mark.real_model
@pytest.mark.thorough
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("canonical", "length"), [(True, 5000), (False, 2600)])
def test_kilobytes(default_llm, canonical, length):
    """Read to the end; what is expected to be missing says something (it was all of the probability).

    At the default settings past the first slide; the whole 5,000 bytes take minutes (`docs/scoring.md`).
    """
    text = (Path(__file__).parent.parent / "benchmarks" / "texts" / "english.txt").read_bytes()[:length]
    score = ByteLM(default_llm, BeamParams(canonical=canonical)).score(text, window=512, overlap=256)
    assert np.isfinite(score.logprobs).all() and len(score.logprobs) == length
    assert score.bits_per_byte == pytest.approx(1.29, abs=0.02)
    assert 0.0 < score.slack < 0.2 and score.missing < 0.2


def test_what_no_guess_reaches_counts_as_a_token_a_byte():
    """`c` is what begins every text, which a guess never has in one: it stops there, and tells no length."""
    llm = ToyLM([b"a", b"b", b"c", EOS_STRING], seed=0, bos=2)
    lm = ByteLM(llm, BeamParams(K=2), eos=[EOS_STRING])
    lm.score("aaaac" * 10, window=WINDOW, overlap=OVERLAP)
    assert max(map(len, llm.asked)) <= WINDOW
