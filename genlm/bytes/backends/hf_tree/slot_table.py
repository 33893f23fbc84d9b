"""The slots of a node and its ancestors, without walking the whole path again for each token."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from jaxtyping import Int

from genlm.bytes.contexts.tree import ContextNode

__all__ = ["SlotTable"]

KEPT = 256
"""SlotTable remembered: more than one for each candidate of the beams that share a forward. At 4,000 tokens
all of them take 8 MB."""


class SlotTable:
    """Remembers the paths of the nodes asked for last, so that one that is longer by a few is read off."""

    def __init__(self) -> None:
        self._kept: OrderedDict[ContextNode, Int[np.ndarray, " depth"]] = OrderedDict()

    def of(self, node: ContextNode) -> Int[np.ndarray, " depth"]:
        """The slots from the first token's node down to `node`. All of these must have one."""
        tail: list[int] = []
        known, at = np.empty(0, np.int64), node
        while at.parent is not None:
            if at in self._kept:
                known = self._kept[at]
                self._kept.move_to_end(at)
                break
            assert at.slot is not None
            tail.append(at.slot)
            at = at.parent
        if tail:
            tail.reverse()
            known = np.concatenate([known, np.array(tail, np.int64)])
            self._kept[node] = known
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return known

    def forget(self) -> None:
        """Forget all: a node has lost its slot, or been given another."""
        self._kept.clear()
