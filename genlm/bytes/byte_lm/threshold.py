"""Beam search: at most `K` hypotheses, each above a threshold; what is below is dropped for good.

With neither, nothing is dropped and every tokenization is evaluated: exact, for short texts, within a budget.

Reading makes no hypothesis heavier. So where the beam is pruned next, an extension that is not heavier now
than `K` others are after the symbol need not be evaluated. With a threshold too, who is kept depends on all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genlm.bytes.byte_lm.data import BeamData, Expansion, log_sum, read_on
from genlm.bytes.byte_lm.rule import Evaluate, SearchRule, SearchStep
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.errors import BudgetExceededError
from genlm.bytes.util import logsumexp

__all__ = ["ThresholdRule", "extensions_above"]


@dataclass(frozen=True)
class ThresholdRule(SearchRule):
    """A beam width and a threshold.

    Args:
        K: the most hypotheses that are kept; None for no limit.
        log_threshold: natural log of the share of the beam above which a hypothesis is kept, or extended.
        max_candidates: more hypotheses than this are a `BudgetExceededError`; None for no limit.
    """

    K: int | None = None
    log_threshold: float = -math.inf
    max_candidates: int | None = None

    def expand(self, data: BeamData, symbol: int | bytes | None) -> SearchStep[BeamData]:
        kept = extensions_above(data.hypotheses, data.log_weight, self.log_threshold)
        got = _there((yield Evaluate(kept, beside=data.hypotheses)))
        gone = self._others(data, kept)
        lost = min(logsumexp(gone) - data.log_weight, 0.0)  # the share of token ends that are not followed
        held = data.log_weight + math.log1p(-math.exp(lost)) if lost < 0.0 else -math.inf
        hypotheses, dropped = [*data.hypotheses, *got], data.dropped.more(gone, held)
        return replace(data, expansion=Expansion(hypotheses, data.deferred, dropped, data.log_missing_factor))

    def read(self, data: BeamData, symbol: int | bytes, *, pruned: bool = False) -> SearchStep[BeamData]:
        read = read_on(data.hypotheses, symbol)
        total = log_sum(read)
        kept = extensions_above(data.hypotheses, total, self.log_threshold)
        able, unable = list[LazyTrieState](), list[LazyTrieState]()  # the latter have probability 0
        coming = data.coming or (symbol,)
        for extension in kept:
            (able if extension.may_read(coming) else unable).append(extension)
        if pruned and self.K is not None and self.log_threshold == -math.inf:
            kept = [*unable, *(yield from self._extend_in_reach(able, read, symbol, self.K))]
        else:
            read += read_on(_there((yield Evaluate(able))), symbol)
        if self.max_candidates is not None and len(read) > self.max_candidates:
            raise BudgetExceededError(
                f"{len(read)} candidates after {symbol!r}; `max_candidates` is {self.max_candidates}. "
                "Exact reading keeps every tokenization, and their number grows exponentially: read less, "
                "raise `max_candidates`, or use a tolerance: BeamParams(tolerance=1e-4)."
            )
        held = logsumexp([total, *(state.weight for state in kept)])
        return data.after(read, dropped=data.dropped.more(self._others(data, kept), held).aged())

    def prune(self, data: BeamData) -> BeamData:
        kept, _ = data.kept(self.log_threshold, self.K)
        return kept

    def _extend_in_reach(
        self, extensions: list[LazyTrieState], read: list[LazyTrieState], symbol: int | bytes, K: int
    ) -> SearchStep[list[LazyTrieState]]:
        """Evaluate the extensions that can be among the K heaviest; put what they become into `read`.

        Returns:
            The extensions evaluated, or asked for in vain.
        """
        first = sorted(_in_reach(extensions, read, K), key=lambda state: -state.weight)[:K]
        got = _there((yield Evaluate(first)))
        read += read_on(got, symbol)
        if len(got) < len(first):
            return first
        asked = {id(state) for state in first}
        rest = [e for e in _in_reach(extensions, read, K) if id(e) not in asked]
        read += read_on(_there((yield Evaluate(rest))), symbol)
        return [*first, *rest]

    def _others(self, data: BeamData, kept: Sequence[LazyTrieState]) -> list[float]:
        """The weights of the extensions that are not among those kept."""
        if self.K is None and self.log_threshold == -math.inf:
            return []  # nothing is below no threshold
        ids = {id(state) for state in kept}
        return [e.weight for state in data.hypotheses for e in state.extend_all() if id(e) not in ids]


def _there(evaluated: Sequence[LazyTrieState | None]) -> list[LazyTrieState]:
    return [state for state in evaluated if state is not None]


def extensions_above(
    hypotheses: Sequence[LazyTrieState], log_weight: float, log_threshold: float
) -> list[LazyTrieState]:
    """The extensions whose share of `log_weight` and all extensions together exceeds a threshold."""
    found = [extension for state in hypotheses for extension in state.extend_all()]
    total = logsumexp([log_weight, *(extension.weight for extension in found)])
    return [extension for extension in found if extension.weight - total > log_threshold]


def _in_reach(
    extensions: Sequence[LazyTrieState], read: Sequence[LazyTrieState], K: int
) -> list[LazyTrieState]:
    """The extensions heavier than the K-th heaviest that has been read."""
    weights = sorted((state.weight for state in read), reverse=True)
    least = weights[K - 1] if len(weights) >= K else -math.inf
    return [extension for extension in extensions if extension.weight > least]
