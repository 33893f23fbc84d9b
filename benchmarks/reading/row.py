"""What a row of the reading benchmark is, and what all rows use."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from common.alternate import Comparison, Reply, Worker
from common.figures import Rounds
from common.model_folders import model_folder
from common.options import Options
from common.peers import HERE, python_of

__all__ = ["READ", "Line", "Row", "Session", "bracketed", "in_seconds", "same_bytes", "times"]

READ = 0.05  # the threshold under which contexts are read, unless a row says otherwise
WORKER = "reading.worker"
TEXT = HERE / "texts" / "english.txt"
MARGIN = 1e-3  # a lead in probability under which round-off may decide which byte is likelier


@dataclass(frozen=True)
class Line:
    """A line of the table; `met` is None where there is no target."""

    cells: tuple[str, str, str, str, str]  # what, ours, theirs, ratio, target
    met: bool | None = None


@dataclass(frozen=True)
class Row(ABC):
    """Measures something, and later says what was found."""

    name: str
    against_release: ClassVar[bool] = False
    timed: ClassVar[bool] = True  # whether its ratios are of times

    @abstractmethod
    def measure(self, session: Session) -> Rounds:
        """Every reply of every side."""

    def lines(self, rounds: Rounds) -> list[Line]:
        """Lines of the table."""
        return []

    def check(self, rounds: Rounds) -> tuple[bool, str] | None:
        """Whether all sides gave the same results, and how closely; None if there is nothing to compare."""
        return None

    def notes(self, rounds: Rounds) -> list[str]:
        """What else there is to say."""
        return []


class Session:
    """The options, the text, and a worker a side, started when first needed."""

    def __init__(self, options: Options) -> None:
        self.options, self.rounds = options, 1
        self.K = options.K
        self.release_replies: list[Reply] = []  # of an earlier run, to be used instead of asking
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        return model_folder(self.options.model)

    @cached_property
    def ours(self) -> Worker:
        return self.worker(sys.executable, self._stack)

    @cached_property
    def theirs(self) -> Worker:
        python = python_of("release")
        side = self.worker(python, self._stack)
        found = side.ask("versions").facts
        assert found.get("genlm-bytes") == "0.2.0", f"{python} holds {found}"
        return side

    def release(self, case: str, **arguments: Any) -> Reply:
        """What release 0.2.0 answers, or has answered in the run that is kept."""
        if self.release_replies:
            return self.release_replies.pop(0)
        return self.theirs.ask(case, **arguments)

    def worker(self, python: Path | str, stack: ExitStack) -> Worker:
        """A process of its own, the model loaded and all code run once."""
        side = stack.enter_context(Worker(python, WORKER))
        self.loaded = side.ask("load", folder=str(self.folder), device=self.options.device).facts
        return side

    @cached_property
    def whole_text(self) -> str:
        return TEXT.read_text(encoding="ascii")

    def text(self, start: int, stop: int) -> str:
        """A part of the prose."""
        text = self.whole_text
        assert stop <= len(text), f"{TEXT} has {len(text)} bytes, a row needs {stop}"
        return text[start:stop]


def in_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×"


def bracketed(result: Comparison, ratio: float) -> str:
    """A ratio with the quartiles of the rounds' own, if there are rounds enough. Either way round."""
    if len(result.ours) < 2:
        return times(ratio)
    first, third = result.quartiles
    if ratio != result.ratio:
        first, third = 1 / third, 1 / first
    return f"{times(ratio)} ({first:.2f}–{third:.2f})"


def same_bytes(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[bool, str]:
    """Whether two greedy continuations agree wherever the lead of the likeliest byte exceeds `MARGIN`.

    From the first difference on the two have read different bytes, so nothing can be said there.
    """
    a, b = ours["made"], theirs["made"]
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if at == len(a) == len(b):
        return True, f"the same {at} bytes"
    leads = [facts["leads"][at] for facts in (ours, theirs) if at < len(facts["leads"])]
    return max(leads) <= MARGIN, f"the first {at} bytes the same, then leads of {max(leads):.0e}"
