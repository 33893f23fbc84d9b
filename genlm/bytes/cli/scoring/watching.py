"""Progress for whoever watches: a bar on stderr with texts, bytes and the rate."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from genlm.bytes.cli.scoring.source import Source

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText

__all__ = ["Pace"]


class Pace:
    """How fast texts are scored.

    Args:
        sources: where they come from; how much of them has been read says how far it is.
        shown: whether somebody watches.
    """

    def __init__(self, sources: Sequence[Source], shown: bool) -> None:
        self._sources, self._shown = sources, shown
        self._texts = self._bytes = 0
        self._began: float | None = None

    @property
    def rate(self) -> float | None:
        """Bytes per second since the first text was asked for; None if none was scored."""
        if not self._bytes or self._began is None:
            return None
        return self._bytes / max(time.monotonic() - self._began, 1e-9)

    def follow(self, results: Iterable[ScoredText]) -> Generator[ScoredText, None, None]:
        """The results as they come, counted."""
        self._began = time.monotonic()
        sizes = [source.size for source in self._sources]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not self._shown) as bar:
            task = bar.add_task("Scoring", total=total)
            for result in results:
                self._texts += 1
                self._bytes += len(result.record.text)
                said = f"{self._texts:,} texts, {self._bytes:,} bytes, {self.rate or 0:,.0f} bytes/s"
                bar.update(task, completed=sum(source.consumed for source in self._sources), description=said)
                yield result
