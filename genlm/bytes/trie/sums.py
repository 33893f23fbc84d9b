"""Totals (sums or maxima) of the weights below every node, for whole batches.

**Idea.** Only nodes where the vocabulary *branches* need arithmetic. A node with one token below it has
that token's weight; a node on an unbranched chain has the total of the branch at the chain's end. So
each row is worked in three passes: write every leaf's weight to its column and add it to the branch
above; write every branch's total to its column and add it to the branch above (reverse depth-first
order: descendants come first); copy to every other column from the one it equals. For a vocabulary of
49,152 byte-level tokens that is 23,354 additions between branches where there are 100,439 nodes.

Totals are float64: children are added into parents, never subtracted from one running total, which
would lose weights below 1e-16 of the whole.

**CPU.** The passes are compiled by numba (a dependency of `genlm-backend`) and run without the
interpreter's lock. The calling thread works rows itself and others join it, each taking the next few
rows: a busy or dead helper delays nobody. A large result's memory is used again once nobody holds that
result: having the system map fresh pages costs more than the arithmetic.

**GPU.** The same totals with torch, level by level: `torch_sums.py`.

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
from threading import Lock

import numpy as np
from jaxtyping import Float, Float32, Int, UInt32

from genlm.bytes.trie.arrays import ROOT, TrieArrays
from genlm.bytes.trie.modes import TrieOp

__all__ = ["Branches", "below_cpu"]


@dataclass(frozen=True, eq=False)
class Branches:
    """Where each leaf's weight and each branch's total go. Leaves are numbered in sorted order.

    Attributes:
        leaf_up: the branch that each leaf adds to.
        branch_up: the branch that each branch adds to; that of branch 0, the topmost, means nothing.
        branch_node: the node that each branch is.
        source: the column that each node's value equals: a branch's or a leaf's, never one further left.
    """

    # Unsigned: numba checks signed indices for counting from the end, a fifth of the whole time.
    leaf_up: UInt32[np.ndarray, " tokens"]
    branch_up: UInt32[np.ndarray, " branches"]
    branch_node: UInt32[np.ndarray, " branches"]
    source: UInt32[np.ndarray, " nodes"]

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
        branch_up = nearest[above[chain]]

        # A token adds to the node it ends at, or, where it is alone there, to the branch above it.
        owner = trie.end_node.copy()
        alone = np.flatnonzero(~many & branches[above] & (np.arange(n) != ROOT))
        owner[trie.lo[alone]] = above[alone]
        return cls(
            leaf_up=nearest[owner].astype(np.uint32),
            branch_up=branch_up.astype(np.uint32),
            branch_node=at.astype(np.uint32),
            source=np.where(many, at[nearest], n + 1 + trie.lo).astype(np.uint32),
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
        weights: one weight per token of the caller's list.
        eos_leaves: the leaves, in sorted order, that give their weight to the end-of-sequence node and
            the root only.

    Returns:
        `[batch, nodes + 1 + tokens]`.
    """
    batch = len(weights)
    out = _result_memory((batch, len(trie) + 1 + len(trie.order)))
    walk = _compiled()
    order = trie.order.view(np.uint32)
    share = max(_FEWEST_ROWS, 2 * -(-batch // (8 * _workers())))
    starts = iter(range(0, batch, share))  # each thread takes the next; `next` is atomic

    def work() -> None:
        for first in starts:
            stop = min(first + share, batch)
            walk(order, *vars(branches).values(), eos_leaves, weights, out, first, stop, op is TrieOp.MAX)

    helpers = min(_workers(), -(-batch // share)) - 1
    jobs = [_threads().submit(work) for _ in range(helpers)]
    work()
    for job in jobs:
        if not job.cancel():  # one that has not begun has nothing left to do
            job.result()
    return out


def _rows(  # type: ignore[no-untyped-def]
    order, leaf_up, branch_up, branch_node, source, eos_leaves, weights, out, first, stop, maximum
):
    """The passes over rows `first … stop - 1`. Plain Python that numba compiles.

    Rows go two by two: each addition waits for the one before it into the same branch, and a second
    row fills the wait (120 against 151 µs a row, 49k vocabulary). An odd last row is its own companion.
    Both are first copied side by side: reading a row from front to back brings it near, where fetching
    it token by token in sorted order waits for memory each time. What is decided by `maximum` inside the
    loops, the compiler decides before them.
    """
    tokens, count, nodes = order.shape[0], branch_up.shape[0], source.shape[0]
    near = np.empty((tokens, 2), weights.dtype)
    total = np.empty((count, 2), np.float64)
    for row in range(first, stop, 2):
        second = min(row + 1, stop - 1)
        w0, w1, out0, out1 = weights[row], weights[second], out[row], out[second]
        for token in range(tokens):
            near[token, 0] = w0[token]
            near[token, 1] = w1[token]
        ended0 = ended1 = 0.0
        for leaf in eos_leaves:
            x, y = near[order[leaf], 0], near[order[leaf], 1]
            ended0 = max(ended0, x) if maximum else ended0 + x
            ended1 = max(ended1, y) if maximum else ended1 + y
            near[order[leaf]] = 0.0

        total[:] = -np.inf if maximum else 0.0
        leaves0, leaves1 = out0[nodes + 1 :], out1[nodes + 1 :]
        for leaf in range(tokens):
            up = leaf_up[leaf]
            x, y = near[order[leaf], 0], near[order[leaf], 1]
            leaves0[leaf], leaves1[leaf] = x, y
            total[up, 0] = max(total[up, 0], x) if maximum else total[up, 0] + x
            total[up, 1] = max(total[up, 1], y) if maximum else total[up, 1] + y
        for branch in range(count - 1, 0, -1):
            up, node = branch_up[branch], branch_node[branch]
            x, y = total[branch, 0], total[branch, 1]
            out0[node], out1[node] = x, y
            total[up, 0] = max(total[up, 0], x) if maximum else total[up, 0] + x
            total[up, 1] = max(total[up, 1], y) if maximum else total[up, 1] + y
        x, y = total[0, 0], total[0, 1]
        out0[branch_node[0]], out1[branch_node[0]] = x, y
        for node in range(nodes):
            out0[node], out1[node] = out0[source[node]], out1[source[node]]
        out0[nodes], out1[nodes] = ended0, ended1
        out0[0] = max(x, ended0) if maximum else x + ended0
        out1[0] = max(y, ended1) if maximum else y + ended1


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


# Rows that a thread takes at once, at least: four of the 49k vocabulary take 0.5 ms.
_FEWEST_ROWS = 4
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


if hasattr(os, "register_at_fork"):  # a forked child has no threads: its first batch starts its own
    os.register_at_fork(after_in_child=_threads.cache_clear)
