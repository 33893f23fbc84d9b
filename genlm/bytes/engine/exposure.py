"""What one forward attends to: slots of the cache, as columns of its mask.

Attention costs per exposed slot, and so does copying slots out of the buffers, in every layer. Slots on a
path are mostly neighbours, since a node is given the first free slot after its parent's. So where few
others lie between the slots that are needed, the whole stretch is exposed as a view of the buffer, nothing
is copied, and the mask hides the *holes*. Otherwise the needed ones are gathered.

In SmolLM2-135M's layers (9 heads, 3 of keys; one thread), a slot costs 0.25 µs to gather and about
0.1 µs for one new node to attend to; 0.3 + 0.04 n for n new ones, which also copy keys once a head. At
900 slots a step of decoding takes 20 ms of 90 less where nothing is gathered. `WEIGHT` follows from that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

__all__ = ["Exposure", "expose"]

WEIGHT = 8
"""A hole costs as much as gathering (1 + new nodes / WEIGHT) needed slots."""


@dataclass(frozen=True)
class Exposure:
    """Slots in the order in which a forward sees them.

    Attributes:
        new: the new nodes' slots, in the order of the nodes.
        old: the other slots that are needed, in rising order.
        start: where the exposed stretch begins; None where old slots are gathered, and new ones follow.
        length: how many slots are exposed, holes included.
    """

    new: Int[np.ndarray, " new"]
    old: Int[np.ndarray, " old"]
    start: int | None
    length: int

    @property
    def solid(self) -> bool:
        """Whether there are no holes."""
        return self.length == len(self.old) + len(self.new)

    def columns(self, slots: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Where exposed slots are seen."""
        if self.start is not None:
            return slots - self.start
        if not len(self.old):
            return self._new_columns(slots)
        column = np.minimum(np.searchsorted(self.old, slots), len(self.old) - 1)
        other = self.old[column] != slots
        if other.any():
            column[other] = self._new_columns(slots[other])
        return column

    def _new_columns(self, slots: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        order = np.argsort(self.new)
        found: np.ndarray = len(self.old) + order[np.searchsorted(self.new, slots, sorter=order)]
        return found


def expose(
    new: Int[np.ndarray, " new"], paths: Iterable[Int[np.ndarray, " depth"]], capacity: int
) -> Exposure:
    """Expose the new nodes' slots and those on some paths, the cheaper way.

    Args:
        new: the new nodes' slots, in the order of the nodes.
        paths: the slots of their ancestors; they may share some, with each other and with `new`.
        capacity: how many slots there are.
    """
    needed = np.zeros(capacity, np.bool_)
    for path in paths:
        needed[path] = True
    needed[new] = False
    old = np.flatnonzero(needed)
    count = len(old) + len(new)
    if not len(old):  # the model's own keys and values are all there is
        return Exposure(new, old, None, count)
    start = min(int(old[0]), int(new.min()))
    length = max(int(old[-1]), int(new.max())) + 1 - start
    if (length - count) * (WEIGHT + len(new)) <= WEIGHT * len(old):
        return Exposure(new, old, start, length)
    return Exposure(new, old, None, count)
