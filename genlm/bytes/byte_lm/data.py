"""The data of a beam: what a search rule (`rule.py`) works on. Values, never changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from genlm.bytes.byte_lm.deferred import DeferredQueue, Late
from genlm.bytes.byte_lm.error_bounds import NOTHING_DROPPED, DroppedMass, weight_upper_bound
from genlm.bytes.byte_lm.history import History
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.util import logsumexp

__all__ = ["BeamData", "Expansion", "log_sum", "read_on"]


def log_sum(hypotheses: Iterable[LazyTrieState]) -> float:
    """Natural log of the total weight of some hypotheses."""
    return logsumexp([state.weight for state in hypotheses])


def read_on(hypotheses: Iterable[LazyTrieState], symbol: int | bytes) -> list[LazyTrieState]:
    """Those that can read a symbol, after it."""
    return [after for state in hypotheses if (after := state << symbol) is not None]


class Expansion(NamedTuple):
    """A beam with the tokens that end at the present place committed, as far as the rule has them evaluated.

    Attributes:
        hypotheses: those of the beam, and their evaluated extensions. An extension's weight is a part of that
            of the hypothesis it extends, so these do not sum to the beam's: what comes next of each does.
        deferred: what is deferred, the other extensions among them.
        dropped: what is dropped, those that are neither among them.
        log_missing_factor: see `BeamData`.
        late: what was deferred, and has been evaluated here.
    """

    hypotheses: Sequence[LazyTrieState]
    deferred: DeferredQueue
    dropped: DroppedMass
    log_missing_factor: float
    late: tuple[Late, ...] = ()


@dataclass(frozen=True)
class BeamData:
    """Hypotheses that together give the probability of the symbols read, and what is known of the rest.

    Attributes:
        hypotheses: disjoint ways to cover those symbols with tokens, the heaviest first.
        mode: how the next symbols are read.
        deferred: hypotheses that were not evaluated, and the history they are to catch up with.
        dropped: the mass of those that were given up.
        log_missing_factor: natural log of the factor by which all is heavier than what is known, while a
            known text is read ahead with contexts that have not been evaluated yet; 0 for every other beam.
        expansion: what `SearchRule.expand` has found out; None where nobody has asked. It changes nothing
            else.
        late: what the last symbol, or a look before it, had evaluated that was deferred before. Whoever reads
            a known text learns from it what earlier symbols had too little of (`score/hindsight.py`).
        foreseen: extensions of these hypotheses that are evaluated however light they are, since later
            symbols have needed them; as `extend_all` gives them.
        coming: symbols that are known to come next, where only hypotheses count that can read them all
            (`foresight.py`). It holds for one step.
    """

    hypotheses: list[LazyTrieState]
    mode: TrieMode
    deferred: DeferredQueue
    dropped: DroppedMass = NOTHING_DROPPED
    log_missing_factor: float = 0.0
    expansion: Expansion | None = None
    late: tuple[Late, ...] = ()
    foreseen: tuple[LazyTrieState, ...] = ()
    coming: tuple[int | bytes, ...] = ()

    @property
    def history(self) -> History:
        """What has been read, as far as deferred hypotheses have to catch up with it."""
        return self.deferred.history

    @cached_property
    def log_weight(self) -> float:
        """Natural log of the hypotheses' total weight."""
        return log_sum(self.hypotheses)

    @property
    def log_total(self) -> float:
        """`log_weight`, and what is missing because its contexts have not been evaluated yet."""
        return self.log_weight + self.log_missing_factor

    def after(
        self,
        hypotheses: Sequence[LazyTrieState],
        deferred: DeferredQueue | None = None,
        dropped: DroppedMass | None = None,
        log_missing_factor: float | None = None,
        late: tuple[Late, ...] = (),
    ) -> BeamData:
        """Other hypotheses, of which some were late; what else is not given stays as it is."""
        return BeamData(
            sorted(hypotheses, key=lambda state: -state.weight),
            hypotheses[0].mode if hypotheses else self.mode,
            self.deferred if deferred is None else deferred,
            self.dropped if dropped is None else dropped,
            self.log_missing_factor if log_missing_factor is None else log_missing_factor,
            late=late,
        )

    def kept(self, log_least_share: float, most: int | None) -> tuple[BeamData, float]:
        """The hypotheses whose share of the whole exceeds a threshold, at most so many; the others are
        dropped.

        Returns:
            The data, and the natural log of what they weigh, with what is missing in proportion.
        """
        total = self.log_total
        found = [state for state in self.hypotheses if state.weight - total > log_least_share][:most]
        held = log_sum(found) + self.log_missing_factor
        lost = [weight_upper_bound(state) for state in self.hypotheses[len(found) :]]
        return self.after(found, dropped=self.dropped.more(lost, held)), held

    def with_hindsight(self, passing: Sequence[LazyTrieState], origins: Sequence[LazyTrieState]) -> BeamData:
        """The data with hypotheses that were found later, in what they weigh here.

        Args:
            passing: the hypotheses.
            origins: what was deferred and became these, or is deferred here.
        """
        deferred = self.deferred.without(set(map(id, origins)))
        return replace(self.after([*self.hypotheses, *passing], deferred), foreseen=tuple(origins))

    def without_deferred(self, hypotheses: Sequence[LazyTrieState], log_kept: float) -> BeamData:
        """Other hypotheses, of natural log weight `log_kept`, and all that is deferred dropped."""
        gone = self.deferred
        dropped = self.dropped.more(gone.weights, log_kept, gone.expected())
        return replace(self.after(hypotheses, gone.emptied(), dropped), late=self.late)
