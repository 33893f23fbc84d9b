"""Totals below every node with torch, on any device, level by level, deepest first: one `index_add` a level.

The same as `sums.py` has for a CPU, where it is slower. Imported where a trie is on a GPU.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from genlm.bytes.trie.arrays import ROOT, TrieArrays
from genlm.bytes.trie.modes import TrieOp

__all__ = ["Levels", "below_torch"]


class Levels:
    """What `below_torch` needs of a trie, as index tensors on one device."""

    def __init__(self, trie: TrieArrays, device: str | torch.device) -> None:
        def put(a: Int[np.ndarray, " n"]) -> torch.Tensor:
            return torch.as_tensor(a.astype(np.int64), device=device)

        self.nodes = len(trie)
        self.order = put(trie.order)
        self.end_node = put(trie.end_node)
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
