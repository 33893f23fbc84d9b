"""Rows against release 0.2.0: reading a text, writing after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from common.alternate import Reply, take_turns
from common.figures import Rounds, compare
from reading.row import READ, Line, Row, Session, bracketed, in_seconds, same_bytes

__all__ = ["Reading", "Writing"]

APART = 5e-3  # the most by which the two log Z may differ


def _first(reply: Reply) -> float:
    return reply.seconds[0]


def _second(reply: Reply) -> float:
    return reply.seconds[1]


def _both(reply: Reply) -> float:
    return reply.seconds[0] + reply.seconds[1]


@dataclass(frozen=True)
class Reading(Row):
    """`prefill` of the first bytes of the prose."""

    length: int
    threshold: float
    target: float
    against_release: ClassVar[bool] = True

    def measure(self, session: Session) -> Rounds:
        case: dict[str, Any] = {
            "text": session.text(0, self.length),
            "K": session.K,
            "threshold": self.threshold,
        }
        asks = {
            "ours": lambda: session.ours.ask("read", **case),
            "release": lambda: session.release("read", **case, keep=self.threshold == READ),
        }
        return _with_loss(session, take_turns(asks, session.rounds, first_again=True))

    def lines(self, rounds: Rounds) -> list[Line]:
        result = compare(rounds, "release", _first)
        what = f"read {self.length:,} bytes, threshold {self.threshold:g}; 0.2.0"
        return [_line(what, result, self.target)]

    def check(self, rounds: Rounds) -> tuple[bool, str]:
        return _same_logZ(rounds, "logZ")


@dataclass(frozen=True)
class Writing(Row):
    """Greedy bytes after a context that was read under `READ`."""

    context: int
    steps: int
    threshold: float
    target: float
    against_release: ClassVar[bool] = True

    def measure(self, session: Session) -> Rounds:
        case: dict[str, Any] = {
            "context": session.text(0, self.context),
            "K": session.K,
            "threshold": READ,
            "then": self.threshold,
            "steps": self.steps,
        }
        asks = {
            "ours": lambda: session.ours.ask("write", **case),
            "release": lambda: session.release("write", **case, keep=True),
        }
        return _with_loss(session, take_turns(asks, session.rounds, first_again=True))

    def lines(self, rounds: Rounds) -> list[Line]:
        what = f"write {self.steps} bytes after {self.context:,}, threshold {self.threshold:g}; 0.2.0"
        return [
            _line(what, compare(rounds, "release", _second), self.target),
            _line("— with reading the context", compare(rounds, "release", _both), None),
        ]

    def check(self, rounds: Rounds) -> tuple[bool, str]:
        ours, theirs = (rounds[-1][side][-1].facts for side in ("ours", "release"))
        same, how = same_bytes(ours, theirs)
        if ours["made"] != theirs["made"]:
            return same, how  # the two have read different bytes
        close, apart = _same_logZ(rounds, "logZ after")
        return same and close, f"{how}; after them {apart}"


def _line(what: str, result: Any, target: float | None) -> Line:
    shown = (in_seconds(result.our_median), in_seconds(result.their_median), bracketed(result, result.ratio))
    if target is None:
        return Line((what, *shown, ""))
    return Line((what, *shown, f"≥ {target:.0f}×"), result.ratio >= target)


def _with_loss(session: Session, rounds: Rounds) -> Rounds:
    """Add to the last reply of the release what its sums lose along our heaviest candidate."""
    facts = rounds[-1]["release"][-1].facts
    if "lost" not in facts:
        tokens = rounds[-1]["ours"][-1].facts["tokens"]
        facts |= session.theirs.ask("lost", tokens=tokens).facts
    return rounds


def _same_logZ(rounds: Rounds, key: str) -> tuple[bool, str]:
    """Compare log Z as it stands and without the release's loss; the latter decides.

    The release sums masses in float32 and loses about 1e-4 of every distribution. It divides by the sum,
    so its log Z is too high by 1e-4 a token: over a few hundred tokens more than `APART`.
    """
    ours, theirs = (rounds[-1][side][-1].facts[key] for side in ("ours", "release"))
    lost = rounds[-1]["release"][-1].facts["lost"]
    apart, corrected = abs(ours - theirs), abs(ours - theirs - lost)
    return corrected <= APART, (
        f"log Z {ours:.4f} and {theirs:.4f}, |Δ| {apart:.0e}; {corrected:.0e} without the {-lost:.0e} "
        "by which float32 sums of 0.2.0 raise it"
    )
