"""Requests from event loops and threads, answered in batches by one thread.

A forward takes long, so it must not run on an event loop's thread, and the more contexts share one the
cheaper each is. So requests gather while the worker is busy, and all that wait go out together in the
next batch. There is no timer: a loop's requests are handed over once `QUIET_PASSES` passes of the loop in a
row have brought neither a request nor an answer. Answers count because the tasks that they wake ask their
next questions within a few passes, and requests that came in the meantime wait for those. Otherwise two
groups of tasks would take turns for good, with a forward each, where one would do for both. No loop
waits for another one, nor for a thread.

A task that works for more passes than that without asking comes too late for the batch, or does not, as the
threads happen to run. Round-off depends on what shares a forward, so the last digits of an answer may differ
from run to run. Where they must not, `quiet_passes` is `UNTIL_IDLE`: a loop's requests are then handed over
when it has nothing else to do.

The worker's thread holds nothing while it is idle, and ends when its owner is dropped. The interpreter
waits at its exit for the batch that is being worked. Going to the thread and back costs 0.2–0.5 ms a
forward, measured on a model whose forward takes 1.6 ms (two cores, one of them busy).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

from genlm.bytes.contexts.backend import Outcome, Question

__all__ = ["QUIET_PASSES", "UNTIL_IDLE", "Batcher", "Outcome"]

T = TypeVar("T")

QUIET_PASSES = 8
"""Passes of an event loop. A task that was answered asks again after 4 (it ends, its `gather` ends, the
task that awaited that goes on and starts new ones, these run); 8 allow for two more `gather`s in between.
All 8 take 0.1–0.2 ms, the forward of a small model 10–100 ms."""

UNTIL_IDLE = 10_000
"""Passes that no loop makes without asking anything, unless some task of it never rests; this is then the
bound."""

_Answers = asyncio.Future[list[Outcome]] | concurrent.futures.Future[list[Outcome]]


class _Request:
    """What one caller asks at once, with one future for all answers: hundreds are asked ahead of time."""

    __slots__ = ("_found", "_missing", "_nodes", "answers")

    def __init__(self, nodes: Sequence[Question], answers: _Answers) -> None:
        self._nodes = nodes
        self._missing = set(nodes)
        self._found: dict[Question, Outcome] = {}
        self.answers = answers

    def answer(self, node: Question, outcome: Outcome) -> None:
        self._found[node] = outcome
        self._missing.discard(node)
        if not self._missing and not self.answers.done():
            self.answers.set_result([self._found[node] for node in self._nodes])


@dataclass(eq=False)
class _Loop:
    """The requests of one event loop that no batch has taken yet."""

    waiting: dict[Question, list[_Request]] = field(default_factory=dict)
    events: int = 0  # requests made and deliveries received
    stirred: bool = False  # a callback that waits for quiet is on its way
    settled: bool = True  # what waits may be taken
    running: dict[asyncio.Task[None], dict[Question, list[_Request]]] = field(default_factory=dict)


_Asker = tuple[_Loop | None, _Request]
"""The loop of a request (None: a thread that waits), and the request."""


class Batcher:
    """Answers questions about nodes on a thread of its own.

    Guarantees: `evaluate` is called on that one thread only. What it answers, or raises, reaches exactly
    those who asked for a node of that part, and what `split` raises those whose nodes are in none. A
    cancelled request harms no other, and is not evaluated if no batch has taken it. A loop that is closed
    before its answers come is forgotten. A forked child starts anew.

    Args:
        split: the parts in which the nodes of a batch are to be evaluated.
        evaluate: the natural log-probabilities of the next token at each node of a part, or an exception for
            those who asked for that node alone.
        on_loop: `evaluate` as a coroutine. If it is given, what a loop asks is evaluated by tasks of that
            loop. They do not wait for each other, and are cancelled when nobody waits for them any longer.

    Attributes:
        quiet_passes: see above.
    """

    def __init__(
        self,
        split: Callable[[Collection[Question]], Iterable[list[Question]]],
        evaluate: Callable[[list[Question]], Mapping[Question, Outcome]],
        on_loop: Callable[[list[Question]], Awaitable[Mapping[Question, Outcome]]] | None = None,
    ) -> None:
        self.quiet_passes = QUIET_PASSES
        self._split = split
        self._evaluate, self._on_loop = evaluate, on_loop
        self._start()
        _batchers.add(self)

    def _start(self) -> None:
        self._gate = Lock()  # held for bookkeeping only, never while something is evaluated
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()
        self._blocked: list[tuple[Question, _Request]] = []
        self._working = False
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "genlm-bytes-batcher")

    # -- asking ---------------------------------------------------------------------------------------

    async def ask(self, nodes: Sequence[Question]) -> list[Outcome]:
        """The log-probabilities at each node, or what evaluating it raised."""
        if not nodes:
            return []
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[list[Outcome]] = loop.create_future()
        request = _Request(nodes, answers)
        with self._gate:
            mine = self._of(loop)
            for node in dict.fromkeys(nodes):
                asked = next((part[node] for part in mine.running.values() if node in part), None)
                (mine.waiting.setdefault(node, []) if asked is None else asked).append(request)
            mine.events += 1
            mine.settled = False
        self._stir(loop, mine)
        try:
            return await answers
        except asyncio.CancelledError:
            forsaken = [task for task, part in mine.running.items() if not any(map(_live, part.values()))]
            for task in forsaken:
                del mine.running[task]  # who asks from now on asks anew
                task.cancel()
            if forsaken:
                await asyncio.wait(forsaken)  # whoever cancels finds the model let go of
            raise

    def ask_and_wait(self, nodes: Sequence[Question]) -> list[Outcome]:
        """`ask` for a thread that waits."""
        if not nodes:
            return []
        answers = concurrent.futures.Future[list[Outcome]]()
        request = _Request(nodes, answers)
        with self._gate:
            self._blocked += [(node, request) for node in dict.fromkeys(nodes)]
            self._wake()
        return answers.result()

    def run(self, function: Callable[[], T]) -> T:
        """Run something else on the thread, after what is being evaluated; this thread waits for it."""
        return self._thread.submit(function).result()

    def _of(self, loop: asyncio.AbstractEventLoop) -> _Loop:
        mine = self._loops.get(loop)
        if mine is None:
            for other in [other for other in self._loops if other.is_closed()]:
                del self._loops[other]  # requests that were never handed over would keep it alive
            mine = self._loops[loop] = _Loop()
        return mine

    # -- waiting for quiet, on the loop's thread ------------------------------------------------------

    def _stir(self, loop: asyncio.AbstractEventLoop, mine: _Loop) -> None:
        if not mine.stirred:
            mine.stirred = True
            loop.call_soon(self._settle, loop, mine, mine.events, self.quiet_passes)

    def _settle(self, loop: asyncio.AbstractEventLoop, mine: _Loop, seen: int, quiet_passes: int) -> None:
        if mine.events != seen:
            quiet_passes = self.quiet_passes
        if quiet_passes and not (self.quiet_passes == UNTIL_IDLE and _is_idle(loop)):
            loop.call_soon(self._settle, loop, mine, mine.events, quiet_passes - 1)
            return
        mine.stirred = False
        with self._gate:
            mine.settled = True
            if mine.waiting and self._on_loop is None:
                self._wake()
                return
            waiting = {node: live for node, requests in mine.waiting.items() if (live := _live(requests))}
            mine.waiting = {}
        for part, failure in self._parts(waiting):
            task = loop.create_task(self._work_here(loop, mine, part, failure))
            mine.running[task] = {node: waiting[node] for node in part}

    async def _work_here(
        self,
        loop: asyncio.AbstractEventLoop,
        mine: _Loop,
        part: list[Question],
        failure: BaseException | None,
    ) -> None:
        found: Mapping[Question, Outcome]
        try:
            assert self._on_loop is not None
            found = await self._on_loop(part) if failure is None else dict.fromkeys(part, failure)
        except BaseException as error:
            found = dict.fromkeys(part, error)
        asked = mine.running.pop(cast("asyncio.Task[None]", asyncio.current_task()), None)
        if asked is None:
            return  # nobody waits
        self._receive(loop, mine, [(one, node, found[node]) for node in part for one in asked[node]])

    def _receive(
        self,
        loop: asyncio.AbstractEventLoop,
        mine: _Loop,
        answers: list[tuple[_Request, Question, Outcome]],
    ) -> None:
        for request, node, outcome in answers:
            request.answer(node, outcome)
        mine.events += 1
        self._stir(loop, mine)

    def _parts(self, asked: Collection[Question]) -> Iterator[tuple[list[Question], BaseException | None]]:
        """The parts of a batch. Where splitting it fails, the last is what is in none, with what was raised:
        whoever has been taken from what waits is answered."""
        left = dict.fromkeys(asked)
        try:
            for part in self._split(asked):
                for node in part:
                    left.pop(node, None)
                yield part, None
        except GeneratorExit:
            raise
        except BaseException as error:
            if left:
                yield list(left), error

    # -- working, on the worker's thread --------------------------------------------------------------

    def _wake(self) -> None:
        """Have what waits taken, now or after what is being worked. The gate is held."""
        if not self._working:
            self._thread.submit(self._work)
            self._working = True

    def _work(self) -> None:
        while askers := self._take():
            for part, failure in self._parts(askers):
                found: Mapping[Question, Outcome]
                try:
                    found = self._evaluate(part) if failure is None else dict.fromkeys(part, failure)
                except BaseException as error:
                    found = dict.fromkeys(part, error)
                self._give([(asker, node, found[node]) for node in part for asker in askers[node]])

    def _take(self) -> dict[Question, list[_Asker]]:
        """All that waits and may be taken, without those who have gone away."""
        taken: dict[Question, list[_Asker]] = {}
        with self._gate:
            for mine in [mine for mine in self._loops.values() if mine.settled]:
                for node, requests in mine.waiting.items():
                    live: list[_Asker] = [(mine, one) for one in _live(requests)]
                    if live:
                        taken.setdefault(node, []).extend(live)
                mine.waiting = {}
            for node, request in self._blocked:
                taken.setdefault(node, []).append((None, request))
            self._blocked = []
            self._working = bool(taken)
        return taken

    def _give(self, answers: Iterable[tuple[_Asker, Question, Outcome]]) -> None:
        by_loop: dict[_Loop, list[tuple[_Request, Question, Outcome]]] = {}
        for (mine, request), node, outcome in answers:
            if mine is None:
                request.answer(node, outcome)
            else:
                by_loop.setdefault(mine, []).append((request, node, outcome))
        for mine, items in by_loop.items():
            loop = cast("asyncio.Future[Any]", items[0][0].answers).get_loop()
            with self._gate:
                mine.settled = False
            try:
                loop.call_soon_threadsafe(self._receive, loop, mine, items)
            except RuntimeError:  # it was closed: nobody is left who could be told
                with self._gate:
                    self._loops.pop(loop, None)


def _live(requests: Iterable[_Request]) -> list[_Request]:
    return [one for one in requests if not one.answers.done()]


def _is_idle(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a callback that runs now is the last that is ready; False where the loop does not say."""
    ready = getattr(loop, "_ready", None)  # asyncio's own loops have it, others are waited for
    return ready is not None and not ready


_batchers: WeakSet[Batcher] = WeakSet()


def _start_anew() -> None:
    for worker in _batchers:
        worker._start()


if hasattr(os, "register_at_fork"):  # a forked child has no thread, and its parent's requests are not its own
    os.register_at_fork(after_in_child=_start_anew)
