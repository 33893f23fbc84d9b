"""What a beam has read, so that hypotheses deferred meanwhile can catch up with it later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from genlm.bytes.byte_lm.prior import Segment
from genlm.bytes.trie.modes import TrieMode

__all__ = ["History"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class History:
    """What a beam has read, one symbol a link. Links are shared by all beams that have read on from them, and
    nothing about them changes: what one beam finds out by looking is no business of the others.

    Attributes:
        length: how many symbols were read.
        prev: the history without the last symbol; None at the start.
        symbol: the last symbol read.
        mode: the mode it was read in.
        log_prob: natural log of the probability that the beam gave them, each symbol's bounded from below.
        boundary_before: where the place before the last symbol was a common boundary of heavy hypotheses, the
            segment that ended there; else None.
    """

    length: int = 0
    prev: History | None = None
    symbol: int | bytes = -1
    mode: TrieMode = TrieMode.WITH_EOS
    log_prob: float = 0.0
    boundary_before: Segment | None = None

    def after(
        self, symbol: int | bytes, mode: TrieMode, log_prob: float, boundary_before: Segment | None = None
    ) -> History:
        """The history with one more symbol, of log-probability `log_prob`."""
        return History(self.length + 1, self, symbol, mode, self.log_prob + log_prob, boundary_before)

    def suffix_after(self, start: History) -> list[History]:
        """The links after `start`, in the order they were read."""
        found = self.latest(self.length - start.length)
        assert (found[0].prev if found else self) is start, "the history does not begin at `start`"
        return found

    def symbols_after(self, start: History) -> list[int | bytes]:
        """The symbols read after `start`, in order."""
        return [link.symbol for link in self.suffix_after(start)]

    def latest(self, count: int) -> list[History]:
        """So many of the latest links, in the order they were read."""
        found, link = list[History](), self
        for _ in range(count):
            found.append(link)
            assert link.prev is not None, "no more has been read"
            link = link.prev
        found.reverse()
        return found

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Itself: nothing about it changes, and link by link a long text is deeper than Python's stack."""
        return self
