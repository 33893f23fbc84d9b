"""Tree attention: which of the KV cache's slots each new node may attend to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from genlm.bytes.backends.hf_tree.kv_view import KVView
from genlm.bytes.contexts.tree import ContextNode

__all__ = ["ancestors", "depths", "is_chain"]

_Paths = Mapping[ContextNode, Int[np.ndarray, " depth"]]


def is_chain(new: list[ContextNode]) -> bool:
    """Whether each node is the next one's parent."""
    return all(node.parent is before for node, before in zip(new[1:], new[:-1], strict=True))


def ancestors(new: list[ContextNode], paths: _Paths, view: KVView) -> Bool[np.ndarray, "new all"]:
    """`[i, j]`: whether column `j` of the view is `new[i]` or an ancestor of it.

    Args:
        new: parents first.
        paths: the slots down to each parent that is not new itself.
    """
    mask = np.zeros((len(new), view.length), np.bool_)
    own = view.columns(view.new)
    columns = {stem: view.columns(path) for stem, path in paths.items()}
    row: dict[ContextNode, int] = {}
    for i, node in enumerate(new):
        parent = node.parent
        assert parent is not None
        if parent in row:
            mask[i] = mask[row[parent]]
        elif parent in columns:
            mask[i, columns[parent]] = True
        mask[i, own[i]] = True
        row[node] = i
    return mask


def depths(new: list[ContextNode], paths: _Paths, view: KVView) -> Int[np.ndarray, " all"]:
    """The depth of the node in each column; 0 in a hole."""
    found = np.zeros(view.length, np.int64)
    for path in paths.values():
        found[view.columns(path)] = np.arange(1, len(path) + 1)
    found[view.columns(view.new)] = [node.depth for node in new]
    return found
