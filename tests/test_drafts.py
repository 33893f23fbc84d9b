"""Drafts and speculation: they follow what a model costs, and never change what comes out."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from ngram import NGramBackend
from test_reading_in_parts import byte_by_byte, held, rules
from toy import TOY, BatchingToy, ToyLM, vocabularies

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState
from genlm.bytes.backends.async_lm import cached
from genlm.bytes.byte_lm import draft, rule
from genlm.bytes.byte_lm.history import History
from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.speculation import side_by_side
from genlm.bytes.byte_lm.stand_ins import StandIns
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.contexts.cost import UNKNOWN, Cost, CostMeter, is_worth
from genlm.bytes.errors import ImpossibleByteError, ModelOutputError
from genlm.bytes.util import LazyByteProbs

RATIOS = (0.0, 0.3, 2.0, 14.0, 256.0, math.inf)
ratios = st.sampled_from(RATIOS) | st.floats(0, 1e6)

WORDS = (
    [b"<s>"]
    + [bytes([b]) for b in b" abcdehimnorst."]
    + [
        b" the",
        b" cat",
        b"the",
        b"at",
        b" mat",
        b" s",
        b"on",
        b"sat",
    ]
)
TEXTS = ["the cat sat on the mat.", " the cat is in the hat.", "a ton of bricks on the cat."]


def cost(ratio: float) -> Cost:
    return Cost(1.0, 0.0) if ratio == math.inf else Cost(ratio, 1.0)


class Batching(NGramBackend):
    """N-grams that say what they cost, and count."""

    batches = True

    def __init__(self, ratio: float) -> None:
        super().__init__([*WORDS, b"k", b"f"], TEXTS)
        self.cost = cost(ratio)
        self.calls = list[int]()

    def evaluate(self, contexts: list[Any]) -> list[torch.Tensor]:
        self.calls.append(len(contexts))
        assert len(set(contexts)) == len(contexts) and all(c.logps is None for c in contexts)
        depths = [c.depth for c in contexts]
        assert depths == sorted(depths)
        return super().evaluate(contexts)


@given(
    vocabularies(complete=True, longest=5),
    st.lists(st.sampled_from(b"aabbc"), min_size=2, max_size=20),
    rules,
    ratios,
    st.integers(0, 999),
)
@examples(60)
async def test_whatever_a_model_costs_the_beam_is_the_same(
    words: list[bytes], text: list[int], rule: dict[str, Any], ratio: float, seed: int
) -> None:
    """Read byte by byte with no speculation, read by drafts, and written with a look at each byte."""
    found = []
    for price, way in ((0.0, "bytes"), (ratio, "drafts"), (0.0, "looks"), (ratio, "looks")):
        llm = BatchingToy(words, seed=seed)
        llm.cost = cost(price)
        beam = await ByteBeamState.initial(llm, BeamParams(**rule), initial_context=[])
        if way == "drafts":
            beam = await beam.prefill(bytes(text))
        else:
            for byte in text:
                if way == "looks":
                    await beam.logp_next()
                beam = await (beam.prune() << byte)
        found.append((held(beam), beam.logZ, sorted(s.weight for s in beam.prune())))
    for one, other in ((0, 1), (2, 3)):
        assert found[one][0] == found[other][0]
        assert found[one][1] == pytest.approx(found[other][1], abs=1e-9)
        assert found[one][2] == pytest.approx(found[other][2], abs=1e-9)


@pytest.mark.parametrize("rule", [{"tolerance": 0.01}, {"K": 5, "prune_threshold": 0.05}], ids=repr)
async def test_n_grams_at_every_ratio(rule: dict[str, Any]) -> None:
    text = b"the cat is on the mat. a ton of hats on the cat. the cat sat in the hat." * 2
    logz, rounds, contexts = [], [], []
    for ratio in RATIOS:
        backend = Batching(ratio)
        beam = await ByteBeamState.initial(CachedLM(backend), BeamParams(**rule))
        read = await beam.prefill(text)
        logz.append(read.logZ)
        rounds.append(len(backend.calls))
        contexts.append(sum(backend.calls))
    assert logz == pytest.approx([logz[0]] * len(RATIOS), abs=1e-9)
    assert rounds[-1] <= rounds[3] <= rounds[0], "where contexts are cheap, there are fewer calls"
    assert 3 * rounds[-1] <= rounds[0] and contexts[0] <= contexts[-1], (rounds, contexts)


async def test_what_stands_in_spares_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"the cat is on the mat. a ton of hats on the cat. the cat sat in the hat." * 2

    async def forwards() -> tuple[int, float]:
        backend = Batching(14.0)
        beam = await ByteBeamState.initial(CachedLM(backend), BeamParams(tolerance=0.01))
        read = await beam.prefill(text)
        return len(backend.calls), read.logZ

    few, found = await forwards()
    monkeypatch.setattr(StandIns, "for_", lambda self, state, place: None)
    many, same = await forwards()
    assert found == pytest.approx(same, abs=1e-9) and few <= 0.8 * many, (few, many)


async def test_guesses_that_are_not_worth_their_price_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def contexts() -> tuple[int, float]:
        llm = BatchingToy([*WORDS, b"f"], seed=2)
        llm.cost = cost(2.0)
        beam = await ByteBeamState.initial(llm, BeamParams(tolerance=0.01))
        read = await beam.prefill(b"the cat is on the mat. a ton of hats on the cat.")
        return len(llm.asked), read.logZ

    few, found = await contexts()
    monkeypatch.setattr(draft, "is_worth", lambda rate, ratio, spares: True)
    many, same = await contexts()
    assert found == pytest.approx(same, abs=1e-9) and few < 0.95 * many, (few, many)


@pytest.mark.parametrize("ratio", [0.0, 14.0, 1e9])
async def test_what_a_rule_refuses_of_guesses_is_no_fault_of_the_text(ratio: float) -> None:
    """Stand-ins may give a probability where the model gives none, so that there are more candidates."""
    words = [b"a", b"b", b"c", b"cbc", b"abaca", b"ab", b"abca", b"aacab", b"aba", b"a", b"cbaaa", b"a"]
    text, found = b"aaabbaaaac", []
    for way in ("bytes", "drafts"):
        llm = BatchingToy(words, seed=5, zeros=0.5)
        llm.cost = cost(ratio)
        params = BeamParams(exact=True, max_candidates=12, heal=False)
        beam = await ByteBeamState.initial(llm, params, initial_context=[])
        if way == "drafts":
            beam = await beam.prefill(text)
        else:
            for byte in text:
                beam = await (beam.prune() << byte)
        found.append(beam.logZ)
    assert found[0] == pytest.approx(found[1], abs=1e-9)


async def test_the_likest_stands_in() -> None:
    llm = BatchingToy(WORDS)
    start = await ByteBeamState.initial(llm, BeamParams(tolerance=0.01), initial_context=[0])
    (root,) = start.states
    ids = {bytes(t.byte_string): i for i, t in enumerate(llm.byte_vocab)}

    def after(*tokens: bytes) -> StatefulTokenizedLM:
        lm_state = root.lm_state
        for token in tokens:
            lm_state <<= ids[token]
        return lm_state

    stand_ins, state = StandIns(), root.at_boundary(after(b" ", b"the"), root.trie, 0.0, root.mode, None)
    for other in (after(b" the"), after(b"t", b"h", b"e")):
        stand_ins.add(4, other)
        await other.logp_next()
    stand_ins.add(4, after(b" s", b"the"))
    first = stand_ins.for_(state, 4)
    assert first is not None and first is not state and not state.materialized, "of those that are known"
    assert first.lm_state is state.lm_state and first.weight == state.weight
    await after(b" s", b"the").logp_next()
    likest = stand_ins.for_(state, 4)
    want = await root.at_boundary(after(b" s", b"the"), root.trie, 0.0, root.mode, None).materialize()
    assert likest is not None and np.array_equal(likest.mass, want.mass)
    assert not np.array_equal(first.mass, want.mass)
    assert stand_ins.for_(state, 5) is None


@pytest.mark.slow
async def test_what_waits_is_not_measured_again_from_where_it_was_deferred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long text that repeats itself walks back through some symbols for each that it reads."""
    latest, walked, count = History.latest, 0, 1200

    def counted(self: History, length: int) -> list[History]:
        nonlocal walked
        walked += length
        return latest(self, length)

    monkeypatch.setattr(History, "latest", counted)
    beam = await ByteBeamState.initial(CachedLM(Batching(14.0)), BeamParams(tolerance=0.02))
    await beam.prefill((b"the cat is on the mat. a ton of hats on the cat. " * 40)[:count])
    assert count < walked < 100 * count


async def test_a_text_tells_how_often_its_drafts_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been needed, or rejected, decides what is drafted next."""
    rates, text = list[float](), b"the cat is on the mat. a ton of hats on the cat. the cat sat in the hat."

    def is_worth(rate: float, ratio: float, spares: float) -> bool:
        rates.append(rate)
        return True

    monkeypatch.setattr(draft, "is_worth", is_worth)
    llm = BatchingToy([*WORDS, b"f"], seed=2)
    llm.cost = cost(0.02)
    await (await ByteBeamState.initial(llm, BeamParams(tolerance=0.01))).prefill(text)
    assert rates[0] == pytest.approx(draft.NEEDED)
    assert any(b > a for a, b in pairwise(rates)) and any(b < a for a, b in pairwise(rates)), set(rates)


async def test_texts_that_are_read_at_once_share_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worth fourteen contexts to one text is worth one to each of fourteen."""
    words = ["the cat", "a hat", "on", "the mat", "sat in", "a ton of", "bricks"]
    texts = [" ".join(words[i:] + words[:i] + words[i::2]).encode() + b"." for i in range(7)]

    async def contexts() -> tuple[int, list[float]]:
        backend = Batching(14.0)
        lm = CachedLM(backend)
        start = await ByteBeamState.initial(lm, BeamParams(tolerance=0.01))
        read = await asyncio.gather(*(start.prefill(text) for text in texts))
        assert lm.readers == 0
        return sum(backend.calls), [beam.logZ for beam in read]

    together, found = await contexts()
    monkeypatch.setattr(CachedLM, "reading", lambda self: contextlib.nullcontext())
    each_for_itself, same = await contexts()
    assert found == pytest.approx(same, abs=1e-9)
    assert together < 0.9 * each_for_itself, (together, each_for_itself)


async def test_texts_that_are_read_at_once_fill_one_batch() -> None:
    """As many contexts together as one of them would look for by itself."""
    lm = CachedLM(Batching(14.0))
    start = await ByteBeamState.initial(lm, BeamParams(tolerance=0.01))
    drafter = draft.Drafter(start, [*b"the cat is on the mat."])
    await drafter.whole_path(start.states[0])  # which shows how many rows there is room for
    with contextlib.ExitStack() as readers:
        alone = drafter.most
        for n in range(1, 9):
            readers.enter_context(lm.reading())
            assert n * drafter.most == pytest.approx(alone)
    assert drafter.most == alone > 100


async def test_readers_that_fail_are_readers_no_more() -> None:
    lm = CachedLM(Batching(14.0))
    start = await ByteBeamState.initial(lm, BeamParams(tolerance=0.01))
    with pytest.raises(ImpossibleByteError):
        await start.prefill(b"the cat \xff")
    reading = asyncio.ensure_future(start.prefill(b"the cat is on the mat." * 20))
    while not lm.readers:  # noqa: ASYNC110 — nothing tells of it
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert lm.readers == 0


async def test_reading_a_thousand_bytes_takes_few_rounds() -> None:
    """A plain model with a batch method and latency: rounds are what it costs."""

    class Latent(BatchingToy):
        cost = Cost(0.01, 0.0005)
        rounds = 0

        async def batch_next_token_logprobs(self, token_ids_list: Sequence[Sequence[int]]) -> torch.Tensor:
            self.rounds += 1
            await asyncio.sleep(0)
            return torch.stack([torch.log(torch.from_numpy(backend.probs(ids))) for ids in token_ids_list])

        async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
            return (await self.batch_next_token_logprobs([token_ids]))[0]

    backend = Batching(14.0)
    llm = Latent([bytes(t.byte_string) for t in backend.byte_vocab])
    llm.tokenizer = backend.tokenizer  # type: ignore[assignment]
    beam = await ByteBeamState.initial(llm, BeamParams(K=5, prune_threshold=0.05))
    read = await beam.prefill((b"the cat is on the mat. a ton of hats on the cat. " * 21)[:1000])
    assert math.isfinite(read.logZ) and llm.rounds <= 15


async def test_little_memory_for_rows_costs_few_contexts() -> None:
    """What lies ahead on the tokenizer's path stays, however long it is; what was read goes."""
    text = b"the cat is on the mat. a ton of hats on the cat. bricks fit a cat. " * 20
    found = []
    for rows in (100_000, 200):
        backend = Batching(2.0)
        llm = CachedLM(backend, rows * 8 * len(backend.byte_vocab))
        beam = await ByteBeamState.initial(llm, BeamParams(K=5, prune_threshold=0.05))
        read = await beam.prefill(text)
        found.append((read.logZ, sum(backend.calls), len(backend.calls), max(backend.calls)))
        assert llm.rows.nbytes <= llm.rows.most_bytes
    (want, contexts, calls, most), (logz, again, more, largest) = found
    assert logz == pytest.approx(want, abs=1e-9) and most > 200 > largest
    assert again <= 1.05 * contexts and more <= 5 * calls, found


# -- offers ---------------------------------------------------------------------------------------------


async def test_offers_ride_along_and_never_alone() -> None:
    backend = Batching(2.0)
    llm = CachedLM(backend)
    nodes = [llm.node([0, i]) for i in range(1, 6)]
    for i, node in enumerate(nodes):
        llm.offer(node, i / 10)
    for _ in range(30):
        await asyncio.sleep(0)
    assert backend.calls == []
    await llm.logprobs(llm.node([0]))
    assert backend.calls == [3] and [n.logps is not None for n in nodes] == [False, False, False, True, True]
    await llm.logprobs(nodes[0])
    assert backend.calls == [3, 1], "what had no room is forgotten"


@pytest.mark.parametrize("what", ["fails", "does not fit"])
async def test_an_offer_harms_nobody(what: str) -> None:
    """What a model cannot do with an offered context, whoever asks for another does not hear of."""

    class Refuses(Batching):
        def evaluate(self, contexts: list[Any]) -> list[torch.Tensor]:
            if any(c.token == 2 for c in contexts):
                self.calls.append(-len(contexts))
                raise RuntimeError("not with that one")
            return super().evaluate(contexts)

        def split(self, contexts: list[Any]) -> list[list[Any]]:
            return [[one] for one in contexts] if what == "does not fit" else [contexts]

    backend = Refuses(14.0)
    llm = CachedLM(backend)
    llm.offer(llm.node([0, 2]), 0.9)
    llm.offer(llm.node([0, 1]), 0.9)
    await llm.logprobs(llm.node([0]))
    assert backend.calls == ([-3, 1] if what == "fails" else [1])
    with pytest.raises(RuntimeError, match="not with that one"):
        await llm.logprobs(llm.node([0, 2]))


NONSENSE = {"nan": lambda row: row * math.nan, "logits": lambda row: row + 7.0}


@pytest.mark.parametrize("nonsense", NONSENSE)
@given(
    seed=st.integers(0, 999),
    text=st.text("abc", min_size=8, max_size=30).map(str.encode),
    tolerance=st.sampled_from([0.5, 0.1]),
)
@examples(60)
async def test_nonsense_in_a_draft_harms_nobody(
    nonsense: str, seed: int, text: bytes, tolerance: float
) -> None:
    """What never needed a row that is none is read, or cannot be, as it is byte by byte."""

    class Astray(BatchingToy):
        cost = Cost(1e9, 1.0)

        async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> torch.Tensor:
            row = await super().next_token_logprobs(token_ids)
            drawn = np.random.default_rng([seed, *(token + 1 for token in token_ids)]).random()
            return NONSENSE[nonsense](row) if token_ids and drawn < 0.2 else row

    async def outcome(at_once: bool) -> Any:
        llm = Astray([b"a", b"b", b"c", b"bb", b"bc", b"aa", b"abc", b"abbba"], seed, zeros=0.5)
        beam = await ByteBeamState.initial(llm, BeamParams(tolerance=tolerance), initial_context=[])
        try:
            beam = await (beam.prefill(text) if at_once else byte_by_byte(beam, [*text]))
        except ModelOutputError:
            return "nonsense"
        except ImpossibleByteError:
            return None
        return held(beam) if len(beam) else None

    want = await outcome(at_once=False)
    assert want == "nonsense" or await outcome(at_once=True) == want


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_after_an_offered_context_harms_nobody(nonsense: str) -> None:
    """A text that does not need it is written as by a model that is offered nothing; one that needs it
    has what the model says when it is asked. Nonsense of a moment is not remembered."""
    said, ever = NONSENSE[nonsense], False

    class Astray(BatchingToy):
        bad: Any = None

        async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> torch.Tensor:
            row = await super().next_token_logprobs(token_ids)
            return (
                said(row)
                if tuple(token_ids) == self.bad and (ever or self.asked.count(self.bad) == 1)
                else row
            )

    async def written(llm: Any) -> float:
        beam = await ByteBeamState.initial(llm, BeamParams(tolerance=1e-2))
        for byte in b"abcab":
            await beam.logp_next()
            beam = await (beam.prune() << byte)
        await beam.logp_next()
        return beam.logZ

    words, offered, came_true = [b"a", b"b", b"c", b"ab", b"bc", b"ca", b"ba", b"abc"], 0, 0
    for seed in (0, 3):
        alone, beside = ToyLM(words, seed), Astray(words, seed)
        want = await written(alone)
        assert await written(beside) == pytest.approx(want, abs=1e-9)
        for context in dict.fromkeys(beside.asked):
            for ever in (False, True):
                llm = Astray(words, seed)
                llm.bad = context
                if context not in alone.asked:
                    assert await written(llm) == pytest.approx(want, abs=1e-9)
                    offered += 1
                elif not ever:
                    try:
                        assert await written(llm) == pytest.approx(want, abs=1e-9)
                        came_true += 1  # it was offered first, and is asked for again
                    except ModelOutputError:
                        assert llm.asked.count(context) == 1  # it was asked for
    assert offered > 9 and came_true > 1, (offered, came_true)


async def test_of_many_offers_as_many_go_out_as_fit() -> None:
    class Narrow(Batching):
        def split(self, contexts: list[Any]) -> list[list[Any]]:
            return [contexts[i : i + 4] for i in range(0, len(contexts), 4)]

    backend = Narrow(math.inf)
    llm = CachedLM(backend)
    nodes = [llm.node([0, i]) for i in range(1, 8)]
    for i, node in enumerate(nodes):
        llm.offer(node, (i + 1) / 10)
    await llm.logprobs(llm.node([0]))
    assert backend.calls == [4] and [n.logps is not None for n in nodes] == [False] * 4 + [True] * 3
    llm.offer(nodes[0], 0.9)
    await llm.logprobs_many([llm.node([1, i]) for i in range(5)])
    assert backend.calls == [4, 4, 1], "none where what is asked for does not fit itself"


async def test_writing_with_a_look_at_every_byte_takes_fewer_calls() -> None:
    calls = []
    for ratio in (0.0, 256.0):
        backend = Batching(ratio)
        beam = await ByteBeamState.initial(CachedLM(backend), BeamParams(tolerance=0.01))
        for byte in b"the cat sat on the mat.":
            await beam.logp_next()
            beam = await (beam.prune() << byte)
        calls.append((len(backend.calls), round(beam.logZ, 9)))
    assert calls[1][0] < 0.7 * calls[0][0] and calls[0][1] == calls[1][1]


async def test_texts_written_side_by_side_offer_less() -> None:
    """The forward that an offer might save goes out all the same, for another of them."""
    contexts, logz = [], []
    for count in (1, 2, 1000):
        backend = Batching(8.0)
        beam = await ByteBeamState.initial(CachedLM(backend), BeamParams(tolerance=0.01))
        with side_by_side(1), side_by_side(count):
            for byte in b"the cat sat on the mat. a ton of hats on the cat.":
                await beam.logp_next()
                beam = await (beam.prune() << byte)
        contexts.append(sum(backend.calls))
        logz.append(beam.logZ)
    assert contexts[0] > contexts[1] > contexts[2] and logz == pytest.approx([logz[0]] * 3, abs=1e-9)


@pytest.mark.parametrize("rule", [{"tolerance": 0.01}, {"K": 5, "prune_threshold": 0.05}], ids=repr)
async def test_no_offer_contradicts_what_was_read(rule: dict[str, Any]) -> None:
    """Bytes read since a look rule out most of what was likely then."""
    text, read = b"the cat is on the mat. a ton of hats on the cat. the cat sat in the hat.", 0
    spelled = list[bytes]()

    class Spelling(Batching):
        def evaluate(self, contexts: list[Any]) -> list[torch.Tensor]:
            for context in contexts:
                ids = context.tokens()[1:]
                spelled.append(b"".join(bytes(self.byte_vocab[i].byte_string) for i in ids))
                assert text[:read].startswith(spelled[-1][:read]), (text[:read], spelled[-1])
            return super().evaluate(contexts)

    backend = Spelling(256.0)
    beam = await ByteBeamState.initial(CachedLM(backend), BeamParams(**rule))
    for byte in text:
        await beam.logp_next()
        read += 1
        beam = await (beam.prune() << byte)
    assert sum(1 for one in spelled if not text.startswith(one)) > 20, "some were offered in vain"


async def test_deferred_hypotheses_that_may_wake_ride_along() -> None:
    """They need no forward of their own when they do. Nobody who only reads is offered anything."""
    text = b"the cat is on the mat. a ton of hats on the cat. bricks fit a cat. the cat sat in the hat."
    woken, calls = [], []
    for ratio, look in ((0.0, True), (256.0, True), (256.0, False)):
        backend, alone = Batching(ratio), 0
        beam = await ByteBeamState.initial(CachedLM(backend), BeamParams(tolerance=0.02))
        for byte in text:
            if look:
                await beam.logp_next()
            before = len(backend.calls)
            beam = await (beam.prune() << byte)
            alone += (len(backend.calls) > before) and look
        woken.append(alone)
        calls.append(sum(backend.calls))
    assert woken[1] < woken[0], woken
    assert calls[2] <= calls[0] < calls[1], calls


async def test_known_texts_are_looked_at_without_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution in the middle of a known text, at the end of a word say, is followed by nothing."""
    texts, offered = ["the cat is on the mat.", "bricks fit a cat. a hat the the he"], list[int]()
    monkeypatch.setattr(rule, "offer_next", lambda beside, deferred, least: offered.append(len(beside)))
    backend = Batching(0.1)
    async with AsyncByteLM(CachedLM(backend), BeamParams(tolerance=0.001)) as lm:
        await lm.score(texts)
        read = len(backend.calls)
        await lm.word_surprisal(texts, entropy=True)
        assert len(backend.calls) > read and not offered, "looks evaluate what reading leaves"
        other = AsyncByteLM(CachedLM(Batching(0.2)), BeamParams(tolerance=0.001))
        await AsyncByteLM.ensemble([lm, other]).word_surprisal(texts)
        assert not offered, "nor of several models"
        beam = await lm.beam("the c")
        for byte in b"at a mat":
            await beam.logp_next()
            beam = await (beam.prune() << byte)
        assert offered, "of texts that are written, there are"


async def test_a_subclass_answers_for_itself() -> None:
    """What a client has made of `logp_next` is what a known text is looked at with."""

    class Even(ByteBeamState):
        async def logp_next(self) -> LazyByteProbs:
            return LazyByteProbs(np.full(258, -math.log(258)))

    beam = await Even.initial(CachedLM(Batching(0.1)), BeamParams(tolerance=0.001))
    assert (await beam.peek()).ps[0] == (await beam.logp_next()).ps[0] == -math.log(258)


# -- costs ----------------------------------------------------------------------------------------------


def test_a_cost_is_measured_robustly() -> None:
    meter = CostMeter()
    assert meter._measured() is UNKNOWN
    for i in range(24):
        n = 1 + i * 7 % 40
        meter.add(n, 9.0 if i == 5 else 0.04 + 0.0027 * n)
    assert meter._measured().ratio == pytest.approx(0.04 / 0.0027, rel=1e-2)


def test_what_is_worth_its_price() -> None:
    assert is_worth(1.0, 0.0) and not is_worth(0.99, 0.0) and not is_worth(0.0, math.inf)
    assert is_worth(1e-9, math.inf) and is_worth(0.1, 14.0) and not is_worth(0.1, 14.0, spares=0.5)


async def test_a_batch_method_that_always_fails_is_told_once() -> None:
    class Broken(BatchingToy):
        async def batch_next_token_logprobs(self, token_ids_list: Any) -> Any:
            raise RuntimeError("no kernel")

    llm = cached(Broken(TOY))
    with pytest.warns(UserWarning, match="Broken has raised 3 times in a row.*no kernel") as told:
        for i in range(5):
            await llm.batch_next_token_logprobs([[1, i], [2, i]])
    assert len(told) == 1
