"""Surprisals of words and other regions, and what a word's boundary has to do with them.

Let `c` be the bytes before a word `w`, the separator between them included.

- `"none"`: `-log P(w | c)`, the probability that the text goes on with these bytes: of "cat", "cats" and
  "category" together. For spans, and for scripts without separators.
- `"trailing"`: `-log P(w, then an end | c)`. An end is the separator, the end of the text, a punctuation mark
  where those are regions of their own, and whatever does end the word here. No word with its end is the
  beginning of another, so the probabilities of all words that may come next sum to at most 1.
- `"leading"`: `-log P(sep w | c without sep)`. The separator counts for the word after it, as tokens with a
  leading space have it; the word's own end does not count. The first word has no separator.

Pimentel & Meister 2024, "How to compute the probability of a word" (arXiv 2406.14561); Oh & Schuler 2024,
"Leading whitespaces of language models' subword vocabulary pose a confound for calculating word
probabilities" (arXiv 2406.10851). Both move the space's probability from the next token's beginning back
to the word that it ends; here each byte has its own probability, and nothing has to be moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.score.reading import Reading
from genlm.bytes.score.regions import Region
from genlm.bytes.trie import EOS

__all__ = ["BOUNDARIES", "Rule", "region_logprobs"]

BOUNDARIES = ("trailing", "leading", "none")
WHITESPACE = b" \t\n\r\v\f"


@dataclass(frozen=True)
class Rule:
    """What counts as a word's probability, checked.

    Attributes:
        boundary: see above.
        sep: the separator; None for any white space.
        marks: characters that are regions of their own.
        base: of the logarithm.
    """

    boundary: str
    sep: str | None
    marks: str
    base: float

    @classmethod
    def of(cls, boundary: Any, sep: Any, marks: str, base: Any, spans: bool) -> Rule:
        """The rule asked for; `boundary` None is trailing for words between separators, and else none.

        Raises:
            ValueError: a boundary that is none of the three; a trailing or leading one without a separator; a
                base that is not above 1.
            TypeError: a base that is no number, a separator that is no string.
        """
        if sep is not None and not isinstance(sep, str):
            raise bad_type("sep", sep, "must be a string, or None for any white space")
        if boundary is None:
            boundary = "none" if spans or sep == "" else "trailing"
        if boundary not in BOUNDARIES:
            raise bad_value("boundary", boundary, f"must be one of {', '.join(map(repr, BOUNDARIES))}")
        if boundary != "none" and sep == "":
            raise bad_value("boundary", boundary, "there is no separator", 'Use boundary="none".')
        if isinstance(base, bool) or not isinstance(base, int | float):
            raise bad_type("base", base, "must be a number above 1", "Use 2 for bits, math.e for nats.")
        if not 1.0 < base < math.inf:
            raise bad_value("base", base, "must be above 1", "Use 2 for bits, math.e for nats.")
        return cls(boundary, sep, marks, float(base))

    @property
    def trailing(self) -> bool:
        return self.boundary == "trailing"

    def is_sep(self, text: str) -> bool:
        """Whether a text begins with the separator."""
        return text[:1].isspace() if self.sep is None else bool(self.sep) and text.startswith(self.sep)

    @property
    def ends(self) -> list[int]:
        """The single bytes that end a word wherever it stands, and the end of the text."""
        sep = WHITESPACE if self.sep is None else self.sep.encode()
        found = set(sep) if self.sep is None or len(sep) == 1 else set[int]()
        return sorted({*found, *(ord(mark) for mark in self.marks if mark.isascii()), EOS})

    def wants_end(self, region: Region) -> bool:
        """Whether the end of a region counts. A run of marks needs none: the next may follow at once."""
        return self.trailing and region.kind != "punctuation"

    def start(self, text: str, region: Region, least: int) -> int:
        """Where what counts begins, in characters: with `"leading"` at the separators before the region.

        Args:
            text: the text.
            region: the region.
            least: where the region before it ends.
        """
        start = region.start
        if self.boundary == "leading":
            width = 1 if self.sep is None else len(self.sep)
            while start - width >= least and self.is_sep(text[start - width :]):
                start -= width
        return start

    def own_end(self, text: str, region: Region) -> str:
        """What ends a word here and is not among `ends`: a separator or mark of several bytes, or a mark
        that follows a given word.

        Raises:
            ValueError: the word does not end here: a letter or a digit follows.
        """
        rest = text[region.end :]
        if not rest or (rest[0].isascii() and ord(rest[0]) in self.ends):
            return ""
        if self.is_sep(rest):
            return self.sep or rest[0]
        if rest[0].isalnum():
            rule = f"is followed by {rest[0]!r}: the word does not end here, so there is no trailing boundary"
            word = text[region.start : region.end]
            raise bad_value(f"word at {region.start}", word, rule, 'Use boundary="none".')
        return rest[0]


def region_logprobs(
    text: str,
    regions: Sequence[Region],
    rule: Rule,
    offset: Sequence[int],
    reading: Reading,
    after: dict[int, Float64[np.ndarray, " 258"]],
) -> list[float]:
    """The natural log-probability of each region.

    Args:
        text: the text.
        regions: in order.
        rule: what counts.
        offset: where each character begins, in bytes; then the length of the text.
        reading: the text as read.
        after: what comes next, by byte offset, after each region whose end counts.
    """
    found, least = [], 0
    for region in regions:
        start = rule.start(text, region, least)
        logp = _sum(reading.logprobs[offset[start] : offset[region.end]])
        if rule.wants_end(region) and logp > -math.inf:
            end = offset[region.end]
            p = float(np.exp(after[end][rule.ends]).sum()) if end in after else math.nan
            own = rule.own_end(text, region)
            if own:
                p += math.exp(_sum(reading.logprobs[end : end + len(own.encode())]))
            logp += math.log(min(p, 1.0)) if p > 0.0 else -math.inf
        found.append(logp)
        least = region.end
    return found


def _sum(logprobs: Float64[np.ndarray, " n"]) -> float:
    return -math.inf if (logprobs == -np.inf).any() else float(logprobs.sum())
