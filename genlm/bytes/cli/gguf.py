"""Options of models on llama.cpp, for every command that takes a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from genlm.bytes.errors import called

__all__ = ["GGUF"]

_option = partial(typer.Option, rich_help_panel="GGUF files", show_default=False)

_NAMES = {
    "n_ctx": "--context-length",
    "n_threads": "--threads",
    "n_gpu_layers": "--gpu-layers",
    "type_k": "--kv-type",
    "type_v": "--kv-type",
    "lora": "--lora",
}


@dataclass(frozen=True)
class GGUF:
    """How a GGUF file is run; see `LlamaCppOptions`."""

    backend: Annotated[
        str | None, _option("--backend", help="llamacpp: run the embedded model's own GGUF file.")
    ] = None
    context_length: Annotated[
        int | None, _option("--context-length", help="Tokens of the KV cache; at most 4096 if not given.")
    ] = None
    threads: Annotated[int | None, _option("--threads", help="Threads; one for each core if not given.")] = (
        None
    )
    gpu_layers: Annotated[
        int | None, _option("--gpu-layers", help="Layers on the GPU, if there is one; all if not given.")
    ] = None
    kv_type: Annotated[
        str | None, _option("--kv-type", help="Of keys and values: f16, bf16, f32, q8_0, q5_1, q4_0, …")
    ] = None
    lora: Annotated[Path | None, _option("--lora", help="A LoRA adapter in GGUF.")] = None

    def options(self, names: Sequence[str | None]) -> dict[str, Any]:
        """For `load_model`: those that are given.

        Args:
            names: the models.

        Raises:
            ValueError: one of the options is wrong, or one of the models has none of them.
        """
        from genlm.bytes.models import check_options

        given = {
            "n_ctx": self.context_length,
            "n_threads": self.threads,
            "n_gpu_layers": self.gpu_layers,
            "type_k": self.kv_type,
            "type_v": self.kv_type,
            "lora": self.lora,
        }
        found = {name: value for name, value in given.items() if value is not None}
        with called(**_NAMES):
            for name in names:
                check_options(name, self.backend, found)
        return found if self.backend is None else {"backend": self.backend, **found}
