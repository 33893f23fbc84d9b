"""What evaluating contexts costs: so much for each call, and so much for each context in it.

Their ratio says how many contexts are worth a call, and so what is worth evaluating before it is asked for:
a context that will be needed with probability p, and then spares a call with probability s, costs nothing
where it is needed and one context where it is not. So it is worth its price where

    r p s > 1 - p,        r = seconds a call / seconds a context more

(for small p: where p s > 1 / r). It decides when a context is evaluated, never which are needed, nor what
comes out: costs follow a clock, and answers must not.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import combinations
from statistics import median
from typing import NamedTuple

__all__ = ["UNKNOWN", "Cost", "CostMeter", "is_worth"]

WINDOW = 24
"""Calls that a measurement goes by."""

LEAST_CALLS = 8
"""Calls of at least two sizes before a measurement says anything."""

MOST = 256.0
"""The largest ratio that is measured: above it, contexts are lost in the noise of calls."""


class Cost(NamedTuple):
    """Of a call of a backend, in seconds; where a backend gives it, in any unit of time.

    Attributes:
        forward: of a call, without its contexts.
        context: of each context in it.
    """

    forward: float
    context: float

    @property
    def ratio(self) -> float:
        """How many contexts a call is worth: 0 to infinity."""
        if self.context <= 0.0:
            return math.inf
        return max(self.forward, 0.0) / self.context


UNKNOWN = Cost(14.0, 1.0)
"""What is taken where nothing has been measured, and where a clock must decide nothing: SmolLM2-135M on two
CPU cores (40 ms a forward and 2.7 ms a context)."""


def is_worth(needed: float, ratio: float, spares: float = 1.0) -> bool:
    """Whether to evaluate a context early.

    Args:
        needed: the probability that it will be needed.
        ratio: `Cost.ratio`.
        spares: the probability that this spares a call if it is.
    """
    if needed >= 1.0:
        return True
    return needed > 0.0 and spares > 0.0 and ratio * needed * spares > 1.0 - needed


class CostMeter:
    """Measures a backend by its latest calls, robustly: a call that was interrupted changes nothing.

    The slope is the median of those between pairs of calls, the rest the median of what it leaves
    (Theil 1950; Sen 1968), at most the time of the quickest call.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._cost: Cost | None = None

    def add(self, contexts: int, seconds: float) -> None:
        """A call has taken so long."""
        self._calls.append((contexts, seconds))
        self._cost = None

    @property
    def cost(self) -> Cost:
        """As measured; `UNKNOWN` before there is enough to go by."""
        if self._cost is None:
            self._cost = self._measured()
        return self._cost

    def _measured(self) -> Cost:
        calls = list(self._calls)
        slopes = [(t - u) / (n - m) for (n, t), (m, u) in combinations(calls, 2) if n != m]
        if len(calls) < LEAST_CALLS or not slopes:
            return UNKNOWN
        context = max(median(slopes), 0.0)
        # Large calls cost less a context, so that their line begins too high.
        forward = max(min(median(t - context * n for n, t in calls), min(t for _, t in calls)), 0.0)
        return Cost(forward, max(context, forward / MOST, 1e-9))
