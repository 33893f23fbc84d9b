"""Candidates that wait: extensions too light to be worth a model call yet, with their exact weights.

**Problem.** Committing a token costs a model call. Dropping light extensions for good loses bytes that a
text can take: the right extension is sometimes one of a thousandth, when the bytes that follow rule the
heavier ones out. Evaluating all of them costs many times what the heavy ones cost.

**Idea.** A light extension waits. Its weight `w`, the probability of the tokens it commits, is known
without a model call; what it would have given the bytes read since is not, and is *estimated*:

- Where it rejoined the other candidates (a token of theirs ends at the same byte), as what the beam itself
  gave those bytes: only older boundaries differ. Measured on three paragraphs with SmolLM2-135M: the
  ratio of the truth to this has median 1.0, and is below e^1.1 in 99 cases of 100.
- Where it ended inside a token of theirs, by what tokens there are. Until the next place where tokens
  end, its bytes `s` count `min(1, c q(s), sqrt(e) p(s)^0.95)`: `q` is the probability that tokens drawn
  evenly from the vocabulary spell a text beginning with `s`, and `p(s)` what the beam gave it. (Here the
  median ratio is e^-7: such candidates mostly die, and waiting saves the call that would tell. Some have
  one near 1, "http:" before "//" among them. c = 2000 finds those sooner, for 7 % more contexts and an error
  a twelfth smaller; c = 200 finds the `const` of a line of JavaScript too late, and loses 16 nats there.)
- No byte counts less than `LEAST` (`trail.py`): where the beam is surprised beyond that, those who wait gain
  on it. And at a surprise some are looked at whatever is expected of them (`look`, `step.py`).

Who waits is evaluated as soon as the estimate is a share of the beam above the tolerance, and is then
replayed through the bytes read since. An estimate decides when a candidate is looked at and never what it
weighs. `w` bounds what it can ever contribute, which gives certified bounds (`ByteBeamState.bounds`).

**Cost.** Estimates of all that wait since one place change together, so a place's heaviest stands for it,
and those that have rejoined keep their order for good: one comparison a byte tells whether any is due.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from operator import itemgetter
from typing import Self

from genlm.bytes.byte_lm.prior import Stretch
from genlm.bytes.byte_lm.trail import Trail
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.util import logsumexp

__all__ = ["Waiting", "WaitingRoom"]

LENIENCE = math.log(250.0)  # `c`
BEND, OFFSET = 0.95, 0.5
HEAVY = 0.3
"""Share of the beam at a token's end from which that place counts as one where the candidates meet."""
RECENT = 12
"""How many bytes ago those may have begun to wait who are looked at. Earlier ones are often heavier, and have
been passed by many times."""
MOST_WAITING = 4096
"""How many may wait that have rejoined, and as many that have not; the lightest beyond are given up."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A candidate at a token's end that is not evaluated.

    Attributes:
        state: the candidate as it was where the token ended; its weight is exact.
        trail: what had been read by then.
        key: for one that has rejoined: natural log of its estimate, less `loglik` where it is compared.
        lenience: log factor by which that estimate is above what is to be expected.
    """

    state: LazyTrieState
    trail: Trail
    key: float = 0.0
    lenience: float = 0.0

    @property
    def weight(self) -> float:
        return self.state.weight

    def replay(self, now: Trail) -> tuple[LazyTrieState | None, list[Waiting]]:
        """Read what was read since, with the masses known.

        Returns:
            The candidate after those symbols, None if it cannot read them; and one more waiting candidate
            for each token that ends on the way.
        """
        state, last, found = self.state, self.trail, list[Waiting]()
        for link in now.since(self.trail):
            if last is not self.trail:
                found += [Waiting(extension, last) for extension in state.extend_all()]
            after = state.with_mode(link.mode) << link.symbol
            if after is None:
                return None, found
            state, last = after, link
        return state, found


@dataclass(frozen=True)
class WaitingRoom:
    """All who wait, and what has been read. A value.

    Attributes:
        trail: what has been read.
        inside: by the place where they began to wait, those who ended inside a token of the others and
            have not rejoined them; each place's heaviest first.
        rejoined: the others, in descending order of their key.
        meets: whether tokens of heavy candidates end at the present place, once a beam has found out.
        stretch: what was read since the last place before it where they did.
    """

    trail: Trail
    inside: tuple[tuple[Waiting, ...], ...] = ()
    rejoined: tuple[Waiting, ...] = ()
    meets: bool = False
    stretch: Stretch = field(default_factory=Stretch)

    def __len__(self) -> int:
        return len(self.rejoined) + sum(map(len, self.inside))

    def __iter__(self) -> Iterator[Waiting]:
        for group in self.inside:
            yield from group
        yield from self.rejoined

    @property
    def weights(self) -> list[float]:
        """The weights: upper bounds of what each can contribute."""
        return [waiting.weight for waiting in self]

    def expected(self) -> float:
        """Natural log of what all are expected to contribute now."""
        found = [w.key - w.lenience + self.trail.loglik for w in self.rejoined]
        for group in self.inside:
            doubt = self._expected_doubt(group[0], self.trail, self.stretch)
            found += [w.weight + doubt for w in group]
        return logsumexp(found)

    def admit(self, extensions: Iterable[LazyTrieState], meets: bool) -> Self:
        """Let extensions wait that end at the present place.

        Args:
            extensions: the candidates.
            meets: whether heavy candidates have a token's end here too. Then all who wait have rejoined.
        """
        new = [Waiting(extension, self.trail) for extension in extensions]
        if not meets:
            group = tuple(sorted(new, key=lambda w: -w.weight))
            return replace(self, meets=False, inside=(*self.inside, group) if group else self.inside)
        closing = [*new, *(w for group in self.inside for w in group)]
        closed = [self._close(w, self.trail, self.stretch) for w in closing]
        return replace(self, meets=True, inside=(), rejoined=self._ordered(closed))

    def admit_late(self, found: Iterable[Waiting]) -> Self:
        """Let candidates wait that ended at places passed since."""
        closed, late = list[Waiting](), dict[Trail, list[Waiting]]()
        for waiting in found:
            met = self._rejoining(waiting.trail)
            if met is None:
                late.setdefault(waiting.trail, []).append(waiting)
            else:
                closed.append(self._close(waiting, *met))
        groups = {group[0].trail: group for group in self.inside}
        for trail, members in late.items():
            groups[trail] = tuple(sorted((*groups.get(trail, ()), *members), key=lambda w: -w.weight))
        return replace(self, inside=tuple(groups.values()), rejoined=self._ordered(closed))

    def read(self, symbol: int | bytes, mode: TrieMode, logp: float) -> Self:
        """All have one more symbol to catch up with, to which the beam gave `logp`."""
        trail = self.trail.after(symbol, mode, logp, self.stretch if self.meets else None)
        stretch = (Stretch() if self.meets else self.stretch).after(symbol)
        return replace(self, trail=trail, meets=False, stretch=stretch)

    def due(self, least: float, patience: float = 0.0, most: int | None = None) -> tuple[list[Waiting], Self]:
        """Those whose estimate exceeds `least`, a log weight, and the room without them.

        Args:
            least: natural log weight.
            patience: by how much more, as a log factor, for those who have not rejoined.
            most: take at most so many, those of the largest estimates.
        """
        if most == 0:
            return [], self
        bar = least - self.trail.loglik
        n = 0
        while n < len(self.rejoined) and self.rejoined[n].key > bar:
            n += 1
        taken, left = list(self.rejoined[:n]), self.rejoined[n:]
        inside = list[tuple[Waiting, ...]]()
        for group, doubt in self._with_doubts():
            k = sum(1 for w in group if w.weight + doubt > least + patience)
            taken += group[:k]
            if k < len(group):
                inside.append(group[k:])
        if not taken:
            return [], self
        room = replace(self, inside=tuple(inside), rejoined=left)
        if most is not None and len(taken) > most:
            ranked = sorted(taken, key=lambda w: -self._estimate(w))
            taken, rest = ranked[:most], ranked[most:]
            room = room.admit_late(rest)
        return taken, room

    def look(self, most: int) -> tuple[list[Waiting], Self]:
        """The heaviest of those who have rejoined and began to wait of late, and the room without them.

        Args:
            most: how many.
        """
        since = self.trail.at - RECENT
        late = [w for w in self.rejoined if w.trail.at >= since] if most else []
        taken = nlargest(most, late, key=lambda w: w.weight)
        if not taken:
            return [], self
        among = set(map(id, taken))
        return taken, replace(self, rejoined=tuple(w for w in self.rejoined if id(w) not in among))

    def drop(self, least: float) -> tuple[Self, Self]:
        """Give up those whose estimate is below `least`, and the lightest beyond `MOST_WAITING` of a kind.

        Returns:
            Those given up, and the room without them.
        """
        bar, n = least - self.trail.loglik, len(self.rejoined)
        while n and (self.rejoined[n - 1].key < bar or n > MOST_WAITING):
            n -= 1
        each = [(w, w.weight + doubt) for group, doubt in self._with_doubts() for w in group]
        keep = {id(w) for w, estimate in nlargest(MOST_WAITING, each, key=itemgetter(1)) if estimate >= least}
        lost = _parted([[w for w in group if id(w) not in keep] for group in self.inside])
        inside = _parted([[w for w in group if id(w) in keep] for group in self.inside])
        gone = replace(self, inside=lost, rejoined=self.rejoined[n:])
        return gone, replace(self, inside=inside, rejoined=self.rejoined[:n]) if len(gone) else self

    # -- estimates ------------------------------------------------------------------------------------

    def _with_doubts(self) -> Iterator[tuple[tuple[Waiting, ...], float]]:
        for group in self.inside:
            yield group, self._doubt(group[0], self.trail, self.stretch)

    def _estimate(self, waiting: Waiting) -> float:
        end, stretch = self._rejoining(waiting.trail) or (self.trail, self.stretch)
        return waiting.weight + self._doubt(waiting, end, stretch) + self.trail.loglik - end.loglik

    def _close(self, waiting: Waiting, place: Trail, stretch: Stretch) -> Waiting:
        doubt = self._doubt(waiting, place, stretch)
        lenience = doubt - self._expected_doubt(waiting, place, stretch)
        return replace(waiting, key=waiting.weight + doubt - place.loglik, lenience=lenience)

    def _ordered(self, new: Sequence[Waiting]) -> tuple[Waiting, ...]:
        if not new:
            return self.rejoined
        found = list(self.rejoined)
        for waiting in new:  # few, among many that are in order already
            insort(found, waiting, key=_descending)
        return tuple(found)

    def _rejoining(self, start: Trail) -> tuple[Trail, Stretch] | None:
        """The first place from `start` on where heavy candidates have a token's end, if there is one; and
        what was read from the place before where they did to there."""
        for link in self.trail.since(start):
            if link.met is not None:
                assert link.before is not None
                return link.before, link.met
        return (self.trail, self.stretch) if self.meets else None

    def _doubt(self, waiting: Waiting, end: Trail, stretch: Stretch) -> float:
        """Log of what the symbols from where one began to wait to `end`, where `stretch` ends, count for who
        ended inside a token of the others."""
        if waiting.trail is end:
            return 0.0
        given = end.loglik - waiting.trail.loglik
        return min(0.0, LENIENCE + _prior(waiting, end, stretch), OFFSET + BEND * given)

    def _expected_doubt(self, waiting: Waiting, end: Trail, stretch: Stretch) -> float:
        """The same without lenience."""
        start = waiting.trail
        return 0.0 if start is end else min(_prior(waiting, end, stretch), end.loglik - start.loglik)


def _parted(groups: list[list[Waiting]]) -> tuple[tuple[Waiting, ...], ...]:
    return tuple(tuple(group) for group in groups if group)


def _descending(waiting: Waiting) -> float:
    return -waiting.key


def _prior(waiting: Waiting, end: Trail, stretch: Stretch) -> float:
    return stretch.prior(waiting.state.trie.trie, end.at - waiting.trail.at)
