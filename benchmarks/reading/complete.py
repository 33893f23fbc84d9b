"""The row of the reading benchmark that times `complete` as people call it: from a prompt to new text."""

from __future__ import annotations

from dataclasses import dataclass

from common.alternate import Comparison, Reply, take_turns
from common.figures import Rounds, compare
from reading.row import Line, Row, Session, bracketed, in_seconds

__all__ = ["Complete"]


@dataclass(frozen=True)
class Complete(Row):
    """`complete` from a cold prompt: to the last byte against `transformers.generate`, which is cold too; to
    the first new bytes against one plain forward over the prompt."""

    context: int
    steps: int
    target: float
    first_target: float

    def measure(self, session: Session) -> Rounds:
        context = session.text(0, self.context)
        asks = {
            "ours": lambda: session.ours.ask("complete", context=context, most=self.steps),
            "generate": lambda: session.ours.ask("generate", context=context, least=self.steps),
            "forward": lambda: session.ours.ask("forward", text=context),
        }
        return take_turns(asks, session.rounds)

    def lines(self, rounds: Rounds) -> list[Line]:
        whole = compare(rounds, "generate", _seconds_a_byte, _seconds_a_byte)
        first = compare(rounds, "forward", _first)
        slower = 1 / first.ratio
        cells = (in_seconds(first.our_median), in_seconds(first.their_median), bracketed(first, slower))
        what = f"first new byte after a cold {self.context:,}-byte prompt; one plain forward"
        return [
            self._speed(f"`complete`, {self.steps} bytes from a cold {self.context:,}; `generate`", whole),
            Line((what, *cells, f"≤ {self.first_target:g}×"), slower <= self.first_target),
        ]

    def _speed(self, what: str, result: Comparison) -> Line:
        shown = [f"{1 / seconds:.1f} B/s" for seconds in (result.our_median, result.their_median)]
        cells = (what, shown[0], shown[1], bracketed(result, result.ratio), f"≥ {self.target}×")
        return Line(cells, result.ratio >= self.target)

    def check(self, rounds: Rounds) -> tuple[bool, str]:
        ours, theirs = (rounds[-1][side][-1].facts["made"] for side in ("ours", "generate"))
        same = ours == theirs[: len(ours)]
        # The text goes on from the prompt's last word, which we let be cut in any way.
        return True, f"the text of `complete` is {'' if same else 'not '}that of `generate`"


def _first(reply: Reply) -> float:
    return reply.seconds[0]


def _seconds_a_byte(reply: Reply) -> float:
    return sum(reply.seconds) / reply.facts.get("bytes", len(reply.facts["made"]))
