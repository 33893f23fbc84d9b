"""Logits processors, and drawing from what they leave.

A logits processor is a function of the tokens so far and the logits of what may come next, as in transformers
and mlx-lm. It may write to the logits that it is given, and returns those that count. There is one for each
option named in the two tables below; they act in the tables' order, which is that of `transformers.generate`.
Those of `PROCESSORS` look at the tokens: they act on the logits after a context. Those of `WARPERS` do not,
and act on whatever is drawn from: tokens, bytes, or at the prompt's end pairs of a context and a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from genlm.bytes.options import Options

__all__ = ["PROCESSORS", "WARPERS", "LogitsProcessor", "process", "processors", "sample", "warpers"]

Logits = Float64[np.ndarray, " n"]
LogitsProcessor = Callable[[Sequence[int], Logits], Logits]

_FEW = (512, 4096)
"""Entries sorted first for `top_p`: mostly enough, and sorting 50,000 takes 6 ms, these 1 or 2."""


def repetition_penalty(penalty: float) -> LogitsProcessor:
    """Of each token so far, multiply a logit below 0 by the penalty, and divide one above 0 by it."""

    def penalise(tokens: Sequence[int], logits: Logits) -> Logits:
        seen = np.unique(np.array(tokens, np.int64))
        seen = seen[seen < len(logits)]
        logits[seen] = np.where(logits[seen] < 0.0, logits[seen] * penalty, logits[seen] / penalty)
        return logits

    return penalise


def temperature(temperature: float) -> LogitsProcessor:
    """Divide the logits."""
    return lambda tokens, logits: (logits - logits.max()) / temperature


def top_k(k: int) -> LogitsProcessor:
    """Keep the k likeliest entries, and those as likely as the k-th."""

    def keep(tokens: Sequence[int], logits: Logits) -> Logits:
        if k < len(logits):
            logits[logits < np.partition(logits, -k)[-k]] = -np.inf
        return logits

    return keep


def top_p(least: float) -> LogitsProcessor:
    """Keep the likeliest entries that together reach a probability; of equals the first."""

    def keep(tokens: Sequence[int], logits: Logits) -> Logits:
        if least == 1.0:
            return logits
        ps = np.exp(logits - logits.max())
        ps /= ps.sum()
        likeliest = np.arange(len(ps))
        for few in _FEW:
            if len(ps) > 2 * few:
                first = np.sort(np.argpartition(-ps, few)[:few])
                if ps[first].sum() >= least:
                    likeliest = first
                    break
        order = likeliest[np.argsort(-ps[likeliest], kind="stable")]
        kept = order[: int(np.searchsorted(np.cumsum(ps[order]), least)) + 1]
        found = np.full(len(logits), -np.inf)
        found[kept] = logits[kept]
        return found

    return keep


def min_p(least: float) -> LogitsProcessor:
    """Keep entries at least this many times as likely as the likeliest."""

    def keep(tokens: Sequence[int], logits: Logits) -> Logits:
        if least > 0.0:
            logits[logits < logits.max() + math.log(least)] = -np.inf
        return logits

    return keep


_Makers = dict[str, Callable[[Any], LogitsProcessor]]
PROCESSORS: _Makers = {"repetition_penalty": repetition_penalty}
WARPERS: _Makers = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}


def processors(options: Options) -> list[LogitsProcessor]:
    """The processors of logits after a context that some options ask for."""
    return _made(PROCESSORS, options)


def warpers(options: Options) -> list[LogitsProcessor]:
    """The warpers that some options ask for; none where the likeliest is taken, which they all leave."""
    return [] if options.greedy else _made(WARPERS, options)


def _made(makers: _Makers, options: Options) -> list[LogitsProcessor]:
    asked = {name: getattr(options, name) for name in makers}
    return [makers[name](value) for name, value in asked.items() if value is not None]


def process(
    steps: Iterable[LogitsProcessor], logits: Float[np.ndarray, " n"], tokens: Sequence[int] = ()
) -> Logits:
    """The logits that processors leave, one after another; at least one of those given must be finite.

    Examples:
        >>> np.exp(process([top_k(2)], np.log([0.5, 0.25, 0.125, 0.125]))).round(3).tolist()
        [0.5, 0.25, 0.0, 0.0]
        >>> np.exp(process([temperature(0.5)], np.log([0.75, 0.25]))).round(3).tolist()
        [1.0, 0.111]
    """
    found = np.array(logits, np.float64)
    for step in steps:
        found = step(tokens, found)
    return found


def sample(logits: Float[np.ndarray, " n"], rng: np.random.Generator | None) -> int:
    """An index drawn by the softmax of logits, with one random number; the likeliest without any."""
    if rng is None:
        return int(logits.argmax())
    ps = np.exp(logits - logits.max())
    sums = np.cumsum(ps)
    index = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
    if index >= len(ps) or not ps[index]:  # round-off at the very end
        index = int(np.flatnonzero(ps)[-1])
    return index
