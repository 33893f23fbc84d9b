"""`CachedLM`: a backend behind the `AsyncLM` interface that never evaluates a context twice.

A search asks for many contexts that differ in their last few tokens, from any number of tasks. So contexts
are nodes of a prefix tree (`tree.py`), the row of log-probabilities of each is remembered
(`logprob_cache.py`), and what is asked for while something runs goes out together after it (`batcher.py`).

**Guarantees.** A cancelled request harms no other, also when it is cancelled while it is evaluated. An
exception reaches those whose contexts were in that call. It belongs to no event loop: loops may use it
one after another, or at the same time in several threads, and one that is closed meanwhile is forgotten. Rows
take at most `max_bytes`, and are given up in order of last use; what is asked for again is computed again.
The `*_sync` methods may be called on any thread, whether a loop runs there or not. One that is dropped is
collected, and its thread ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest
from inspect import iscoroutinefunction
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jaxtyping import Float

from genlm.bytes.contexts.backend import Backend, Outcome, Question, Score, Statistics
from genlm.bytes.contexts.batcher import QUIET_PASSES, UNTIL_IDLE, Batcher
from genlm.bytes.contexts.cost import UNKNOWN, Cost, CostMeter
from genlm.bytes.contexts.logprob_cache import LogProbCache
from genlm.bytes.contexts.tree import ContextNode, ContextTree
from genlm.bytes.errors import InvalidTypeError, ModelOutputError, bad_type, bad_value
from genlm.bytes.util.rows import Row, as_tensor

if TYPE_CHECKING:
    import torch

__all__ = ["CachedLM", "free_bytes", "raised"]

MOST_OFFERS = 4096
"""Offers that are held between two calls."""

_B = TypeVar("_B", bound=Backend)


class CachedLM(Generic[_B]):
    """An `AsyncLM` over a backend.

    Args:
        backend: evaluates contexts.
        max_bytes: the most memory for log-probabilities; None takes an eighth of what is free.

    Attributes:
        readers: known texts that are being read. They share calls.
    """

    def __init__(self, backend: _B, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise bad_value("max_bytes", max_bytes, "must be a number of bytes above 0, or None")
        self.backend = backend
        self.tokenizer, self.byte_vocab = backend.tokenizer, backend.byte_vocab
        self.rows = LogProbCache(free_bytes() if max_bytes is None else max_bytes)
        self._trees: dict[str | None, ContextTree] = {}
        # Guards trees and rows, for moments. What a backend keeps belongs to the batcher's thread.
        self._lock = Lock()
        on_loop = iscoroutinefunction(type(backend).evaluate)
        self._batcher = Batcher(self._parts, self._evaluate, self._evaluate_on_loop if on_loop else None)
        # Contexts that share nothing need not wait for each other.
        self._ask = self._batcher.ask if backend.batches or not on_loop else self._ask_one_by_one
        self._meter = CostMeter()
        self._offers: dict[ContextNode, float] = {}
        self._calls = self._contexts = 0
        self.readers = 0

    def __reduce__(self) -> Any:
        """It has a thread, and its backend a model: refused before either fails at something of its own."""
        raise InvalidTypeError(
            "A model that runs here, and beams and states over it, cannot be pickled, nor can its cache be "
            "copied: keep the bytes that were read and the settings (`beam.params`), and read again there: "
            "`beam = await ByteBeamState.initial(llm, params)`, `beam = await beam.prefill(text)`."
        )

    # -- the AsyncLM interface ------------------------------------------------------------------------

    async def next_token_logprobs(
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> Float[torch.Tensor, " logits"]:
        """Natural log-probabilities of the next token after a context."""
        return as_tensor(await self.logprobs(self.node(token_ids, lora_name)))

    async def batch_next_token_logprobs(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> Float[torch.Tensor, "contexts logits"]:
        """`next_token_logprobs` of each context, in one batch."""
        return _stacked(await self.logprobs_many([self.node(ids, lora_name) for ids in token_ids_list]))

    def next_token_logprobs_sync(
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> Float[torch.Tensor, " logits"]:
        """`next_token_logprobs` for callers that cannot await. It blocks the thread, and a loop on it."""
        (found,) = self._logprobs_sync([self.node(token_ids, lora_name)])
        return as_tensor(found)

    def batch_next_token_logprobs_sync(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> Float[torch.Tensor, "contexts logits"]:
        """`batch_next_token_logprobs` for callers that cannot await."""
        return _stacked(self._logprobs_sync([self.node(ids, lora_name) for ids in token_ids_list]))

    def clear_cache(self) -> None:
        """Forget everything computed so far; needed where the model has changed unnoticed.

        What is running is waited for. A beam that was begun before goes on with the new model; begin a new
        one for figures of one model only.
        """
        self._batcher.run(self._forget)

    def _forget(self) -> None:
        self.backend.forget()
        with self._lock:
            self.rows.clear()
            self.rows = LogProbCache(self.rows.most_bytes)  # what is being evaluated is not kept
            self._offers.clear()

    @property
    def deterministic(self) -> bool:
        """Whether the same questions, after `clear_cache`, are answered with the same last digits.

        For one event loop, on one machine. A batch then waits until its loop has nothing else to do, and
        nothing is chosen by measuring what is faster.
        """
        return self.backend.deterministic

    @deterministic.setter
    def deterministic(self, wanted: bool) -> None:
        self.backend.deterministic = wanted
        self._batcher.quiet_passes = UNTIL_IDLE if wanted else QUIET_PASSES

    @property
    def cost(self) -> Cost:
        """What a call costs: as the backend says, or as measured. It decides when contexts are evaluated."""
        given = self.backend.cost
        if given is None:
            given = UNKNOWN if self.deterministic else self._meter.cost
        return given

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it, one of `readers` more."""
        with self._lock:
            self.readers += 1
        try:
            yield
        finally:
            with self._lock:
                self.readers -= 1

    # -- contexts as nodes ----------------------------------------------------------------------------

    def node(self, token_ids: Sequence[int], lora_name: str | None = None) -> ContextNode:
        """The node of a context. `node.child(token)` is the context with one more token."""
        if lora_name is not None and not isinstance(lora_name, str):
            raise bad_type(
                "lora_name", lora_name, "must be a string, or None for the model without an adapter"
            )
        with self._lock:
            tree = self._trees.get(lora_name)
            adapter = self.backend.adapter(lora_name)
            if tree is None or tree.adapter is not adapter:
                tree = self._trees[lora_name] = ContextTree(lora_name, adapter)
        return tree.find(token_ids)

    async def logprobs(self, node: ContextNode) -> Row:
        """Natural log-probabilities of the next token after a node's context, as the backend gave them.

        Raises:
            ValueError: the model cannot read the context: it is too long for it, say.
        """
        logps = node.logps
        if logps is not None:
            self._touch(node)
            return logps
        self.backend.check(node)
        (outcome,) = await self._ask([node])
        return raised(outcome)

    async def logprobs_many(self, nodes: Sequence[ContextNode]) -> list[Row]:
        """`logprobs` of each node, for less than as many calls. What is missing goes out together.

        Raises:
            ValueError: see `logprobs`; the first context that cannot be read. None is evaluated then.
        """
        self._check(nodes)
        return [raised(outcome) for outcome in await self.outcomes(nodes)]

    async def outcomes(self, nodes: Sequence[ContextNode]) -> list[Outcome]:
        """`logprobs` of each node, or the exception that it would raise: a failing one harms no other."""
        known: dict[ContextNode, Outcome] = {}
        for node in nodes:
            logps = node.logps
            if logps is not None:
                self._touch(node)
                known[node] = logps
            else:
                try:
                    self.backend.check(node)
                except ValueError as error:
                    known[node] = error
        asked = list(dict.fromkeys(node for node in nodes if node not in known))
        known.update(zip(asked, await self._ask(asked), strict=True))
        return [known[node] for node in nodes]

    async def score(self, node: ContextNode, token: int) -> float:
        """The natural log-probability of one next token: `logprobs(node)[token]`, where only that is needed.

        A backend that can gives the number alone (`Backend.scores`); else the row is evaluated, and
        remembered.

        Raises:
            ValueError: see `logprobs`.
        """
        logps = node.logps
        if logps is None and self.backend.has_scores:
            self.backend.check(node)
            (outcome,) = await self._ask([Score(node, token)])
            if isinstance(outcome, BaseException):
                raise outcome
            return float(outcome)
        return float((await self.logprobs(node) if logps is None else logps)[token])

    async def _ask_one_by_one(self, nodes: Sequence[Question]) -> list[Outcome]:
        if len(nodes) == 1:  # in the task of whoever asks
            return [(await self._evaluate_on_loop(list(nodes)))[nodes[0]]]
        one_by_one = (self._ask_one_by_one([node]) for node in nodes)
        found = await asyncio.gather(*one_by_one, return_exceptions=True)
        return [one if isinstance(one, BaseException) else one[0] for one in found]

    def known(self, node: ContextNode) -> Row | None:
        """`logprobs` where nothing needs to be evaluated for it; else None."""
        logps = node.logps
        if logps is not None:
            self._touch(node)
        return logps

    def offer(self, node: ContextNode, priority: float) -> None:
        """Have a context evaluated in the next call that goes out anyway, if there is room.

        Never by itself. A call takes at most about as many as it is worth contexts (`cost`), the highest
        priorities first; what it leaves is forgotten. Nothing is taken where answers must not hang on what
        shares a call (`deterministic`).
        """
        if node.logps is None and self.backend.batches and not self.deterministic:
            with self._lock:
                if len(self._offers) >= MOST_OFFERS:
                    self._offers.clear()
                self._offers[node] = max(priority, self._offers.get(node, 0.0))

    def _with_offers(self, missing: list[ContextNode]) -> list[ContextNode]:
        """The contexts of a call, and the best offers, as many as fit into one with them."""
        with self._lock:
            offers, self._offers = self._offers, {}
        tree, asked = missing[0].tree, set(missing)
        room = int(min(self.cost.ratio, MOST_OFFERS)) if offers else 0
        able = [n for n in offers if n.tree is tree and n.logps is None and n not in asked and self._may(n)]
        best = nlargest(room, able, key=offers.__getitem__)
        while best:
            together = sorted([*missing, *best], key=lambda node: node.depth)
            try:
                if len(list(self.backend.split(together))) == 1:
                    return together
            except Exception:
                break  # what was offered harms nobody
            best = best[: len(best) // 2]
        return missing

    def _may(self, node: ContextNode) -> bool:
        try:
            self.backend.check(node)
        except ValueError:
            return False
        return True

    def drop(self, node: ContextNode) -> None:
        """Give up a node's log-probabilities: they are none."""
        with self._lock:
            self.rows.drop(node)

    @property
    def rows_that_fit(self) -> int:
        """About how many contexts' log-probabilities there is memory for, by those that are there."""
        with self._lock:
            rows = self.rows
            return rows.most_bytes * len(rows.contexts) // rows.nbytes if rows.nbytes else MOST_OFFERS

    @property
    def crowded(self) -> bool:
        """Whether more than half of that memory is in use, so that what is not used may soon be given up."""
        return 2 * self.rows.nbytes > self.rows.most_bytes

    def _touch(self, node: ContextNode) -> None:
        with self._lock:
            self.rows.touch(node)

    def _logprobs_sync(self, nodes: list[ContextNode]) -> list[Row]:
        self._check(nodes)
        return [raised(outcome) for outcome in self._batcher.ask_and_wait(nodes)]

    def _check(self, nodes: Sequence[ContextNode]) -> None:
        for node in nodes:
            self.backend.check(node)

    def statistics(self) -> Statistics:
        """Forwards, tokens run through the model and tokens reused, slots, bytes and evictions."""
        return self.backend.statistics(Statistics(self._calls, self._contexts, cache_bytes=self.rows.nbytes))

    # -- evaluation, on the batcher's thread ----------------------------------------------------------

    def _parts(self, questions: Collection[Question]) -> Iterator[list[Question]]:
        by_context: dict[ContextNode, list[Question]] = {}
        for question in questions:
            by_context.setdefault(_context(question), []).append(question)
        by_tree: dict[ContextTree, list[ContextNode]] = {}
        for node in sorted(by_context, key=lambda node: node.depth):
            by_tree.setdefault(node.tree, []).append(node)
        for alike in by_tree.values():
            left = set(alike)
            for part in self.backend.split(alike):
                if not left.issuperset(part):
                    raise self._badly_split("gave a context twice, or one that was not to be split")
                left.difference_update(part)
                yield [question for node in part for question in by_context[node]]
            if left:  # who asked for these would wait for ever
                raise self._badly_split(f"left out {len(left)} of {len(alike)} contexts")

    def _badly_split(self, said: str) -> ModelOutputError:
        backend = type(self.backend).__name__
        return ModelOutputError(f"`split` of {backend} {said}: each context must be in exactly one part.")

    def _evaluate(self, questions: list[Question]) -> dict[Question, Outcome]:
        """The answers to questions that share a tree, running what is missing."""
        found, missing, asked = self._begun(questions)
        rows = self.rows
        if asked:
            outcomes = self.backend.scores(missing, asked)
            found |= zip(asked, outcomes[len(missing) :], strict=True)
            found |= self._kept(rows, missing, outcomes[: len(missing)])
        elif missing:
            begun = perf_counter()
            nodes = self._with_offers(missing)
            try:
                evaluated = self._run(nodes)
            except Exception:
                if len(nodes) == len(missing):
                    raise
                nodes, evaluated = missing, self._run(missing)  # what was offered harms nobody
            self._meter.add(len(nodes), perf_counter() - begun)
            found |= self._kept(rows, nodes, evaluated)
        return found

    def _run(self, nodes: list[ContextNode]) -> Sequence[Outcome]:
        evaluated = self.backend.evaluate(nodes)
        if isinstance(evaluated, Sequence):
            return evaluated
        return asyncio.run(_awaited(evaluated))  # a thread waits, on which no loop runs

    async def _evaluate_on_loop(self, questions: list[Question]) -> dict[Question, Outcome]:
        found, missing, _ = self._begun(questions)
        if missing:
            begun, rows = perf_counter(), self.rows
            nodes = self._with_offers(missing)
            try:
                outcomes = await self._run_on_loop(nodes)
            except Exception:
                if len(nodes) == len(missing):
                    raise
                nodes, outcomes = missing, await self._run_on_loop(missing)
            self._meter.add(len(nodes), perf_counter() - begun)
            found |= self._kept(rows, nodes, outcomes)
        return found

    async def _run_on_loop(self, nodes: list[ContextNode]) -> Sequence[Outcome]:
        asked = self.backend.evaluate(nodes)
        assert isinstance(asked, Awaitable)
        return await asked

    def _begun(
        self, questions: list[Question]
    ) -> tuple[dict[Question, Outcome], list[ContextNode], list[Score]]:
        """What is known, the contexts to be evaluated, and the tokens to be scored."""
        if self.backend.changed():
            self._forget()
        found: dict[Question, Outcome] = {}
        missing: list[ContextNode] = []
        asked: list[Score] = []
        for question in questions:
            logps = _context(question).logps  # it may be given up at any moment, so it is read once
            if logps is not None:
                found[question] = float(logps[question.token]) if isinstance(question, Score) else logps
            elif isinstance(question, Score):
                asked.append(question)
            else:
                missing.append(question)
        if missing or asked:
            self._check_adapter(_context(questions[0]).tree)
        return found, missing, asked

    def _kept(
        self, rows: LogProbCache, nodes: list[ContextNode], outcomes: Sequence[Outcome]
    ) -> dict[Question, Outcome]:
        self._calls += 1
        self._contexts += len(nodes)
        with self._lock:
            for node, outcome in zip(nodes, outcomes, strict=True):
                if not isinstance(outcome, BaseException | float) and rows is self.rows:
                    rows.keep(node, outcome)
        return dict(zip(nodes, outcomes, strict=True))

    def _check_adapter(self, tree: ContextTree) -> None:
        if tree.adapter is not self.backend.adapter(tree.lora_name):
            raise bad_value(
                "lora_name",
                tree.lora_name,
                "another adapter has been loaded under that name since this context was begun",
                "Start a new beam.",
            )


async def _awaited(outcomes: Awaitable[Sequence[Outcome]]) -> Sequence[Outcome]:
    return await outcomes


def _context(question: Question) -> ContextNode:
    return question.context if isinstance(question, Score) else question


def raised(outcome: Outcome) -> Row:
    """What was found; an exception is raised."""
    if isinstance(outcome, BaseException):
        raise outcome
    assert not isinstance(outcome, float)  # a row was asked for
    return outcome


def _stacked(rows: Sequence[Row]) -> Float[torch.Tensor, "contexts logits"]:
    import torch

    return torch.stack([as_tensor(row) for row in rows])


def free_bytes() -> int:
    """The default bound for log-probabilities: an eighth of the host's memory that is free."""
    import psutil

    return int(psutil.virtual_memory().available) // 8
