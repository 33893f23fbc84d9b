"""`LlamaCppLM`: a GGUF file behind the `AsyncLM` interface."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from genlm.bytes.backends.llama_cpp.backend import LlamaCppBackend
from genlm.bytes.backends.llama_cpp.options import LlamaCppOptions
from genlm.bytes.backends.llama_cpp.session import Session
from genlm.bytes.contexts.cached_lm import CachedLM, free_bytes
from genlm.bytes.errors import called

__all__ = ["GGUFModel", "LlamaCppLM"]

ROWS_BYTES = 1 << 28
"""Bytes of log-probabilities for small models, which take less themselves. Half of the contexts of 1,000
bytes of English fit into it, at a vocabulary of 49,152 tokens."""


@dataclass(frozen=True)
class GGUFConfig:
    """What a configuration of Hugging Face's says of a model, as far as anybody here asks."""

    vocab_size: int
    max_position_embeddings: int | None


@dataclass(frozen=True)
class GGUFModel:
    """What a file says of its model.

    Attributes:
        architecture: llama.cpp's name of it.
        config: sizes.
        parameters: how many numbers the model has.
        dtype: how they are stored, in llama.cpp's words.
        device: where layers are run that are not on a GPU.
    """

    architecture: str
    config: GGUFConfig
    parameters: int
    dtype: str
    device: str = "cpu"

    def num_parameters(self) -> int:
        """How many numbers the model has."""
        return self.parameters


class LlamaCppLM(CachedLM[LlamaCppBackend]):
    """A GGUF model run by llama.cpp, an `AsyncLM` like any other.

    Args:
        path: the file.
        options: how to run it; None for `LlamaCppOptions()`.

    Attributes:
        model: what the file says of the model.

    Raises:
        ModelUnavailableError: there is no such file, or it is no model in GGUF, or is damaged.
        MissingDependencyError: llama-cpp-python is not installed.
        UnsupportedModelError: contexts of such a model cannot branch, or its tokens spell no bytes.
    """

    def __init__(self, path: str | os.PathLike[str], options: LlamaCppOptions | None = None) -> None:
        options = LlamaCppOptions() if options is None else options
        session = Session(Path(path).expanduser(), options)
        if options.lora is not None:
            with called(lora_path="lora"):
                session.add_adapter(options.lora, None)
        most = options.max_bytes
        if most is None:
            most = min(free_bytes(), max(ROWS_BYTES, session.path.stat().st_size))
        super().__init__(LlamaCppBackend(session, options), most)
        self.model = _facts(session)

    def add_new_lora(self, lora_path: str | os.PathLike[str], lora_name: str = "lora_1") -> None:
        """Load a LoRA adapter from a GGUF file. One of the same name is replaced.

        A forward that is running is waited for. Contexts begun with the old adapter cannot be read on.

        Raises:
            ValueError: it is no adapter of this model.
        """
        self._batcher.run(lambda: self.backend.session.add_adapter(lora_path, lora_name))

    def remove_lora(self, lora_name: str) -> None:
        """Remove a LoRA adapter. A forward that is running is waited for."""
        self._batcher.run(lambda: self.backend.session.remove_adapter(lora_name))


def _facts(session: Session) -> GGUFModel:
    architecture = session.meta("general.architecture") or "GGUF"
    config = GGUFConfig(session.n_vocab, session.n_trained or None)
    stored = session.description().split()[-1:]
    count = session.number("llama_model_n_params")
    return GGUFModel(architecture, config, count, "".join(stored), "gpu" if session.on_gpu() else "cpu")
