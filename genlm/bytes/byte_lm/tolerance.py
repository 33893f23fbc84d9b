"""The default rule: what is above a tolerance is evaluated, what is below is deferred.

An extension whose share of the beam is above the tolerance is evaluated at once. The others are deferred
(`deferred.py`), with an estimate of what they would have given the symbols read since, and evaluated as soon
as that is above the tolerance. What is worth a millionth of it is dropped.

While a known text is read, extensions that end inside a token of the others are left for later unless they
are heavy: most die within a few bytes, and the text that is read on tells which. Where somebody asks what
comes next, everything above the tolerance is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genlm.bytes.byte_lm.constants import USUAL, ToleranceConstants
from genlm.bytes.byte_lm.data import BeamData, Expansion, log_sum, read_on
from genlm.bytes.byte_lm.deferred import DeferredQueue, Late
from genlm.bytes.byte_lm.rule import Evaluate, SearchRule, SearchStep
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import TrieMode

__all__ = ["ToleranceRule"]


@dataclass(frozen=True)
class ToleranceRule(SearchRule):
    """A tolerance.

    Args:
        tolerance: the share of the beam from which an extension is evaluated; above 0 and below 1.
        K: the most hypotheses that are kept; None for no limit.
        max_late_contexts: the most deferred hypotheses that are evaluated at one symbol.
        constants: what estimates, probes and batches go by.
    """

    tolerance: float
    K: int | None = None
    max_late_contexts: int = 1000
    constants: ToleranceConstants = USUAL

    @property
    def log_tolerance(self) -> float:
        """Natural log of `tolerance`."""
        return math.log(self.tolerance)

    def begin(self, hypotheses: Sequence[LazyTrieState], mode: TrieMode) -> BeamData:
        return BeamData(list(hypotheses), mode, DeferredQueue(constants=self.constants))

    def expand(self, data: BeamData, symbol: int | bytes | None) -> SearchStep[BeamData]:
        return replace(data, expansion=(yield from self._expand(data, symbol)))

    def _expand(self, data: BeamData, symbol: int | bytes | None) -> SearchStep[Expansion]:
        numbers, deferred = self.constants, data.deferred
        hypotheses: Sequence[LazyTrieState] = data.hypotheses
        total, margin, late = data.log_total, math.log(numbers.unaligned_margin), tuple[Late, ...]()
        if symbol is None:
            hypotheses, deferred, late = yield from self._evaluate_deferred(data, hypotheses, deferred)
            total, margin = log_sum(hypotheses) + data.log_missing_factor, 0.0
        extensions = [extension for state in hypotheses for extension in state.extend_all()]
        if symbol is not None:  # what the rules of canonical tokenizations rule out has probability 0
            coming = data.coming or (symbol,)
            extensions = [extension for extension in extensions if extension.may_read(coming)]
        extensions.sort(key=lambda extension: -extension.weight)
        weights = [extension.weight for extension in extensions]
        boundary = bool(weights) and weights[0] - total > math.log(numbers.common_boundary_share)
        bar = total + self.log_tolerance + (0.0 if boundary else margin)
        n = sum(weight > bar for weight in weights)
        if n:
            near = bar - math.log(numbers.batch_fill_factor)
            n = max(n, sum(weight > near for weight in weights[: numbers.batch_fill]))
        wanted, light = extensions[:n], extensions[n:]
        if data.foreseen:
            ids = set(map(id, data.foreseen))
            wanted += [extension for extension in light if id(extension) in ids]
            light = [extension for extension in light if id(extension) not in ids]
        deferred = deferred.push(light, boundary)
        missing_factor = data.log_missing_factor
        if wanted:
            evaluated = yield Evaluate(wanted, None, hypotheses, deferred)
            got = [state for state in evaluated if state is not None]
            deferred = deferred.evaluated(got, boundary)
            missing = log_sum(e for e, state in zip(wanted, evaluated, strict=True) if state is None) - total
            # What is missing is taken to do as well as the rest.
            missing_factor -= math.log1p(-math.exp(min(missing, -1e-3)))
            hypotheses = [*hypotheses, *got]
        return Expansion(hypotheses, deferred, data.dropped, missing_factor, late)

    def read(self, data: BeamData, symbol: int | bytes, *, pruned: bool = False) -> SearchStep[BeamData]:
        expansion = data.expansion or (yield from self._expand(data, symbol))
        hypotheses, deferred, dropped, missing_factor, looked = expansion
        read = read_on(hypotheses, symbol)
        log_prob = log_sum(read) + missing_factor - data.log_total
        found = data.after(read, deferred.read(symbol, data.mode, log_prob), dropped.aged(), missing_factor)
        margin = math.log(self.constants.unaligned_margin)
        probes, coming = self._probes(log_prob), data.coming[1:]
        more, left, late = yield from self._evaluate_deferred(
            found, read, found.deferred, margin, probes, coming
        )
        log_prob = log_sum(more) + missing_factor - data.log_total
        # Nothing has been deferred at the present place yet: what caught up was at places before it.
        left = replace(left, history=deferred.history_after(symbol, data.mode, log_prob))
        return found.after(more, left, late=(*looked, *late))

    def recover(self, data: BeamData) -> SearchStep[BeamData]:
        if data.log_weight > -math.inf or not len(data.deferred):
            return data
        found, deferred, _ = yield from self._evaluate_deferred(data, data.hypotheses, data.deferred)
        return data.after(found, deferred)

    def prune(self, data: BeamData) -> BeamData:
        least = self.log_tolerance + math.log(self.constants.drop_share)
        kept, held = data.kept(least, self.K)
        gone, deferred = data.deferred.prune(data.log_total + least)
        return kept.after(kept.hypotheses, deferred, kept.dropped.more(gone.weights, held, gone.expected()))

    def _probes(self, log_prob: float) -> int:
        """How many deferred hypotheses to evaluate after a symbol, however little is expected of them."""
        if not -math.inf < log_prob < math.log(self.constants.surprisal_trigger):
            return 0
        return int(log_prob * self.log_tolerance / self.constants.nats_per_probe)

    def _evaluate_deferred(
        self,
        data: BeamData,
        hypotheses: Sequence[LazyTrieState],
        deferred: DeferredQueue,
        margin: float = 0.0,
        probes: int = 0,
        coming: tuple[int | bytes, ...] = (),
    ) -> SearchStep[tuple[Sequence[LazyTrieState], DeferredQueue, tuple[Late, ...]]]:
        """Evaluate what was deferred and is above the tolerance now: all of it, or `max_late_contexts`.

        Each that is evaluated defers more, where tokens end on its way, and where no hypothesis is left to
        measure them by, all are above: without that limit every way to cut the text would be tried.

        Args:
            data: the mode that hypotheses go on in, and what is missing.
            hypotheses: those there are.
            deferred: what is deferred.
            margin: natural log of the factor for unaligned ones (`DeferredQueue.pop_above`).
            probes: how many to evaluate, however little is expected of them.
            coming: symbols that they must be able to read as well (`BeamData.coming`).

        Returns:
            All hypotheses, what is left deferred, and those that were evaluated, as they came here.
        """
        batch, left, late = self.constants.first_batch, self.max_late_contexts, list[Late]()
        while True:
            total = log_sum(hypotheses) + data.log_missing_factor
            # Where no hypothesis could read the symbol, the deferred are all there is: a few at a time.
            most = left if total > -math.inf else min(left, batch)
            wanted, deferred = deferred.pop_above(total + self.log_tolerance, margin, most, hypotheses)
            probed, deferred = deferred.probe(probes)
            wanted += probed
            batch, probes = 2 * batch, 0
            if not wanted:
                return hypotheses, deferred, tuple(late)
            now = deferred.history
            wanted = [d for d in wanted if d.state.may_read((*now.symbols_after(d.history), *coming))]
            if not wanted:  # all have probability 0: they are gone without having been evaluated
                continue
            left = max(0, left - len(wanted))
            places = [d.history.length for d in wanted]
            asked = Evaluate([d.state for d in wanted], places, hypotheses, deferred)
            for one, state in zip(wanted, (yield asked), strict=True):
                if state is not None:
                    after, passed, found = one.catch_up(now, state)
                    late.append(passed)
                    deferred = deferred.push_late(found)
                    if after is not None:
                        hypotheses = [*hypotheses, after.with_mode(data.mode)]
