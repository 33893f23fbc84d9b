"""Minimal pairs: of two texts that differ in one thing, which does a model hold for likelier?

The pairs of a batch are read together. Before each batch the model forgets what it has read, so a pair's
figures depend on its batch alone, and a run that is gone on with has those of one without an end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from genlm.bytes.score.choices import Choices, Normalise

__all__ = ["PAIRS_AT_ONCE", "Pair", "PairTotals", "ScoredPair", "score_pairs"]

PAIRS_AT_ONCE = 32
"""Pairs a batch."""


@dataclass(frozen=True)
class Pair:
    """Two texts.

    Attributes:
        id: what the pair is called.
        good: the text that should be likelier.
        bad: the other.
        context: what stands before both.
        groups: names of groups that it counts in, by the column that names them.
    """

    id: str
    good: bytes
    bad: bytes
    context: bytes = b""
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredPair:
    """A pair and what it was found to be.

    Attributes:
        pair: the pair.
        good: what is compared, in nats: the log-probability, or what it was normalised to.
        bad: the same of the other.
    """

    pair: Pair
    good: float
    bad: float

    @property
    def margin(self) -> float:
        """By how much the good one is better, in nats; nan where neither is possible."""
        return self.good - self.bad if max(self.good, self.bad) > -math.inf else math.nan

    @property
    def correct(self) -> bool:
        """Whether it is better. A tie is not."""
        return self.good > self.bad


@dataclass(frozen=True)
class PairTotals:
    """Sums over pairs. A value.

    Attributes:
        pairs: how many.
        correct: of how many the good one is better.
        ties: of how many neither is.
        margins: the sum of the finite margins, in nats.
        finite: how many these are.
    """

    pairs: int = 0
    correct: int = 0
    ties: int = 0
    margins: float = 0.0
    finite: int = 0

    def after(self, found: ScoredPair) -> PairTotals:
        """The sums with one more."""
        finite = math.isfinite(found.margin)
        return replace(
            self,
            pairs=self.pairs + 1,
            correct=self.correct + found.correct,
            ties=self.ties + (found.good == found.bad),
            margins=self.margins + (found.margin if finite else 0.0),
            finite=self.finite + finite,
        )

    @property
    def accuracy(self) -> float:
        """The share of the pairs that are correct; nan for none."""
        return self.correct / self.pairs if self.pairs else math.nan

    @property
    def mean_margin(self) -> float:
        """The mean of the finite margins, in nats; nan for none."""
        return self.margins / self.finite if self.finite else math.nan


def score_pairs(
    lm: Any, pairs: Iterable[Pair], normalise: Normalise = None, *, end: bool = False, **options: Any
) -> Iterator[ScoredPair]:
    """Compare pairs, in their order, a batch at a time.

    Args:
        lm: a `ByteLM`, an ensemble too.
        pairs: the pairs, taken as they are needed.
        normalise: see `ByteLM.choices`.
        end: whether each text's end counts.
        **options: see `ScoringOptions`.

    Examples:
        for found in score_pairs(lm, [Pair("1", b"The cats sleep.", b"The cats sleeps.")]):
            print(found.pair.id, found.correct, found.margin)
    """
    remaining = iter(pairs)
    while batch := list(islice(remaining, PAIRS_AT_ONCE)):
        lm.forget(deterministic=True)
        contexts, texts = [pair.context for pair in batch], [(pair.good, pair.bad) for pair in batch]
        found: list[Choices] = lm.choices(contexts, texts, normalise, end=end, **options)
        for pair, choices in zip(batch, found, strict=True):
            good, bad = map(float, choices.values)
            yield ScoredPair(pair, good, bad)
