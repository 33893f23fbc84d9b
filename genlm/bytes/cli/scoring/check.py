"""`genlm-bytes score --check`: texts are read again with a fifth of the tolerance, and what moves is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genlm.bytes.cli.output import number
from genlm.bytes.cli.scoring.totals import unit_name

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText, Scoring

__all__ = ["Check"]

FINER = 5.0


@dataclass
class Check:
    """How far figures moved, in nats.

    Attributes:
        moved: of each text, its log-probability.
        regions: of each word or span, its log-probability; and by how much it was said to be off.
    """

    tolerance: float = math.nan
    moved: list[float] = field(default_factory=list)
    regions: list[tuple[float, float]] = field(default_factory=list)

    def follow(self, lm: Any, scoring: Scoring, scored: Iterable[ScoredText]) -> Iterator[ScoredText]:
        """The same results, each compared on its way."""
        self.tolerance = lm.params.tolerance / FINER
        again = copy(lm)  # the same model: what it has computed serves both
        again.asynchronous = copy(lm.asynchronous)
        again.asynchronous.params = replace(lm.params, tolerance=self.tolerance)
        again.asynchronous._start = None
        if scoring.regions is not None:  # entropies and ranks are not compared
            scoring = replace(scoring, regions=replace(scoring.regions, entropy=False, rank=False))
        for one in scored:
            self.note(one, scoring.of(again, [one.record])[0], scoring.base)
            yield one

    def note(self, one: ScoredText, again: ScoredText, base: float) -> None:
        """Count what moved."""
        if one.score.logprob > -math.inf < again.score.logprob:
            self.moved.append(abs(again.score.logprob - one.score.logprob))
        for region, finer in zip(one.regions or (), again.regions or (), strict=True):
            if region.surprisal < math.inf > finer.surprisal:
                moved = abs(finer.surprisal - region.surprisal) * math.log(base)
                self.regions.append((moved, region.error * math.log(base)))

    def document(self, base: float) -> dict[str, Any]:
        """What moved, to a base."""
        found: dict[str, Any] = {"tolerance": self.tolerance}
        for name, values in (("text", self.moved), ("region", [moved for moved, _ in self.regions])):
            if values:
                found[f"{name}_mean"] = number(float(np.mean(values)) / math.log(base))
                found[f"{name}_most"] = number(max(values) / math.log(base))
        if self.regions:
            found["region_within_error"] = float(np.mean([moved <= error for moved, error in self.regions]))
        return found

    def line(self, base: float) -> str:
        """The same in words."""
        found = self.document(base)
        said = [
            f"{what} moved by {found[f'{name}_mean']:.2g} {unit_name(base)} on average, "
            f"{found[f'{name}_most']:.2g} at most"
            for name, what in (("text", "log-probabilities of texts"), ("region", "surprisals"))
            if f"{name}_mean" in found
        ]
        if self.regions:
            said.append(f"{100 * found['region_within_error']:.0f} % of these within the stated error")
        return f"read again at tolerance {self.tolerance:g}: {', '.join(said) or 'nothing to compare'}"
