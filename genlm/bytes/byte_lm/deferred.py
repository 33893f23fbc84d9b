"""Deferred hypotheses: extensions too light to be worth a model call yet, with their exact weights.

**Problem.** Committing a token costs a model call. Dropping light extensions for good loses bytes that a
text can take: the right extension is sometimes one of a thousandth, when the bytes that follow rule the
heavier ones out. Evaluating all of them costs many times what the heavy ones cost.

**Idea.** A light extension is deferred. Its weight `w`, the probability of the tokens it commits, is known
without a model call; what it would have given the bytes read since is not, and is *estimated*:

- Where it is *aligned* with the other hypotheses (a token of theirs ends at the same byte), as what the beam
  itself gave those bytes: only older boundaries differ. Measured on three paragraphs with SmolLM2-135M: the
  ratio of the truth to this has median 1.0, and is below e^1.1 in 99 cases of 100.
- Where it ended inside a token of theirs, by what tokens there are. Until the next common boundary its bytes
  `s` count `min(1, c q(s), sqrt(e) p(s)^b)`: `q` is the probability that tokens drawn evenly from the
  vocabulary spell a text beginning with `s`, and `p(s)` what the beam gave it (`c` and `b`: `constants.py`).
  Where one that committed the same token there has been evaluated, what has come of it tells (`cousins.py`).
- No symbol counts less than a least probability: where the beam is surprised beyond that, the deferred gain
  on it. And at a surprise some are probed whatever is expected of them (`tolerance.py`).

A deferred hypothesis is evaluated as soon as the estimate is a share of the beam above the tolerance, and
then catches up with the symbols read since. An estimate decides when a hypothesis is evaluated and never what
it weighs. `w` bounds what it can ever contribute, which gives certified bounds (`ByteBeamState.bounds`).

**Cost.** Estimates of all that were deferred at one place change together, so a place's heaviest stands for
it, and the aligned keep their order for good: one comparison a byte tells whether any is above the bar.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from itertools import islice, takewhile
from operator import itemgetter
from typing import NamedTuple, Self

from genlm.bytes.byte_lm.constants import USUAL, ToleranceConstants
from genlm.bytes.byte_lm.cousins import Cousins, Cut
from genlm.bytes.byte_lm.history import History
from genlm.bytes.byte_lm.prior import Segment
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.util import logsumexp

__all__ = ["Deferred", "DeferredQueue", "Late"]


class Late(NamedTuple):
    """A hypothesis that was evaluated after the place where it was deferred: mass that was found late.

    Attributes:
        origin: as it was deferred.
        place: how many symbols of the history had been read there.
        passed: as it was after each symbol since, in the mode of that symbol, as far as it could read them.
    """

    origin: LazyTrieState
    place: int
    passed: tuple[LazyTrieState, ...]


@dataclass(frozen=True, slots=True)
class Deferred:
    """A hypothesis at a token's end that is not evaluated.

    Attributes:
        state: the hypothesis as it was where the token ended; its weight is exact.
        history: what had been read by then.
        key: of an aligned one: natural log of its estimate, less `log_prob` of the history where it is
            compared.
        inflation: log factor by which that estimate is above what is to be expected.
    """

    state: LazyTrieState
    history: History
    key: float = 0.0
    inflation: float = 0.0

    @property
    def weight(self) -> float:
        return self.state.weight

    def catch_up(
        self, now: History, evaluated: LazyTrieState
    ) -> tuple[LazyTrieState | None, Late, list[Deferred]]:
        """Read what was read since.

        Args:
            now: what has been read.
            evaluated: the hypothesis with its masses known.

        Returns:
            The hypothesis after those symbols, None if it cannot read them; how it came there; and one more
            deferred hypothesis for each token that ends on the way.
        """
        state: LazyTrieState | None = evaluated
        last, passed, found = self.history, list[LazyTrieState](), list[Deferred]()
        for link in now.suffix_after(self.history):
            assert state is not None
            found += [Deferred(extension, last) for extension in state.extend_all()]
            state = state.with_mode(link.mode) << link.symbol
            if state is None:
                break
            passed.append(state)
            last = link
        return state, Late(self.state, self.history.length, tuple(passed)), found


@dataclass(frozen=True)
class DeferredQueue:
    """All deferred hypotheses, and what has been read. A value.

    Attributes:
        history: what has been read.
        unaligned: by the place where they were deferred, those that ended inside a token of the others, with
            no common boundary since; each place's heaviest first.
        aligned: the others, in descending order of their key.
        common_boundary: whether tokens of heavy hypotheses end at the present place, once a beam has found
            out.
        segment: what was read since the last common boundary before it.
        cousins: those that were evaluated where it was not a common boundary, since the last.
        constants: what estimates go by.
    """

    history: History = field(default_factory=History)
    unaligned: tuple[tuple[Deferred, ...], ...] = ()
    aligned: tuple[Deferred, ...] = ()
    common_boundary: bool = False
    segment: Segment = field(default_factory=Segment)
    cousins: Cousins = field(default_factory=Cousins)
    constants: ToleranceConstants = USUAL

    def __len__(self) -> int:
        return len(self.aligned) + sum(map(len, self.unaligned))

    def __iter__(self) -> Iterator[Deferred]:
        for group in self.unaligned:
            yield from group
        yield from self.aligned

    def emptied(self, length: int | None = None) -> Self:
        """Nothing deferred, and a history that begins here, after `length` symbols; None: after as many as
        now."""
        history = History(self.history.length if length is None else length)
        return type(self)(history, constants=self.constants)

    @property
    def weights(self) -> list[float]:
        """Natural log weights: upper bounds of what each can contribute."""
        return [deferred.weight for deferred in self]

    def expected(self) -> float:
        """Natural log of what all are expected to contribute now."""
        return logsumexp([expected for _, expected in self.expectations()]) + self.history.log_prob

    def expectations(self) -> Iterator[tuple[int, float]]:
        """Of each, how many symbols had been read where it was deferred; and natural log of what it is
        expected to contribute, less `log_prob` of the history there: about the same at every symbol since."""
        for d in self.aligned:
            yield d.history.length, d.key - d.inflation
        for group in self.unaligned:
            future = self._expected_future(group[0], self.history, self.segment) - self.history.log_prob
            yield from ((d.history.length, d.weight + future) for d in group)

    def without(self, states: Collection[int]) -> Self:
        """The queue without some hypotheses, by the identity of their `state`."""
        left = (tuple(d for d in group if id(d.state) not in states) for group in self.unaligned)
        aligned = tuple(d for d in self.aligned if id(d.state) not in states)
        return self._holding(left, aligned)

    def push(self, extensions: Iterable[LazyTrieState], common_boundary: bool) -> Self:
        """Defer extensions that end at the present place.

        Args:
            extensions: the hypotheses.
            common_boundary: whether tokens of heavy hypotheses end here too. Then all are aligned.
        """
        new = [Deferred(extension, self.history) for extension in extensions]
        if not new and not common_boundary and not self.common_boundary:
            return self
        if not common_boundary:
            group = tuple(sorted(new, key=lambda d: -d.weight))
            found = self._holding([*self.unaligned, group], self.aligned)
            return found if not found.common_boundary else replace(found, common_boundary=False)
        new += (d for group in self.unaligned for d in group)
        aligned = self._with_aligned([self._align(d, self.history, self.segment) for d in new])
        return replace(self, common_boundary=True, unaligned=(), aligned=aligned, cousins=Cousins())

    def evaluated(self, extensions: Sequence[LazyTrieState], common_boundary: bool) -> Self:
        """Extensions that end at the present place have been evaluated: cousins of those deferred here."""
        if common_boundary or not extensions:
            return self
        return replace(self, cousins=self.cousins.after(extensions, self.history.length))

    def push_late(self, found: Iterable[Deferred]) -> Self:
        """Defer hypotheses whose tokens ended at places passed since."""
        aligned, late, found = list[Deferred](), dict[History, list[Deferred]](), list(found)
        boundaries = self._next_boundaries({deferred.history for deferred in found})
        for deferred in found:
            boundary = boundaries[deferred.history]
            if boundary is None:
                late.setdefault(deferred.history, []).append(deferred)
            else:
                aligned.append(self._align(deferred, *boundary))
        groups = {group[0].history: group for group in self.unaligned}
        for history, members in late.items():
            groups[history] = tuple(sorted((*groups.get(history, ()), *members), key=lambda d: -d.weight))
        return self._holding(groups.values(), self._with_aligned(aligned))

    def read(self, symbol: int | bytes, mode: TrieMode, log_prob: float) -> Self:
        """All have one more symbol to catch up with, to which the beam gave `log_prob`."""
        history = self.history_after(symbol, mode, log_prob)
        segment = (Segment() if self.common_boundary else self.segment).after(symbol)
        return self._holding(self.unaligned, self.aligned, history, segment)

    def history_after(self, symbol: int | bytes, mode: TrieMode, log_prob: float) -> History:
        """The history with one more symbol; see `read`."""
        least = math.log(self.constants.min_symbol_prob)
        ended = self.segment if self.common_boundary else None
        return self.history.after(symbol, mode, max(log_prob, least), ended)

    def pop_above(
        self,
        log_bar: float,
        log_margin: float = 0.0,
        most: int | None = None,
        hypotheses: Sequence[LazyTrieState] = (),
    ) -> tuple[list[Deferred], Self]:
        """Those whose estimate exceeds a bar, and the queue without them.

        Args:
            log_bar: natural log weight.
            log_margin: natural log of the factor by which unaligned ones without cousins must exceed it.
            most: take at most so many, those of the largest estimates.
            hypotheses: those of the beam: what has come of cousins.
        """
        if most == 0:
            return [], self
        now = self.history.log_prob
        over = [(d, d.key + now) for d in takewhile(lambda d: d.key > log_bar - now, self.aligned)]
        with_cousins = log_bar + math.log(self.constants.cousin_margin)
        gains = self._gains(hypotheses, with_cousins)
        for group, future in self._with_futures():
            over += [
                (d, d.weight + future)
                for d in group
                if d.weight + future > log_bar + log_margin or d.weight + _gain(d, gains) > with_cousins
            ]
        if most is not None and len(over) > most:
            over = nlargest(most, over, key=itemgetter(1))
        return self._taking([d for d, _ in over])

    def near(self, log_least: float) -> Iterator[tuple[LazyTrieState, float]]:
        """Those whose estimate exceeds a natural log weight, and the estimate."""
        bar = log_least - self.history.log_prob
        for d in takewhile(lambda d: d.key > bar, self.aligned):
            yield d.state, d.key + self.history.log_prob
        estimates = ((d.state, d.weight + future) for group, future in self._with_futures() for d in group)
        yield from ((state, estimate) for state, estimate in estimates if estimate > log_least)

    def probe(self, most: int) -> tuple[list[Deferred], Self]:
        """The aligned that were deferred of late and are nearest to being evaluated, at most so many; and the
        queue without them."""
        since = self.history.length - self.constants.probe_window
        return self._taking(list(islice((d for d in self.aligned if d.history.length >= since), most)))

    def prune(self, log_least: float) -> tuple[Self, Self]:
        """Drop those whose estimate is below `log_least`, and the lightest beyond `max_deferred` of a kind.

        Returns:
            Those dropped, and the queue without them.
        """
        bar, n, most = log_least - self.history.log_prob, len(self.aligned), self.constants.max_deferred
        while n and (self.aligned[n - 1].key < bar or n > most):
            n -= 1
        each = [(d, d.weight + future) for group, future in self._with_futures() for d in group]
        keep = {id(d) for d, estimate in nlargest(most, each, key=itemgetter(1)) if estimate >= log_least}
        lost = (tuple(d for d in group if id(d) not in keep) for group in self.unaligned)
        kept = (tuple(d for d in group if id(d) in keep) for group in self.unaligned)
        gone = self._holding(lost, self.aligned[n:])
        return gone, self._holding(kept, self.aligned[:n]) if len(gone) else self

    def _taking(self, taken: list[Deferred]) -> tuple[list[Deferred], Self]:
        """Some of those deferred, and the queue without them."""
        if not taken:
            return taken, self
        among, lightest = set(map(id, taken)), min(d.key for d in taken)

        def left(those: Sequence[Deferred]) -> tuple[Deferred, ...]:
            return tuple([d for d in those if id(d) not in among])

        # Of the aligned, in the order of their keys, none is taken beyond the one of the least.
        n = bisect_right(self.aligned, -lightest, key=_falling)
        aligned = (*left(self.aligned[:n]), *self.aligned[n:])
        places = {d.history.length for d in taken}
        groups = (left(g) if g[0].history.length in places else g for g in self.unaligned)
        return taken, self._holding(groups, aligned)

    def _holding(
        self,
        unaligned: Iterable[tuple[Deferred, ...]],
        aligned: tuple[Deferred, ...],
        history: History | None = None,
        segment: Segment | None = None,
    ) -> Self:
        """Others deferred; where a history is given, after one more symbol. At every byte, many times:
        `replace` takes three times as long."""
        return type(self)(
            self.history if history is None else history,
            tuple(filter(None, unaligned)),
            aligned,
            history is None and self.common_boundary,
            self.segment if segment is None else segment,
            self.cousins,
            self.constants,
        )

    # -- estimates ------------------------------------------------------------------------------------

    def _with_futures(self) -> Iterator[tuple[tuple[Deferred, ...], float]]:
        for group in self.unaligned:
            yield group, self._future_log_estimate(group[0], self.history, self.segment)

    def _align(self, deferred: Deferred, end: History, segment: Segment) -> Deferred:
        future = self._future_log_estimate(deferred, end, segment)
        inflation = future - self._expected_future(deferred, end, segment)
        key = deferred.weight + future - end.log_prob
        return Deferred(deferred.state, deferred.history, key, inflation)

    def _gains(self, hypotheses: Sequence[LazyTrieState], log_bar: float) -> dict[Cut, float]:
        """What has come of the cousins of unaligned ones that may exceed a bar: weights only go down."""
        if not self.cousins.weights or not hypotheses:
            return {}
        heavy = (d for group in self.unaligned for d in takewhile(lambda d: d.weight > log_bar, group))
        cuts = {Cut.of(d.state, d.history.length) for d in heavy}
        return self.cousins.gains(hypotheses, {cut for cut in cuts if cut is not None})

    def _with_aligned(self, new: Sequence[Deferred]) -> tuple[Deferred, ...]:
        if not new:
            return self.aligned
        found = list(self.aligned)
        for deferred in new:  # few, among many that are in order already
            insort(found, deferred, key=_falling)
        return tuple(found)

    def _next_boundaries(self, starts: set[History]) -> dict[History, tuple[History, Segment] | None]:
        """The first common boundary from each of some places on, if there is one, and the segment that ends
        there. One walk back for all."""
        found, link = dict[History, tuple[History, Segment] | None](), self.history
        boundary = (link, self.segment) if self.common_boundary else None
        while True:
            if link in starts:
                found[link] = boundary
            if len(found) == len(starts):
                return found
            assert link.prev is not None, "the history does not begin at a place of these"
            if link.boundary_before is not None:
                boundary = link.prev, link.boundary_before
            link = link.prev

    def _future_log_estimate(self, deferred: Deferred, end: History, segment: Segment) -> float:
        """Log of what the symbols from where one was deferred to `end`, where `segment` ends, count for one
        that ended inside a token of the others."""
        if deferred.history is end:
            return 0.0
        numbers, given = self.constants, end.log_prob - deferred.history.log_prob
        by_vocabulary = math.log(numbers.inflation) + _prior(deferred, end, segment)
        return min(0.0, by_vocabulary, numbers.damping_offset + numbers.damping * given)

    def _expected_future(self, deferred: Deferred, end: History, segment: Segment) -> float:
        """The same without inflation."""
        start = deferred.history
        return 0.0 if start is end else min(_prior(deferred, end, segment), end.log_prob - start.log_prob)


def _falling(deferred: Deferred) -> float:
    return -deferred.key


def _gain(deferred: Deferred, gains: Mapping[Cut, float]) -> float:
    cut = Cut.of(deferred.state, deferred.history.length) if gains else None
    return -math.inf if cut is None else gains.get(cut, -math.inf)


def _prior(deferred: Deferred, end: History, segment: Segment) -> float:
    return segment.prior(deferred.state.trie.trie, end.length - deferred.history.length)
