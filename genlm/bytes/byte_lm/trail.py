"""What a beam has read, so that candidates who waited meanwhile can read it later."""

from __future__ import annotations

import math
from collections.abc import Iterable

from genlm.bytes.trie.modes import TrieMode

__all__ = ["Trail", "spelled"]

LEAST = math.log(1e-4)
"""What a byte counts at least for those who wait: where it surprises the beam more, they gain on it."""


class Trail:
    """What a beam has read, one symbol a link, so that those who waited can read it later.

    Attributes:
        before: the trail without the last symbol; None at the start.
        symbol: the last symbol read.
        mode: the mode it was read in.
        at: how many symbols were read.
        loglik: natural log of the probability that the beam gave them, each counted at least `LEAST`.
        meets: whether tokens of heavy candidates end here; known once the next symbol is read.
        priors: `token_prior` of the symbols from an earlier place to here, by that place, as far as known.
    """

    __slots__ = ("at", "before", "loglik", "meets", "mode", "priors", "symbol")

    def __init__(self, at: int = 0) -> None:
        self.before: Trail | None = None
        self.symbol: int | bytes = -1
        self.mode = TrieMode.WITH_EOS
        self.at = at
        self.loglik = 0.0
        self.meets = False
        self.priors: dict[Trail, float] = {}

    def after(self, symbol: int | bytes, mode: TrieMode, logp: float) -> Trail:
        """The trail with one more symbol, of log-probability `logp`."""
        trail = Trail(self.at + 1)
        trail.before, trail.symbol, trail.mode = self, symbol, mode
        trail.loglik = self.loglik + max(logp, LEAST)
        return trail

    def since(self, start: Trail) -> list[Trail]:
        """The links after `start`, in the order they were read."""
        found: list[Trail] = []
        link: Trail = self
        while link is not start:
            found.append(link)
            assert link.before is not None, "the trail does not begin at `start`"
            link = link.before
        found.reverse()
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
