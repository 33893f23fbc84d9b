"""Figures as measured, kept as JSON row by row, so that an interrupted run loses one row at most.

Tables and plots are drawn from the file, which holds for each row its rounds (every reply of every side)
and the conditions: rows may come from different runs, and say so.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common.alternate import Comparison, Reply

__all__ = ["Figures", "Rounds", "compare", "middle", "on_cpu", "pack", "unpack"]

Rounds = list[dict[str, list[Reply]]]
Measure = Callable[[Reply], float]


class Figures:
    """The rows of one file, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._rows[name]
        return found

    def rounds(self, name: str) -> Rounds:
        """The replies of a row."""
        return unpack(self[name]["rounds"])

    def put(self, name: str, row: dict[str, Any]) -> None:
        """Keep a row, on disk at once."""
        self._rows[name] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in self._rows.items())
        unfinished.write_text("{\n" + lines + "\n}\n")
        unfinished.replace(self.path)


def pack(rounds: Rounds) -> list[dict[str, Any]]:
    """Rounds as JSON can hold them."""
    return [{side: [asdict(reply) for reply in replies] for side, replies in r.items()} for r in rounds]


def unpack(packed: list[dict[str, Any]]) -> Rounds:
    """The inverse of `pack`."""
    return [{side: [Reply(**reply) for reply in replies] for side, replies in r.items()} for r in packed]


def compare(
    rounds: Rounds, theirs: str, measure: Measure, their_measure: Measure | None = None
) -> Comparison:
    """Ours against another side; a side's figure of a round is the mean of its replies."""
    return Comparison(
        [statistics.mean(map(measure, r["ours"])) for r in rounds],
        [statistics.mean(map(their_measure or measure, r[theirs])) for r in rounds],
    )


def middle(rounds: Rounds, side: str, measure: Measure) -> float:
    """A side's median over all rounds."""
    return statistics.median(measure(reply) for r in rounds for reply in r[side])


def on_cpu(rounds: Rounds) -> Rounds | None:
    """The same with seconds of processor time, which other work on the machine changes less, if known."""
    if not all(reply.cpu for r in rounds for replies in r.values() for reply in replies):
        return None
    return [
        {side: [replace(reply, seconds=reply.cpu) for reply in replies] for side, replies in r.items()}
        for r in rounds
    ]
