"""How a model is to be run by llama.cpp."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from genlm.bytes.errors import bad_type, bad_value, check_names
from genlm.bytes.util.numbers import as_index

__all__ = ["CACHE_TYPES", "LlamaCppOptions"]

CACHE_TYPES = {"f16": 1, "bf16": 30, "f32": 0, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2}
"""`ggml_type`, of which llama-cpp-python names some."""

MOST_SEQUENCES = 256
"""`LLAMA_MAX_SEQ`: the width of the set of sequences that each cell keeps."""


@dataclass(frozen=True)
class LlamaCppOptions:
    """How a model is to be run by llama.cpp.

    Attributes:
        n_ctx: the most cells of the KV cache, one for each token of each branch: no context is longer. It
            begins with 1,024 and grows as they are needed. None takes 4,096, or the length that the model was
            trained on where that is shorter.
        n_seq_max: the most branches that are live at a time, at most 256.
        n_batch: the most tokens in one forward.
        n_threads: threads; None takes `OMP_NUM_THREADS` of the environment, or as many as there are cores.
        n_gpu_layers: layers on the GPU, where llama-cpp-python was built with one; -1 for all.
        type_k: the type of keys in the cache.
        type_v: the type of values in the cache. None takes `'bf16'` on a CPU, where a type that is not that
            of the keys keeps figures the same to the last digit whatever shares the batch; elsewhere that of
            the keys.
        max_bytes: the most memory for log-probabilities; None takes 256 MB, or the size of the file if that
            is larger, and no more than an eighth of what is free. What is given up is computed again.
        lora: a LoRA adapter in GGUF, with which the model is run where no other is named.
    """

    n_ctx: int | None = None
    n_seq_max: int = MOST_SEQUENCES
    n_batch: int = 256
    n_threads: int | None = None
    n_gpu_layers: int = -1
    type_k: str = "f16"
    type_v: str | None = None
    max_bytes: int | None = None
    lora: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        most = {"n_seq_max": MOST_SEQUENCES}
        for name, least in (("n_ctx", 1), ("n_seq_max", 2), ("n_batch", 1), ("n_threads", 1)):
            value = getattr(self, name)
            if value is None and name in ("n_ctx", "n_threads"):
                continue
            if as_index(value) is None:
                raise bad_type(name, value, "must be an integer")
            if not least <= value <= most.get(name, 2**31 - 1):
                limit = f" and at most {most[name]}" if name in most else ""
                raise bad_value(name, value, f"must be at least {least}{limit}")
        if as_index(self.n_gpu_layers) is None:
            raise bad_type("n_gpu_layers", self.n_gpu_layers, "must be an integer", "-1 means all layers.")
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in (*CACHE_TYPES, *([None] if name == "type_v" else [])):
                raise bad_value(
                    name, getattr(self, name), f"must be one of {', '.join(map(repr, CACHE_TYPES))}"
                )
        if not isinstance(self.lora, str | os.PathLike | None):
            raise bad_type("lora", self.lora, "must be the path of an adapter in GGUF")

    @classmethod
    def names(cls) -> set[str]:
        """The names of the options."""
        return {field.name for field in fields(cls)}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> LlamaCppOptions:
        """The options given by name.

        Raises:
            ValueError: a value out of range.
            TypeError: an option that does not exist, or a value of the wrong type.
        """
        check_names(given, [field.name for field in fields(cls)])
        return cls(**given)
