"""Running coroutines from plain code: one event loop a process, on a thread of its own.

A notebook has a running loop already, R has none, and threads may share a model. So plain methods hand
their coroutines to a loop that belongs to none of these. The thread is a daemon and is stopped at exit.
Ctrl-C in the waiting thread cancels the coroutine and waits until it has let go.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from genlm.bytes.errors import GenlmBytesError, bad_type

__all__ = ["run"]

T = TypeVar("T")

_JOIN_S = 5.0
"""How long the exit of the process waits for a forward that is under way."""


class _Loop:
    """An event loop that runs on a thread of its own."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="genlm-bytes", daemon=True)
        self.thread.start()
        atexit.register(self.stop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        if tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=_JOIN_S / 2))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def stop(self) -> None:
        """Cancel what runs, and end the thread."""
        if self.process == os.getpid() and self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(_JOIN_S)


_current: _Loop | None = None
_lock = threading.Lock()


def _background() -> _Loop:
    """The process's loop; a child of fork gets one of its own."""
    global _current
    with _lock:
        if _current is None or _current.process != os.getpid():
            _current = _Loop()
        return _current


class _Work:
    """A coroutine that another thread waits for, and may give up at any moment: before it is begun, too."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.result = Future[Any]()
        self._coroutine = coroutine
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """On the loop."""
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._finish)

    def stop(self) -> None:
        """On the loop, after `start` or in place of it."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()
            self._cancel()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._cancel()
        elif (error := task.exception()) is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())

    def _cancel(self) -> None:
        self.result.cancel()
        self.result.set_running_or_notify_cancel()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result.

    Raises:
        GenlmBytesError: called from the background loop itself, which would wait for itself.
        TypeError: no coroutine.
    """
    if not asyncio.iscoroutine(coroutine):
        raise bad_type("coroutine", coroutine, "must be a coroutine, as `async def` functions return")
    background = _background()
    if threading.current_thread() is background.thread:
        coroutine.close()
        raise GenlmBytesError(
            "`ByteLM` was called from within its own event loop, by a mask perhaps. Use `AsyncByteLM` there."
        )
    work = _Work(coroutine)
    try:
        background.loop.call_soon_threadsafe(work.start)
        found: T = work.result.result()
        return found
    except BaseException:
        if not work.result.done():  # Ctrl-C, or another exception raised in the waiting thread
            background.loop.call_soon_threadsafe(work.stop)
            wait([work.result])
        raise
