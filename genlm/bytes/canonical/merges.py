"""Which tokens may stand side by side inside one pre-token, under byte-pair merges.

**Problem.** For a token `l`, find every token `r` such that the merges, run on the symbols of `l` and `r`
together, leave exactly `l, r`; over a whole vocabulary, in well under a millisecond.

**Idea.** Merging always applies the merge of least rank, leftmost on ties. Until a merge crosses the
border between `l` and `r`, each side is merged as if it were alone. So the symbol left of the border runs
through the *right spine* of `l` (its last symbol after each of its merges), the one right of it through
the *left spine* of `r`. A merge `(x, y)` of rank ρ crosses the border if and only if `x` and `y` stand
there at the same time and nothing on either side goes before it:

    max(ρ, in(y)) < out(x)    and    max(ρ, in(x)) <= out(y)

where `in` and `out` are the ranks of the merges that make a spine symbol and that use it up (-1 for an
initial symbol, infinite for the token itself). The comparisons differ because ties go to the left. This
is the test of Vieira et al., arXiv 2506.07956, stated with ties, and needs ranks that never fall in the
course of a token's own merging (`falling` lists the tokens for which they do).

**Pairs suffice.** The argument above holds for any number of tokens in a row: the first merge that
crosses any border would cross it, too, if the two tokens next to it stood alone. So `t1 … tn` is what
merging leaves if and only if each adjacent pair is.

**Cost.** Building is one merge run a token. A row marks intervals of an index of all left spines, sorted by
symbol and `out`: one binary search for each merge that begins with a symbol of `l`'s right spine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["MergeTable", "Run", "merge_run"]

Merges = Mapping[tuple[int, int], tuple[int, int]]
"""`(left symbol, right symbol) -> (rank, merged symbol)`."""

NEVER = 1 << 30
"""`out` of a symbol that no merge uses up: behind all ranks."""


Spine = tuple[int, int, int]
"""A symbol at a token's edge while it is merged, and the ranks between which it stands there: in, out."""


class Run(NamedTuple):
    """What merging does to a string of symbols by itself.

    Attributes:
        result: the symbols that are left.
        left: the first symbol over time.
        right: the last symbol over time.
        falling: whether a merge followed one of higher rank.
    """

    result: list[int]
    left: list[Spine]
    right: list[Spine]
    falling: bool


def merge_run(symbols: Sequence[int], merges: Merges) -> Run:
    """Apply the merge of least rank, leftmost on ties, until none is left."""
    parts = list(symbols)
    found = [merges.get(pair) for pair in pairwise(parts)]
    ranks = [f[0] if f else NEVER for f in found]
    left: list[Spine] = []
    right: list[Spine] = []
    first = last = highest = -1
    falling = False
    while ranks and (rank := min(ranks)) < NEVER:
        i = ranks.index(rank)
        falling |= rank < highest
        highest = max(highest, rank)
        if i == 0:
            left.append((parts[0], first, highest))
            first = highest
        if i == len(parts) - 2:
            right.append((parts[-1], last, highest))
            last = highest
        parts[i : i + 2] = [merges[parts[i], parts[i + 1]][1]]
        del ranks[i]
        for j in (i - 1, i):
            if 0 <= j < len(ranks):
                pair = merges.get((parts[j], parts[j + 1]))
                ranks[j] = pair[0] if pair else NEVER
    if parts:
        left.append((parts[0], first, NEVER))
        right.append((parts[-1], last, NEVER))
    return Run(parts, left, right, falling)


class MergeTable:
    """The pair test over a vocabulary. Tokens are positions in the caller's order.

    Args:
        symbols: the initial symbols of each token; empty for what merging never makes.
        own: the symbol that each token is; -1 for what merging never makes.

    Attributes:
        reachable: which tokens merging leaves whole when it is given their own symbols; no other token
            occurs in a canonical sequence.
        falling: the reachable tokens that the fast test is not proven for.
    """

    def __init__(self, symbols: Sequence[Sequence[int]], own: Sequence[int], merges: Merges) -> None:
        self.reachable: Bool[np.ndarray, " tokens"] = np.zeros(len(symbols), bool)
        self.falling: list[int] = []
        self._right: list[list[Spine]] = [[] for _ in symbols]
        made: dict[int, int] = {}
        lefts: list[tuple[int, int, int]] = []  # symbol, used, token
        for token, (parts, whole) in enumerate(zip(symbols, own, strict=True)):
            if not parts:
                continue
            run = merge_run(parts, merges)
            if run.result != [whole]:
                continue
            self.reachable[token] = True
            if run.falling:
                self.falling.append(token)
            self._right[token] = run.right
            made[whole] = run.left[-1][1]
            made[parts[0]] = -1
            lefts += [(symbol, used, token) for symbol, _, used in run.left]
        self._index(lefts)
        self._by_left(merges, made)

    def _index(self, lefts: list[tuple[int, int, int]]) -> None:
        """All left spines by symbol, those that last longest first."""
        entries = np.array(lefts, np.int64).reshape(-1, 3)
        key = _key(entries[:, 0], entries[:, 1])
        order = np.argsort(key, kind="stable")
        self._spine_key: Int[np.ndarray, " spines"] = key[order]
        self._spine_token: Int[np.ndarray, " spines"] = entries[order, 2]

    def _by_left(self, merges: Merges, made: Mapping[int, int]) -> None:
        """The merges by their left symbol: right symbol, rank, and the rank that makes the right symbol."""
        grouped: dict[int, list[tuple[int, int, int]]] = {}
        for (x, y), (rank, _) in merges.items():
            if y in made:  # else no token begins with it
                grouped.setdefault(x, []).append((y, rank, made[y]))
        self._merges = {x: np.array(rows, np.int64).T for x, rows in grouped.items()}

    def follow(self, token: int) -> Bool[np.ndarray, " tokens"]:
        """The tokens `r` such that merging a reachable `token` and `r` together leaves both as they are."""
        change = np.zeros(len(self._spine_key) + 1, np.int32)
        for x, made, used in self._right[token]:
            rows = self._merges.get(x)
            if rows is None:
                continue
            symbol, rank, made_y = rows
            crossing = np.maximum(rank, made_y) < used
            symbol, least = symbol[crossing], np.maximum(rank[crossing], made)
            start = np.searchsorted(self._spine_key, _key(symbol, NEVER))
            stop = np.searchsorted(self._spine_key, _key(symbol, least), side="right")
            np.add.at(change, start, 1)
            np.add.at(change, stop, -1)
        allowed = self.reachable.copy()
        allowed[self._spine_token[np.cumsum(change[:-1]) > 0]] = False
        return allowed


def _key(symbol: Int[np.ndarray, " n"], used: Int[np.ndarray, " n"] | int) -> Int[np.ndarray, " n"]:
    return symbol * (2 * NEVER) + (NEVER - used)
