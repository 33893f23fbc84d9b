"""Masses of one token distribution, summed only where someone looks.

A beam visits a handful of nodes of each distribution: a path, and where a next byte is asked for, the
children on it. Every node is an interval of the tokens in sorted order, and its mass is summed over its
interval when it is first asked for; nothing is ever computed for the 10⁵ nodes that nobody visits. All
sums are float64.

Nor are log-probabilities put into sorted order and made probabilities before someone looks, nor kept as
such: of a large node the sums of its blocks are (`blocks.py`), of a small one the probabilities. Reading
known bytes takes one pass over what begins with the first; the distribution of the next byte one over all.

A mass has two readings (`TrieMode`), decided by how the end-of-sequence tokens count. Those that end
*at* a node were read with the byte that led there; those that go on *below* it will be read by later
bytes. A text can switch its reading between the two (a prompt is read as plain text, what follows is
not), so the two are told apart: `ended` is the reading of the former, `mode` of the latter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.blocks import block_sums, probabilities
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.util.rows import Row, as_numpy

if TYPE_CHECKING:
    from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["NodeMasses"]

_From = tuple[int, Float64[np.ndarray, " values"]]
"""Where an interval begins, and its values."""


class NodeMasses:
    """The masses of one distribution over the tokens of a trie.

    Args:
        weights: the probability of each token, in the trie's sorted order.
        logps: in its place, natural log-probabilities by token id, as many as the largest id needs. They
            must not change.
        allowed: the tokens that count, in sorted order; the others have probability zero. None: all count.
    """

    __slots__ = ("_allowed", "_blocks", "_children", "_logps", "_sums", "_weights", "trie")

    def __init__(
        self,
        trie: TokenByteTrie,
        weights: Float64[np.ndarray, " tokens"] | None = None,
        logps: Float[np.ndarray, " logits"] | None = None,
        allowed: Bool[np.ndarray, " tokens"] | None = None,
    ) -> None:
        self.trie = trie
        self._blocks = trie.blocks
        self._logps = logps
        self._allowed = allowed
        # Each pair is one value: candidates in several threads may share the masses of a context. The first
        # sorted token, and the probabilities from there: all, or those of the small node last asked for.
        given = np.zeros(0) if weights is None else weights if allowed is None else weights * allowed
        self._weights: _From = (0, given)
        # The first block, and the masses from there: the large node last asked for.
        self._sums: _From = (0, np.zeros(0))
        self._children: dict[tuple[int, TrieMode], Float64[np.ndarray, " children"]] = {}

    @classmethod
    def from_logprobs(
        cls,
        trie: TokenByteTrie,
        logps: Row,
        allowed: Bool[np.ndarray, " tokens"] | None = None,
        *,
        kept: bool = False,
    ) -> NodeMasses:
        """Masses of a model's log-probabilities, indexed by token id; of those tokens that count.

        Args:
            trie: the trie.
            logps: the log-probabilities.
            allowed: the tokens that count; None for all.
            kept: whether nobody writes to them any more. Else they are copied, because they are read later,
                and a model may use its buffer again.

        Ids without a token are ignored; tokens without a log-probability have probability zero.
        """
        # numpy on the CPU: for one row, waking torch's threads costs more than the work they share.
        row = as_numpy(logps)
        if len(row) <= trie.largest_id:
            row = np.pad(row, (0, trie.largest_id + 1 - len(row)), constant_values=-np.inf)
        return cls(trie, logps=row if kept else np.array(row), allowed=allowed)

    def reads(self, logps: Row) -> bool:
        """Whether these are masses of a row in its own memory, and not in a copy, which nobody counts."""
        return self._logps is not None and np.may_share_memory(self._logps, as_numpy(logps))

    @classmethod
    def from_log_masses(
        cls,
        trie: TokenByteTrie,
        mass: Float[np.ndarray, " columns"],
        allowed: Bool[np.ndarray, " tokens"] | None = None,
    ) -> NodeMasses:
        """Masses from an array of one log mass per documented node, as `LazyTrieState` accepts.

        Only the leaves carry information. Where the array was made for `WITH_EOS`, the
        end-of-sequence node's mass goes to one of the tokens that spell an end of sequence.
        """
        columns = np.asarray(mass, np.float64)
        leaves = np.exp(columns[trie.eos_node + 1 :])
        eos_mass = math.exp(columns[trie.eos_node])
        if eos_mass > 0.0 and len(trie.eos_leaves):
            leaves[trie.eos_leaves] = 0.0
            leaves[trie.eos_leaves[0]] = eos_mass
        return cls(trie, leaves, allowed=allowed)

    def _tokens(self, first: int, stop: int, mode: TrieMode) -> Float64[np.ndarray, " interval"]:
        """Probabilities of the tokens from `first` to `stop` in sorted order, as `mode` counts them."""
        weights = _inside(self._weights, first, stop)
        if weights is None:
            weights = self._pass(first, stop).copy()
            self._weights = first, weights
        if mode is TrieMode.WITH_EOS:
            inside = [leaf - first for leaf in self._blocks.eos if first <= leaf < stop]
            if inside:
                weights = weights.copy()
                weights[inside] = 0.0
        return weights

    def _pass(self, first: int, stop: int) -> Float64[np.ndarray, " interval"]:
        """Probabilities of some tokens, in memory that the next pass overwrites."""
        if self._logps is None:
            return self._weights[1][first:stop]
        allowed = None if self._allowed is None else self._allowed[first:stop]
        return probabilities(self._logps, self.trie.token_ids[first:stop], allowed)

    def _block_sums(self, first: int, stop: int, mode: TrieMode) -> Float64[np.ndarray, " blocks"]:
        """Masses of the blocks of the tokens from `first` to `stop`, where blocks begin and end."""
        blocks = self._blocks
        begin, end = int(blocks.at[first]), int(blocks.at[stop])
        sums = _inside(self._sums, begin, end)
        if sums is None:
            sums = block_sums(self._pass(first, stop), blocks, begin, end)
            self._sums = begin, sums
        if mode is TrieMode.WITH_EOS:
            inside = [at - begin for at in blocks.eos_at if begin <= at < end]
            if inside:
                sums = sums.copy()
                sums[inside] = 0.0
        return sums

    def _sum(self, first: int, stop: int, mode: TrieMode) -> float:
        """Probability of a node's tokens."""
        if stop == first + 1:
            return self.token(first, mode)
        large = stop - first > self._blocks.large
        return float(np.add.reduce((self._block_sums if large else self._tokens)(first, stop, mode)))

    def token(self, leaf: int, ended: TrieMode) -> float:
        """Probability of the token at a sorted position."""
        if ended is TrieMode.WITH_EOS and leaf in self._blocks.eos:
            return 0.0
        start, values = self._weights
        if 0 <= leaf - start < len(values):
            return float(values[leaf - start])
        if self._logps is None or (self._allowed is not None and not self._allowed[leaf]):
            return 0.0
        # numpy's, as where there are many: `math.exp` differs in the last digit.
        return float(np.exp(self._logps[self.trie.token_ids[leaf]], dtype=np.float64))

    def ending(self, node: int, ended: TrieMode) -> float:
        """Probability of the tokens that end at `node`. Empty tokens, at the root, spell nothing: 0."""
        arrays = self.trie.arrays
        if node == ROOT or not arrays.ends[node]:
            return 0.0
        first = int(arrays.lo[node])
        return sum(self.token(leaf, ended) for leaf in range(first, first + int(arrays.ends[node])))

    def eos(self) -> float:
        """Probability of the tokens that spell an end of sequence."""
        return sum(self.token(leaf, TrieMode.WITHOUT_EOS) for leaf in self._blocks.eos)

    def node(self, node: int, mode: TrieMode, ended: TrieMode) -> float:
        """Probability of all tokens that begin with the prefix of `node`, those ending there included."""
        arrays = self.trie.arrays
        if mode is ended:
            return self._sum(int(arrays.lo[node]), int(arrays.hi[node]), mode)
        return self.ending(node, ended) + float(self.children(node, mode)[1].sum())

    def children(
        self, node: int, mode: TrieMode
    ) -> tuple[UInt8[np.ndarray, " children"], Float64[np.ndarray, " children"]]:
        """The bytes that can be read at `node`, and the mass of the node that each leads to."""
        arrays, blocks = self.trie.arrays, self._blocks
        labels, nodes = arrays.byte_children(node)
        sums = self._children.get((node, mode))
        if sums is None:
            if len(nodes):
                # Children are adjacent: each interval stops where the next begins.
                first, stop, begins = int(arrays.lo[nodes[0]]), int(arrays.hi[nodes[-1]]), arrays.lo[nodes]
                if int(arrays.hi[node] - arrays.lo[node]) > blocks.large:
                    at = blocks.at[begins]
                    sums = np.add.reduceat(self._block_sums(first, stop, mode), at - at[0])
                else:
                    sums = np.add.reduceat(self._tokens(first, stop, mode), begins - first)
            else:
                sums = np.zeros(0)
            self._children[node, mode] = sums
        return labels, sums

    def log_masses(self, mode: TrieMode) -> Float64[np.ndarray, " columns"]:
        """The log mass of every documented node: the whole array, for those who want it."""
        arrays = self.trie.arrays
        text = self._pass(0, len(self.trie.token_ids)).copy()
        if mode is TrieMode.WITH_EOS:
            text[self.trie.eos_leaves] = 0.0
        eos = self.eos() if mode is TrieMode.WITH_EOS else 0.0
        # One more entry lets an interval stop at the end; pairs (lo, hi) use every second sum.
        bounds = np.stack([arrays.lo, arrays.hi], axis=1).ravel()
        sums = np.add.reduceat(np.append(text, 0.0), bounds)[::2]
        sums[ROOT] += eos
        with np.errstate(divide="ignore"):
            logs: Float64[np.ndarray, " columns"] = np.log(np.concatenate([sums, [eos], text]))
        return logs


def _inside(kept: _From, first: int, stop: int) -> Float64[np.ndarray, " interval"] | None:
    """The values from `first` to `stop`, where they are there."""
    start, values = kept
    return values[first - start : stop - start] if start <= first and stop <= start + len(values) else None
