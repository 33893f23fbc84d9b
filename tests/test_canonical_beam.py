"""Beams over canonical tokenizations, against brute force restricted to them.

The definition is `encode`, over all 256 bytes: a sequence counts if encoding what it spells and
*something more* gives it first. The models have a few letters only, so that every cover can be summed.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from brute import Brute
from budget import examples
from hypothesis import example, given
from hypothesis import strategies as st
from test_beam_exact import close
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from toy import BatchingToy, ToyLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState, TokenByteTrie
from genlm.bytes.byte_lm.prefill import read_context
from genlm.bytes.canonical import CanonicalContext, canonical_rules
from genlm.bytes.errors import ImpossibleByteError, InvalidTypeError, InvalidValueError, UnsupportedModelError
from genlm.bytes.score import scorer
from genlm.bytes.trie import EOS, TrieMode

LETTERS = ["a", "b", "s", "'", " ", "\n", "1", "é"]
END = "<e>"
BYTE = bytes_to_unicode()
WRITTEN = {letter: bytes([b]) for b, letter in BYTE.items()}
PRE_TOKENIZERS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "whole": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    "digits": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    ),
}
MORE = ["", *LETTERS, *map("".join, product(LETTERS, repeat=2))]


def bpe(words: list[str], merges: list[tuple[str, str]], name: str) -> Tokenizer:
    made = Tokenizer(BPE({w: i for i, w in enumerate(words)}, merges))
    made.pre_tokenizer = PRE_TOKENIZERS[name]
    made.add_special_tokens([END])
    return made


class Wrapped:
    """A tokenizer as models carry it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend_tokenizer = tokenizer
        self.bos_token_id = tokenizer.token_to_id(END)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids


class CanonicalBrute(Brute):
    """All covers that are open; and of the text's end, those that are canonical."""

    def __init__(self, lm, eos, full: Tokenizer, names: dict[int, str]) -> None:
        super().__init__(lm, eos, start=[lm.tokenizer.bos_token_id])
        self.full, self.names = full, names
        self.known: dict[tuple[int, ...], bool] = {}

    def counts(self, context):
        if context not in self.known:
            self.known[context] = self._counts([self.names.get(i) for i in context[1:]])
        return self.known[context]

    def _counts(self, tokens: list[str | None]) -> bool:
        """Added tokens divide the text: what is before one must be canonical, what is last open."""
        stretch: list[str] = []
        for token in tokens:
            if token is None:  # an id that the tokenizer does not have
                return False
            if token != END:
                stretch.append(token)
                continue
            if not self.begins(stretch, b""):
                return False
            stretch = []
        data = spell(stretch)
        # A letter with two bytes may be completed: to that of the merges, to another letter, or to no letter.
        ends = [b""] if is_text(data) else [b"\xa9", b"\xa0", b"\x97"]
        return any(self.begins(stretch, end + more.encode()) for end in ends for more in MORE)

    def begins(self, tokens: list[str], more: bytes) -> bool:
        data = spell(tokens) + more
        if not is_text(data):
            return False
        found = self.full.encode(data.decode(), add_special_tokens=False).tokens
        return found[: len(tokens)] == tokens and (len(found) == len(tokens) or more != b"")


def spell(tokens: list[str]) -> bytes:
    return b"".join(WRITTEN[c] for token in tokens for c in token)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def build(merges: list[tuple[str, str]], name: str, kind=ToyLM, **options) -> tuple[ToyLM, CanonicalBrute]:
    """A toy model over a tokenizer, with one more id for a spelling that the tokenizer has another for."""
    letters = sorted({BYTE[b] for b in "".join(LETTERS).encode()})
    made = ["".join(pair) for pair in merges]
    small = bpe([*letters, *made], merges, name)
    names = {i: w for w, i in small.get_vocab().items()}
    words = [END.encode() if names[i] == END else spell([names[i]]) for i in range(len(names))]
    lm = kind([*words, b"a"], **options)
    lm.tokenizer = Wrapped(small)
    full = bpe([*sorted(BYTE.values()), *made], merges, name)
    return lm, CanonicalBrute(lm, [END.encode()], full, names)


@st.composite
def models(draw: st.DrawFn, kind=ToyLM) -> tuple[ToyLM, CanonicalBrute]:
    tokens = [BYTE[b] for b in "".join(LETTERS).encode()]
    merges: dict[str, tuple[str, str]] = {}
    for _ in range(draw(st.integers(0, 7))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if "".join(pair) not in tokens and len("".join(pair)) <= 4:
            merges["".join(pair)] = pair
            tokens.append("".join(pair))
    options = {"seed": draw(st.integers(0, 99)), "zeros": draw(st.sampled_from([0.0, 0.3]))}
    return build([*merges.values()], draw(st.sampled_from(sorted(PRE_TOKENIZERS))), kind, **options)


texts = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=5).map(lambda cs: "".join(cs).encode())
USUAL = [("a", "b"), ("Ġ", "a"), ("Ġ", "Ġ"), ("'", "s"), ("Ã", "©"), ("ab", "s"), ("a", "a"), ("Ġ", "s")]
few = examples(15)


@given(models(), texts)
@few
async def test_exact(model, text):
    """Prefix probabilities, next bytes and the end, to 1e-9."""
    lm, brute = model
    params = BeamParams(exact=True, canonical=True, heal=False, eos_byte_strings=[END.encode()])
    beam = await ByteBeamState.initial(lm, params)
    for i, byte in enumerate(text):
        beam = await (beam << byte)
        p = brute.prefix(text[: i + 1])
        assert close(beam.logZ, p)
        if p == 0.0:
            return
    want = brute.next(text) if brute.prefix(text) and sum_of(brute, text) else None
    if want is None:
        return
    logp = await beam.logp_next()
    assert all(close(logp[symbol], p) for symbol, p in want.items())
    assert close((await (beam << EOS)).logZ, brute.ended(text))


def sum_of(brute: Brute, text: bytes) -> float:
    """What is left for the next symbol: 0 where no token of the vocabulary can go on."""
    return sum(brute.prefix([*text, b]) for b in brute.bytes) + brute.ended(text)


ACROSS = [("Ã", "©"), ("Ã©", "Ã")]  # a token that ends inside the next letter, open before "à"


@given(models(), texts, st.sampled_from([{"K": 200}, {"tolerance": 1e-12}]))
@example(build(ACROSS, "gpt2"), "é".encode(), {"K": 200})
@few
async def test_other_settings(model, text, settings):
    lm, brute = model
    params = BeamParams(**settings, canonical=True, heal=False, eos_byte_strings=[END.encode()])
    beam = await ByteBeamState.initial(lm, params)
    for i, byte in enumerate(text):
        beam = await (beam.prune() << byte)
        lower, upper = beam.bounds()
        p = brute.prefix(text[: i + 1])
        assert math.exp(lower) <= p + 1e-12 and p <= math.exp(upper) + 1e-12
        assert math.exp(beam.logZ) == pytest.approx(p, rel=1e-6)


@given(models(), texts, st.sampled_from([0.5, 0.1, 1e-3]), st.sampled_from([None, 2]))
@examples(40)
async def test_bounds_hold_the_truth_and_slack_the_error(model, text, tolerance, K):
    """Of canonical tokenizations, whoever waits or was dropped; and the model is asked about no other."""
    lm, brute = model
    params = BeamParams(K, tolerance=tolerance, canonical=True, heal=False, eos_byte_strings=[END.encode()])
    beam = await ByteBeamState.initial(lm, params)
    for i in range(len(text) + 1):
        if i:
            beam = await (beam.prune() << text[i - 1])
        p = brute.prefix(text[:i])
        lower, upper = beam.bounds()
        assert math.exp(lower) <= p + 1e-12 and p <= math.exp(upper) + 1e-12
        if not len(beam) or beam.logZ == -math.inf or not sum_of(brute, text[:i]):
            break
        assert 1.0 - math.exp(lower) / p <= beam.slack.bound + 1e-9
        if i % 2:  # a beam that is looked at evaluates more
            logp = await beam.logp_next()
            want = brute.next(text[:i])
            off = 0.5 * sum(abs(math.exp(logp[s]) - q) for s, q in want.items())
            assert off <= logp.slack.bound + 1e-9
    assert all(brute.counts(context) for context in lm.asked)


SETTINGS = [
    {"K": 1, "prune_threshold": 0.05},
    {"K": 3, "prune_threshold": 0.05},
    {"tolerance": 0.3},
    {"K": 2, "tolerance": 1e-3},
    {"exact": True},
]


@given(models(BatchingToy), texts, st.sampled_from(["beam", "tokenize", "heal"]), st.sampled_from(SETTINGS))
@examples(30)
async def test_prefill_and_healing_stay_canonical(model, text, method, settings):
    """With next to nothing kept, so that beams heal; every candidate is open, its weight its own."""
    lm, brute = model
    beam = await ByteBeamState.initial(lm, BeamParams(**settings, canonical=True))
    try:
        beam = await beam.prefill(text, method=method)
    except ImpossibleByteError as error:
        assert "Only canonical ones count here" in str(error)
        return
    rules = canonical_rules(lm, beam.states[0].trie.trie)
    for state in [*beam, *(waiting.state for waiting in beam.deferred)]:
        tokens = tuple(state.lm_state.context)
        assert brute.counts(tokens) and rules.read(tokens) == state.canonical.state
        spelled = b"".join(bytes(lm.byte_vocab[i]) for i in tokens[1:]) + bytes(state.partial)
        assert text.startswith(spelled) and (spelled == text or state not in beam.states)
        committed = sum(math.log(lm.probs(tokens[:i])[tokens[i]]) for i in range(1, len(tokens)))
        assert state.committed == pytest.approx(committed, abs=1e-4)


@given(models(), texts, st.sampled_from([*SETTINGS, {"tolerance": 0.02}, {"K": 4, "prune_threshold": 0.01}]))
@examples(30)
async def test_reading_ahead_changes_nothing(model, text, settings):
    """With a model that batches, prefill asks ahead; with one that does not, it reads byte by byte."""
    lm, _ = model
    lm.dtype = torch.float32
    ahead = BatchingToy(lm.words, seed=lm.seed, zeros=lm.zeros)
    ahead.tokenizer = lm.tokenizer
    found = []
    for one in (lm, ahead):
        beam = await ByteBeamState.initial(one, BeamParams(**settings, canonical=True))
        try:
            beam = await beam.prefill(text)
        except ImpossibleByteError as error:
            found.append(error.offset)
        else:
            read = [(round(s.weight, 3), s.lm_state.context, s.partial) for s in beam]
            waiting = sorted(
                (w.state.lm_state.context, w.history.length, round(w.weight, 3)) for w in beam.deferred
            )
            found.append((read, waiting))
    assert found[0] == found[1]


@given(
    st.one_of(models(), models(BatchingToy)),
    texts,
    st.sets(st.integers(0, 5)),
    st.sampled_from([{"exact": True}, {"tolerance": 1e-12}, {"K": 200}]),
)
@example(build([("a", "b"), ("a", "a")], "whole"), b"aaa", {2}, {"exact": True})
@examples(60)
async def test_foresight_changes_nothing_where_figures_are_wanted(model, text, wanted, settings):
    """What cannot be canonical by the next place is left out before it, and nothing else; and the place where
    a text becomes impossible is the same."""
    lm, brute = model
    params = BeamParams(**settings, canonical=True, heal=False, eos_byte_strings=[END.encode()])
    start = await ByteBeamState.initial(lm, params)
    found = [{0: start.logZ}, {0: start.logZ}]
    for read, places in zip(found, (None, wanted), strict=True):

        def hear(at, before, after, read=read, places=places):
            if places is None or at in places:
                read[at] = before.logZ
            read["read"] = at + 1

        options = {"mode": TrieMode.WITH_EOS, "listener": hear, "wanted": places}
        try:
            read["all"] = (await read_context(start, text, **options)).logZ
        except ImpossibleByteError as error:
            read["offset"] = error.offset
    usual, foreseen = found
    for place, logZ in foreseen.items():
        assert logZ == pytest.approx(usual[place], abs=1e-9)
    assert foreseen.keys() == {key for key in usual if not isinstance(key, int) or key in {0, *wanted}}
    if "all" in foreseen:
        assert close(foreseen["all"], brute.prefix(text))


async def test_foresight_spares_contexts():
    """Inside a word much is open that cannot be canonical at its end."""
    texts, calls, sums = ["ab aab abs", "aab abs's ab"], list[int](), list[list[float]]()
    for usual in (False, True):
        lm, _ = build(
            [("a", "b"), ("Ġ", "ab"), ("a", "a"), ("aa", "b"), ("Ġ", "aa")], "gpt2", BatchingToy, seed=5
        )
        async with AsyncByteLM(lm, BeamParams(tolerance=1e-9, canonical=True)) as model:
            with pytest.MonkeyPatch.context() as patch:
                if usual:
                    patch.setattr(scorer, "region_places", lambda *_: None)
                rows = await model.word_surprisal(texts)
        calls.append(len(set(lm.asked)))
        sums.append([row.surprisal for row in rows])
    assert sums[0] == pytest.approx(sums[1], abs=1e-6)
    assert calls[0] < calls[1], calls


async def test_who_waits_keeps_the_rules():
    """A lone `a` that waited may go on with an `s`, and not with a `b`, which the tokenizer merges."""
    lm, _ = build([("a", "a"), ("a", "b")], "whole")
    of = lm.tokenizer.backend_tokenizer.token_to_id
    probs = np.full(lm.size, 1e-5)
    probs[[of("aa"), of("a"), of("ab")]] = 0.9, 0.09, 1e-4
    lm.probs = lambda context: probs
    begin = await ByteBeamState.initial(lm, BeamParams(tolerance=0.1, canonical=True))
    read = await (begin << ord("a"))
    await read.logp_next()  # now `a` waits, and the others are being spelled
    lm.asked.clear()
    assert [bytes(s.partial) for s in await (read << ord("b"))] == [b"ab"]
    assert not lm.asked, "the lone `a` had come to matter, but cannot be followed by a `b`"
    after = await (read << ord("s"))
    assert [(s.lm_state.context[1:], bytes(s.partial)) for s in after] == [([of("a")], b"s")]
    assert after.states[0].canonical.state == begin.states[0].canonical.after(of("a")).state


@given(models(), st.lists(st.integers(0, 99), max_size=3), texts)
@examples(60)
def test_what_can_be_read(model, places, text):
    """A context reads a text if one of the covers that count does, whatever the model thinks."""
    lm, brute = model
    lm.zeros = 0.0
    trie = TokenByteTrie(lm.byte_vocab, device="cpu")
    context = CanonicalContext.initial(lm, trie, None)
    for place in places:
        options = trie.token_ids[context.allowed()]
        if not len(options):
            break
        token = int(options[place % len(options)])
        context, brute.start = context.after(token), (*brute.start, token)
    assert context.reads(trie, list(text)) == (brute.prefix(text) > 0.0)
    assert context.reads(trie, []) and context.reads(trie, [EOS])


async def test_modes_and_tokenizations():
    lm, brute = build(USUAL, "gpt2", seed=2)
    params = BeamParams(tolerance=1e-9, canonical=True, eos_byte_strings=[END.encode()])
    begin = await ByteBeamState.initial(lm, params)
    beam = await begin.prefill(b"ab a")
    text = beam.with_mode(TrieMode.WITHOUT_EOS)
    assert math.exp(beam.logZ) == pytest.approx(brute.prefix(b"ab a", plain=4), rel=1e-6)
    assert math.exp((await beam.logp_next())[EOS]) == pytest.approx(brute.next(b"ab a", 4)[EOS], rel=1e-6)
    assert (await text.logp_next())[EOS] == -math.inf
    on = await (text << END.encode()[0])  # as text: only the token `<e>` spells it, after canonical tokens
    assert math.exp(on.logZ) == pytest.approx(brute.prefix(b"ab a<", plain=7), rel=1e-6)
    assert not await (beam << END.encode()[0])
    found = beam.tokenizations()
    assert sum(t.posterior for t in found) == pytest.approx(1.0)
    own = tuple(lm.tokenizer.encode("ab a", add_special_tokens=False))
    assert [t.canonical for t in found].count(True) >= 1
    assert any(own[: len(t.token_ids)] == t.token_ids for t in found if t.canonical)


async def test_healing_takes_the_canonical_split():
    """` a` is kept alone; a `b` that cannot follow it as a token of its own must not."""
    lm, brute = build(USUAL, "gpt2", seed=3)
    beam = await ByteBeamState.initial(lm, BeamParams(1, canonical=True))
    for byte in b"ab  abs's":
        beam = await (beam.prune() << byte)
        assert len(beam)
        assert all(brute.counts(tuple(state.lm_state.context)) for state in beam)


async def test_a_share_of_all_tokenizations():
    """Less than the probability of the text, and of what is left, all is canonical."""
    lm, _ = build(USUAL, "gpt2", seed=1)
    whole = await (await ByteBeamState.initial(lm, BeamParams(exact=True))).prefill(b"ab abs")
    part = await (await ByteBeamState.initial(lm, BeamParams(exact=True, canonical=True))).prefill(b"ab abs")
    assert part.logZ < whole.logZ and len(part) < len(whole)
    every = {(tuple(s.lm_state.context), tuple(s.partial)): s.committed for s in whole}
    assert all(close(every[tuple(s.lm_state.context), tuple(s.partial)], math.exp(s.committed)) for s in part)


class TestStart:
    async def test_initial_context(self):
        lm, _ = build(USUAL, "gpt2")
        of = lm.tokenizer.backend_tokenizer.token_to_id
        beam = await ByteBeamState.initial(lm, BeamParams(canonical=True), initial_context=[of("a")])
        assert await_probability(beam, b"b") == 0.0, "the tokenizer makes one token of `ab`"
        beam = await ByteBeamState.initial(lm, BeamParams(canonical=True), initial_context=[of("b")])
        assert await_probability(beam, b"b") > 0.0

    @pytest.mark.parametrize(("tokens", "why"), [("ab", "cut its text so"), (None, "99 is no token")])
    async def test_an_initial_context_that_is_not_canonical(self, tokens, why):
        lm, _ = build(USUAL, "gpt2")
        of = lm.tokenizer.backend_tokenizer.token_to_id
        context = [99] if tokens is None else [of(c) for c in tokens]
        with pytest.raises(InvalidValueError, match=f"`initial_context` is .*{why}.*canonical=False"):
            await ByteBeamState.initial(lm, BeamParams(canonical=True), initial_context=context)

    async def test_a_model_it_cannot_be_told_for(self):
        with pytest.raises(UnsupportedModelError, match=r"is not one of the `tokenizers` library.*over all"):
            await ByteBeamState.initial(ToyLM([b"a"]), BeamParams(canonical=True))

    def test_not_a_flag(self):
        with pytest.raises(InvalidTypeError, match=r"`canonical` is 1 \(a int\): must be True or False"):
            BeamParams(canonical=1)

    async def test_bytes_that_are_no_text(self):
        lm, _ = build(USUAL, "gpt2")
        beam = await ByteBeamState.initial(lm, BeamParams(canonical=True))
        with pytest.raises(ImpossibleByteError, match=r"are not UTF-8, say.*canonical=False"):
            await beam.prefill("é".encode()[:1] + b"a")
        assert not await (beam << 0xA9)


def await_probability(beam: ByteBeamState, text: bytes) -> float:
    """Of one byte, by the only candidate at the start."""
    probs, _ = beam.states[0].next_probs()
    return float(probs[text[0]])


@pytest.mark.real_model
@pytest.mark.slow
async def test_prose_is_cheap(default_llm):
    """At most 3 contexts a canonical token (it is nearer 2), byte by byte."""
    from genlm.bytes.engine import Engine

    text = b"The old clockmaker kept his shop open late, and the children of the village came to watch."
    tokens = len(default_llm.tokenizer.encode(text.decode(), add_special_tokens=False))
    engine = Engine(default_llm)
    beam = await ByteBeamState.initial(engine, BeamParams(canonical=True))
    try:
        for byte in text:
            beam = await (beam.prune() << byte)
        assert engine.statistics().tokens_run <= 3 * tokens
    finally:
        await beam.cleanup()
