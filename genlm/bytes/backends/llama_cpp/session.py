"""A GGUF model that llama.cpp has loaded, with one KV cache: running tokens, copying and dropping sequences.

All that is known of llama.cpp's calls stands here. The cache is one buffer for all sequences (`kv_unified`:
only so can they share cells), whole for sliding-window layers too (`swa_full`: else what has left the
window is gone, and nobody can branch there). The last sequence is the *grave*: a cell that is given up
belongs to it, and so is not filled again (`sequences.py` says why). Where windows slide, llama.cpp takes a
cell of one sequence that its window has left for free, and looks for such from the first cell on once a
cache has been emptied; so what `repack` has copied back belongs to the grave, too.

On a CPU, keys are kept in float16 and values in bfloat16, and flash attention is used: with two types
llama.cpp has one way to sum, cell after cell, for one token as for many. With one type for both it sums in
tiles from 64 tokens on, and single tokens in parts from 512 cells on; activations are then rounded otherwise
in the layers above, and log-probabilities are off by up to 0.7.

Models whose memory is a running state (Mamba, RWKV and hybrids with such layers) are refused: a state cannot
be taken back to where two contexts part. So are models that do not predict a next token.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Float32

from genlm.bytes.backends.llama_cpp.header import check_header, unreadable
from genlm.bytes.backends.llama_cpp.library import complaints, library
from genlm.bytes.backends.llama_cpp.options import CACHE_TYPES, LlamaCppOptions
from genlm.bytes.backends.llama_cpp.sequences import Run
from genlm.bytes.errors import GenlmBytesError, ModelOutputError, UnsupportedModelError, bad_value

__all__ = ["NoRoomError", "Session"]

DEFAULT_CELLS = 4096
"""The most cells where nobody says how many: 95 MB for SmolLM2-135M, half a gigabyte for an 8B model."""

FIRST_CELLS = 1024
"""Cells that are taken when a model is loaded. They double as they are needed."""

ALL = -1
"""In place of a sequence: all of them."""

ROUND = 256
"""llama.cpp rounds cells up to a multiple of it; and no more sequences are allowed."""


class NoRoomError(GenlmBytesError, RuntimeError):
    """llama.cpp found no cells for a batch."""


class _Pointers:
    """What belongs to C, and a lock: nothing is freed while it runs."""

    def __init__(self, lib: Any) -> None:
        self.lib, self.lock = lib, Lock()
        self.model: Any = None
        self.context: Any = None

    def free(self) -> None:
        with self.lock:
            if self.context:
                self.lib.llama_free(self.context)
            if self.model:
                self.lib.llama_model_free(self.model)
            self.context = self.model = None


class Session:
    """A model, and the memory of what it has read.

    Args:
        path: the GGUF file.
        options: how to run it.

    Attributes:
        vocab: llama.cpp's vocabulary, alive as long as this is.
        n_vocab: logits of a token.
        n_cells: tokens that the KV cache holds at most.
        cells: those that it holds at present.
        n_trained: the length of the texts that the model was trained on.

    Raises:
        MissingDependencyError: llama-cpp-python is not installed.
        ModelUnavailableError: the file is no model in GGUF, or is damaged, or memory is short.
        UnsupportedModelError: contexts of this model cannot branch, or it predicts no next token.
    """

    def __init__(self, path: Path, options: LlamaCppOptions) -> None:
        self.path = path
        check_header(path)
        self._lib = lib = library()
        self._c = _Pointers(lib)
        self._free = weakref.finalize(self, self._c.free)
        with complaints() as said:
            params = lib.llama_model_default_params()
            params.n_gpu_layers = options.n_gpu_layers
            self._c.model = lib.llama_model_load_from_file(os.fsencode(path), params)
            if not self._c.model:
                raise unreadable(path, _reason(said, "llama.cpp cannot read it"))
        self._check_kind()
        self.vocab = lib.llama_model_get_vocab(self._c.model)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
        self.n_trained = int(lib.llama_model_n_ctx_train(self._c.model))
        self._params = self._settings(options)
        self.n_cells = int(self._params.n_ctx)
        first = max(FIRST_CELLS, self._params.n_batch)
        self._begin(min(first, self.n_cells) if self._may_grow() else self.n_cells)
        if not self._memory:
            raise _refused(path, "it keeps nothing of what it has read: a model of embeddings")
        self._grave = options.n_seq_max - 1
        self.n_batch = min(options.n_batch, int(lib.llama_n_batch(self._c.context)))
        self.cell_bytes = 0
        self._adapters: dict[str | None, Any] = {}  # what is under None is run where none is named

    def _check_kind(self) -> None:
        lib, model = self._lib, self._c.model
        if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
            raise _refused(self.path, "it has an encoder: a language model that only decodes is needed")
        if lib.llama_model_is_diffusion(model):
            raise _refused(self.path, "it fills in tokens in any order, and predicts no next one")
        for kind in ("recurrent", "hybrid"):
            if getattr(lib, f"llama_model_is_{kind}")(model):
                raise _refused(
                    self.path,
                    f"it is {kind}: the memory of such layers is a running state, which cannot be taken back "
                    "to where two contexts part",
                    "Load it as a Hugging Face model, whose contexts are then run whole.",
                )

    def _settings(self, options: LlamaCppOptions) -> Any:
        """llama.cpp's parameters of a context, with all cells."""
        params = self._lib.llama_context_default_params()
        cells = options.n_ctx or min(DEFAULT_CELLS, self.n_trained or DEFAULT_CELLS)
        params.n_ctx = -(-cells // ROUND) * ROUND
        # At least a token for each sequence, and no more than cells: else llama.cpp ends the process.
        params.n_batch = params.n_ubatch = max(options.n_seq_max, min(options.n_batch, params.n_ctx))
        params.n_seq_max = options.n_seq_max
        self.n_threads = options.n_threads or _threads()
        params.n_threads = params.n_threads_batch = self.n_threads
        values = options.type_v or (options.type_k if self.on_gpu() else "bf16")
        params.type_k, params.type_v = CACHE_TYPES[options.type_k], CACHE_TYPES[values]
        params.swa_full = params.kv_unified = True
        return params

    def _may_grow(self) -> bool:
        """Whether positions mean the same whatever the number of cells. With longrope they do not."""
        architecture = self.meta("general.architecture")
        return self.meta(f"{architecture}.rope.scaling.original_context_length") is None

    def _begin(self, cells: int) -> None:
        """Take memory for so many cells."""
        lib, self._params.n_ctx = self._lib, cells
        with self._c.lock, complaints() as said:
            if self._c.context:
                lib.llama_free(self._c.context)
            self._c.context = lib.llama_init_from_model(self._c.model, self._params)
            if not self._c.context:
                raise unreadable(
                    self.path,
                    _reason(said, f"there is no room for a KV cache of {cells} cells"),
                    "Give a smaller `n_ctx`.",
                )
        self._memory = lib.llama_get_memory(self._c.context)
        self.cells = int(lib.llama_n_ctx(self._c.context))
        self._active: Any = None

    # -- running ----------------------------------------------------------------------------------------

    def run(self, runs: Sequence[Run]) -> list[Float32[np.ndarray, " logits"]]:
        """One forward over at most `n_batch` tokens; the logits after those that are wanted.

        They lie in llama.cpp's memory, where the next forward writes its own.

        Raises:
            NoRoomError: there are no cells left. Nothing has been run.
            ModelOutputError: llama.cpp failed.
        """
        lib = self._lib
        token = np.array([run.node.token for run in runs], np.int32)
        position = np.array([run.node.depth - 1 for run in runs], np.int32)
        count = np.array([len(run.sequences) for run in runs], np.int32)
        ids = np.concatenate([np.array(run.sequences, np.int32) for run in runs])
        starts = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.uintp)
        pointers = np.uintp(ids.ctypes.data) + starts * np.uintp(ids.itemsize)
        wanted = np.array([run.wanted for run in runs], np.int8)
        kinds = dict(lib.llama_batch._fields_)
        batch = lib.llama_batch(
            n_tokens=len(runs),
            token=token.ctypes.data_as(kinds["token"]),
            pos=position.ctypes.data_as(kinds["pos"]),
            n_seq_id=count.ctypes.data_as(kinds["n_seq_id"]),
            seq_id=pointers.ctypes.data_as(kinds["seq_id"]),
            logits=wanted.ctypes.data_as(kinds["logits"]),
        )
        with self._c.lock, complaints() as said:
            if not self._c.context:
                raise ModelOutputError("The model has been freed, since Python is about to end.")
            code = int(lib.llama_decode(self._c.context, batch))
            if code == 1:
                raise NoRoomError(f"{self.path.name} has no room for {len(runs)} tokens more.")
            if code:
                why = _reason(said, "no reason given")
                raise ModelOutputError(f"llama.cpp failed on {len(runs)} tokens, with code {code}: {why}.")
            if not self.cell_bytes:
                self._measure_cells(int(ids[-1]), int(position[-1]) + 1)
            return [self._logits(i) for i in np.flatnonzero(wanted)]

    def _logits(self, i: int) -> Float32[np.ndarray, " logits"]:
        pointer = self._lib.llama_get_logits_ith(self._c.context, int(i))
        return np.ctypeslib.as_array(pointer, (self.n_vocab,))

    def _measure_cells(self, sequence: int, length: int) -> None:
        """The bytes of a cell's keys and values: what saving a sequence would take, whatever its layers."""
        size = int(self._lib.llama_state_seq_get_size(self._c.context, sequence))
        self.cell_bytes = max(1, size // length)

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` cells of a sequence belong to another one too."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def remove(self, sequence: int, start: int) -> None:
        """The cells of a sequence from a position on do not belong to it any more. They stay filled."""
        self._lib.llama_memory_seq_cp(self._memory, sequence, self._grave, start, -1)
        self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def clear(self) -> None:
        """Forget everything that has been read."""
        self._lib.llama_memory_clear(self._memory, False)

    def repack(self, least: int) -> int:
        """Empty the cells of the grave and close the gaps, in a cache of so many cells, if there may be.

        Raises:
            NoRoomError: llama.cpp could not do it. What has been read is lost.
        """
        lib, adapter = self._lib, self._active
        lib.llama_memory_seq_rm(self._memory, self._grave, -1, -1)
        size = int(lib.llama_state_seq_get_size(self._c.context, ALL))
        saved = (ctypes.c_uint8 * size)()
        lib.llama_state_seq_get_data(self._c.context, saved, size, ALL)
        cells = min(-(-least // ROUND) * ROUND, self.n_cells)
        if cells > self.cells:
            self._begin(cells)
            self._set(adapter)
        else:
            self.clear()
        if not lib.llama_state_seq_set_data(self._c.context, saved, size, ALL):
            raise NoRoomError(f"llama.cpp could not copy the cache of {self.path.name}.")
        # Else cells that have left a sliding window count as free where one sequence has them alone.
        for sequence in range(self._grave):
            lib.llama_memory_seq_cp(self._memory, sequence, self._grave, 0, -1)
        return self.cells

    # -- adapters ---------------------------------------------------------------------------------------

    def adapter(self, name: str | None) -> Any:
        """The adapter of a name, or of None; None where there is none."""
        return self._adapters.get(name)

    def add_adapter(self, path: str | os.PathLike[str], name: str | None) -> None:
        """Load a LoRA adapter from a GGUF file.

        Raises:
            ValueError: it is none, or one for another model.
        """
        with complaints() as said:
            found = self._lib.llama_adapter_lora_init(self._c.model, os.fsencode(path))
            if not found:
                why = _reason(said, "llama.cpp cannot read it")
                rule = f"it is no LoRA adapter of this model in GGUF ({why})"
                raise bad_value("lora_path", os.fspath(path), rule)
        self._adapters[name] = found

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter. Its memory is freed with the model."""
        if self._adapters.pop(name, None) is None:
            raise bad_value("lora_name", name, "there is no such adapter")

    def activate(self, name: str | None) -> None:
        """Run what follows with an adapter, or without."""
        adapter = self.adapter(name)
        if name is not None and adapter is None:
            raise bad_value("lora_name", name, "there is no such adapter", "`add_new_lora` loads one.")
        if adapter != self._active:
            self._set(adapter)

    def _set(self, adapter: Any) -> None:
        kind = self._lib.llama_adapter_lora_p_ctypes
        given = (kind * 1)(adapter) if adapter else None
        scale = (ctypes.c_float * 1)(1.0) if adapter else None
        self._lib.llama_set_adapters_lora(self._c.context, given, 1 if adapter else 0, scale)
        self._active = adapter

    # -- what the file says -----------------------------------------------------------------------------

    def text(self, function: str, *arguments: Any) -> str | None:
        """A string that llama.cpp gives of the model; None where it has none."""
        found = getattr(self._lib, function)(self._c.model, *arguments)
        return None if found is None else found.decode("utf-8", "replace")

    def number(self, function: str) -> int:
        """A number that llama.cpp gives of the model."""
        return int(getattr(self._lib, function)(self._c.model))

    def description(self) -> str:
        """Architecture, size and how the weights are stored, in llama.cpp's words."""
        buffer = ctypes.create_string_buffer(256)
        self._lib.llama_model_desc(self._c.model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def on_gpu(self) -> bool:
        """Whether llama-cpp-python was built for a GPU."""
        return bool(self._lib.llama_supports_gpu_offload())

    def meta(self, key: str) -> str | None:
        """A value of the file's header, as text; None where the header has none."""
        buffer = ctypes.create_string_buffer(1 << 12)
        length = self._lib.llama_model_meta_val_str(self._c.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None


def _threads() -> int:
    """`OMP_NUM_THREADS`; or a thread for each core that is there: two on one get in each other's way."""
    import psutil

    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    ours = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 2**10
    return int(said) if said.isdecimal() and int(said) else min(ours, psutil.cpu_count(logical=False) or 1)


def _refused(path: Path, why: str, instead: str = "") -> UnsupportedModelError:
    return UnsupportedModelError(f"{path.name} cannot be run here: {why}. {instead}".rstrip())


def _reason(said: list[str], otherwise: str) -> str:
    """What llama.cpp complained of first: what it says after that are consequences."""
    lines = [
        line.split(": ", 1)[-1] for line in said if "rror" in line or "fail" in line or "invalid" in line
    ]
    return " ".join((lines or said or [otherwise])[0].split())[:200].rstrip(".")
