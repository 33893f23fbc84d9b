"""Rows against a plain model: one forward, `transformers.generate`, and our own side under other loads."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from common.alternate import Comparison, Reply, take_turns
from common.figures import Rounds, compare, middle
from reading.row import READ, Line, Row, Session, bracketed, in_seconds, same_bytes, times

__all__ = ["Forward", "Generate", "Longer", "Memory", "Together"]


@dataclass(frozen=True)
class Forward(Row):
    """`prefill` against one plain forward over the tokenizer's own tokens, which yields no beam."""

    length: int
    target: float

    def measure(self, session: Session) -> Rounds:
        text = session.text(0, self.length)
        asks = {
            "ours": lambda: session.ours.ask("read", text=text, K=session.K, threshold=READ),
            "forward": lambda: session.ours.ask("forward", text=text),
        }
        return take_turns(asks, session.rounds)

    def lines(self, rounds: Rounds) -> list[Line]:
        result = compare(rounds, "forward", lambda reply: reply.seconds[0])
        ratio = 1 / result.ratio
        shown = (in_seconds(result.our_median), in_seconds(result.their_median), bracketed(result, ratio))
        what = f"read {self.length:,} bytes, threshold {READ}; one plain forward"
        return [Line((what, *shown, f"≤ {self.target:g}×"), ratio <= self.target)]


@dataclass(frozen=True)
class Generate(Row):
    """Greedy bytes against greedy tokens, by the speed in bytes per second."""

    context: int
    steps: int
    target: float

    def measure(self, session: Session) -> Rounds:
        context = session.text(0, self.context)
        case: dict[str, Any] = {"K": session.K, "threshold": READ, "then": READ, "steps": self.steps}
        asks = {
            "ours": lambda: session.ours.ask("write", context=context, **case),
            "generate": lambda: session.ours.ask("generate", context=context, least=self.steps),
        }
        return take_turns(asks, session.rounds)

    def lines(self, rounds: Rounds) -> list[Line]:
        what = f"write {self.steps} bytes after {self.context:,}; `generate`"
        writing = compare(rounds, "generate", *(_a_byte(self, False)))
        both = compare(rounds, "generate", *(_a_byte(self, True)))
        return [
            self._line(what, writing, self.target),
            self._line("— with reading the context", both, None),
        ]

    def _line(self, what: str, result: Comparison, target: float | None) -> Line:
        shown = (_speed(result.our_median), _speed(result.their_median), bracketed(result, result.ratio))
        if target is None:
            return Line((what, *shown, ""))
        return Line((what, *shown, f"≥ {target}×"), result.ratio >= target)


def _a_byte(row: Generate, with_context: bool) -> tuple[Any, Any]:
    """Seconds per byte on each side: theirs may make a few bytes more than asked for."""
    first = 0 if with_context else 1
    return (
        lambda reply: sum(reply.seconds[first:]) / len(reply.facts["made"]),
        lambda reply: sum(reply.seconds[first:]) / reply.facts["bytes"],
    )


def _speed(seconds_a_byte: float) -> str:
    return f"{1 / seconds_a_byte:.1f} B/s"


@dataclass(frozen=True)
class Longer(Row):
    """The same bytes read one at a time, each with its distribution, after a long and a short context.

    Both contexts end where the bytes begin, so the beams meet nearly the same choices.
    """

    long: int
    short: int
    steps: int
    target: float

    def measure(self, session: Session) -> Rounds:
        text = session.text(self.long, self.long + self.steps)

        def ask(length: int) -> Reply:
            context = session.text(self.long - length, self.long)
            return session.ours.ask("follow", context=context, text=text, K=session.K, threshold=READ)

        return take_turns({"ours": lambda: ask(self.long), "short": lambda: ask(self.short)}, session.rounds)

    def lines(self, rounds: Rounds) -> list[Line]:
        result = compare(rounds, "short", lambda reply: reply.seconds[0] / self.steps)
        ratio = 1 / result.ratio
        shown = (in_seconds(result.our_median), in_seconds(result.their_median), bracketed(result, ratio))
        what = f"a byte after {self.long:,} bytes; after {self.short}"
        return [Line((what, *shown, f"≤ {self.target:g}×"), ratio <= self.target)]


@dataclass(frozen=True)
class Together(Row):
    """Several prompts read and continued at once, against one after another."""

    prompts: int
    length: int
    steps: int
    target: float

    def measure(self, session: Session) -> Rounds:
        step = len(session.whole_text) // self.prompts
        texts = [session.text(i * step, i * step + self.length) for i in range(self.prompts)]
        case = {"texts": texts, "K": session.K, "threshold": READ, "steps": self.steps}
        asks = {
            "ours": lambda: session.ours.ask("prompts", **case, together=True),
            "apart": lambda: session.ours.ask("prompts", **case, together=False),
        }
        return take_turns(asks, session.rounds)

    def lines(self, rounds: Rounds) -> list[Line]:
        stages = (
            (f"read {self.length} bytes", lambda reply: reply.seconds[0], None),
            (f"write {self.steps} bytes", lambda reply: reply.seconds[1], None),
            ("both", lambda reply: sum(reply.seconds), self.target),
        )
        found = []
        for what, measure, target in stages:
            result = compare(rounds, "apart", measure)
            cells = (
                f"{self.prompts} prompts at once, {what}; one by one",
                in_seconds(result.our_median),
                in_seconds(result.their_median),
                bracketed(result, result.ratio),
                f"≥ {target:g}×" if target else "",
            )
            found.append(Line(cells, result.ratio >= target if target else None))
        return found

    def check(self, rounds: Rounds) -> tuple[bool, str]:
        at_once, apart = (rounds[-1][side][-1].facts for side in ("ours", "apart"))
        same = [
            same_bytes({"made": a, "leads": la}, {"made": b, "leads": lb})
            for a, la, b, lb in zip(
                at_once["made"], at_once["leads"], apart["made"], apart["leads"], strict=True
            )
        ]
        most = max(abs(a - b) for a, b in zip(at_once["logZ"], apart["logZ"], strict=True))
        equal = sum(a == b for a, b in zip(at_once["made"], apart["made"], strict=True))
        good = all(ok for ok, _ in same) and most <= 5e-3
        return good, f"{equal} of {len(same)} continuations the same; |Δ log Z| at most {most:.0e}"


@dataclass(frozen=True)
class Memory(Row):
    """The memory that reading a long context takes, in fresh processes: under our default and a low limit."""

    length: int
    limit: int
    timed: ClassVar[bool] = False

    def measure(self, session: Session) -> Rounds:
        def ask(limit: int | None) -> Reply:
            with ExitStack() as stack:
                fresh = session.worker(sys.executable, stack)
                text = session.text(0, self.length)
                return fresh.ask("memory", text=text, K=session.K, threshold=READ, limit=limit)

        return take_turns({"ours": lambda: ask(None), "limited": lambda: ask(self.limit)}, 1)

    def lines(self, rounds: Rounds) -> list[Line]:
        found = []
        for side, what in (("ours", "by default"), ("limited", "set lower")):
            facts = rounds[-1][side][-1].facts
            cells = (
                f"memory to read {self.length:,} bytes, max_cache_bytes {what}",
                f"+{_size(facts['peak'] - facts['before'])}",
                f"cache {_size(facts['cache'])}",
                times(facts["cache"] / facts["limit"]),
                f"≤ {_size(facts['limit'])}",
            )
            found.append(Line(cells, facts["cache"] <= facts["limit"]))
        return found

    def check(self, rounds: Rounds) -> tuple[bool, str]:
        free, limited = (rounds[-1][side][-1].facts for side in ("ours", "limited"))
        apart = abs(free["logZ"] - limited["logZ"])
        took = [in_seconds(middle(rounds, side, lambda r: r.seconds[0])) for side in ("ours", "limited")]
        return apart <= 5e-3, (
            f"|Δ log Z| {apart:.0e} between the two; {took[0]} and {took[1]}, with {free['evictions']:,} and "
            f"{limited['evictions']:,} evictions; before the reading the process held {_size(free['before'])}"
        )


def _size(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
