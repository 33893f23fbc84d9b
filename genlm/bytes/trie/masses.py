"""Masses of one token distribution, summed only where someone looks.

A beam visits a handful of nodes of each distribution: a path, and where a next byte is asked for, the
children on it. Every node is an interval of the tokens in sorted order, and its mass is summed over its
interval when it is first asked for; nothing is ever computed for the 10⁵ nodes that nobody visits. All
sums are float64.

Nor are log-probabilities put into sorted order and made probabilities before someone looks. The largest
interval looked at so far is kept: reading known bytes looks at the first byte's, and then at intervals
inside it; the distribution of the next byte at the root looks at them all.

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
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.util.rows import Row, as_numpy

if TYPE_CHECKING:
    from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["NodeMasses"]


class NodeMasses:
    """The masses of one distribution over the tokens of a trie.

    Args:
        weights: the probability of each token, in the trie's sorted order.
        logps: in its place, natural log-probabilities by token id, as many as the largest id needs. They
            must not change.
        allowed: the tokens that count, in sorted order; the others have probability zero. None: all count.
    """

    __slots__ = ("_allowed", "_first", "_logps", "_sums", "_weights", "trie")

    def __init__(
        self,
        trie: TokenByteTrie,
        weights: Float64[np.ndarray, " tokens"] | None = None,
        logps: Float[np.ndarray, " logits"] | None = None,
        allowed: Bool[np.ndarray, " tokens"] | None = None,
    ) -> None:
        self.trie = trie
        self._logps = logps
        self._allowed = allowed
        # Probabilities of the sorted tokens from `_first` on: all, or the largest interval asked for.
        self._weights = np.zeros(0) if weights is None else weights
        if weights is not None and allowed is not None:
            self._weights = np.where(allowed, weights, 0.0)
        self._first = 0
        self._sums: dict[tuple[int, TrieMode], Float64[np.ndarray, " children"]] = {}

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

    def _under(
        self, mode: TrieMode, first: int = 0, stop: int | None = None
    ) -> Float64[np.ndarray, " interval"]:
        """Probabilities of the tokens from `first` to `stop` in sorted order, as `mode` counts them."""
        stop = len(self.trie.token_ids) if stop is None else stop
        weights = self._interval(first, stop)
        if mode is TrieMode.WITH_EOS:
            inside = [leaf - first for leaf in self.trie.eos_leaves if first <= leaf < stop]
            if inside:
                weights = weights.copy()
                weights[inside] = 0.0
        return weights

    def _interval(self, first: int, stop: int) -> Float64[np.ndarray, " interval"]:
        if self._first <= first and stop <= self._first + len(self._weights):
            return self._weights[first - self._first : stop - self._first]
        assert self._logps is not None  # otherwise all are here
        weights: Float64[np.ndarray, " interval"]
        weights = np.exp(self._logps[self.trie.token_ids[first:stop]].astype(np.float64))
        if self._allowed is not None:
            weights[~self._allowed[first:stop]] = 0.0
        if len(weights) > len(self._weights):
            self._first, self._weights = first, weights
            if len(weights) == len(self.trie.token_ids):
                self._logps = self._allowed = None
        return weights

    def token(self, leaf: int, ended: TrieMode) -> float:
        """Probability of the token at a sorted position."""
        return float(self._under(ended, leaf, leaf + 1)[0])

    def ending(self, node: int, ended: TrieMode) -> float:
        """Probability of the tokens that end at `node`. Empty tokens, at the root, spell nothing: 0."""
        arrays = self.trie.arrays
        if node == ROOT or not arrays.ends[node]:
            return 0.0
        first = int(arrays.lo[node])
        return float(self._under(ended, first, first + int(arrays.ends[node])).sum())

    def eos(self) -> float:
        """Probability of the tokens that spell an end of sequence."""
        return float(sum(self._interval(int(leaf), int(leaf) + 1)[0] for leaf in self.trie.eos_leaves))

    def node(self, node: int, mode: TrieMode, ended: TrieMode) -> float:
        """Probability of all tokens that begin with the prefix of `node`, those ending there included."""
        arrays = self.trie.arrays
        if mode is ended:
            return float(self._under(mode, int(arrays.lo[node]), int(arrays.hi[node])).sum())
        return self.ending(node, ended) + float(self.children(node, mode)[1].sum())

    def children(
        self, node: int, mode: TrieMode
    ) -> tuple[UInt8[np.ndarray, " children"], Float64[np.ndarray, " children"]]:
        """The bytes that can be read at `node`, and the mass of the node that each leads to."""
        arrays = self.trie.arrays
        labels, nodes = arrays.byte_children(node)
        sums = self._sums.get((node, mode))
        if sums is None:
            if len(nodes):
                # Children are adjacent: each interval stops where the next begins.
                first, stop = int(arrays.lo[nodes[0]]), int(arrays.hi[nodes[-1]])
                sums = np.add.reduceat(self._under(mode, first, stop), arrays.lo[nodes] - first)
            else:
                sums = np.zeros(0)
            self._sums[node, mode] = sums
        return labels, sums

    def log_masses(self, mode: TrieMode) -> Float64[np.ndarray, " columns"]:
        """The log mass of every documented node: the whole array, for those who want it."""
        arrays = self.trie.arrays
        text = self._under(mode)
        eos = self.eos() if mode is TrieMode.WITH_EOS else 0.0
        # One more entry lets an interval stop at the end; pairs (lo, hi) use every second sum.
        bounds = np.stack([arrays.lo, arrays.hi], axis=1).ravel()
        sums = np.add.reduceat(np.append(text, 0.0), bounds)[::2]
        sums[ROOT] += eos
        with np.errstate(divide="ignore"):
            logs: Float64[np.ndarray, " columns"] = np.log(np.concatenate([sums, [eos], text]))
        return logs
