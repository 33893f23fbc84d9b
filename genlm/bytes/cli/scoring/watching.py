"""Progress for whoever watches: a bar on stderr with texts, bytes and the rate."""

from __future__ import annotations

import math
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
    """How fast texts are scored."""

    def __init__(self, sources: Sequence[Source], shown: bool) -> None:
        self._sources = sources
        self._texts = self._bytes = 0
        self._began = math.nan
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)

    def start(self) -> None:
        """Scoring begins: what came before, loading a model above all, does not count."""
        sizes = [source.size for source in self._sources]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        self._began = time.monotonic()
        self._task = self._bar.add_task("Scoring", total=total)
        self._bar.start()

    @property
    def rate(self) -> float | None:
        """Bytes per second since the start; None if nothing was scored."""
        return self._bytes / max(time.monotonic() - self._began, 1e-9) if self._bytes else None

    def follow(self, results: Iterable[ScoredText]) -> Generator[ScoredText, None, None]:
        """The results as they come, counted; they call `start` before the first."""
        try:
            for result in results:
                self._texts += 1
                self._bytes += len(result.record.text)
                said = f"{self._texts:,} texts, {self._bytes:,} bytes, {self.rate or 0:,.0f} bytes/s"
                read = sum(source.consumed for source in self._sources)
                self._bar.update(self._task, completed=read, description=said)
                yield result
        finally:
            self._bar.stop()
