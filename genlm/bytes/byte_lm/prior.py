"""What a text's beginning counts for by the vocabulary alone: tokens drawn evenly.

Let `g(i)` be the probability that tokens drawn evenly spell a text beginning with the symbols from place `i`
to the present one, `n`. A token that begins at `i` either ends at some `m <= n`, and the rest has `g(m)`; or
it goes on beyond `n`. So

    g(n) = 1
    g(i) = sum over m of g(m) (tokens that spell i..m) / all  +  (longer tokens that begin with i..n) / all

Hypotheses deferred at many places ask for `g` of each, after every symbol. **Cost**: one pass from the
back gives all of them, in as many steps as tokens end on the way; and what tokens there are is known from the
symbol before: each of those that were going on goes on by one edge of the trie, or is gone. Inside a token of
`n` bytes that is `n` steps a byte. Walking from each place anew is `n^2` of them, and for each place by
itself `n^3`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.modes import EOS
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["Segment", "token_prior"]

LOWEST = -1e3
"""Natural log that stands for probability 0 where differences are taken."""


def token_prior(trie: TokenByteTrie, symbols: Iterable[int | bytes]) -> float:
    """Log-probability that tokens drawn evenly from the vocabulary spell a text beginning with `symbols`.

    Inside a UTF-8 character, where a symbol continues one, a token that begins there is drawn from those that
    do: a model knows that much of what it has written. Minus infinity if no tokens spell it.
    """
    segment = Segment()
    for symbol in symbols:
        segment = segment.after(symbol)
    found = segment.prior(trie, segment.length)
    return found if found > LOWEST else -math.inf


class Segment:
    """Some symbols, and the priors of all their suffixes. A value; what is asked for is worked out once.

    Attributes:
        length: how many symbols.
    """

    __slots__ = ("_before", "_covers", "_priors", "_symbol", "length")

    def __init__(self) -> None:
        self.length = 0
        self._symbol: int | bytes = -1
        self._before: Segment | None = None
        self._covers: _Covers | None = None
        self._priors: list[float] | None = None

    def after(self, symbol: int | bytes) -> Segment:
        """One more symbol."""
        longer = Segment()
        longer.length, longer._symbol, longer._before = self.length + 1, symbol, self
        return longer

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Itself: a value, and as long a chain as what was read."""
        return self

    def prior(self, trie: TokenByteTrie, length: int) -> float:
        """`token_prior` of the last `length` symbols, at least `LOWEST`; always with one trie."""
        if self._priors is None:
            self._priors = self._known_covers(trie).priors()
        return self._priors[self.length - length]

    def _known_covers(self, trie: TokenByteTrie) -> _Covers:
        links, link = list[Segment](), self
        while link._covers is None and link._before is not None:
            links.append(link)
            link = link._before
        covers = link._covers or _Covers((), (), trie)
        for link in reversed(links):
            covers = covers.after(link._symbol)
        self._covers, self._before = covers, None  # what came before is not needed any more
        return covers


class _Covers(NamedTuple):
    """How tokens can lie on some symbols.

    Attributes:
        open: of the tokens that begin at each place and go on: the place, the node they have come to, and how
            many tokens a draw at that place is from.
        ending: for each place, the tokens that end there: where they begin, and their share of a draw.
        trie: the trie.
    """

    open: tuple[tuple[int, int, int], ...]
    ending: tuple[tuple[tuple[int, float], ...], ...]
    trie: TokenByteTrie

    def after(self, symbol: int | bytes) -> _Covers:
        """With one more symbol."""
        arrays, place = self.trie.arrays, len(self.ending)
        if symbol == EOS:  # read by a token of its own: where tokens end, it can be
            return _Covers((), (*self.ending, ((place, 1.0),)), self.trie)
        going, ends = list[tuple[int, int, int]](), list[tuple[int, float]]()
        for begin, node, drawn in (*self.open, (place, ROOT, _drawn_from(self.trie, symbol))):
            node = arrays.child(node, symbol)
            if node >= 0:
                going.append((begin, node, drawn))
                if arrays.ends[node]:
                    ends.append((begin, int(arrays.ends[node]) / drawn))
        return _Covers(tuple(going), (*self.ending, tuple(ends)), self.trie)

    def priors(self) -> list[float]:
        """Natural logs of `g` of each place."""
        arrays = self.trie.arrays
        g = [*[0.0] * len(self.ending), 1.0]
        for begin, node, drawn in self.open:
            g[begin] += (int(arrays.hi[node]) - int(arrays.lo[node]) - int(arrays.ends[node])) / drawn
        for end in range(len(self.ending), 0, -1):
            for begin, share in self.ending[end - 1]:
                g[begin] += share * g[end]
        return [max(math.log(p), LOWEST) if p > 0.0 else LOWEST for p in g]


def _drawn_from(trie: TokenByteTrie, symbol: int | bytes) -> int:
    """How many tokens a draw is from where `symbol` comes next."""
    if not (isinstance(symbol, int) and 0x80 <= symbol < 0xC0):
        return len(trie.token_ids)
    labels, nodes = trie.arrays.byte_children(ROOT)
    nodes = nodes[(labels >= 0x80) & (labels < 0xC0)]
    return int((trie.arrays.hi[nodes] - trie.arrays.lo[nodes]).sum())
