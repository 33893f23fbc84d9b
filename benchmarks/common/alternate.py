"""Two sides of a comparison, measured in turns.

**Problem.** A shared machine speeds up and slows down for minutes at a time. Timing one side after the
other compares the minutes.

**Idea.** Each side is a long-lived process (`Worker`) under its own interpreter. They are asked in
rounds A B, B A, A B, …, so each round compares neighbours in time and neither always goes first. A
round's figure of a side is the median of its timed calls.

**Reported.** The ratio of the two sides' medians over all rounds, and the interquartile range of the
rounds' own ratios: how far that ratio is to be trusted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.peers import HERE

__all__ = ["Comparison", "Reply", "Worker", "alternate", "only", "take_turns"]

SETTLE_SECONDS = 0.05  # lets the other side's idle thread pools stop spinning


@dataclass(frozen=True)
class Reply:
    """A worker's answer: the seconds of each timed call, by the clock and on all cores, and facts."""

    seconds: list[float]
    facts: dict[str, Any]
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Worker:
    """A process that runs the cases of a worker script. Use as a context manager.

    Args:
        python: the interpreter of this side.
        module: a module of this folder that ends in `serve()`, as `trie.worker`.
    """

    def __init__(self, python: Path | str, module: str) -> None:
        self.python, self.module = str(python), module

    def __enter__(self) -> Worker:
        # An empty folder of its own: a side must find its installed packages, not the working tree.
        self._folder = tempfile.TemporaryDirectory()
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONHOME"} | {"PYTHONPATH": str(HERE)}
        self._process = subprocess.Popen(
            [self.python, "-W", "ignore", "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder.name,
            env=environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def ask(self, case: str, **arguments: Any) -> Reply:
        """Run one case and wait for its reply; an exception over there is a `RuntimeError` here."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"case": case, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.python} -m {self.module} ended during `{case}`: see its output above")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"`{case}` failed under {self.python}:\n{reply['error']}")
        return Reply(**reply)


@dataclass
class Comparison:
    """Rounds of two sides. The unit is whatever was measured: seconds, or bytes."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def our_median(self) -> float:
        return statistics.median(self.ours)

    @property
    def their_median(self) -> float:
        return statistics.median(self.theirs)

    @property
    def ratio(self) -> float:
        """How many times larger their median is than ours."""
        return self.their_median / self.our_median

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the rounds' own ratios."""
        ratios = [b / a for a, b in zip(self.ours, self.theirs, strict=True)]
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        first, _, third = statistics.quantiles(ratios, n=4, method="inclusive")
        return first, third


def take_turns(
    asks: Mapping[str, Callable[[], Reply]], rounds: int, first_again: bool = False
) -> list[dict[str, list[Reply]]]:
    """Ask all sides in each of `rounds` rounds, the order turned round each time.

    Args:
        asks: how to ask each side.
        rounds: how many rounds.
        first_again: ask the first side before and after the others in every round instead: for others
            that take minutes, in which the machine's speed may change.
    """
    found = []
    for turn in range(rounds):
        order = list(asks) if turn % 2 == 0 or first_again else list(asks)[::-1]
        replies: dict[str, list[Reply]] = {side: [] for side in asks}
        for side in [*order, order[0]] if first_again else order:
            time.sleep(SETTLE_SECONDS)
            replies[side].append(asks[side]())
        found.append(replies)
    return found


def alternate(
    ours: Callable[[], Reply],
    theirs: Callable[[], Reply],
    rounds: int,
    measure: Callable[[Reply], float] = lambda reply: reply.median,
) -> Comparison:
    """A comparison of two sides that take turns."""
    found = take_turns({"ours": ours, "theirs": theirs}, rounds)
    return Comparison(
        [measure(replies["ours"][0]) for replies in found],
        [measure(replies["theirs"][0]) for replies in found],
    )


def only(ask: Callable[[], Reply], rounds: int) -> list[float]:
    """The same for one side alone: the median of each round."""
    return [ask().median for _ in range(rounds)]
