"""Surprisals of words and other regions, and what a word's boundary has to do with them.

Let `c` be the bytes before a word `w`, the separator between them included.

- `"none"`: `-log P(w | c)`, the probability that the text goes on with these bytes: of "cat", "cats" and
  "category" together. For spans, and for scripts without separators.
- `"trailing"`: `-log P(w, then an end | c)`. An end is the whole separator, the end of the text, a
  punctuation mark where those are regions of their own, and whatever does end the word here; the same
  everywhere, at the text's end too (`ends.py`). No word with its end is the beginning of another, so the
  probabilities of all words that may come next sum to at most 1.
- `"leading"`: `-log P(sep w | c without sep)`. The separator counts for the word after it, as tokens with a
  leading space have it; the word's own end does not count. The first word has no separator.

Pimentel & Meister 2024, "How to compute the probability of a word" (arXiv 2406.14561); Oh & Schuler 2024,
"Leading whitespaces of language models' subword vocabulary pose a confound for calculating word
probabilities" (arXiv 2406.10851). Both move the space's probability from the next token's beginning back
to the word that it ends; here each byte has its own probability, and nothing has to be moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.score.boundaries import continues
from genlm.bytes.score.ends import SPACES, EndProbability
from genlm.bytes.score.reading import Reading
from genlm.bytes.score.regions import Region, punctuation_marks

__all__ = ["BOUNDARIES", "Rule", "log_sum", "region_logprobs", "region_places"]

BOUNDARIES = ("trailing", "leading", "none")


@dataclass(frozen=True)
class Rule:
    """What counts as a word's probability, checked.

    Attributes:
        sep: the separator; None for any white space.
        marks: characters that are regions of their own.
    """

    boundary: str
    sep: str | None
    marks: str
    base: float

    @classmethod
    def of(cls, boundary: Any, sep: Any, punctuation: Any, base: Any, spans: bool) -> Rule:
        """The rule asked for; `boundary` None is trailing for words between separators, and else none.

        Raises:
            ValueError: a boundary that is none of the three; a trailing or leading one without a separator; a
                base that is not above 1.
            TypeError: a base that is no number, a separator that is no string.
        """
        marks = punctuation_marks(punctuation)
        if sep is not None and not isinstance(sep, str):
            raise bad_type("sep", sep, "must be a string, or None for any white space")
        as_bytes("sep", sep or "")
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
    def ends(self) -> tuple[str, ...]:
        """What ends a word wherever it stands, beside the end of the text."""
        return (*(SPACES if self.sep is None else [self.sep]), *self.marks)

    def ends_of(self, text: str, region: Region) -> tuple[str, ...]:
        """`ends`, and what ends this region besides."""
        own = self.own_end(text, region)
        return (*self.ends, own) if own else self.ends

    def wants_end(self, region: Region) -> bool:
        """Whether the end of a region counts. A run of marks needs none: the next may follow at once. Nor
        does a part of a word ("do", "n't"): parts sum to the whole, of which the last has the end."""
        return self.trailing and region.kind not in ("punctuation", "part")

    def start(self, text: str, region: Region, least: int) -> int:
        """Where what counts begins, in characters; with `"leading"` at the separators before it."""
        start = region.start
        if self.boundary == "leading":
            width = 1 if self.sep is None else len(self.sep)
            while start - width >= least and self.is_sep(text[start - width :]):
                start -= width
        return start

    def own_end(self, text: str, region: Region) -> str:
        """What ends a word here: one of `ends`, or what follows a given word; "" at the end of the text.

        Raises:
            ValueError: the word does not end here: a letter, a digit or a combining mark follows.
        """
        rest = text[region.end :]
        known = [end for end in self.ends if rest.startswith(end)]
        if known or not rest:
            return min(known, key=len, default="")
        if continues(rest[0]):
            rule = f"is followed by {rest[0]!r}: the word does not end here, so there is no trailing boundary"
            word = text[region.start : region.end]
            raise bad_value(f"word at {region.start}", word, rule, 'Use boundary="none".')
        return rest[0]


def region_places(text: str, regions: Sequence[Region], rule: Rule, offset: Sequence[int]) -> set[int]:
    """The byte offsets between which `region_logprobs` sums."""
    found, least = set[int](), 0
    for region in regions:
        found |= {offset[rule.start(text, region, least)], offset[region.start], offset[region.end]}
        if rule.wants_end(region):
            found.add(offset[region.end + len(rule.own_end(text, region))])
        least = region.end
    return found


def region_logprobs(
    text: str,
    regions: Sequence[Region],
    rule: Rule,
    offset: Sequence[int],
    reading: Reading,
    ended: Mapping[int, EndProbability],
) -> list[tuple[float, int]]:
    """The natural log-probability of each region; and how many figures in this sum are above 0.

    Args:
        offset: where each character begins, in bytes; then the length of the text.
        ended: the probability that an end comes next, by byte offset, after each region whose end counts.
    """
    found, least = list[tuple[float, int]](), 0
    for region in regions:
        start = rule.start(text, region, least)
        ours = reading.logprobs[offset[start] : offset[region.end]]
        logp, above = log_sum(ours), int((ours > 0.0).sum())
        if rule.wants_end(region) and logp > -math.inf:
            p = ended[offset[region.end]].p if offset[region.end] in ended else math.nan  # inside a unit
            logp += math.log(p) if p != 0.0 else -math.inf
            above += p > 1.0
        found.append((logp, above))
        least = region.end
    return found


def log_sum(logprobs: Float64[np.ndarray, " n"]) -> float:
    """The log-probability of some bytes: minus infinity where one is impossible, whatever follows it."""
    return -math.inf if (logprobs == -np.inf).any() else float(logprobs.sum())
