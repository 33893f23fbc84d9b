"""How far a long context has been read, for whoever asked to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from genlm.bytes.errors import bad_type

__all__ = ["ReadingProgress", "reading_progress"]

ReadingProgress = Callable[[int, int], None]
"""Told how many bytes have been read, and of how many."""


@contextmanager
def reading_progress(progress: bool | ReadingProgress, total: int) -> Iterator[Callable[[int], None]]:
    """A function to tell how many bytes have been read.

    Args:
        progress: True shows a bar on stderr that is gone at the end; a function is called; False neither.
        total: the number of bytes.
    """
    if callable(progress):
        yield lambda done: progress(done, total)
    elif not isinstance(progress, bool):
        raise bad_type("progress", progress, "must be a bool, or a function of two numbers of bytes")
    elif not progress:
        yield lambda done: None
    else:
        from rich.console import Console  # slow to import, and only wanted here
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Reading", total=total)
            yield lambda done: bar.update(task, completed=done)
