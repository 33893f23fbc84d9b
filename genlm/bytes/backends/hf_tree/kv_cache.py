"""Keys and values of all contexts, one slot a node, in buffers that a Hugging Face model fills itself.

The model is given a cache whose layers write the new keys and values into the new nodes' slots and
answer with those that this forward needs (`kv_view.py`): a stretch of the buffers, or what is needed of
them, gathered, followed by the new.

A node gets the first free slot after its parent's, so that paths are stretches. What is needed together and
lies scattered is not gathered at every forward: it moves, once, to where it lies together and can grow by a
quarter, if there is room. Where free slots are many but strewn, all are packed.
The buffers grow by doubling, up to the limit. Only a forward that needs more than the limit by itself gets
more, and the buffers are cut back and compacted after it.

A node with a slot has ancestors with slots: the least recently used go first, of those equally so the
deepest, and a node counts as used when a descendant is. What slots without a holder contain is finite, since
a mask that hides an infinite or undefined number still passes it on (0 × ∞).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Int
from transformers.cache_utils import Cache

from genlm.bytes.backends.hf_tree.kv_layer import KVLayer
from genlm.bytes.backends.hf_tree.kv_view import KVView, first_run, make_view, scattered, slots_of
from genlm.bytes.backends.hf_tree.slot_table import SlotTable
from genlm.bytes.contexts.tree import ContextNode

__all__ = ["KVCache"]

FIRST_CAPACITY = 64
WORTH_MOVING = 64
"""Slots from which moving them pays: it costs what gathering them once does, and some bookkeeping."""


class KVCache(Cache):  # type: ignore[misc]
    """The cache that the model is given. `prepare` is called before each forward.

    Args:
        layers: how many layers the model has.
        device: where the model lives.
        most_bytes: the most that keys and values may take. What one forward needs is always granted;
            `trim` brings the buffers back to the limit.

    Attributes:
        clock: nodes used at this time are not evicted. Whoever starts a request advances it.
        view: what the forward attends to.
        new: the new nodes' slots, for the layers.
        old: the slots that the layers answer with: a stretch, or those that are gathered and followed
            by the new; None if there are only new ones.
    """

    def __init__(self, layers: int, device: torch.device, most_bytes: int) -> None:
        super().__init__(layers=[KVLayer(self) for _ in range(layers)])
        self.capacity = FIRST_CAPACITY
        self.most_bytes = most_bytes
        self.evictions = 0
        self.clock = 0
        none = np.empty(0, np.int64)
        self.view = KVView(none, none, None, 0)
        self.new: slice | Int[torch.Tensor, " new"] = slice(0, 0)
        self.old: slice | Int[torch.Tensor, " old"] | None = None
        self._device = device
        self._holders: list[ContextNode | None] = [None] * self.capacity
        self._free = np.ones(self.capacity, np.bool_)
        self._table = SlotTable()

    @property
    def used(self) -> int:
        """Slots in use."""
        return self.capacity - int(self._free.sum())

    @property
    def nbytes(self) -> int:
        """Memory of the buffers, in bytes."""
        return self.capacity * self._bytes_per_slot

    @property
    def _bytes_per_slot(self) -> int:
        return sum(layer.bytes_per_slot for layer in self.layers)

    @property
    def most_slots(self) -> int | None:
        """How many slots the limit allows. None before the first forward, which shows their size."""
        per_slot = self._bytes_per_slot
        return self.most_bytes // per_slot if per_slot else None

    def prepare(self, new: list[ContextNode]) -> dict[ContextNode, Int[np.ndarray, " depth"]]:
        """Prepare a forward over `new`, parents first. Gives each a slot.

        Returns:
            The slots down to each node that a new one is a child of, without those that are new themselves.
        """
        among = set(new)
        stems = dict.fromkeys(
            above for node in new if (above := node.parent) and above.parent and above not in among
        )
        for node in (*new, *stems):
            node.used = self.clock
        lacking = [node for node in new if node.slot is None]
        self._make_room(len(lacking))
        paths = {stem: self._table.of(stem) for stem in stems}
        if self._settle(paths.values(), len(new)):
            paths = {stem: self._table.of(stem) for stem in stems}
        self._give_slots(lacking)
        self.view = make_view(np.array([node.slot for node in new]), paths.values(), self.capacity)
        self.new = self._stretch(self.view.new)
        self.old = self._shown()
        return paths

    def _stretch(self, slots: Int[np.ndarray, " some"]) -> slice | Int[torch.Tensor, " some"]:
        if (np.diff(slots) == 1).all():
            return slice(int(slots[0]), int(slots[-1]) + 1)
        return torch.tensor(slots, device=self._device)

    def _shown(self) -> slice | Int[torch.Tensor, " old"] | None:
        shown = self.view
        if shown.start is not None:
            return slice(shown.start, shown.start + shown.length)
        return torch.tensor(shown.old, device=self._device) if len(shown.old) else None

    def _settle(self, paths: Iterable[Int[np.ndarray, " depth"]], new: int) -> bool:
        """Move what is needed together to where it lies together, if it is scattered and there is room.

        Returns:
            Whether it has moved.
        """
        needed = slots_of(paths, self.capacity)
        if len(needed) < WORTH_MOVING or not scattered(needed, new):
            return False
        room = new + max(WORTH_MOVING, len(needed) // 4)
        length = len(needed) + room
        start = first_run(self._free, length)
        pack = start is None and max(2 * self.used, self.used + room) <= self.capacity
        if start is None and not pack:
            if self.most_slots is None or self.capacity + length > self.most_slots:
                return False
            start = self.capacity
            self._grow(self._doubled(length, self.most_slots))
        nodes = [node for slot in needed if (node := self._holders[slot])]
        nodes.sort(key=lambda node: node.depth)  # what branches share comes first
        if start is None:
            among = set(nodes)
            self._pack([*(node for node in self._held() if node not in among), *nodes])
        else:
            self._move(nodes, start)
        return True

    def _move(self, nodes: list[ContextNode], start: int) -> None:
        """Move some nodes to free slots from `start` on."""
        slots = torch.tensor([node.slot for node in nodes], device=self._device)
        for layer in self.layers:
            layer.copy(slots, start)
        self.release(nodes)
        self._place(nodes, range(start, start + len(nodes)))

    def _pack(self, nodes: list[ContextNode]) -> None:
        """Buffers of the capacity that hold these nodes, all there are, one after another from the start."""
        slots = torch.tensor([node.slot for node in nodes], dtype=torch.long, device=self._device)
        for layer in self.layers:
            layer.move(slots)
        self._holders = [None] * self.capacity
        self._free = np.ones(self.capacity, np.bool_)
        self._place(nodes, range(len(nodes)))
        self._table.forget()

    def _place(self, nodes: Iterable[ContextNode], slots: Iterable[int]) -> None:
        for node, slot in zip(nodes, slots, strict=True):
            node.slot = slot
            self._holders[slot] = node
            self._free[slot] = False

    def release(self, nodes: Iterable[ContextNode]) -> None:
        """Take the slots of `nodes` back."""
        for node in nodes:
            if node.slot is not None:
                self._holders[node.slot] = None
                self._free[node.slot] = True
                node.slot = None
        self._table.forget()

    def discard(self, nodes: Iterable[ContextNode]) -> None:
        """Take slots back whose contents cannot be trusted, and those of what descends from them."""
        lost = [node for node in nodes if node.slot is not None]
        slots = torch.tensor([node.slot for node in lost], dtype=torch.long, device=self._device)
        for layer in self.layers:
            layer.erase(slots)
        self.release(lost)
        for node in sorted(self._held(), key=lambda node: node.depth):
            if node.parent and node.parent.parent and node.parent.slot is None:
                self.release([node])

    def clear(self) -> None:
        """Take all slots back, and begin again with buffers as small as they were first.

        Where a node's slot is depends on their size, and with it what a forward is shown, and the round-off.
        """
        self.release(self._held())
        self.capacity = FIRST_CAPACITY
        for layer in self.layers:
            layer.move(torch.empty(0, dtype=torch.long, device=self._device))
        self._holders = [None] * self.capacity
        self._free = np.ones(self.capacity, np.bool_)

    def trim(self) -> None:
        """Give back what a forward needed beyond the limit."""
        most = self.most_slots
        if most is None or self.capacity <= most:
            return
        self._evict(max(0, self.used - most), self.clock + 1)
        held, self.capacity = self._held(), most
        self._pack(held)

    def _held(self) -> list[ContextNode]:
        return [node for node in self._holders if node is not None]

    def _give_slots(self, nodes: list[ContextNode]) -> None:
        """The first free slots after the first node's parent's, and on from the start."""
        if not nodes:
            return
        above = nodes[0].parent
        free = np.flatnonzero(self._free)
        first = int(np.searchsorted(free, above.slot)) if above and above.slot is not None else 0
        slots = np.concatenate([free[first : first + len(nodes)], free[:first]])[: len(nodes)]
        self._place(nodes, slots.tolist())

    def _make_room(self, count: int) -> None:
        missing = count - int(self._free.sum())
        if missing <= 0:
            return
        most = self.most_slots
        if most is None:
            most = self.capacity + missing
        if self.capacity < most:
            grown = self._doubled(missing, most)
            missing -= grown - self.capacity
            self._grow(grown)
        if missing > 0:
            missing -= self._evict(max(missing, self.capacity // 8), self.clock)
        if missing > 0:  # one forward needs more than the limit: it must still be possible
            self._grow(self.capacity + missing)

    def _doubled(self, more: int, most: int) -> int:
        """The capacity to grow to for so many slots more: twice the present one as a rule, at most `most`."""
        return min(max(2 * self.capacity, self.capacity + more), most)

    def _grow(self, capacity: int) -> None:
        more = capacity - self.capacity
        self._free = np.concatenate([self._free, np.ones(more, np.bool_)])
        self._holders += [None] * more
        self.capacity = capacity

    def _evict(self, count: int, before: int) -> int:
        """Drop the least recently used of those not used since `before`, children before parents."""
        held = sorted(self._held(), key=lambda node: node.used, reverse=True)
        for node in held:
            above = node.parent
            while above is not None and above.used < node.used:
                above.used = node.used
                above = above.parent
        idle = [node for node in held if node.used < before]
        idle.sort(key=lambda node: (node.used, -node.depth))
        self.release(idle[:count])
        self.evictions += len(idle[:count])
        return len(idle[:count])
