"""Sums over all texts, and the line that says them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from genlm.bytes.cli.output import number
from genlm.bytes.score import ScoredText

__all__ = ["Totals", "unit_name"]


@dataclass(frozen=True)
class Totals:
    """Sums over the texts so far.

    Attributes:
        texts: how many.
        bytes: of all texts.
        chars: of all texts.
        logprob: natural, of all texts, of their ends too if these were asked for.
        impossible: how many texts the model cannot write; they make `logprob` minus infinity.
        above_one: how many figures of bytes and ends are above probability 1, since mass was found late.
    """

    texts: int = 0
    bytes: int = 0
    chars: int = 0
    logprob: float = 0.0
    impossible: int = 0
    above_one: int = 0

    def after(self, result: ScoredText) -> Totals:
        """The sums with one more text."""
        score = result.score
        return Totals(
            self.texts + 1,
            self.bytes + len(score.text),
            self.chars + len(score.chars),
            self.logprob + score.logprob,
            self.impossible + (score.logprob == -math.inf),
            self.above_one + score.above_one,
        )

    def document(self, base: float, rate: float | None) -> dict[str, Any]:
        """The sums as an event; the log-probability to a base, the rate in bytes per second."""
        return {
            "event": "totals",
            **asdict(self),
            "logprob": number(self.logprob / math.log(base)),
            "bits_per_byte": number(self._bits_per(self.bytes)),
            "bits_per_char": number(self._bits_per(self.chars)),
            "bytes_per_second": rate,
        }

    def line(self, base: float, rate: float | None = None) -> str:
        """The sums in a line; likewise."""
        sizes = [_some(self.texts, "text"), _some(self.bytes, "byte"), _some(self.chars, "character")]
        if self.impossible:
            sizes.append(f"{self.impossible:,} impossible")
        figures = [
            f"log-probability {self.logprob / math.log(base):.3f} {unit_name(base)}",
            f"{self._bits_per(self.bytes):.4f} bits per byte",
            f"{self._bits_per(self.chars):.4f} bits per character",
        ]
        late = f"; {_some(self.above_one, 'byte')} above probability 1, found late" if self.above_one else ""
        speed = "" if rate is None else f"; {rate:,.0f} bytes/s"
        return f"{', '.join(sizes)}: {', '.join(figures)}{late}{speed}"

    def _bits_per(self, count: int) -> float:
        return -self.logprob / math.log(2) / count + 0.0 if count else math.nan


def unit_name(base: float) -> str:
    """What a logarithm to a base is counted in."""
    return {math.e: "nats", 2.0: "bits"}.get(base, f"(base {base:g})")


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
