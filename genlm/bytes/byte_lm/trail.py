"""What a beam has read, so that candidates who waited meanwhile can read it later."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from genlm.bytes.byte_lm.prior import Stretch
from genlm.bytes.trie.modes import TrieMode

__all__ = ["Trail", "spelled"]

LEAST = math.log(1e-4)
"""What a byte counts at least for those who wait: where it surprises the beam more, they gain on it."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Trail:
    """What a beam has read, one symbol a link. Links are shared by all beams that have read on from them, and
    nothing about them changes: what one beam finds out by looking is no business of the others.

    Attributes:
        at: how many symbols were read.
        before: the trail without the last symbol; None at the start.
        symbol: the last symbol read.
        mode: the mode it was read in.
        loglik: natural log of the probability that the beam gave them, each counted at least `LEAST`.
        met: where tokens of heavy candidates ended before the last symbol, the symbols from the place before
            where they did to there; else None.
    """

    at: int = 0
    before: Trail | None = None
    symbol: int | bytes = -1
    mode: TrieMode = TrieMode.WITH_EOS
    loglik: float = 0.0
    met: Stretch | None = None

    def after(self, symbol: int | bytes, mode: TrieMode, logp: float, met: Stretch | None = None) -> Trail:
        """The trail with one more symbol, of log-probability `logp`."""
        return Trail(self.at + 1, self, symbol, mode, self.loglik + max(logp, LEAST), met)

    def since(self, start: Trail) -> list[Trail]:
        """The links after `start`, in the order they were read."""
        found = self.last(self.at - start.at)
        assert (found[0].before if found else self) is start, "the trail does not begin at `start`"
        return found

    def last(self, count: int) -> list[Trail]:
        """So many of the latest links, in the order they were read."""
        found, link = list[Trail](), self
        for _ in range(count):
            found.append(link)
            assert link.before is not None, "no more has been read"
            link = link.before
        found.reverse()
        return found


def spelled(symbols: Iterable[int | bytes]) -> bytes:
    """The bytes of some symbols."""
    return b"".join(s if isinstance(s, bytes) else bytes([s]) for s in symbols)
