"""Given continuations of a context, compared: log-probabilities, posterior, ranks.

What is compared is, by `normalise`:

- None: the log-probability of the continuation, which favours short ones;
- `"length"`: the same by byte, whatever tokens there are;
- `"unconditional"`: less the log-probability that it has without the context (pointwise mutual information;
  Holtzman et al. 2021, arXiv 2104.08315), which favours none for being a common string.

A continuation ends where it ends: "sun" counts what "sunny" is worth too. Let it go on to its own end (a full
stop, a line's end), or count the end of the sequence (`end=True`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.score.byte_scores import Score
from genlm.bytes.score.table import Records
from genlm.bytes.util import logsumexp

__all__ = ["Choices", "ChoicesTable", "Normalise", "check_baseline", "check_normalise", "choices_of"]

Normalise = Literal["length", "unconditional"] | None

COLUMNS = ("choice", "logprob", "value", "posterior", "rank")


@dataclass(frozen=True)
class Choices(Records):
    """Some continuations of one context, in the order in which they were given.

    Attributes:
        choices: the continuations.
        scores: of each after the context.
        baselines: of each without it; None unless that is what they are normalised by.
        normalise: see the module.
    """

    choices: tuple[str | bytes, ...]
    scores: tuple[Score, ...]
    baselines: tuple[Score, ...] | None = None
    normalise: Normalise = None

    @property
    def columns(self) -> tuple[str, ...]:
        return COLUMNS

    @property
    def logprobs(self) -> Float64[np.ndarray, " choices"]:
        """Natural log-probability of each, `[choices]`."""
        return np.array([score.logprob for score in self.scores])

    @cached_property
    def values(self) -> Float64[np.ndarray, " choices"]:
        """What is compared, in nats: the log-probabilities, normalised as was asked, `[choices]`."""
        if self.normalise == "length":
            return np.asarray(self.logprobs / np.array([len(score) for score in self.scores]))
        if self.baselines is not None:
            below = np.array([score.logprob for score in self.baselines])
            # What is impossible after the context is so by whatever measure.
            with np.errstate(invalid="ignore"):
                return np.asarray(np.where(np.isneginf(self.logprobs), -np.inf, self.logprobs - below))
        return self.logprobs

    @property
    def posterior(self) -> Float64[np.ndarray, " choices"]:
        """The share of each, `[choices]`: the softmax of `values`; without a normalisation the probability
        of each, given that the context goes on with one of them. All nan where none is possible."""
        total = logsumexp(self.values)
        return np.asarray(np.exp(self.values - total)) if total > -np.inf else np.full(len(self), np.nan)

    @property
    def ranks(self) -> Int64[np.ndarray, " choices"]:
        """The rank of each by `values`, `[choices]`: 1 for the best; equals share the better one."""
        return np.asarray(1 + (self.values[None, :] > self.values[:, None]).sum(1), np.int64)

    @property
    def best(self) -> str | bytes:
        """The best, of equals the first."""
        return self.choices[int(self.values.argmax())]

    def records(self) -> list[dict[str, Any]]:
        """One dictionary a choice."""
        columns = zip(self.choices, self.logprobs, self.values, self.posterior, self.ranks, strict=True)
        return [
            {
                "choice": choice.decode(errors="replace") if isinstance(choice, bytes) else choice,
                "logprob": float(logprob),
                "value": float(value),
                "posterior": float(share),
                "rank": int(rank),
            }
            for choice, logprob, value, share, rank in columns
        ]

    def __len__(self) -> int:
        return len(self.choices)

    def __repr__(self) -> str:
        by_rank = sorted(zip(self.ranks.tolist(), self.choices, self.posterior.tolist(), strict=True))
        said = ", ".join(f"{choice!r} {share:.3f}" for _, choice, share in by_rank[:8])
        return f"Choices({said}{', …' if len(self) > 8 else ''})"


class ChoicesTable(Records, list[Choices]):
    """The choices of several contexts, in order."""

    @property
    def columns(self) -> tuple[str, ...]:
        return ("context", "index", *COLUMNS)

    def records(self) -> list[dict[str, Any]]:
        """One dictionary a choice, with which of the contexts, and of its choices, it is, from 0."""
        return [
            {"context": i, "index": j, **record}
            for i, found in enumerate(self)
            for j, record in enumerate(found.records())
        ]


def choices_of(choices: Any, count: int, end: bool) -> list[tuple[str | bytes, ...]]:
    """The choices of each of `count` contexts: one list for all, or a list of lists.

    Raises:
        ValueError: none, an empty one whose end does not count, another number of lists than of contexts.
        TypeError: something else.
    """
    if isinstance(choices, str | bytes) or not isinstance(choices, Sequence):
        raise bad_type("choices", choices, "must be a list of str or bytes, or one for each context")
    lists = bool(choices) and not any(isinstance(choice, str | bytes) for choice in choices)
    if lists and len(choices) != count:
        raise bad_value("choices", choices, f"holds {len(choices)} lists for {count} contexts")
    found = []
    for i, one in enumerate(choices if lists else [choices]):
        name = f"choices[{i}]" if lists else "choices"
        if isinstance(one, str | bytes) or not isinstance(one, Sequence):
            raise bad_type(name, one, "must be a list of str or bytes")
        if not one:
            raise bad_value(name, one, "must be at least one")
        for j, choice in enumerate(one):
            if not isinstance(choice, str | bytes):
                raise bad_type(f"{name}[{j}]", choice, "must be str or bytes")
            if not choice and not end:
                rule = "is empty, which says nothing"
                raise bad_value(f"{name}[{j}]", choice, rule, "Leave it out, or count its end: `end=True`.")
        found.append(tuple(one))
    return found if lists else found * count


def check_normalise(normalise: Any, choices: Sequence[tuple[str | bytes, ...]]) -> None:
    """That there is such a normalisation, and that it means something."""
    if normalise not in (None, "length", "unconditional"):
        raise bad_value("normalise", normalise, "must be None, 'length' or 'unconditional'")
    if normalise == "length" and not all(choice for one in choices for choice in one):
        raise bad_value("normalise", normalise, "an empty choice has no length", "Leave it out.")


def check_baseline(baseline: Any, normalise: Normalise) -> None:
    """That a baseline is one of what `normalise` compares with."""
    if normalise != "unconditional" and not (isinstance(baseline, str | bytes) and not baseline):
        rule = "is compared with nothing"
        raise bad_value("baseline", baseline, rule, 'Leave it out, or give `normalise="unconditional"`.')
