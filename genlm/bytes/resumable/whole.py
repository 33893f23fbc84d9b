"""Files as a whole: where one may be, and how it is written so that it is whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["check_place", "digest_of", "naming", "saying", "write_whole"]

BLOCK = 1 << 20


def write_whole(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name, bring it to the disk, and rename it; a link stays one.

    Raises:
        OSError: it cannot be written. What was there stays.
        TypeError: `path` is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise bad_type("path", path, "must be a path")
    whole = Path(os.path.realpath(path))
    half = whole.with_name(f".{whole.name}.{os.getpid()}.half")
    try:
        with half.open("wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, whole)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # a disk that fails must not hide how it failed first
            half.unlink(missing_ok=True)


def check_place(path: Path, option: str, beginning: bytes | None = None) -> None:
    """That there can be a file of this name.

    Args:
        beginning: how files of ours begin, where one is made anew: it goes over no other file. None for any.

    Raises:
        ValueError: a folder, a device, a folder that is not there, a closed place, a file of the user's.
    """
    refusal = ("is there already, and was not made by this command", "Give another name, or --overwrite.")
    with saying("cannot be written", lambda rule, _: bad_value(option, str(path), rule)):
        try:
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                refusal = ("is a folder", "Give the name of a file.")
            elif not stat.S_ISREG(mode):
                rule = "is a device or a pipe, and no file that can be gone on with"
                refusal = (rule, "Give the name of a file.")
            elif not os.access(path, os.W_OK):
                raise PermissionError(13, "Permission denied")
            elif beginning is None:
                return
            else:
                with path.open("rb") as file:
                    if beginning.startswith(file.read(len(beginning))):
                        return
        except FileNotFoundError:
            if path.parent.is_dir():
                return
            raise OSError(2, f"there is no folder {str(path.parent)!r}") from None
    raise bad_value(option, str(path), *refusal)


def digest_of(path: Path, length: int) -> Any:
    """The SHA-256 of the first `length` bytes of a file, as an object that can go on."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(min(length, BLOCK)):
            digest.update(block)
            length -= len(block)
    return digest


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors of the system, which know a file by its number where it is written."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def saying(rule: str, refusal: Callable[[str, OSError], Exception]) -> Iterator[None]:
    """What the system says, as an error of ours.

    Args:
        refusal: makes the error, of that and why, and of the system's own.
    """
    try:
        yield
    except OSError as error:
        raise refusal(f"{rule}: {error.strerror or type(error).__name__}", error) from None
