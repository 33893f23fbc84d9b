"""Totals (sums or maxima) of the weights below every node, for whole batches.

**Idea.** Only nodes where the vocabulary *branches* need arithmetic. A node with one token below it has
that token's weight; a node on an unbranched chain has the total of the branch at the chain's end. So
each row is worked in three sequential passes: gather the weights into sorted order, add every leaf and
every branch into the branch above it (reverse depth-first order: descendants come first), and spread
leaf weights and branch totals over all nodes. For a vocabulary of 49,152 byte-level tokens that is
23,354 additions between branches where there are 100,439 nodes.

Totals are float64: children are added into parents, never subtracted from one running total, which
would lose weights below 1e-16 of the whole.

**CPU.** The passes are compiled by numba (a dependency of `genlm-backend`) and run without the
interpreter's lock, rows shared among threads. A large result's memory is used again once nobody holds
that result: having the system map fresh pages costs more than the arithmetic.

**GPU.** The same totals with torch, level by level, deepest first: one `index_add` a level.

Columns of a result, for `n` prefix nodes and `t` tokens: `0 … n-1` the prefix nodes, `n` the
end-of-sequence node, `n+1 … n+t` one leaf a token, in sorted order.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from genlm.bytes.trie.arrays import ROOT, TrieArrays
from genlm.bytes.trie.modes import TrieOp

__all__ = ["Branches", "Levels", "below_cpu", "below_torch"]


@dataclass(frozen=True, eq=False)
class Branches:
    """Where each leaf's weight and each branch's total go. Leaves are numbered in sorted order.

    Attributes:
        leaf_up: the branch that each leaf adds to.
        branch_up: the branch that each branch adds to; -1 for the topmost.
        slot: where each node's value is found in the leaf weights followed by the branch totals.
    """

    leaf_up: Int[np.ndarray, " tokens"]
    branch_up: Int[np.ndarray, " branches"]
    slot: Int[np.ndarray, " nodes"]

    @classmethod
    def of(cls, trie: TrieArrays) -> Branches:
        """Find the branches of a trie."""
        n, tokens = len(trie), len(trie.order)
        many = trie.hi - trie.lo >= 2
        branches = many & ((trie.ends > 0) | (np.diff(trie.edge_start) > 1))
        if tokens < 2:  # a lone token still needs one branch to be added into
            branches[ROOT] = True
        at = np.flatnonzero(branches)
        # An unbranched chain occupies consecutive numbers, with its branch at the end.
        nearest = np.searchsorted(at, np.arange(n)).clip(max=len(at) - 1)
        above = trie.parent.clip(min=0)
        top = np.flatnonzero(branches[above] | (np.arange(n) == ROOT))
        chain = top[np.searchsorted(top, at, side="right") - 1]
        branch_up = np.where(chain == ROOT, -1, nearest[above[chain]])

        # A token adds to the node it ends at, or, where it is alone there, to the branch above it.
        owner = np.empty(tokens, np.int64)
        alone = np.flatnonzero(~many & branches[above] & (np.arange(n) != ROOT))
        owner[trie.lo[alone]] = above[alone]
        ending = np.flatnonzero(branches & (trie.ends > 0))
        counts = trie.ends[ending]
        owner[np.repeat(trie.lo[ending], counts) + _counting(counts)] = np.repeat(ending, counts)
        return cls(
            leaf_up=nearest[owner].astype(np.int32),
            branch_up=branch_up.astype(np.int32),
            slot=np.where(many, tokens + nearest, trie.lo).astype(np.int32),
        )


def below_cpu(
    trie: TrieArrays,
    branches: Branches,
    weights: Float[np.ndarray, "batch tokens"],
    eos_leaves: Int[np.ndarray, " eos"],
    op: TrieOp,
) -> Float32[np.ndarray, "batch columns"]:
    """Totals below every node on the CPU.

    Args:
        trie: the arrays.
        branches: `Branches.of(trie)`.
        weights: one weight per token of the caller's list.
        eos_leaves: the leaves, in sorted order, that give their weight to the end-of-sequence node and
            the root only.
        op: sum or maximum.

    Returns:
        `[batch, nodes + 1 + tokens]`.
    """
    batch = len(weights)
    out = _result_memory((batch, len(trie) + 1 + len(trie.order)))
    walk = _compiled()

    def rows(first: int, stop: int) -> None:
        walk(
            trie.order,
            branches.leaf_up,
            branches.branch_up,
            branches.slot,
            eos_leaves,
            weights,
            out,
            first,
            stop,
            op is TrieOp.MAX,
        )

    share = 2 * -(-batch // (2 * _workers()))
    if share >= batch:
        rows(0, batch)
    else:
        jobs = [_threads().submit(rows, i, min(i + share, batch)) for i in range(0, batch, share)]
        for job in jobs:
            job.result()
    return out


def _rows(order, leaf_up, branch_up, slot, eos_leaves, weights, out, first, stop, maximum):  # type: ignore[no-untyped-def]
    """The passes over rows `first … stop - 1`. Plain Python that numba compiles.

    Rows go two by two: each addition waits for the one before it into the same branch, and a second
    row fills the wait (1.5× a row; four rows outgrow the second-level cache). An odd last row is its
    own companion. Sum and maximum have loops of their own, so that nothing is decided inside a loop.
    """
    tokens, count, nodes = order.shape[0], branch_up.shape[0], slot.shape[0]
    values = np.empty((tokens + count, 2), np.float32)
    total = np.empty((count, 2), np.float64)
    ended = np.empty(2, np.float64)
    for row in range(first, stop, 2):
        rows = (row, min(row + 1, stop - 1))
        for leaf in range(tokens):
            for k in range(2):
                values[leaf, k] = weights[rows[k], order[leaf]]
        ended[:] = 0.0
        for leaf in eos_leaves:
            for k in range(2):
                x = weights[rows[k], order[leaf]]
                ended[k] = max(ended[k], x) if maximum else ended[k] + x
                values[leaf, k] = 0.0
        if maximum:
            total[:] = -np.inf
            for leaf in range(tokens):
                for k in range(2):
                    total[leaf_up[leaf], k] = max(total[leaf_up[leaf], k], values[leaf, k])
            for branch in range(count - 1, 0, -1):
                for k in range(2):
                    total[branch_up[branch], k] = max(total[branch_up[branch], k], total[branch, k])
        else:
            total[:] = 0.0
            for leaf in range(tokens):
                for k in range(2):
                    total[leaf_up[leaf], k] += values[leaf, k]
            for branch in range(count - 1, 0, -1):
                for k in range(2):
                    total[branch_up[branch], k] += total[branch, k]
        values[tokens:] = total
        for node in range(nodes):
            for k in range(2):
                out[rows[k], node] = values[slot[node], k]
        for leaf in range(tokens):
            for k in range(2):
                out[rows[k], nodes + 1 + leaf] = values[leaf, k]
        for k in range(2):
            out[rows[k], nodes] = ended[k]
            out[rows[k], 0] = max(total[0, k], ended[k]) if maximum else total[0, k] + ended[k]


@cache
def _compiled() -> Callable[..., None]:
    """`_rows`, compiled on first use and kept on disk where a folder for that can be written."""
    import numba

    plain = inspect.unwrap(_rows)
    try:
        compiled: Callable[..., None] = numba.njit(nogil=True, error_model="numpy", cache=True)(plain)
    except RuntimeError:  # no writable folder for the compiled code
        compiled = numba.njit(nogil=True, error_model="numpy")(plain)
    return compiled


class Levels:
    """What `below_torch` needs of a trie, as index tensors on one device."""

    def __init__(self, trie: TrieArrays, device: str) -> None:
        def put(a: Int[np.ndarray, " n"]) -> torch.Tensor:
            return torch.as_tensor(a.astype(np.int64), device=device)

        self.nodes = len(trie)
        self.order = put(trie.order)
        end_node = np.empty(len(trie.order), np.int64)
        end_node[np.repeat(trie.lo, trie.ends) + _counting(trie.ends)] = np.repeat(
            np.arange(len(trie)), trie.ends
        )
        self.end_node = put(end_node)
        by_depth = np.argsort(trie.depth, kind="stable")
        bounds = np.cumsum(np.bincount(trie.depth))
        levels = [by_depth[a:b] for a, b in pairwise(bounds.tolist())]
        self.upwards = [(put(nodes), put(trie.parent[nodes])) for nodes in reversed(levels)]


def below_torch(
    levels: Levels,
    weights: Float[torch.Tensor, "batch tokens"],
    eos_leaves: Int[torch.Tensor, " eos"],
    op: TrieOp,
) -> Float32[torch.Tensor, "batch columns"]:
    """Totals below every node with torch, on the device of `weights`. See `below_cpu`."""
    leaves = weights.double()[:, levels.order]
    ended = leaves[:, eos_leaves]
    leaves[:, eos_leaves] = 0.0
    summing = op is TrieOp.SUM

    def add(into: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> Any:
        if summing:
            return into.index_add_(1, index, values)
        return into.scatter_reduce_(1, index.expand(len(into), -1), values, "amax")

    total = leaves.new_full((len(leaves), levels.nodes), 0.0 if summing else -torch.inf)
    add(total, levels.end_node, leaves)
    for nodes, parents in levels.upwards:
        add(total, parents, total[:, nodes])
    stop = ended.sum(1) if summing else torch.cat([ended, ended.new_zeros(len(ended), 1)], 1).amax(1)
    total[:, ROOT] = total[:, ROOT] + stop if summing else torch.maximum(total[:, ROOT], stop)
    return torch.cat([total, stop[:, None], leaves], dim=1).float()


def _counting(counts: Int[np.ndarray, " n"]) -> Int[np.ndarray, " total"]:
    """0 … c-1 for each count c, one run after another."""
    run: Int[np.ndarray, " total"] = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return run


_KEEP_BYTES = 64 << 20
_spare: list[Float32[np.ndarray, " floats"]] = []
_spare_lock = Lock()


def _result_memory(shape: tuple[int, int]) -> Float32[np.ndarray, "batch columns"]:
    """An array for a result: the last large one's memory if nobody holds that result any more.

    At most one such piece of memory is kept, of at most 64 MiB.
    """
    floats = shape[0] * shape[1]
    with _spare_lock:
        # Two references: the list's and the argument of getrefcount itself.
        if not (_spare and len(_spare[0]) >= floats and sys.getrefcount(_spare[0]) == 2):
            fresh = np.empty(floats, np.float32)
            if not 1 << 20 <= fresh.nbytes <= _KEEP_BYTES:
                return fresh.reshape(shape)
            _spare[:] = [fresh]
            del fresh
        return _spare[0][:floats].reshape(shape)


@cache
def _workers() -> int:
    return max(1, os.cpu_count() or 1)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_workers(), thread_name_prefix="genlm-bytes-trie")
