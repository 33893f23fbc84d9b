"""`BeamParams`: what a beam keeps and evaluates, and what ends a sequence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from genlm.bytes.byte_lm.heal import check_limit
from genlm.bytes.byte_lm.rule import SearchRule
from genlm.bytes.byte_lm.threshold import ThresholdRule
from genlm.bytes.byte_lm.tolerance import ToleranceRule
from genlm.bytes.errors import bad_type, bad_value, names_checked
from genlm.bytes.util.numbers import as_index

__all__ = ["DEFAULT_TOLERANCE", "BeamParams"]

DEFAULT_TOLERANCE = 5e-4


@names_checked()
@dataclass
class BeamParams:
    """Settings of a `ByteBeamState`.

    Which candidates are evaluated is decided in one of three ways. `BeamParams()` has a tolerance: accurate,
    at several times the price of a high threshold. `BeamParams(K=5, prune_threshold=0.05)` is the cheapest,
    and drops for good what is below the threshold. `BeamParams(exact=True)` drops nothing.

    Args:
        K: the most candidates that `prune` keeps. None, for no limit, needs a tolerance or `exact`.
        prune_threshold: the smallest share of the beam's probability that a candidate may have and be
            kept, or be extended; 0 keeps all. At least 0 and below 1.
        verbose: log what the beam does, at level INFO.
        eos_byte_strings: spellings of the tokens that end a sequence. Stored as a set.
        heal: whether to heal candidates when none can read the next byte.
        heal_max_backoff: see `TokenHealer`.
        heal_max_splits: see `TokenHealer`.
        tolerance: the share of the beam's probability from which an extension is evaluated; lighter ones
            are deferred, and evaluated when they come to matter (`deferred.py`). Above 0 and below 1. Not
            together with a `prune_threshold`. None, where neither `K` nor `exact` is given, means
            `DEFAULT_TOLERANCE`.
        max_late_contexts: with a tolerance: how many deferred candidates are evaluated at one byte, at most.
            The worst byte of sixteen texts of all kinds needed 470; of those that no candidate read, 55.
            Where none can read a byte, and none of so many deferred ones, the others are given up, and the
            byte is healed or impossible.
        exact: keep and evaluate every tokenization, so that answers are exact. For short texts.
        max_candidates: with `exact`: more candidates are a `BudgetExceededError`.
        canonical: count only tokenizations that the model's own tokenizer would produce; the probability of
            the others is left out (see the page on exactness). With any of the three.
        check_model: raise a `ModelOutputError` where the model gives no log-probabilities: nan, unnormalised
            logits. False takes its numbers as they are.
        rule: a search rule in place of `K`, `prune_threshold`, `tolerance` and `exact` (see `SearchRule`).
        eos_tokens: older name of `eos_byte_strings`, with a `DeprecationWarning`.

    Raises:
        ValueError: a value out of range.
        TypeError: a value of the wrong type; both `eos_byte_strings` and `eos_tokens` given.

    Examples:
        >>> BeamParams(K=5, prune_threshold=0.25).log_prune_threshold
        -1.3862943611198906
    """

    K: int | None = None
    prune_threshold: float = 0.0
    verbose: bool = False
    eos_byte_strings: Iterable[bytes] | None = None
    heal: bool = True
    heal_max_backoff: int | None = None
    heal_max_splits: int | None = None
    eos_tokens: Iterable[bytes] | None = field(default=None, repr=False)
    tolerance: float | None = None
    exact: bool = False
    max_candidates: int = 10_000
    canonical: bool = False
    max_late_contexts: int = 1000
    check_model: bool = True
    rule: SearchRule | None = None

    def __post_init__(self) -> None:
        if self.K is not None:
            self.K = _check_K(self.K)
        _check_threshold(self.prune_threshold)
        self._check_rule()
        if not isinstance(self.canonical, bool):
            raise bad_type("canonical", self.canonical, "must be True or False")
        if not isinstance(self.check_model, bool):
            raise bad_type("check_model", self.check_model, "must be True or False")
        check_limit("heal_max_backoff", self.heal_max_backoff)
        check_limit("heal_max_splits", self.heal_max_splits)
        # `dataclasses.replace` and `asdict` hand on what was filled in below: that is no contradiction.
        if self.eos_tokens is not None and not isinstance(self.eos_tokens, _Filled):
            if self.eos_byte_strings is not None:
                raise bad_type(
                    "eos_tokens",
                    self.eos_tokens,
                    "Cannot specify both 'eos_byte_strings' and its older name 'eos_tokens'",
                    "Give `eos_byte_strings` alone.",
                )
            warnings.warn(
                "'eos_tokens' is deprecated, use 'eos_byte_strings' instead.",
                DeprecationWarning,
                stacklevel=4,
            )
            self.eos_byte_strings = self.eos_tokens
        self.eos_byte_strings = _check_eos(self.eos_byte_strings)
        self.eos_tokens = _Filled(self.eos_byte_strings)

    def _check_rule(self) -> None:
        chosen = {
            "K": self.K,
            "prune_threshold": self.prune_threshold,
            "tolerance": self.tolerance,
            "exact": self.exact,
        }
        if self.rule is not None:
            if not isinstance(self.rule, SearchRule):
                way = "Pass e.g. ToleranceRule(1e-3)."
                raise bad_type("rule", self.rule, "must be a SearchRule", way)
            for name, value in chosen.items():
                if value:
                    raise bad_value(name, value, "must not be given together with `rule`", "Give one.")
            return
        if self.tolerance is None and not any(chosen.values()):
            self.tolerance = DEFAULT_TOLERANCE
        if self.tolerance is None and self.K is None and not self.exact:
            raise bad_type("K", None, "must be given with a `prune_threshold`", "Pass e.g. K=5.")
        if self.tolerance is not None:
            _check_tolerance(self.tolerance)
            for name in ("prune_threshold", "exact"):
                if chosen[name]:
                    rule = "must not be given together with `tolerance`"
                    raise bad_value(name, chosen[name], rule, "Give one.")
        if self.exact and (self.prune_threshold or self.K is not None):
            name = "prune_threshold" if self.prune_threshold else "K"
            raise bad_value(name, chosen[name], "must not be given with `exact`: nothing is dropped")
        for name in ("max_candidates", "max_late_contexts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise bad_type(name, value, "must be an integer of at least 1")
            if value < 1:
                raise bad_value(name, value, "must be at least 1")

    @property
    def search_rule(self) -> SearchRule:
        """The rule that these settings stand for."""
        if self.rule is not None:
            return self.rule
        if self.tolerance is not None:
            return ToleranceRule(self.tolerance, self.K, self.max_late_contexts)
        return ThresholdRule(self.K, self.log_prune_threshold, self.max_candidates if self.exact else None)

    @property
    def log_prune_threshold(self) -> float:
        """Natural log of `prune_threshold`; minus infinity at 0."""
        return math.log(self.prune_threshold) if self.prune_threshold > 0 else -math.inf


class _Filled(set[bytes]):
    """What the older name reads: the set of the newer one, told apart from one that a caller gives."""


def _check_K(K: Any) -> int:
    number = as_index(K)
    if number is None:
        raise bad_type("K", K, "must be an integer of at least 1", "Pass e.g. K=5.")
    if number < 1:
        raise bad_value("K", K, "must be at least 1", "Pass e.g. K=5.")
    return number


def _check_tolerance(tolerance: Any) -> None:
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float):
        raise bad_type("tolerance", tolerance, "must be a number above 0 and below 1", "Pass e.g. 1e-3.")
    if not 0.0 < tolerance < 1.0:
        way = "Pass e.g. 1e-3, or exact=True to drop nothing."
        raise bad_value("tolerance", tolerance, "must be above 0 and below 1", way)


def _check_threshold(threshold: Any) -> None:
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        raise bad_type(
            "prune_threshold", threshold, "must be a number from 0 up to, not including, 1"
        ) from None
    if not 0.0 <= value < 1.0:
        rule = "must be non-negative and below 1" if value == value else "must be a number, not NaN"
        raise bad_value("prune_threshold", threshold, rule, "Pass 0 to keep everything, or e.g. 0.01.")


def _check_eos(strings: Iterable[bytes] | None) -> set[bytes]:
    if strings is not None and (isinstance(strings, bytes | str) or not isinstance(strings, Iterable)):
        raise bad_type("eos_byte_strings", strings, "must be a collection of bytes", f"Pass [{strings!r}].")
    found = list(() if strings is None else strings)
    for string in found:
        if not isinstance(string, bytes):
            raise bad_type("eos_byte_strings", string, "each entry must be bytes", "Use b'...'.")
        if not string:
            raise bad_value("eos_byte_strings", string, "an entry must not be empty")
    return set(found)
