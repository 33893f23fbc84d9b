"""One layer's keys and values, in buffers with a slot a node: what `transformers` fills and attends to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from transformers.cache_utils import CacheLayerMixin

if TYPE_CHECKING:
    from genlm.bytes.backends.hf_tree.kv_cache import KVCache

__all__ = ["KVLayer"]


class KVLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's buffers, `[1, heads, slots, head size]`."""

    is_sliding = False

    def __init__(self, cache: KVCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_zeros(self._shape(key_states))
        self.values = value_states.new_zeros(self._shape(value_states))
        self.is_initialized = True

    def _shape(self, states: torch.Tensor) -> tuple[int, ...]:
        return (*states.shape[:2], self._cache.capacity, *states.shape[3:])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the new nodes' keys and values; return those of the exposed slots."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, keys = self._put(self.keys, key_states)
        self.values, values = self._put(self.values, value_states)
        return keys, values

    def _put(
        self, buffer: Float[torch.Tensor, "1 h s d"], new: Float[torch.Tensor, "1 h n d"]
    ) -> tuple[Float[torch.Tensor, "1 h s2 d"], Float[torch.Tensor, "1 h e d"]]:
        cache, buffer = self._cache, self._grown(buffer)
        # A model may be spread over several devices; where it is on one, `to` does nothing.
        if isinstance(cache.new, slice):
            buffer[:, :, cache.new] = new
        else:
            buffer.index_copy_(2, cache.new.to(buffer.device), new)
        if cache.old is None:
            return buffer, new
        if isinstance(cache.old, slice):
            return buffer, buffer[:, :, cache.old]
        return buffer, torch.cat([buffer.index_select(2, cache.old.to(buffer.device)), new], dim=2)

    def _grown(self, buffer: torch.Tensor) -> torch.Tensor:
        if buffer.shape[2] == self._cache.capacity:
            return buffer
        grown = buffer.new_zeros(self._shape(buffer))
        grown[:, :, : buffer.shape[2]] = buffer
        return grown

    def copy(self, slots: Int[torch.Tensor, " some"], start: int) -> None:
        """Copy what some slots contain to those from `start` on."""
        if not self.is_initialized:
            return  # a layer that attends to another's keys and values, or no forward yet
        self.keys, self.values = self._grown(self.keys), self._grown(self.values)
        for buffer in (self.keys, self.values):
            into = buffer[:, :, start : start + len(slots)]
            into.copy_(buffer.index_select(2, slots.to(buffer.device)))

    def erase(self, slots: Int[torch.Tensor, " some"]) -> None:
        """Make what some slots contain finite."""
        if self.is_initialized:
            for buffer in (self.keys, self.values):
                known = slots[slots < buffer.shape[2]]  # it may not have grown yet
                buffer.index_fill_(2, known.to(buffer.device), 0.0)

    def move(self, slots: Int[torch.Tensor, " kept"]) -> None:
        """Buffers of the cache's capacity, with only some slots, side by side from the first on."""
        if self.is_initialized:
            self.keys, self.values = (self._moved(b, slots) for b in (self.keys, self.values))

    def _moved(self, buffer: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        made = buffer.new_zeros(self._shape(buffer))
        made[:, :, : len(slots)] = buffer.index_select(2, slots.to(buffer.device))
        return made

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        # Earlier releases of transformers 5 pass the positions themselves; the new nodes say how many.
        return self._cache.view.length, 0

    def get_seq_length(self) -> int:
        return self._cache.view.length - len(self._cache.view.new)

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in earlier releases of transformers 5

    @property
    def bytes_per_slot(self) -> int:
        if not self.is_initialized:
            return 0
        return sum(b[:, :, :1].numel() * b.element_size() for b in (self.keys, self.values))
