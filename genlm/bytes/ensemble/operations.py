"""How the next-byte distributions of several models become one.

An operation gives *potentials*: a number at least 0 for each symbol. Divided by their sum they are the
distribution of the next byte. Their sum itself matters to whoever wants the distribution over whole strings
in which a string weighs the product of its potentials, as sequential Monte Carlo does
(`generate/particles.py`): for `"prod"` that is the product of what the members say of the string.

Which symbols are possible: for `"prod"`, `"min"`, `"harmonic"` and powers up to 0 those that all members hold
for possible; for `"sum"`, `"mixture"`, `"max"` and powers above 0 those that any does. A `floor` mixes into
each member's distribution so much of the uniform one over all that any member holds for possible. A member
with a negative weight does not forbid: what is impossible to it counts as `LEAST`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["Anchored", "Contrastive", "Extremum", "Mixture", "Operation", "PowerMean", "Product", "operation"]

Rows = Float64[np.ndarray, "members symbols"]
Row = Float64[np.ndarray, " symbols"]
Shares = Float64[np.ndarray, " members"]
Weights = Sequence[float] | Shares

LEAST = math.log(1e-9)
"""The log-probability of a byte that is impossible to a member which is divided by."""

HALVINGS = 50
"""Of the interval in which `Anchored` looks for its exponent: as exact as floats are."""


def logsumexp(values: Any) -> Any:
    """scipy's, along the first axis; imported at the first sum, which takes half a second."""
    from scipy.special import logsumexp

    return logsumexp(values, axis=0)


class Operation(ABC):
    """An operation. A value: it serves any number of states.

    Attributes:
        stringwise: whether a member's share follows how well it has predicted the string so far.
        is_mean: whether a probability is the weighted mean of the members'.
        lipschitz: whether the potentials are off by no more than the members are, summed.
        weights: of the members, where it has any.
    """

    stringwise = False
    is_mean = False
    lipschitz = False
    weights: Shares | None = None

    @abstractmethod
    def potentials(self, rows: Rows, log_shares: Shares) -> Row:
        """Natural logs of the potentials.

        Args:
            rows: natural log-probabilities of the next symbol by each member; of one that cannot have written
                what was read, minus infinity throughout.
            log_shares: natural logs of what each member's string so far weighs, where that counts.
        """


class Product(Operation):
    """`prod_i p_i ** w_i`: with weights that sum to 1 the geometric mean. A negative weight divides."""

    def __init__(self, weights: Weights) -> None:
        self.weights = np.asarray(weights, np.float64)

    def potentials(self, rows: Rows, log_shares: Shares) -> Row:
        assert self.weights is not None
        divisors = self.weights < 0.0
        rows = np.where(divisors[:, None], np.maximum(rows, LEAST), rows)
        terms = [w * row for w, row in zip(self.weights, rows, strict=True) if w != 0.0]
        return np.asarray(np.sum(terms, axis=0), np.float64)


class PowerMean(Operation):
    """`(sum_i w_i p_i ** power) ** (1 / power)`: 1 is the sum, -1 the harmonic mean. The weights sum to 1."""

    def __init__(self, weights: Weights, power: float) -> None:
        self.weights, self.power = np.asarray(weights, np.float64), power
        self.is_mean, self.lipschitz = power == 1.0, power >= 1.0

    def potentials(self, rows: Rows, log_shares: Shares) -> Row:
        assert self.weights is not None
        live = self.weights > 0.0
        if self.power > 0.0:  # one that cannot have written the string so far has no say any more
            live &= rows.max(axis=1) > -np.inf
        weights = np.log(self.weights[live] / self.weights[live].sum())
        found = logsumexp(self.power * rows[live] + weights[:, None]) / self.power
        return np.asarray(found, np.float64)


class Mixture(Operation):
    """The mixture of the members' distributions over *strings*: `sum_i w_i P_i(string)`."""

    stringwise = is_mean = True

    def __init__(self, weights: Weights) -> None:
        self.weights = np.asarray(weights, np.float64)

    def potentials(self, rows: Rows, log_shares: Shares) -> Row:
        live = (log_shares > -np.inf) & (rows.max(axis=1) > -np.inf)
        shares = log_shares[live] - logsumexp(log_shares[live])
        return np.asarray(logsumexp(rows[live] + shares[:, None]), np.float64)


class Extremum(Operation):
    """The least, or the greatest, of the members' probabilities."""

    lipschitz = True

    def __init__(self, greatest: bool) -> None:
        self.greatest = greatest

    def potentials(self, rows: Rows, log_shares: Shares) -> Row:
        return np.asarray(rows.max(axis=0) if self.greatest else rows.min(axis=0), np.float64)


class Contrastive(Operation):
    """The expert's probability by the amateur's, among bytes that the expert holds for plausible.

    These are at least `plausibility` times as probable as its likeliest (Li et al., arXiv 2210.15097).
    """

    def __init__(self, plausibility: float) -> None:
        self.plausibility = plausibility

    def potentials(self, rows: Rows, log_shares: Shares) -> Row:
        expert, amateur = rows
        head = expert >= expert.max() + math.log(self.plausibility)
        found = np.where(head & (expert > -np.inf), expert - np.maximum(amateur, LEAST), -np.inf)
        return np.asarray(found - logsumexp(found), np.float64)


class Anchored(Operation):
    """The distribution nearest the risky one among those within a KL budget of the safe one.

    `argmin KL(q || risky)` where `KL(q || safe) <= budget` nats, at each byte. Its solution is
    `risky ** x * safe ** (1 - x)`, normalised, for the greatest x up to 1 that keeps to the budget (anchored
    decoding, arXiv 2602.07120). The safe one itself where none is near enough.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget

    def potentials(self, rows: Rows, log_shares: Shares) -> Row:
        safe, risky = rows
        both = (safe > -np.inf) & (risky > -np.inf)

        def between(x: float) -> Row:
            found = np.full(len(safe), -np.inf)
            found[both] = x * risky[both] + (1.0 - x) * safe[both]
            return np.asarray(found - logsumexp(found), np.float64)

        def near(x: float) -> bool:
            q = between(x)[both]
            return bool((np.exp(q) * (q - safe[both])).sum() <= self.budget)

        if not both.any() or not near(0.0):
            return np.asarray(safe, np.float64)
        low, high = (1.0, 1.0) if near(1.0) else (0.0, 1.0)
        for _ in range(HALVINGS if low < high else 0):
            middle = (low + high) / 2.0
            low, high = (middle, high) if near(middle) else (low, middle)
        return between(low)


def with_floor(rows: Rows, floor: float) -> Rows:
    """Rows with `floor` of the uniform distribution mixed in, over all that any of them holds for possible.

    One that cannot have written what was read is uniform: it has no opinion.
    """
    possible = rows.max(axis=0) > -np.inf
    uniform = np.where(possible, -math.log(max(1, possible.sum())), -np.inf)
    live = rows.max(axis=1, keepdims=True) > -np.inf
    mixed = np.logaddexp(rows + math.log1p(-floor), uniform + math.log(floor))
    return np.asarray(np.where(live, mixed, uniform), np.float64)


NAMES = ("prod", "sum", "mixture", "min", "max", "harmonic")


def operation(op: Any, members: int, weights: Sequence[float] | None = None) -> Operation:
    """An operation by its name.

    Args:
        op: one of `NAMES`, or a number: the power of a power mean.
        members: how many models there are.
        weights: one for each. For `"prod"` exponents, 1 / n each by default, which may be negative. For
            others shares, which are brought to the sum 1. `"min"` and `"max"` have none.

    Raises:
        ValueError: no such operation; another number of weights; weights that are negative where they are
            shares, not finite, or all 0.
        TypeError: weights that are no numbers.
    """
    number = isinstance(op, int | float | np.number) and not isinstance(op, bool)
    if (not number and op not in NAMES) or op != op:
        raise bad_value(
            "op", op, f"must be one of {', '.join(map(repr, NAMES))}, or a number, a power mean's power"
        )
    if op in ("min", "max") or (number and math.isinf(op)):
        if weights is not None:
            raise bad_value("weights", weights, f"{op!r} has none", "Leave them out.")
        return Extremum(op == "max" or op == math.inf)
    signed = op == "prod"
    found = _weights(weights, members, signed)
    if signed:
        return Product(found)
    shares = found / found.sum()
    if op == "mixture":
        return Mixture(shares)
    power = {"sum": 1.0, "harmonic": -1.0}.get(op, op)
    return Product(shares) if power == 0.0 else PowerMean(shares, float(power))


def _weights(weights: Sequence[float] | None, members: int, signed: bool) -> Shares:
    if weights is None:
        return np.full(members, 1.0 / members)
    try:
        found = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        raise bad_type("weights", weights, "must be numbers, one for each member") from None
    if found.shape != (members,):
        raise bad_value("weights", weights, f"must be {members}, one for each member")
    if not np.isfinite(found).all() or not found.any():
        raise bad_value("weights", weights, "must be finite, and not all 0")
    if signed and found.max() <= 0.0:
        raise bad_value(
            "weights", weights, "at least one must be above 0: a product of reciprocals is no model"
        )
    if not signed and found.min() < 0.0:
        way = 'Only op="prod" has negative ones: it divides by that member.'
        raise bad_value("weights", weights, "shares must not be negative", way)
    return found
