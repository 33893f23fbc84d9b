"""Temperature and truncation of a distribution, and drawing from it.

The same four controls, in the same order, as `transformers.generate`: temperature, then `top_k`, then
`top_p`, then `min_p`, each on what the one before has left. What the entries of the distribution are
(tokens, or bytes) is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

__all__ = ["Truncation", "draw"]

_FEW = (512, 4096)
"""Entries sorted first for `top_p`: mostly enough, and sorting 50,000 takes 6 ms, these 1 or 2."""


@dataclass(frozen=True)
class Truncation:
    """How a distribution is changed before drawing.

    Args:
        temperature: log-probabilities are divided by it; 0 leaves the likeliest entry only.
        top_k: keep the k likeliest entries, and those as likely as the k-th.
        top_p: keep the likeliest entries that together reach this probability.
        min_p: keep entries at least this many times as likely as the likeliest.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0.0 or self.top_k == 1

    def __call__(self, logps: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The changed distribution, normalised. At least one entry must be above minus infinity.

        Examples:
            >>> Truncation(top_k=2)(np.log([0.5, 0.25, 0.125, 0.125])).round(3).tolist()
            [0.667, 0.333, 0.0, 0.0]
            >>> Truncation(temperature=0.5)(np.log([0.75, 0.25])).round(3).tolist()
            [0.9, 0.1]
        """
        logps = logps.astype(np.float64)
        logps -= logps.max()
        if self.temperature == 0.0:
            ps = np.zeros(len(logps))
            ps[logps.argmax()] = 1.0
            return ps
        if self.temperature != 1.0:
            logps /= self.temperature
        ps = np.exp(logps)
        if self.top_k is not None and self.top_k < len(ps):
            ps[ps < np.partition(ps, -self.top_k)[-self.top_k]] = 0.0
        ps /= ps.sum()
        if self.top_p is not None and self.top_p < 1.0:
            _keep_top_p(ps, self.top_p)
        if self.min_p is not None:
            ps[ps < self.min_p * ps.max()] = 0.0
        return np.asarray(ps / ps.sum())


def _keep_top_p(ps: Float64[np.ndarray, " n"], top_p: float) -> None:
    """Zero all but the likeliest entries that reach `top_p`; of equals the first."""
    likeliest = np.arange(len(ps))
    for few in _FEW:
        if len(ps) > 2 * few:
            first = np.sort(np.argpartition(-ps, few)[:few])
            if ps[first].sum() >= top_p:
                likeliest = first
                break
    order = likeliest[np.argsort(-ps[likeliest], kind="stable")]
    count = int(np.searchsorted(np.cumsum(ps[order]), top_p)) + 1
    kept = order[:count]
    values = ps[kept]
    ps[:] = 0.0
    ps[kept] = values


def draw(ps: Float64[np.ndarray, " n"], rng: np.random.Generator) -> int:
    """An index drawn by weight; one random number is used, whatever the weights."""
    sums = np.cumsum(ps)
    index = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
    if index >= len(ps) or not ps[index]:  # round-off at the very end
        index = int(np.flatnonzero(ps)[-1])
    return index
