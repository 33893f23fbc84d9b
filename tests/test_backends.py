"""Backends behind `CachedLM`: what each promises, and what a plain model gains."""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import pickle
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from brute import Brute
from ngram import NGramBackend
from toy import TOY, BatchingToy, FixedLM, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState, StatefulTokenizedLM
from genlm.bytes.backends.async_lm import AsyncLMBackend, cached
from genlm.bytes.backends.hf_tree.backend import HFTreeBackend
from genlm.bytes.contexts.backend import Backend, Outcome
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.contexts.conformance import check_backend
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import ModelOutputError

CONTEXTS = [[1], [1, 5], [1, 5, 2], [1, 5, 3], [1, 4], [0], [0, 5, 5, 1, 2]]
WORDS = [b"", b"the", b" ", b"c", b"at", b"cat", b"t", b"h", b"e", b"a", b"sat", b"s"]
TEXTS = ["the cat sat", "the cat", "that", "a cat sat at the tea"]


def ngram() -> NGramBackend:
    return NGramBackend(WORDS, TEXTS)


def hf_tree(kind: str, trees: bool = True) -> HFTreeBackend:
    backend = HFTreeBackend(tiny.transformer(kind), 2**20, trees)
    backend.runner.check()
    return backend


BACKENDS: dict[str, Callable[[], Backend]] = {
    "Hugging Face": lambda: hf_tree("llama"),
    "Hugging Face, each context whole": lambda: hf_tree("llama", trees=False),
    "one by one": lambda: AsyncLMBackend(ToyLM(TOY, seed=1)),
    "batches": lambda: AsyncLMBackend(BatchingToy(TOY, seed=1)),
    "n-grams": ngram,
}


# -- the promises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
async def test_keeps_its_promises(name: str) -> None:
    await check_backend(BACKENDS[name], CONTEXTS)


class Neighbours(NGramBackend):
    """What shares the call shows in the row."""

    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        rows = super().evaluate(contexts)
        return [torch.log_softmax(row + len(rows) * row, 0) for row in rows]


class Later(NGramBackend):
    """What was evaluated before shows in the row."""

    calls = 0

    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        self.calls += 1
        return [torch.log_softmax(self.calls * row, 0) for row in super().evaluate(contexts)]


class Shared(NGramBackend):
    """Rows are views of one table."""

    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        return list(torch.stack(super().evaluate(contexts)))


class Logits(NGramBackend):
    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        return [row + 8.0 for row in super().evaluate(contexts)]


class Failing(NGramBackend):
    """One context that is too long fails all."""

    max_length = 5

    def check(self, context: ContextNode) -> None:
        pass

    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        if any(context.depth > 5 for context in contexts):
            raise ValueError("too long")
        return super().evaluate(contexts)


class Leaving(NGramBackend):
    """Leaves a task behind."""

    async def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:  # type: ignore[override]
        self.left = asyncio.ensure_future(asyncio.sleep(3600))
        return super().evaluate(contexts)


@pytest.mark.parametrize(
    "kind, match",
    [
        (Neighbours, "does not depend on what shares the call"),
        (Later, "does not depend on what shares the call"),
        (Shared, "in memory of its own"),
        (Logits, "a row of natural log-probabilities"),
        (Failing, "too long"),
        (Leaving, "leaves nothing behind"),
    ],
)
async def test_a_broken_promise_is_found(kind: Any, match: str) -> None:
    with pytest.raises(AssertionError, match=f"{kind.__name__} breaks its promise.*{match}"):
        await check_backend(lambda: kind(WORDS, TEXTS), CONTEXTS)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_a_beam_over_a_backend_of_ones_own() -> None:
    """Exact, compared with the sum over all segmentations."""
    backend = ngram()
    lm: Any = SimpleNamespace(
        byte_vocab=backend.byte_vocab, size=len(WORDS), bos=0, eos=0, probs=backend.probs
    )
    brute = Brute(lm)
    beam = await ByteBeamState.initial(CachedLM(backend), BeamParams(K=10**6, heal=False))
    for at in range(1, 8):
        read = await beam.prefill(b"the cat"[:at])
        assert math.exp(read.logZ) == pytest.approx(brute.prefix(b"the cat"[:at]), rel=1e-9)
    completion = await AsyncByteLM(CachedLM(backend)).complete("the ", max_bytes=3, temperature=0.0)
    assert completion.text == "cat"


# -- a plain model --------------------------------------------------------------------------------------


class Latent(BatchingToy):
    """Waits until it is let go, a batch at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.let_go = asyncio.Event()
        self.cancelled = 0

    async def batch_next_token_logprobs(self, token_ids_list: Sequence[Sequence[int]]) -> torch.Tensor:
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            await quiet()  # it takes its time
            self.cancelled += 1
            raise
        return await super().batch_next_token_logprobs(token_ids_list)


def asked_by(llm: Any, *contexts: list[int]) -> list[asyncio.Task[Any]]:
    model = cached(llm)
    return [asyncio.ensure_future(model.next_token_logprobs(ids)) for ids in contexts]


async def quiet() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_what_is_asked_at_a_moment_goes_out_together_and_once() -> None:
    llm = BatchingToy(TOY)
    found = await asyncio.gather(*asked_by(llm, [1], [2], [1], [3]))
    assert llm.batches == [3] and torch.equal(found[0], found[2])
    assert llm.asked == [(1,), (2,), (3,)]
    await asyncio.gather(*asked_by(llm, [1], [2]))
    assert len(llm.asked) == 3, "what is known is not asked for again"


async def test_what_is_on_its_way_is_not_asked_for_again() -> None:
    llm = Latent(TOY)
    first = asked_by(llm, [1], [2])
    await quiet()
    second = asked_by(llm, [2], [3], [4])
    await quiet()
    llm.let_go.set()
    await asyncio.gather(*first, *second)
    assert llm.batches == [2, 2] and len(llm.asked) == 4


async def test_a_batch_is_cancelled_when_nobody_waits_for_it() -> None:
    llm = Latent(TOY)
    one, two = asked_by(llm, [1], [2])
    await quiet()
    one.cancel()
    await quiet()
    assert llm.cancelled == 0
    two.cancel()
    with suppress(asyncio.CancelledError):
        await two
    assert llm.cancelled == 1 and asyncio.all_tasks() == {asyncio.current_task()}
    llm.let_go.set()
    (again,) = await asyncio.gather(*asked_by(llm, [1]))
    assert torch.equal(again, await ToyLM(TOY).next_token_logprobs([1]))


async def test_a_model_without_batches_is_asked_concurrently() -> None:
    """By one task or by several: a server that batches by itself has them all at once."""

    class Served(ToyLM):
        now = most = 0

        async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
            self.now += 1
            self.most = max(self.most, self.now)
            await quiet()
            self.now -= 1
            return await super().next_token_logprobs(token_ids)

    for together in (False, True):
        llm = Served(TOY, dtype=torch.float32)
        model = cached(llm)
        if together:
            await model.logprobs_many([model.node([i]) for i in range(4)])
        else:
            await asyncio.gather(*asked_by(llm, [0], [1], [2], [3]))
        assert llm.most == 4 and len(llm.asked) == 4
    llm = Served(TOY, dtype=torch.float32)
    beam = await ByteBeamState.initial(llm, BeamParams(K=8), initial_context=[])
    await beam.prefill(b"abcab")
    assert llm.most > 1


async def test_one_that_fails_in_a_batch_harms_no_other() -> None:
    class Short(BatchingToy):
        async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
            if len(token_ids) > 2:
                raise ValueError("too long for this model")
            return await super().next_token_logprobs(token_ids)

    good, bad = await asyncio.gather(*asked_by(Short(TOY), [1], [1, 2, 3]), return_exceptions=True)
    assert isinstance(good, torch.Tensor) and "too long for this model" in str(bad)


async def test_a_batch_of_another_length_is_an_error() -> None:
    class Odd(BatchingToy):
        async def batch_next_token_logprobs(self, token_ids_list: Any) -> Any:
            return (await super().batch_next_token_logprobs(token_ids_list))[:-1]

    for found in await asyncio.gather(*asked_by(Odd(TOY), [1], [2]), return_exceptions=True):
        assert isinstance(found, ModelOutputError) and "Odd gave 1 rows: 2 contexts need as many" in str(
            found
        )


@pytest.mark.parametrize("kind", [ToyLM, BatchingToy])
def test_loops_one_after_another_and_at_once(kind: Any) -> None:
    llm = kind(TOY)

    def read() -> float:
        async def reading() -> float:
            beam = await ByteBeamState.initial(llm, BeamParams(K=5), initial_context=[])
            return float((await beam.prefill(b"abcab")).logZ)

        return asyncio.run(reading())

    want = read()
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(read())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [want] * 3 and read() == want
    assert len(llm.asked) == len(set(llm.asked))


async def test_drafts_only_where_batches_cost_less() -> None:
    """The same beam. With batches in few rounds; without, no context is asked for that is not needed."""
    text, needed = b"abcab" * 20, []
    for kind in (ToyLM, BatchingToy):
        llm = kind(TOY, dtype=torch.float32)
        beam = await ByteBeamState.initial(llm, BeamParams(K=5, prune_threshold=0.05), initial_context=[])
        read = await beam.prefill(text)
        needed.append((round(read.logZ, 3), len(llm.asked), len(set(llm.asked))))
        if kind is BatchingToy:
            rounds = len(llm.batches) + len(llm.asked) - sum(llm.batches)
    (plain, count, once), (batched, _, _) = needed
    assert plain == batched and count == once and rounds < count / 4


class Adapted(FixedLM):
    """What it says depends on an adapter."""

    async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: str | None = None) -> Any:
        self.asked.append((lora_name, *token_ids))  # type: ignore[arg-type]
        p = np.full(self.size, 1.0)
        p[1 if lora_name else 0] = 5.0
        return torch.log(torch.from_numpy(p / p.sum()))


async def test_adapters_are_kept_apart() -> None:
    llm = Adapted(TOY)
    for name, best in (("one", 1), (None, 0)):
        for _ in range(2):
            state = StatefulTokenizedLM.initial(llm, [3], lora_name=name)
            assert int((await state.logp_next()).argmax()) == best
    assert llm.asked == [("one", 3), (None, 3)]


async def test_a_model_that_has_changed_can_be_told() -> None:
    llm = ToyLM(TOY, seed=1)
    lm = AsyncByteLM(llm, BeamParams(K=5))
    before = (await lm.score("abc")).logprob
    llm.seed = 2
    await lm.forget()
    want = (await AsyncByteLM(ToyLM(TOY, seed=2), BeamParams(K=5)).score("abc")).logprob
    assert (await lm.score("abc")).logprob == want != before


async def test_what_was_evaluating_when_it_was_told_is_not_kept() -> None:
    llm = Latent(TOY)
    (asking, _) = asked_by(llm, [1], [2])
    await quiet()
    cached(llm).clear_cache()
    llm.let_go.set()
    await asking
    assert cached(llm).known(cached(llm).node([1])) is None


async def test_copies_and_pickles_of_a_model_have_caches_of_their_own() -> None:
    llm = ToyLM(TOY, seed=1)
    first = await cached(llm).next_token_logprobs([1])
    for twin in (copy.copy(llm), copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        twin.seed = 2
        assert not torch.equal(await cached(twin).next_token_logprobs([1]), first)
    assert cached(llm) is cached(llm) and cached(cached(llm)) is cached(llm)


def test_a_model_is_collected_with_its_cache() -> None:
    llm = BatchingToy(TOY)
    asyncio.run(cached(llm).next_token_logprobs([1]))
    gone = [weakref.ref(llm), weakref.ref(cached(llm))]
    del llm
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


async def test_a_model_that_takes_no_attributes() -> None:
    class Slotted:
        __slots__ = ("byte_vocab",)

        async def next_token_logprobs(self, token_ids: Any) -> Any:
            return await ToyLM(TOY).next_token_logprobs(token_ids)

    llm = Slotted()
    llm.byte_vocab = ToyLM(TOY).byte_vocab
    beam = await (await ByteBeamState.initial(llm, BeamParams(K=5))).prefill(b"abc")
    assert (
        beam.logZ == (await (await ByteBeamState.initial(ToyLM(TOY), BeamParams(K=5))).prefill(b"abc")).logZ
    )


async def test_nonsense_is_not_remembered() -> None:
    llm = FixedLM(TOY, rule=lambda context: [0.3] * len(TOY))
    state = StatefulTokenizedLM.initial(llm, [1], check_model=True)
    with pytest.raises(ModelOutputError, match="sum to"):
        await state.logp_next()
    llm.rule = lambda context: [1 / len(TOY)] * len(TOY)
    assert (await state.logp_next()).exp().sum() == pytest.approx(1.0)


async def test_rows_are_bounded_in_bytes() -> None:
    llm = CachedLM(AsyncLMBackend(ToyLM(TOY)), max_bytes=3 * 8 * len(TOY))
    for i in range(7):
        await llm.next_token_logprobs([i])
    assert llm.rows.nbytes == llm.rows.most_bytes and llm.statistics().cache_bytes == llm.rows.nbytes
    assert [llm.known(llm.node([i])) is not None for i in range(7)] == [False] * 4 + [True] * 3
    with pytest.raises(ValueError, match="`max_bytes` is 0"):
        CachedLM(ngram(), max_bytes=0)


async def test_a_backend_may_answer_for_one_context_alone() -> None:
    class Half(NGramBackend):
        def evaluate(self, contexts: list[ContextNode]) -> list[Outcome]:  # type: ignore[override]
            return [
                row if c.depth > 1 else KeyError("half")
                for c, row in zip(contexts, super().evaluate(contexts), strict=True)
            ]

    llm = CachedLM(Half(WORDS, TEXTS))
    bad, good = await llm.outcomes([llm.node([1]), llm.node([1, 2])])
    assert isinstance(bad, KeyError) and isinstance(good, torch.Tensor)
    with pytest.raises(KeyError, match="half"):
        await llm.next_token_logprobs([1])


class Split(NGramBackend):
    """A backend that splits in a way of one's own, once."""

    def __init__(self, how: str) -> None:
        super().__init__(TOY, ["abc"])
        self.how = how

    def split(self, contexts: list[ContextNode]) -> Any:
        how, self.how = self.how, ""
        if how == "raises":
            raise MemoryError("once")
        yield contexts[:1]
        if how == "raises later":
            raise MemoryError("once")
        if how == "gives another's":
            yield [contexts[0].tree.root]
        if how != "leaves out" and contexts[1:]:
            yield contexts[1:]


class SplitOnLoop(Split):
    batches = True  # one that has no batches is asked for one context at a time

    async def evaluate(self, contexts: list[ContextNode]) -> Any:  # type: ignore[override]
        return super().evaluate(contexts)


@pytest.mark.parametrize("kind", [Split, SplitOnLoop])
@pytest.mark.parametrize(
    "how, said",
    [
        ("raises", "once"),
        ("raises later", "once"),
        ("leaves out", "`split` of Split(OnLoop)? left out 2 of 3 contexts: each"),
        ("gives another's", "`split` of Split(OnLoop)? gave a context twice, or one"),
    ],
)
async def test_how_a_batch_is_split_is_no_reason_to_wait_for_ever(kind: Any, how: str, said: str) -> None:
    """What splitting raises, or leaves out, is told those whose contexts are in no part. Who asks afterwards
    is answered, in tasks and in threads."""
    llm = CachedLM(kind(how))
    nodes = [llm.node([0, i]) for i in range(3)]
    found = await asyncio.wait_for(llm.outcomes(nodes), 20)
    failed = found if how == "raises" else found[1:]
    assert all(isinstance(one, MemoryError | ModelOutputError) for one in failed)
    with pytest.raises((MemoryError, ModelOutputError), match=said):
        raise failed[-1]  # type: ignore[misc]
    assert len(await asyncio.wait_for(llm.logprobs_many(nodes), 20)) == 3
    llm.backend.how = how
    with pytest.raises((MemoryError, ModelOutputError), match=said):
        await asyncio.to_thread(llm.batch_next_token_logprobs_sync, [[1, 0], [1, 1], [1, 2]])
    assert len(await asyncio.to_thread(llm.batch_next_token_logprobs_sync, [[1, 0], [1, 1]])) == 2


async def test_an_offer_that_cannot_be_split_harms_nobody() -> None:
    class Narrow(NGramBackend):
        batches = True

        def split(self, contexts: list[ContextNode]) -> Any:
            if len(contexts) > 1:
                raise MemoryError("too many")
            return [contexts]

    llm = CachedLM(Narrow(TOY, ["abc"]))
    llm.offer(llm.node([0, 1]), 0.9)
    assert len(await asyncio.wait_for(llm.next_token_logprobs([0]), 20)) == len(TOY)
