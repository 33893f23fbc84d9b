"""`prefill(method=…)` and its progress."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from test_beam_exact import models, texts
from toy import BatchingToy, FixedLM, ToyLM

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.byte_lm.tokenized_prefill import METHODS
from genlm.bytes.errors import ImpossibleByteError
from genlm.bytes.trie import TrieMode


class SpellingTokenizer:
    """Cuts before each space, and knows nothing of the model."""

    bos_token_id = eos_token_id = None

    def __init__(self, words):
        self.ids = {word.decode(): i for i, word in enumerate(words)}

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        words = text.replace(" ", "\0 ").split("\0")
        return [self.ids.get(word, 0) for word in words if word]  # as an unknown token would


def word_model():
    words = [
        b"the",
        b" cat",
        b" sat",
        b" c",
        b"at",
        b" s",
        b" ",
        b"a",
        b"t",
        b"c",
        b"s",
        b"h",
        b"e",
        b"th",
        b" the",
    ]
    lm = ToyLM(words, seed=3)
    lm.tokenizer = SpellingTokenizer(words)
    return lm


async def start(lm, params=None, **more):
    return await ByteBeamState.initial(lm, params or BeamParams(K=50), **more)


@pytest.mark.parametrize(
    "params", [BeamParams(K=50), BeamParams(tolerance=1e-4), BeamParams(K=3, prune_threshold=0.05)]
)
async def test_tokenize_reads_one_path_up_to_the_last_word(params):
    lm = word_model()
    text = b"the cat sat the cat"
    beam = await (await start(lm, params)).prefill(text, method="tokenize")
    assert all(s.lm_state.context[:2] == [0, 1] for s in beam), "no other tokenization of the beginning"
    whole = await (await start(lm, BeamParams(tolerance=1e-7))).prefill(text)
    assert beam.logZ <= whole.logZ
    assert beam.bounds().upper >= whole.logZ


async def test_heal_keeps_the_last_token_open():
    lm = word_model()
    beam = await (await start(lm)).prefill(b"the cat s", method="heal")
    (state,) = beam.states
    assert state.lm_state.context == [0, 1] and bytes(state.partial) == b" s"
    p = [lm.probs(context) for context in ([], [0], [0, 1])]
    assert state.weight == pytest.approx(math.log(p[0][0] * p[1][1] * (p[2][2] + p[2][5])))
    on = await (beam << ord("a"))  # ` sa`: inside ` sat`, or a new token after ` s`
    assert on.logZ <= beam.logZ and {bytes(s.partial) for s in on} == {b" sa", b"a"}


@given(models(), texts, st.sampled_from(METHODS), st.sampled_from([None, 0.01]))
@examples(60)
def test_any_method_on_any_model(model, text, method, tolerance):
    """Whatever the vocabulary: a lower bound of the truth below, an upper one above, the same text read."""
    lm, eos = model
    brute = Brute(lm, eos)

    async def go():
        params = BeamParams(
            None if tolerance else 1000, tolerance=tolerance, eos_byte_strings=list(eos), heal=False
        )
        try:
            beam = await (await start(lm, params)).prefill(text, method=method)
        except ImpossibleByteError:
            return
        p = brute.prefix(text, plain=len(text))
        lower, upper = beam.bounds()
        assert math.exp(lower) <= p + 1e-12 and p <= math.exp(upper) + 1e-12
        assert (
            all(
                len(b"".join(s.trie.trie.spelling_of_id[t] for t in s.lm_state.context)) for s in beam if text
            )
            or True
        )
        if beam.logZ > -math.inf:
            assert abs(np.exp((await beam.logp_next()).ps).sum() - 1.0) < 1e-9

    asyncio.run(go())


@given(models(), texts, st.sampled_from([1, 2]))
@examples(40)
def test_nothing_is_pruned_after_the_last_byte(model, text, K):
    """Before each byte, and not after: whoever has read a text still has all that read it."""
    lm, eos = model

    async def go():
        begin = await start(lm, BeamParams(K=K, eos_byte_strings=list(eos), heal=False))
        step = begin.with_mode(TrieMode.WITHOUT_EOS)
        for byte in text:
            step = await (step.prune() << byte)
        if step.states:
            read = await begin.prefill(text)
            assert len(read) == len(step)
            assert read.logZ == pytest.approx(step.with_mode(TrieMode.WITH_EOS).logZ)

    asyncio.run(go())


async def test_who_reads_the_last_byte_is_there_however_light():
    """`a` then `b` is lighter than the one that `K` leaves; pruning is left to whoever reads on."""
    lm = FixedLM([b"ab", b"a", b"b"], rule=lambda context: [0.6, 0.2, 0.2])
    beam = await (await start(lm, BeamParams(K=1))).prefill(b"ab")
    assert sorted(math.exp(state.weight) for state in beam) == pytest.approx([0.2 * 0.2, 0.6])


async def test_a_path_of_probability_zero_leaves_the_beam():
    lm = FixedLM([b"ab", b"a", b"b"], rule=lambda context: [0.0, 0.5, 0.5])
    beam = await (await start(lm)).prefill(b"abab", method="heal")
    assert beam.logZ == pytest.approx(math.log(0.5**4))


async def test_units_are_read_by_the_beam():
    lm = ToyLM([b"a", b"b", b"ab"], seed=1)
    begin = await start(lm, trie_opts={"atomic_tokens": [b"ab"]})
    one, other = await begin.prefill(b"abb", method="heal"), await begin.prefill(b"abb")
    assert one.logZ == other.logZ


async def test_the_offset_of_an_impossible_byte_counts_from_the_start():
    lm = word_model()
    with pytest.raises(ImpossibleByteError) as caught:
        await (await start(lm)).prefill(b"the cat sat the cat!", method="tokenize")
    assert caught.value.offset == 19


@pytest.mark.parametrize("method", METHODS)
@examples(15)
@given(
    words=st.lists(st.sampled_from([b"the", b" cat", b" sat", b" c", b"a"]), min_size=4, max_size=9),
    at=st.integers(0, 2),
    partial=st.sampled_from([b"", b"t", b"th"]),
)
async def test_the_offset_of_a_byte_is_its_place_in_the_text(method, words, at, partial):
    """A byte that tokens spell and the model never writes, in what is left open at the end of a path."""
    spellings = [b"the", b" cat", b" sat", b" c", b"a", b"t", b"h", b"e", b"z", b" "]
    never = FixedLM(spellings, rule=lambda context: [0.125] * 6 + [0.05, 0.05, 0.0, 0.15])
    begin = await (await start(never, BeamParams(K=4))).prefill(partial)
    words.insert(len(words) - at, b"z")
    text = b"".join(words)
    with pytest.raises(ImpossibleByteError, match=f"offset {text.index(b'z')},") as caught:
        await begin.prefill(text, method=method)
    assert (caught.value.offset, caught.value.byte) == (text.index(b"z"), ord("z"))


@pytest.mark.parametrize("method", METHODS)
@examples(10)
@given(
    parts=st.lists(
        st.lists(st.sampled_from([b"the", b" cat", b" sat", b" c"]), min_size=1, max_size=4),
        min_size=2,
        max_size=3,
    )
)
async def test_what_was_committed_before_a_path_counts(method, parts):
    """A candidate's committed weight is the probability of its tokens, in whatever parts a text is read."""
    lm = word_model()
    beam = await start(lm, BeamParams(K=3))
    for words in parts:
        beam = await beam.prefill(b"".join(words), method=method)
    for state in beam:
        ids = state.lm_state.context
        known = sum(math.log(lm.probs(ids[:n])[token]) for n, token in enumerate(ids))
        assert state.committed == pytest.approx(known)


async def test_mistakes():
    begin = await start(word_model())
    with pytest.raises(ValueError, match=r"`method`.*'quick'.*'beam', 'tokenize', 'heal'"):
        await begin.prefill(b"a", method="quick")
    with pytest.raises(TypeError, match="`progress`"):
        await begin.prefill(b"a", progress=3)


@pytest.mark.parametrize("method", METHODS)
async def test_progress(method):
    told = []
    await (await start(word_model())).prefill(
        b"the cat sat the cat", method=method, progress=lambda done, total: told.append((done, total))
    )
    assert told == sorted(told) and told[-1] == (19, 19)


async def test_a_bar(capsys):
    await (await start(word_model())).prefill(b"the cat", progress=True)
    assert "Traceback" not in capsys.readouterr().err


async def test_other_tasks_run_meanwhile():
    """Reading a long text whose contexts are all known gives the loop its turns."""

    class Model(BatchingToy):
        def probs(self, context):
            return np.array([0.02, 0.02, 0.96])

    lm = Model([b"a", b"b", b"ab"])
    begin = await start(lm, BeamParams(K=3, prune_threshold=0.01), initial_context=[])
    text = b"ab" * 100
    await begin.prefill(text)
    turns, reading = 0, asyncio.ensure_future(begin.prefill(text))
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2
    await reading
