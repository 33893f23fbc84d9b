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
from jaxtyping import Bool, Int

__all__ = ["KVView", "first_run", "make_view", "scattered", "slots_of"]

WEIGHT = 8
"""A hole costs as much as gathering (1 + new nodes / WEIGHT) needed slots."""


@dataclass(frozen=True)
class KVView:
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


def make_view(
    new: Int[np.ndarray, " new"], paths: Iterable[Int[np.ndarray, " depth"]], capacity: int
) -> KVView:
    """Expose the new nodes' slots and those on some paths, the cheaper way.

    Args:
        new: the new nodes' slots, in the order of the nodes.
        paths: the slots of their ancestors; they may share some, with each other and with `new`.
        capacity: how many slots there are.
    """
    old = slots_of(paths, capacity, new)
    count = len(old) + len(new)
    if not len(old):  # the model's own keys and values are all there is
        return KVView(new, old, None, count)
    start = min(int(old[0]), int(new.min()))
    length = max(int(old[-1]), int(new.max())) + 1 - start
    if not _too_many(length - count, len(old), len(new)):
        return KVView(new, old, start, length)
    return KVView(new, old, None, count)


def _too_many(holes: int, old: int, new: int) -> bool:
    """Whether gathering `old` slots is cheaper than exposing so many holes to `new` nodes."""
    return holes * (WEIGHT + new) > WEIGHT * old


def slots_of(
    paths: Iterable[Int[np.ndarray, " depth"]], capacity: int, new: Int[np.ndarray, " new"] | None = None
) -> Int[np.ndarray, " old"]:
    """The slots on some paths that are not `new`, in rising order."""
    needed = np.zeros(capacity, np.bool_)
    for path in paths:
        needed[path] = True
    if new is not None:
        needed[new] = False
    return np.flatnonzero(needed)


def scattered(slots: Int[np.ndarray, " old"], new: int) -> bool:
    """Whether some slots, in rising order, are better gathered for new nodes than exposed as they lie."""
    return _too_many(int(slots[-1]) + 1 - int(slots[0]) - len(slots), len(slots), new)


def first_run(free: Bool[np.ndarray, " slots"], length: int) -> int | None:
    """Where the first stretch of so many free slots begins; None if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]])))
    starts, ends = edges[::2], edges[1::2]
    long = np.flatnonzero(ends - starts >= length)
    return int(starts[long[0]]) if len(long) else None
