"""The sorted tokens of a trie in blocks, so that the mass of a large node is a sum of a few numbers.

Most of the work on a distribution over 10⁵ tokens is its first pass: to bring log-probabilities into the
trie's order, to make them probabilities, and to sum them. What a beam asks next lies below one child of the
root, then below one child of that. So sums are kept and probabilities are not. A node with more than `LARGE`
tokens below it is *large*, and a block begins wherever a child of a large node does: the interval of each of
these is a run of whole blocks, of which there is one for forty tokens or so. What lies deeper is at most
`LARGE` tokens, made probabilities when they are asked for. A pass goes through buffers that are used again:
fresh memory of that size costs more than the sums.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from genlm.bytes.trie.arrays import TrieArrays

__all__ = ["LARGE", "Blocks", "block_sums", "probabilities"]

LARGE = 512
"""Tokens below a node, above which its children are blocks. Each block is a number for each context, and each
token below the smallest blocks is looked at again: of 49,152 tokens, 512 makes 1,183 blocks."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Where blocks begin.

    Attributes:
        start: the first token of each, in sorted order.
        at: for each token, and for the end, the block that it is in: where one begins there, that one.
        eos: the end-of-sequence tokens, in sorted order. Each is a block of its own.
        eos_at: the block of each.
        large: tokens below a node, above which its children are blocks.
    """

    start: Int[np.ndarray, " blocks"]
    at: Int[np.ndarray, " tokens_plus_1"]
    eos: tuple[int, ...]
    eos_at: tuple[int, ...]
    large: int

    @classmethod
    def of(cls, arrays: TrieArrays, eos: Int[np.ndarray, " eos"], large: int | None = None) -> Blocks:
        """The blocks of a trie some of whose tokens spell an end of sequence."""
        begins = np.zeros(len(arrays.order) + 1, bool)
        large = LARGE if large is None else large
        inner = arrays.hi - arrays.lo > large
        children = np.flatnonzero(inner[arrays.parent[1:]]) + 1
        for places in (arrays.lo[children], arrays.hi[children], arrays.lo[inner], eos, eos + 1, [0]):
            begins[places] = True
        at = (np.cumsum(begins) - 1).astype(np.int32)
        ends = tuple(eos.tolist())
        return cls(np.flatnonzero(begins[:-1]), at, ends, tuple(at[list(ends)].tolist()), large)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.start.nbytes + self.at.nbytes


class _Buffers(threading.local):
    """One pass over a distribution, for each thread."""

    def __init__(self) -> None:
        self.taken: dict[np.dtype, np.ndarray] = {}
        self.weights = np.zeros(0)

    def sized(self, size: int, dtype: np.dtype) -> tuple[np.ndarray, Float64[np.ndarray, " size"]]:
        """For `size` log-probabilities of a type, and their probabilities."""
        taken = self.taken.get(dtype)
        if taken is None or len(taken) < size:
            taken = self.taken[dtype] = np.empty(size, dtype)
        if len(self.weights) < size:
            self.weights = np.empty(size)
        return taken[:size], self.weights[:size]


_buffers = _Buffers()


def probabilities(
    row: Float[np.ndarray, " logits"],
    ids: Int[np.ndarray, " interval"],
    allowed: Bool[np.ndarray, " interval"] | None,
) -> Float64[np.ndarray, " interval"]:
    """Probabilities of some token ids, 0 where not allowed, in a buffer that the next call overwrites."""
    taken, weights = _buffers.sized(len(ids), row.dtype)
    row.take(ids, out=taken, mode="clip")  # "raise" would go through a copy; all ids are inside
    np.exp(taken, out=weights, dtype=np.float64)
    if allowed is not None:
        weights *= allowed
    return weights


def block_sums(
    weights: Float64[np.ndarray, " interval"], blocks: Blocks, first: int, stop: int
) -> Float64[np.ndarray, " some_blocks"]:
    """The mass of each block from `first` to `stop`, of the probabilities of their tokens."""
    return np.add.reduceat(weights, blocks.start[first:stop] - blocks.start[first])
