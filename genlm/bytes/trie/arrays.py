"""The token trie as flat arrays, in depth-first order.

**Problem.** Hold every prefix of a vocabulary of 10⁴–10⁶ tokens so that reading one byte, finding
the tokens that end at a prefix, and summing weights below a prefix are all cheap.

**Idea.** Sort the token spellings. The tokens that begin with a given prefix are then one interval of
the sorted list, so a node *is* an interval and a depth, and the tokens that end at it are the first
entries of its interval. Each spelling introduces exactly the prefixes that it does not share with its
predecessor: with `lcp[i]` the length of their longest common prefix, string `i` adds the depths
`lcp[i]+1 … len[i]`. Listing those string by string numbers the nodes in depth-first order, without
recursion and without visiting a byte twice: the cost is one sort and O(total bytes) array work, and a
token of a thousand bytes is no special case.

**Invariants** (`validate()`): a node's children follow it and partition its interval after the tokens
that end there; siblings are in increasing order of their label; `parent[n] < n`.

An *atomic unit* is a spelling that is read in one step. It is a string of one symbol, numbered from
256 upwards, so that units sort behind all bytes and hang below the root alone.

The layout follows the flat tries of Aoe (1989) and the depth-first token tries of llguidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Int, UInt8, UInt16

__all__ = ["ROOT", "TrieArrays"]

ROOT = 0


@dataclass(frozen=True, eq=False)
class TrieArrays:
    """The frozen arrays. `tokens` counts spellings, `nodes` the distinct prefixes with the root.

    Attributes:
        order: the position in the caller's list of each sorted spelling.
        lo: first sorted spelling below each node; node `n` covers `lo[n]:hi[n]`.
        hi: one past the last.
        ends: how many spellings end at each node (several where spellings are equal).
        depth: symbols read to reach each node.
        parent: the node one symbol up; the root's is -1.
        edge_start: node `n`'s children are `edge_child[edge_start[n]:edge_start[n + 1]]`.
        edge_child: child nodes, by parent and then by label.
        edge_label: the symbol on each edge; units are `256 + index`.
        units: the atomic units, in the order of their symbols.
    """

    order: Int[np.ndarray, " tokens"]
    lo: Int[np.ndarray, " nodes"]
    hi: Int[np.ndarray, " nodes"]
    ends: Int[np.ndarray, " nodes"]
    depth: Int[np.ndarray, " nodes"]
    parent: Int[np.ndarray, " nodes"]
    edge_start: Int[np.ndarray, " nodes_plus_1"]
    edge_child: Int[np.ndarray, " edges"]
    edge_label: UInt16[np.ndarray, " edges"]
    units: tuple[bytes, ...]

    @classmethod
    def build(cls, spellings: Sequence[bytes], units: frozenset[bytes] = frozenset()) -> TrieArrays:
        """Build and validate the trie of `spellings`, those in `units` being read in one step."""
        unit_list = tuple(sorted(units))
        order = _sorted_positions(spellings, units)
        symbols, length = _symbols([spellings[i] for i in order.tolist()], unit_list)
        start = np.cumsum(length) - length
        shared = _shared_prefix(symbols, start, length)

        added = length - shared
        owner = np.repeat(np.arange(len(order), dtype=np.int32), added)
        first = np.cumsum(added) - added
        depth = (np.arange(len(owner)) - np.repeat(first - shared - 1, added)).astype(np.int32)
        label = symbols[start[owner] + depth - 1]

        # The root goes in front: it owns every spelling, at depth 0.
        lo = np.concatenate([np.zeros(1, np.int32), owner])
        depth = np.concatenate([np.zeros(1, np.int32), depth])
        levels = _levels(depth)
        parent = _parents(levels)
        edge_start = np.concatenate([[0], np.cumsum(np.bincount(parent[1:], minlength=len(lo)))])
        # By parent; siblings are numbered in the order of their labels.
        edge_child = (np.argsort(parent[1:], kind="stable") + 1).astype(np.int32)

        # A spelling ends at the node of its full depth: the last node it added, or, for a repeated
        # spelling, the one its predecessor ended at; a running maximum carries that forward.
        last = np.where(added > 0, first + added, 0)
        ends = np.bincount(np.maximum.accumulate(last) if len(last) else last, minlength=len(lo))
        below = ends.copy()
        for nodes in reversed(levels[1:]):
            np.add.at(below, parent[nodes], below[nodes])
        trie = cls(
            order=order,
            lo=lo,
            hi=(lo + below).astype(np.int32),
            ends=ends.astype(np.int32),
            depth=depth,
            parent=parent,
            edge_start=edge_start.astype(np.int32),
            edge_child=edge_child,
            edge_label=label[edge_child - 1],
            units=unit_list,
        )
        trie.validate()
        for array in trie._arrays():
            array.flags.writeable = False
        return trie

    def __len__(self) -> int:
        """The number of prefix nodes."""
        return len(self.lo)

    @property
    def nbytes(self) -> int:
        """Memory held by the arrays, in bytes."""
        return sum(a.nbytes for a in self._arrays()) + len(self.byte_labels)

    @cached_property
    def byte_labels(self) -> bytes:
        """Edge labels as `bytes`, so that finding a child is one `memchr`. A unit's byte is a blank."""
        return self.edge_label.astype(np.uint8).tobytes()

    @property
    def end_node(self) -> Int[np.ndarray, " tokens"]:
        """The node at which each sorted spelling ends: nodes are in the order of spellings too."""
        return np.repeat(np.arange(len(self)), self.ends)

    @cached_property
    def unit_node(self) -> dict[bytes, int]:
        """The node that each atomic unit leads to from the root."""
        first = int(self.edge_start[ROOT + 1]) - len(self.units)
        return {u: int(self.edge_child[first + i]) for i, u in enumerate(self.units)}

    def byte_edges(self, node: int) -> tuple[int, int]:
        """Start and stop of the edges below `node` that are labelled by bytes."""
        stop = int(self.edge_start[node + 1])
        return int(self.edge_start[node]), stop - (len(self.units) if node == ROOT else 0)

    def child(self, node: int, symbol: int | bytes) -> int:
        """The node reached from `node` by a byte, or from the root by an atomic unit; -1 if none."""
        if isinstance(symbol, bytes):
            return self.unit_node.get(symbol, -1) if node == ROOT else -1
        start, stop = self.byte_edges(node)
        edge = self.byte_labels.find(symbol, start, stop)
        return -1 if edge < 0 else int(self.edge_child[edge])

    def byte_children(self, node: int) -> tuple[UInt8[np.ndarray, " children"], Int[np.ndarray, " children"]]:
        """The bytes that can be read at `node` and the nodes they lead to."""
        edges = slice(*self.byte_edges(node))
        return self.edge_label[edges].astype(np.uint8), self.edge_child[edges]

    def prefix(self, node: int, spellings: Sequence[bytes]) -> bytes:
        """The bytes read from the root to `node`, given the list the trie was built from."""
        if node == ROOT:
            return b""
        spelling = bytes(spellings[self.order[self.lo[node]]])
        return spelling if spelling in self.unit_node else spelling[: int(self.depth[node])]

    def validate(self) -> None:
        """Check the invariants; an `AssertionError` is a bug in `build`, never a user's mistake."""
        n = len(self.lo)
        kids = self.edge_child
        up = self.parent[kids]
        assert self.parent[ROOT] == -1 and self.lo[ROOT] == 0 and self.hi[ROOT] == len(self.order)
        assert len(self.edge_start) == n + 1 and self.edge_start[-1] == len(kids) == n - 1
        assert (up < kids).all() and (self.depth[kids] == self.depth[up] + 1).all()
        assert (self.lo < self.hi).all() or len(self.order) == 0
        assert (np.repeat(np.arange(n), np.diff(self.edge_start)) == up).all()
        # Children partition what is left of the parent's interval after the tokens that end there …
        first = np.ones(n - 1, bool)
        first[1:] = up[1:] != up[:-1]
        before = np.where(first, self.lo[up] + self.ends[up], np.roll(self.hi[kids], 1))
        assert (self.lo[kids] == before).all()
        inner = np.flatnonzero(np.diff(self.edge_start))
        assert (self.hi[kids[self.edge_start[inner + 1] - 1]] == self.hi[inner]).all()
        tips = np.flatnonzero(np.diff(self.edge_start) == 0)
        assert (self.lo[tips] + self.ends[tips] == self.hi[tips]).all()
        # … in increasing order of their labels.
        assert (np.diff(self.edge_label.astype(np.int32))[~first[1:]] > 0).all()

    def _arrays(self) -> list[np.ndarray]:
        return [v for v in vars(self).values() if isinstance(v, np.ndarray)]


def _sorted_positions(spellings: Sequence[bytes], units: frozenset[bytes]) -> Int[np.ndarray, " tokens"]:
    """Positions of the spellings in sorted order, atomic units behind all others; ties keep their order."""
    positions = range(len(spellings))
    if not units:
        return np.array(sorted(positions, key=spellings.__getitem__), np.int32)
    return np.array(sorted(positions, key=lambda i: (spellings[i] in units, spellings[i])), np.int32)


def _symbols(
    spellings: list[bytes], units: tuple[bytes, ...]
) -> tuple[UInt16[np.ndarray, " symbols"], Int[np.ndarray, " tokens"]]:
    """All sorted spellings, one after another, as symbols; and the length of each."""
    length = np.fromiter(map(len, spellings), np.int64, len(spellings))
    if not units:
        return np.frombuffer(b"".join(spellings), np.uint8).astype(np.uint16), length
    number = {u: 256 + i for i, u in enumerate(units)}
    n_bytes = next((i for i, s in enumerate(spellings) if s in number), len(spellings))
    as_bytes = np.frombuffer(b"".join(spellings[:n_bytes]), np.uint8).astype(np.uint16)
    as_units = np.array([number[s] for s in spellings[n_bytes:]], np.uint16)
    length[n_bytes:] = 1
    return np.concatenate([as_bytes, as_units]), length


def _shared_prefix(
    symbols: UInt16[np.ndarray, " symbols"],
    start: Int[np.ndarray, " tokens"],
    length: Int[np.ndarray, " tokens"],
) -> Int[np.ndarray, " tokens"]:
    """Length of the longest common prefix of each sorted spelling and the one before it."""
    shared = np.zeros(len(length), np.int64)
    limit = np.minimum(length[1:], length[:-1])
    alive = np.flatnonzero(limit > 0) + 1
    depth = 0
    while len(alive):  # one round a depth, over the pairs that agree so far
        alive = alive[symbols[start[alive] + depth] == symbols[start[alive - 1] + depth]]
        depth += 1
        shared[alive] = depth
        alive = alive[limit[alive - 1] > depth]
    return shared


def _levels(depth: Int[np.ndarray, " nodes"]) -> list[Int[np.ndarray, " level"]]:
    """The nodes of each depth, in order."""
    deepest = int(depth.max())
    # numpy sorts integers of 16 bits in linear time.
    by_depth = np.argsort(depth.astype(np.uint16) if deepest < 1 << 16 else depth, kind="stable")
    return np.split(by_depth, np.cumsum(np.bincount(depth))[:-1])


def _parents(levels: list[Int[np.ndarray, " level"]]) -> Int[np.ndarray, " nodes"]:
    """In depth-first order a node's parent is the last node before it that is one less deep."""
    parent = np.empty(sum(map(len, levels)), np.int32)
    parent[ROOT] = -1
    for above, nodes in pairwise(levels):
        parent[nodes] = above[np.searchsorted(above, nodes) - 1]
    return parent
