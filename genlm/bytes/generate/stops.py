"""Finding stop strings in a text that grows.

Compared one by one, many long stop strings cost the product of their number and length at every step, and a
server takes them from anybody. This is the automaton of Aho and Corasick (1975), built as far as the text
goes: a state is the longest end of the text that a stop string begins with, and its link leads to the next
shorter one. States are ranges of the sorted strings, so nothing but the sorting is done in advance (ten
thousand strings of a hundred bytes would be a million states). Over a text, a byte follows two links on
average, or makes a state, at a bisection each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Found", "StopFinder"]


class Found(NamedTuple):
    """Where a stop string stands: offsets in bytes since the beginning."""

    start: int
    end: int


class _State:
    """What the strings from `first` to `last` in sorted order begin with, so many bytes of it.

    Attributes:
        link: the state of the longest end of it that is a state; None for the empty one.
        ended: length of the longest stop string that it ends with, 0 for none.
        after: the state that a byte leads to, as far as known; None where no string goes on so.
    """

    __slots__ = ("after", "depth", "ended", "first", "last", "link")

    def __init__(self, first: int, last: int, depth: int, ended: int) -> None:
        self.first, self.last, self.depth, self.ended = first, last, depth, ended
        self.link: _State | None = None
        self.after: dict[int, _State | None] = {}


class StopFinder:
    """Finds the first stop string, none of which is empty, in a growing text.

    The first is the one that is complete first, byte by byte; of those complete at the same byte the
    longest. So the answer does not depend on how the text grows.

    Attributes:
        held: the length of the longest end of the text that a stop string may begin with.
        steps: how many links have been followed and states made.

    Examples:
        >>> finder = StopFinder([b"END", b"ND."])
        >>> finder.feed(b"the EN"), finder.held, finder.feed(b"D."), finder.held
        (None, 2, Found(start=4, end=7), 0)
    """

    def __init__(self, stops: Iterable[bytes]) -> None:
        self._stops = sorted(set(stops))
        self._root = self._state = _State(0, len(self._stops), 0, 0)
        self._read = 0
        self.steps = 0

    @property
    def held(self) -> int:
        return self._state.depth

    def feed(self, piece: bytes | bytearray) -> Found | None:
        """The first stop string that ends in the text's next bytes, if any; the text then begins anew."""
        for byte in piece:
            self._state = self._after(self._state, byte)
            self._read += 1
            if self._state.ended:
                found = Found(self._read - self._state.ended, self._read)
                self._state, self._read = self._root, 0
                return found
        return None

    def _after(self, state: _State, byte: int) -> _State:
        """The state after one more byte. States that are made on the way are linked from the shortest up."""
        made: list[_State] = []
        at: _State | None = state
        found = self._root
        while at is not None:
            self.steps += 1
            if byte not in at.after:
                at.after[byte] = new = self._longer(at, byte)
                if new is not None:
                    made.append(new)
            elif (known := at.after[byte]) is not None:
                found = known
                break
            at = at.link
        for new in reversed(made):
            new.link, new.ended = found, new.ended or found.ended
            found = new
        return found

    def _longer(self, state: _State, byte: int) -> _State | None:
        def at(string: bytes) -> int:
            return string[state.depth] if len(string) > state.depth else -1

        first = bisect_left(self._stops, byte, state.first, state.last, key=at)
        last = bisect_right(self._stops, byte, first, state.last, key=at)
        if first == last:
            return None
        depth = state.depth + 1
        return _State(first, last, depth, depth if len(self._stops[first]) == depth else 0)
