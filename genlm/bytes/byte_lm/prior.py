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
from typing import NamedTuple
from weakref import WeakKeyDictionary

from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.modes import EOS
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["Segment", "token_prior"]

LOWEST = -1e3
"""Natural log that stands for probability 0 where differences are taken."""

REMEMBERED = 1 << 18
"""Symbols of segments whose priors are remembered, some megabytes. A segment counts as 128 more than it has:
of short ones there are 2,000, of one that grows to thousands of symbols without a common boundary a few."""


def token_prior(trie: TokenByteTrie, symbols: Iterable[int | bytes]) -> float:
    """Log-probability that tokens drawn evenly from the vocabulary spell a text beginning with `symbols`.

    Inside a UTF-8 character, where a symbol continues one, a token that begins there is drawn from those that
    do: a model knows that much of what it has written. Minus infinity if no tokens spell it.
    """
    found = _priors(trie, tuple(symbols), 0)[0]
    return found if found > LOWEST else -math.inf


class Segment:
    """Some symbols, and the priors of all their suffixes. A value; what is asked for is worked out once.

    Attributes:
        symbols: the symbols.
    """

    __slots__ = ("_priors", "symbols")

    def __init__(self, symbols: tuple[int | bytes, ...] = ()) -> None:
        self.symbols = symbols
        self._priors: tuple[int, list[float]] = len(symbols) + 1, []  # from which place on; all they are

    def after(self, symbol: int | bytes) -> Segment:
        """One more symbol."""
        return Segment((*self.symbols, symbol))

    def prior(self, trie: TokenByteTrie, length: int) -> float:
        """`token_prior` of the last `length` symbols, at least `LOWEST`; always with one trie."""
        place = len(self.symbols) - length
        first, priors = self._priors
        if place < first:
            first, priors = self._priors = place, _priors(trie, self.symbols, place)
        return priors[place - first]


class _Covers(NamedTuple):
    """How tokens can lie on some symbols.

    Attributes:
        open: of the tokens that begin at each place and go on: the place, the node they have come to, and how
            many tokens a draw at that place is from.
        ending: for each place, the tokens that end there: where they begin, and their share of a draw.
    """

    open: tuple[tuple[int, int, int], ...]
    ending: tuple[tuple[tuple[int, float], ...], ...]

    def after(self, symbol: int | bytes, trie: TokenByteTrie) -> _Covers:
        """With one more symbol."""
        arrays, place = trie.arrays, len(self.ending)
        if symbol == EOS:  # read by a token of its own: where tokens end, it can be
            return _Covers((), (*self.ending, ((place, 1.0),)))
        going, ends = list[tuple[int, int, int]](), list[tuple[int, float]]()
        for begin, node, drawn in (*self.open, (place, ROOT, _drawn_from(trie, symbol))):
            node = arrays.child(node, symbol)
            if node >= 0:
                going.append((begin, node, drawn))
                if arrays.ends[node]:
                    ends.append((begin, int(arrays.ends[node]) / drawn))
        return _Covers(tuple(going), (*self.ending, tuple(ends)))

    def priors(self, trie: TokenByteTrie, first: int) -> list[float]:
        """Natural logs of `g` of each place from `first` on."""
        arrays = trie.arrays
        g = [*[0.0] * (len(self.ending) - first), 1.0]
        for begin, node, drawn in self.open:
            if begin >= first:
                below = int(arrays.hi[node]) - int(arrays.lo[node]) - int(arrays.ends[node])
                g[begin - first] += below / drawn
        for end in range(len(self.ending), first, -1):
            for begin, share in self.ending[end - 1]:
                if begin >= first:
                    g[begin - first] += share * g[end - first]
        return [max(math.log(p), LOWEST) if p > 0.0 else LOWEST for p in g]


_Symbols = tuple[int | bytes, ...]
_Known = dict[_Symbols, tuple[_Covers, int, list[float]]]
_known: WeakKeyDictionary[TokenByteTrie, _Known] = WeakKeyDictionary()


def _priors(trie: TokenByteTrie, symbols: _Symbols, first: int) -> list[float]:
    """Natural logs of `g` of each place of some symbols from `first` on.

    A text is read ahead many times, and texts share words: the segments asked for last are remembered.
    """
    known = _known.setdefault(trie, {})
    n, found = len(symbols), known.get(symbols)
    while found is None and n:
        n -= 1
        found = known.get(symbols[:n])
    covers, begun, priors = found or (_Covers((), ()), 1, [])
    if n < len(symbols) or first < begun:
        for symbol in symbols[n:]:
            covers = covers.after(symbol, trie)
        begun, priors = first, covers.priors(trie, first)
        if len(known) * (len(symbols) + 128) >= REMEMBERED:
            known.clear()
        known[symbols] = covers, begun, priors
    return priors[first - begun :]


def _drawn_from(trie: TokenByteTrie, symbol: int | bytes) -> int:
    """How many tokens a draw is from where `symbol` comes next."""
    if not (isinstance(symbol, int) and 0x80 <= symbol < 0xC0):
        return len(trie.token_ids)
    labels, nodes = trie.arrays.byte_children(ROOT)
    nodes = nodes[(labels >= 0x80) & (labels < 0xC0)]
    return int((trie.arrays.hi[nodes] - trie.arrays.lo[nodes]).sum())
