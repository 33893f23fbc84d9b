"""Keys and values of all contexts, one slot a node, in buffers that a Hugging Face model fills itself.

The model is given a cache whose layers write the new keys and values into the new nodes' slots and
answer with the old ones that this forward needs followed by the new. Only what is needed is exposed:
attention costs per exposed slot, and models with grouped queries copy each of them once a head.

A freed slot is used again by the next node. Slots need not be neighbours, since exposing gathers them
anyway, so there is nothing to compact while the buffers grow by doubling, up to the limit. Only a forward
that needs more than the limit by itself gets more, and the buffers are cut back and compacted after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from transformers.cache_utils import Cache, CacheLayerMixin

from genlm.bytes.engine.tree import Node

__all__ = ["SlotCache"]


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's buffers, `[1, heads, slots, head size]`."""

    is_sliding = False

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_empty(self._shape(key_states))
        self.values = value_states.new_empty(self._shape(value_states))
        self.is_initialized = True

    def _shape(self, states: torch.Tensor) -> tuple[int, ...]:
        return (*states.shape[:2], self._cache.capacity, *states.shape[3:])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the new nodes' keys and values; return those of the exposed nodes, the new ones last."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, keys = self._put(self.keys, key_states)
        self.values, values = self._put(self.values, value_states)
        return keys, values

    def _put(
        self, buffer: Float[torch.Tensor, "1 h s d"], new: Float[torch.Tensor, "1 h n d"]
    ) -> tuple[Float[torch.Tensor, "1 h s2 d"], Float[torch.Tensor, "1 h e d"]]:
        if buffer.shape[2] < self._cache.capacity:
            grown = buffer.new_empty(self._shape(buffer))
            grown[:, :, : buffer.shape[2]] = buffer
            buffer = grown
        # A model may be spread over several devices; where it is on one, `to` does nothing.
        buffer.index_copy_(2, self._cache.new.to(buffer.device), new)
        if not len(self._cache.old):
            return buffer, new
        return buffer, torch.cat([buffer.index_select(2, self._cache.old.to(buffer.device)), new], dim=2)

    def move(self, slots: Int[torch.Tensor, " kept"]) -> None:
        """Buffers of the cache's capacity, with only some slots, side by side from the first on."""
        if self.is_initialized:
            self.keys, self.values = (self._moved(b, slots) for b in (self.keys, self.values))

    def _moved(self, buffer: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        made = buffer.new_empty(self._shape(buffer))
        made[:, :, : len(slots)] = buffer.index_select(2, slots.to(buffer.device))
        return made

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        # Earlier releases of transformers 5 pass the positions themselves; the new nodes say how many.
        return len(self._cache.old) + len(self._cache.new), 0

    def get_seq_length(self) -> int:
        return len(self._cache.old)

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in earlier releases of transformers 5

    @property
    def bytes_per_slot(self) -> int:
        if not self.is_initialized:
            return 0
        return sum(b[:, :, :1].numel() * b.element_size() for b in (self.keys, self.values))


class SlotCache(Cache):  # type: ignore[misc]
    """The cache that the model is given. `old` and `new` are set before each forward.

    Args:
        layers: how many layers the model has.
        device: where the model lives.
        most_bytes: the most that keys and values may take. What one forward needs is always granted;
            `trim` brings the buffers back to the limit.
    """

    def __init__(self, layers: int, device: torch.device, most_bytes: int) -> None:
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])
        self.capacity = 64
        self.most_bytes = most_bytes
        self.evictions = 0
        self.old: Int[torch.Tensor, " old"] = torch.empty(0, dtype=torch.long, device=device)
        self.new: Int[torch.Tensor, " new"] = self.old
        self._device = device
        self._holders: list[Node | None] = [None] * self.capacity
        self._free = list(reversed(range(self.capacity)))

    @property
    def used(self) -> int:
        """Slots in use."""
        return self.capacity - len(self._free)

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

    def expose(self, old: list[Node], new: list[Node]) -> None:
        """Prepare a forward over `new`, which attends to `old`. Gives each new node a slot."""
        self._make_room(len(new), keep={id(node) for node in old})
        for node in new:
            if node.slot is None:
                node.slot = self._free.pop()
                self._holders[node.slot] = node
        self.old = torch.tensor([node.slot for node in old], dtype=torch.long, device=self._device)
        self.new = torch.tensor([node.slot for node in new], dtype=torch.long, device=self._device)

    def release(self, nodes: Iterable[Node]) -> None:
        """Take the slots of `nodes` back."""
        for node in nodes:
            if node.slot is not None:
                self._holders[node.slot] = None
                self._free.append(node.slot)
                node.slot = None

    def clear(self) -> None:
        """Take all slots back."""
        self.release([node for node in self._holders if node is not None])

    def trim(self) -> None:
        """Give back what a forward needed beyond the limit."""
        most = self.most_slots
        if most is None or self.capacity <= most:
            return
        self._evict(max(0, self.used - most), keep=set())
        held = [node for node in self._holders if node is not None]
        slots = torch.tensor([node.slot for node in held], dtype=torch.long, device=self._device)
        self.capacity = most
        for layer in self.layers:
            layer.move(slots)
        for slot, node in enumerate(held):
            node.slot = slot
        self._holders = [*held, *[None] * (most - len(held))]
        self._free = list(reversed(range(len(held), most)))

    def _make_room(self, count: int, keep: set[int]) -> None:
        missing = count - len(self._free)
        if missing <= 0:
            return
        most = self.most_slots
        if most is None:
            most = self.capacity + missing
        if self.capacity < most:
            grown = min(max(2 * self.capacity, self.capacity + missing), most)
            missing -= grown - self.capacity
            self._grow(grown)
        if missing > 0:
            missing -= self._evict(max(missing, self.capacity // 8), keep)
        if missing > 0:  # one forward needs more than the limit: it must still be possible
            self._grow(self.capacity + missing)

    def _grow(self, capacity: int) -> None:
        self._free += reversed(range(self.capacity, capacity))
        self._holders += [None] * (capacity - self.capacity)
        self.capacity = capacity

    def _evict(self, count: int, keep: set[int]) -> int:
        """Drop the least recently used; of those equally so the deepest, so that paths stay whole."""
        held = [node for node in self._holders if node is not None and id(node) not in keep]
        held.sort(key=lambda node: (node.used, -node.depth))
        self.release(held[:count])
        self.evictions += len(held[:count])
        return len(held[:count])
