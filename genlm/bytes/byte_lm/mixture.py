"""What several hypotheses together say comes next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm.error_bounds import Slack
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import EOT
from genlm.bytes.util import LazyByteProbs

__all__ = ["Mixture"]


class Mixture(NamedTuple):
    """Next symbols of several hypotheses, each by its weight; token ends left out.

    Attributes:
        probs: bytes and EOS, `[258]`, relative to the heaviest hypothesis.
        units: atomic units, likewise.
        heaviest: natural log weight of the heaviest hypothesis.
    """

    probs: Float64[np.ndarray, " 258"]
    units: dict[bytes, float]
    heaviest: float

    @classmethod
    def of(cls, states: Sequence[LazyTrieState]) -> Self:
        """The mixture of materialized hypotheses."""
        probs, units = np.zeros(258), dict[bytes, float]()
        heaviest = max((state.weight for state in states), default=-math.inf)
        for state in states:
            if state.weight == -math.inf:
                continue
            share = math.exp(state.weight - heaviest)
            next_bytes, next_units = state.next_probs()
            probs += share * next_bytes
            for unit, p in next_units.items():
                units[unit] = units.get(unit, 0.0) + share * p
        probs[EOT] = 0.0
        return cls(probs, units, heaviest)

    @property
    def total(self) -> float:
        """The sum of all entries."""
        return float(self.probs.sum()) + sum(self.units.values())

    @property
    def log_total(self) -> float:
        """Natural log of the weight that the entries stand for."""
        return self.heaviest + math.log(self.total)

    def normalised(self, least: Float64[np.ndarray, " symbols"] | None, slack: Slack) -> LazyByteProbs:
        """The distribution in natural logs.

        Args:
            least: probabilities to mix in, of a sum below 1: 258, then one for each of `units`.
            slack: how far off it may be.
        """
        probs = np.concatenate([self.probs, list(self.units.values())]) if self.units else self.probs
        scale = 1.0 / self.total
        if least is None:
            probs = probs * scale
        else:
            probs = probs * (scale * (1.0 - float(least.sum()))) + least
        with np.errstate(divide="ignore"):
            logs = np.log(probs)
        return LazyByteProbs(
            logs[:258], units=dict(zip(self.units, logs[258:].tolist(), strict=True)), slack=slack
        )
