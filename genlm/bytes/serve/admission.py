"""How much is worked at once: so many requests, so many more that wait, and the rest is refused.

Requests that are worked share forwards, so more of them cost less each, up to what memory and patience allow.
Those that wait are served in the order in which they came. A request holds its place until its last byte is
given to the connection, or its client has gone, or its time is up.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import Request

from genlm.bytes.serve.failures import ClientGone, Refusal
from genlm.bytes.serve.settings import Settings

__all__ = ["Admission", "Deadline", "while_wanted"]

T = TypeVar("T")


class Admission:
    """The places of a server.

    Attributes:
        running: requests that are worked.
        waiting: requests that wait.
    """

    def __init__(self, settings: Settings) -> None:
        self.running = self.waiting = 0
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._at_once, self._most_waiting = settings.max_concurrent, settings.max_queue
        self._seconds = 1.0  # that a request takes, of late

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, as soon as one is free.

        Raises:
            Refusal: too many wait already.
        """
        if self._places.locked() and self.waiting >= self._most_waiting:
            after = max(1, math.ceil(self._seconds * (self.waiting + 1) / self._at_once))
            message = f"{self.running} requests are worked and {self.waiting} wait. Try again in {after} s."
            raise Refusal(429, message, code="queue_full", retry_after=after)
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        begun = time.monotonic()
        try:
            yield
        finally:
            self.running -= 1
            self._seconds += 0.2 * (time.monotonic() - begun - self._seconds)
            self._places.release()


class Deadline:
    """When a request's time is up."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - time.monotonic())

    @property
    def refusal(self) -> Refusal:
        """What is said when it is up."""
        return Refusal(
            504, f"it took longer than the {self.seconds:g} s that a request may take.", code="timeout"
        )


async def while_wanted(work: Coroutine[Any, Any, T], request: Request, deadline: Deadline) -> T:
    """The result of some work, which ends when the client has gone or the time is up.

    Raises:
        ClientGone: it has.
        Refusal: it is.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, gone}, timeout=deadline.left, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone if gone.done() else deadline.refusal
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _left(request: Request) -> None:
    """Wait for the client to hang up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
