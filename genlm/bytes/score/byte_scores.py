"""`Score`: the log-probability of each byte of a text, given all before it; totals and slices.

The chain rule is what makes slices meaningful: the log-probability of a span, given what stands before it,
is the sum of those of its bytes. It holds for any span, wherever a tokenizer would cut.

They are figures of hindsight (`hindsight.py`): what a beam finds late counts at every byte that it covers,
and none is above probability 1. What was never found is said by place: a slice tells how far off it may be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate
from typing import Any, Self, overload

import numpy as np
from jaxtyping import Float64

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["CharScores", "Score", "equal_fields", "stated_error"]

ERROR = 20.0
"""By what the sum of what is expected to be missing at both ends is multiplied for a stated error. Chosen on
nine texts, read as documents (`benchmarks/run.py judged`): docs/exactness.md says what it covers."""


def stated_error(before: float, after: float) -> float:
    """By how many nats the log-probability of a part of a text may be off; mostly by less (`ERROR`).

    Both ends count: what is missing before it makes it look too likely, what is missing after it too
    unlikely, and they seldom cancel.

    Args:
        before: nats expected to be missing where the part begins (`Score.unfound`).
        after: likewise where it ends.
    """
    error = ERROR * (before + after)
    return error if error == error else math.nan  # the one nan that is the same wherever it is


def equal_fields(one: Any, other: Any) -> bool:
    """Whether two instances of a dataclass have equal fields, arrays as a whole, and nan, which is what is
    not known, equal to nan: a copy is what it was copied from."""
    names = [field.name for field in fields(one)]
    return all(_equal(getattr(one, name), getattr(other, name)) for name in names)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | float) and isinstance(other, np.ndarray | float):
        return np.array_equal(one, other, equal_nan=True)
    return bool(one == other)


@dataclass(frozen=True, eq=False)
class Score:
    """Natural log-probabilities of the bytes of a text.

    `score[3]` is that of one byte, `score[3:6]` the score of a span; `score.chars` counts in characters.

    Args:
        text: the bytes.
        logprobs: of each byte given the context and the bytes before it, `[n]`. After a byte of minus
            infinity the others are nan: nothing is known of what follows the impossible.
        end: of the end of the text after them; None if it was not asked for.
        slack: the share of the probability that is expected to be missing, since tokenizations were left out;
            nan where it is not known, for an ensemble that is no mean (`genlm.bytes.ensemble.unfound`).
        unfound: by how many nats the log prefix probability is expected to be too low before each byte, and
            after the last, `[n + 1]`; nan where it is not known. A span's `slack` is that of its ends.

    Examples:
        >>> s = Score(b"ab", np.log([0.5, 0.25]))
        >>> round(s.bits, 6), round(s[1:].bits, 6), round(s.bits_per_byte, 6)
        (3.0, 2.0, 1.5)
    """

    text: bytes
    logprobs: Float64[np.ndarray, " n"]
    end: float | None = None
    slack: float = 0.0
    unfound: Float64[np.ndarray, " places"] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        text: bytes,
        logprobs: Float64[np.ndarray, " n"],
        end: float | None,
        unfound: Float64[np.ndarray, " places"],
    ) -> Self:
        """A score whose slack is that of its ends."""
        off = float(unfound[-1] - unfound[0])
        return cls(text, logprobs, end, -math.expm1(-abs(off)), unfound)

    @property
    def logprob(self) -> float:
        """The natural log-probability of the whole, the end included if it was asked for."""
        if (self.logprobs == -np.inf).any():
            return -math.inf
        return float(self.logprobs.sum()) + (self.end or 0.0)

    @property
    def missing(self) -> float:
        """By how many nats the log-probability of the whole is expected to be too low: `slack` as a length.

        It adds up over a text, as the log-probability does, where a share comes near 1; divide it by the
        number of bytes to compare texts of different lengths. Nan where it is not known. Nothing is
        certified: see `ByteBeamState.bounds`.
        """
        return math.inf if self.slack >= 1.0 else -math.log1p(-self.slack)

    @property
    def error(self) -> float:
        """By how many nats `logprob` may be off (`stated_error`); nan where it is not known."""
        known = self.unfound
        return math.nan if known is None else stated_error(float(known[0]), float(known[-1]))

    @property
    def bits(self) -> float:
        """The surprisal of the whole: its log-probability to base 1/2."""
        return -self.logprob / math.log(2) + 0.0

    @property
    def bits_per_byte(self) -> float:
        """`bits` by the number of bytes; nan for an empty text."""
        return self.bits / len(self.text) if self.text else math.nan

    @property
    def bits_per_char(self) -> float:
        """`bits` by the number of characters; nan for an empty text."""
        return self.bits / len(self.chars) if self.text else math.nan

    @cached_property
    def chars(self) -> CharScores:
        """The same by characters."""
        return CharScores(self)

    @property
    def above_one(self) -> int:
        """How many figures, of bytes and of the end, are above probability 1: mass that was found late."""
        return int((self.logprobs > 0.0).sum()) + ((self.end or 0.0) > 0.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Score) and equal_fields(self, other)

    def __hash__(self) -> int:
        return hash(self.text)

    def __len__(self) -> int:
        return len(self.text)

    @overload
    def __getitem__(self, at: int) -> float: ...
    @overload
    def __getitem__(self, at: slice) -> Score: ...
    def __getitem__(self, at: int | slice) -> float | Score:
        if not isinstance(at, slice):
            return float(self.logprobs[at])
        start, stop = bounds(at, len(self))
        text, logprobs = self.text[start:stop], self.logprobs[start:stop]
        if self.unfound is None:
            return Score(text, logprobs, None, self.slack)
        return Score.of(text, logprobs, None, self.unfound[start : stop + 1])

    def __repr__(self) -> str:
        said = f"{len(self)} bytes, logprob={self.logprob:.6g}, {self.bits_per_byte:.4g} bits per byte"
        above = f", {self.above_one} of them above probability 1" if self.above_one else ""
        return f"Score({said}{above})"


class CharScores:
    """A score that counts in characters: `score.chars[3:6]`, `score.chars.logprobs`.

    A byte that is no valid UTF-8 counts as a character of its own.
    """

    def __init__(self, score: Score) -> None:
        self.score = score
        self.text = score.text.decode(errors="surrogateescape")
        widths = (len(char.encode(errors="surrogateescape")) for char in self.text)
        self.offsets = list(accumulate(widths, initial=0))

    def __len__(self) -> int:
        return len(self.text)

    @property
    def logprobs(self) -> Float64[np.ndarray, " chars"]:
        """Natural log-probabilities of the characters, each given all before it."""
        logprobs, starts = self.score.logprobs, self.offsets[:-1]
        if not starts:
            return np.zeros(0)
        with np.errstate(invalid="ignore"):
            sums = np.add.reduceat(logprobs, starts)
        # A character with an impossible byte is impossible, whatever stands after that byte.
        return np.where(np.add.reduceat(np.isneginf(logprobs), starts), -np.inf, sums)

    @overload
    def __getitem__(self, at: int) -> float: ...
    @overload
    def __getitem__(self, at: slice) -> Score: ...
    def __getitem__(self, at: int | slice) -> float | Score:
        if isinstance(at, slice):
            start, stop = bounds(at, len(self))
            return self.score[self.offsets[start] : self.offsets[max(start, stop)]]
        at = range(len(self))[at]
        return self.score[self.offsets[at] : self.offsets[at + 1]].logprob

    def __repr__(self) -> str:
        return f"CharScores({len(self)} characters of {self.score!r})"


def bounds(at: slice, length: int) -> tuple[int, int]:
    """Where a slice begins and ends; as for a list, what lies beyond the ends is cut off."""
    if at.step not in (None, 1):
        raise bad_value("step", at.step, "a span has no gaps", "Use `logprobs[::step]` for an array.")
    try:
        start, stop, _ = at.indices(length)
    except TypeError:
        raise bad_type("slice", at, "must be of integers") from None
    return start, max(start, stop)
