"""Hindsight: what a byte costs, once the whole text has been read.

**Problem.** A hypothesis that is deferred at one byte and evaluated at a later one was there in between. A
beam that answers at once cannot know what it weighed there; so the bytes in between have too little, and the
one where it was found has too much, above probability 1 at times.

**Idea.** When a text is known, nobody waits. What is evaluated late reads again what has been read since
(`deferred.py`), and so shows what it weighed at every byte on the way: its mass is booked there. The prefix
probability at each byte is then the sum over every hypothesis ever evaluated that covers it. That is a lower
bound of the truth, at least as near as the beam's own, and no context is evaluated for it.

**Invariant.** Whatever is evaluated after a byte was part of something evaluated before it: so these sums
never rise, and no byte is above probability 1. What healing finds is the exception, for it may have been
dropped before; since the truth never rises either, a place has at least what a later one has. Sums over a
text are those of the beam, but for what is found late of the time before the text: it is booked there.

What is never found is *expected* (`unfound`), at each place, from what still waits at the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm import ByteBeamState, LazyTrieState
from genlm.bytes.trie import TrieMode

__all__ = ["Hindsight"]

ROUND_OFF = 1e-9
"""Nats: a figure above 0 by less is one of probability 1, in the arithmetic of floats."""


class Hindsight:
    """What the reading of a text finds out, by place: place 0 is before its first symbol.

    Args:
        start: the beam before the text.
        count: how many symbols the text has.
        wanted: places whose beams are kept.
    """

    def __init__(self, start: ByteBeamState, count: int, wanted: Collection[int] = ()) -> None:
        self._last, self._read, self._segment = start, 0, 0
        self._wanted = frozenset(wanted)
        self._beams = dict[int, ByteBeamState]()
        self._passing = defaultdict[int, list[LazyTrieState]](list)
        self._origins = defaultdict[int, list[LazyTrieState]](list)
        # Natural logs: what the pruned beam weighed before each symbol, and the beam after it; what was found
        # late; what waits, relative to what the beam gave the symbols, `given`. Nats: what was dropped.
        self._before, self._after, self._given, self._dropped = np.zeros((4, count + 1))
        self._late, self._waiting = np.full((2, count + 1), -np.inf)
        self._given[0], self._dropped[0] = start.data.history.log_prob, start.dropped.nats

    def hear(self, at: int, before: ByteBeamState, after: ByteBeamState) -> None:
        """A symbol has been read; see `Listener`."""
        if at in self._wanted:
            self._beams[at] = before
        if after.data.history.prev is not self._last.data.history:  # a window has slid, or a beam has healed
            self._settle()
        self._before[at], self._after[at + 1] = before.logZ, after.logZ
        self._given[at + 1], self._dropped[at + 1] = after.data.history.log_prob, after.dropped.nats
        self._last, self._read = after, at + 1
        begun = after.data.history.length - self._read
        for late in after.data.late:
            first = late.place - begun
            for place, passed in enumerate(late.passed, first + 1):
                if 0 <= place <= at:
                    state = passed.with_mode(TrieMode.WITH_EOS)
                    self._late[place] = np.logaddexp(self._late[place], state.weight)
                    if place in self._wanted:
                        self._passing[place].append(state)
            for place in range(max(first, 0), self._read):
                if place in self._wanted:
                    self._origins[place].append(late.origin)

    def logprobs(self) -> Float64[np.ndarray, " symbols"]:
        """Natural log-probabilities of the symbols read, each given all before it; none above 0."""
        n = self._read
        late = self._late[: n + 1]
        with np.errstate(invalid="ignore"):  # nothing less nothing
            found: Float64[np.ndarray, " symbols"] = np.logaddexp(self._after[1 : n + 1], late[1:])
            found = found - np.logaddexp(self._before[:n], late[:-1])
        found[(found > 0.0) & (found < ROUND_OFF)] = 0.0
        if (found > 0.0).any():
            sums = np.concatenate([[0.0], np.cumsum(found)])
            found = np.minimum(np.diff(np.maximum.accumulate(sums[::-1])[::-1]), 0.0)
        return found

    def unfound(self) -> Float64[np.ndarray, " places"]:
        """By how many nats the log prefix probability is expected to be too low, at each place up to the last
        symbol read."""
        self._settle()
        n = self._read + 1
        whole = np.logaddexp(np.append(self._before[:1], self._after[1:n]), self._late[:n])
        with np.errstate(invalid="ignore", over="ignore"):
            missing: Float64[np.ndarray, " places"] = np.log1p(np.exp(self._waiting[:n] - whole))
            return missing + self._dropped[:n]

    def beams(self) -> dict[int, ByteBeamState]:
        """The pruned beams before the wanted places, with what later symbols have shown of them."""
        origins, passing = self._origins, self._passing
        return {
            place: beam.with_hindsight(passing[place], origins[place]) if origins[place] else beam
            for place, beam in self._beams.items()
        }

    def _settle(self) -> None:
        """Book what still waits at every place since it does; from now on it is dropped."""
        if self._segment > self._read:
            return
        queue, here = self._last.deferred, slice(self._segment, self._read + 1)
        begun, waiting = queue.history.length - self._read, self._waiting[here]
        for place, expected in queue.expectations():
            since = max(place - begun + 1 - self._segment, 0)
            if since < len(waiting):
                waiting[since] = np.logaddexp(waiting[since], expected)
        np.logaddexp.accumulate(waiting, out=waiting)
        waiting += self._given[here]
        self._segment = self._read + 1
