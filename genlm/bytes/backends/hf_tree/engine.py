"""`Engine`: a Hugging Face model behind the `AsyncLM` interface that never computes a context twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from genlm.bytes.backends.hf_tree.backend import HFTreeBackend
from genlm.bytes.contexts.backend import Statistics
from genlm.bytes.contexts.cached_lm import CachedLM, free_bytes
from genlm.bytes.errors import bad_value

if TYPE_CHECKING:
    from genlm.backend.llm import AsyncTransformer

__all__ = ["Engine", "Statistics"]


class Engine(CachedLM[HFTreeBackend]):
    """An `AsyncLM` over the weights of a `genlm-backend` `AsyncTransformer`.

    Forwards run on one thread of its own, so nothing blocks the event loop. While one runs, requests from
    beams in any number of tasks, loops and threads gather for the next. Results do not depend on what else is
    in the batch or what was evicted (round-off aside). Weights that have changed are noticed, at the next
    forward, where they were written to as training and loading do, moved or converted; not where they were
    written through `tensor.data`, as merging a LoRA adapter does: call `clear_cache` then.

    Args:
        llm: the model to share weights with. It stays usable by itself.
        max_cache_bytes: the most memory for keys and values (on the model's device) and log-probabilities
            (in the host's memory), half for each. None takes an eighth of what is free for each half;
            on a CUDA device a quarter for keys and values.
        trees: run the model over trees of contexts. False runs every context whole and keeps
            log-probabilities only: slow, and right for models that can do no more (`uncached.py`).

    Raises:
        UnsupportedModelError: the model cannot be run over a tree of contexts.
    """

    def __init__(
        self, llm: AsyncTransformer, max_cache_bytes: int | None = None, *, trees: bool = True
    ) -> None:
        if max_cache_bytes is not None and max_cache_bytes < 1:
            raise bad_value("max_cache_bytes", max_cache_bytes, "must be a number of bytes above 0, or None")
        if max_cache_bytes is None:
            slots_bytes, rows_bytes = default_bounds(llm.model.device)
        else:
            slots_bytes, rows_bytes = max_cache_bytes // 2, max_cache_bytes - max_cache_bytes // 2
        super().__init__(HFTreeBackend(llm, slots_bytes, trees), rows_bytes)
        self.max_cache_bytes = slots_bytes + rows_bytes
        self.str_vocab, self.model = llm.str_vocab, llm.model
        self._llm = llm
        self._batcher.run(self.backend.try_out)

    reproducible = CachedLM.deterministic  # its name in 0.3.0

    def add_new_lora(self, lora_path: str, lora_name: str = "lora_1") -> None:
        """Load a LoRA adapter, as `genlm-backend` does. One of the same name is replaced.

        A forward that is running is waited for. Contexts begun with the old adapter cannot be read on.
        """
        self._batcher.run(lambda: self._llm.add_new_lora(lora_path, lora_name))

    def remove_lora(self, lora_name: str) -> None:
        """Remove a LoRA adapter. A forward that is running is waited for."""
        self._batcher.run(lambda: self._llm.remove_lora(lora_name))


def default_bounds(device: torch.device) -> tuple[int, int]:
    """Bytes for keys and values, which live on `device`, and for log-probabilities, which the host holds."""
    host = free_bytes()
    return (int(torch.cuda.mem_get_info(device)[0]) // 4 if device.type == "cuda" else host), host
