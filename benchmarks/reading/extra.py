"""Rows that feed the plot and the profile rather than the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from common.alternate import Reply
from common.figures import Rounds
from reading.row import READ, Row, Session, in_seconds

__all__ = ["Curve", "Profile", "ReleaseCurve", "at_length"]


@dataclass(frozen=True)
class Curve(Row):
    """Reading texts of several lengths, and writing after each: ours and a plain model. A round a length."""

    lengths: tuple[int, ...]
    steps: int

    def measure(self, session: Session) -> Rounds:
        return [self._at(session, length) for length in self.lengths]

    def _at(self, session: Session, length: int) -> dict[str, list[Reply]]:
        context = session.text(0, length)
        case: dict[str, Any] = {"K": session.K, "threshold": READ, "then": READ, "steps": self.steps}
        return {
            "ours": [at_length(session.ours.ask("write", context=context, **case), length)],
            "forward": [at_length(session.ours.ask("forward", text=context), length)],
            "generate": [at_length(session.ours.ask("generate", context=context, least=self.steps), length)],
        }


@dataclass(frozen=True)
class ReleaseCurve(Row):
    """The same on the side of release 0.2.0, at short lengths."""

    lengths: tuple[int, ...]
    steps: int
    against_release: ClassVar[bool] = True

    def measure(self, session: Session) -> Rounds:
        case: dict[str, Any] = {"K": session.K, "threshold": READ, "then": READ, "steps": self.steps}
        found = []
        for length in self.lengths:
            reply = session.release("write", context=session.text(0, length), **case)
            found.append({"release": [at_length(reply, length)]})
        return found


def at_length(reply: Reply, length: int) -> Reply:
    """A reply that says how long its context was."""
    return replace(reply, facts={**reply.facts, "length": length})


@dataclass(frozen=True)
class Profile(Row):
    """Where our time goes, by kind of work (`exclusive.py`)."""

    context: int
    steps: int

    def measure(self, session: Session) -> Rounds:
        reply = session.ours.ask(
            "profile", context=session.text(0, self.context), K=session.K, threshold=READ, steps=self.steps
        )
        return [{"ours": [reply]}]

    def notes(self, rounds: Rounds) -> list[str]:
        facts = rounds[-1]["ours"][-1].facts
        return [
            _shares(f"profile of reading {self.context:,} bytes", facts["read"]),
            _shares(f"profile of writing {facts['bytes']} bytes after them", facts["write"]),
        ]


def _shares(what: str, found: dict[str, Any]) -> str:
    shares = sorted(found["seconds"].items(), key=lambda item: -item[1])
    words = ", ".join(f"{kind} {seconds / found['total']:.0%}" for kind, seconds in shares)
    return (
        f"{what}: {in_seconds(found['total'])} with the stopwatches, {found['forwards']} forwards of "
        f"{found['tokens_run']:,} contexts: {words}"
    )
