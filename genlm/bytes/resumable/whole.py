"""Files as a whole: where one may be, and how it is written so that it is whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from genlm.bytes.errors import bad_value

__all__ = ["check_place", "check_replaceable", "digest_of", "naming", "write_whole"]

BLOCK = 1 << 20


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name, bring it to the disk, and rename it; a link stays one.

    Args:
        path: the file.
        content: what it holds; or what writes that.

    Raises:
        OSError: it cannot be written. What was there stays.
    """
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


def check_place(path: Path, option: str) -> None:
    """That there can be a file of this name.

    Args:
        path: the file.
        option: the argument that asks for it.

    Raises:
        ValueError: a folder, a device, a folder that is not there, a place that we may not write to.
    """
    rule = ""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            rule = "is a folder"
        elif not stat.S_ISREG(mode):
            rule = "is a device or a pipe, and no file that can be gone on with"
        elif not os.access(path, os.W_OK):
            rule = "cannot be written: Permission denied"
    except FileNotFoundError:
        if not path.parent.is_dir():
            rule = f"cannot be written: there is no folder {str(path.parent)!r}"
    except OSError as error:
        rule = f"cannot be written: {error.strerror}"
    if rule:
        raise bad_value(option, str(path), rule, "Give the name of a file.")


def check_replaceable(path: Path, beginning: bytes, option: str) -> None:
    """That what is made anew is a file of ours, which begins so, and none of the user's.

    Args:
        path: the file.
        beginning: how ours begin.
        option: the argument that asks for it.

    Raises:
        ValueError: another file, or one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            ours = beginning.startswith(file.read(len(beginning)))
    except FileNotFoundError:
        return
    except OSError as error:
        raise bad_value(option, str(path), f"cannot be read: {error.strerror}") from None
    if not ours:
        rule = "is there already, and was not made by this command"
        raise bad_value(option, str(path), rule, "Give another name, or --overwrite.")


def digest_of(path: Path, length: int) -> Any:
    """The SHA-256 of the first `length` bytes of a file, as an object that can go on.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(min(length, BLOCK)):
            digest.update(block)
            length -= len(block)
    return digest


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Name the file in errors of the system, which know a file by its number where it is written."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
