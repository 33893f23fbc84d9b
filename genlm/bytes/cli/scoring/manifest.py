"""The manifest of a run: what was asked, how far its outputs are, what was made of them in the end.

Lines of JSON: the settings; a checkpoint each time some more texts are in the outputs for good, the last of a
complete run with `"complete": true`; and, for outputs that are made of a file beside them, their digests.
A line that was cut by a crash ends the reading: what is before it counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["Manifest", "digest_of", "naming"]

BLOCK = 1 << 20


class Manifest:
    """A manifest on disk.

    Args:
        path: the file.
        outputs: how many outputs a checkpoint tells of.
    """

    def __init__(self, path: Path, outputs: int) -> None:
        self.path = path
        self._outputs = outputs
        self.settings: dict[str, Any] | None = None
        self.checkpoints: list[tuple[int, dict[str, Any]]] = []
        """Each with where its line ends."""
        self.sealed: dict[str, Any] = {}
        """By the output's name: its length in bytes, and its digest."""
        self.kept = 0
        """Bytes that stay when a line is added."""

    def read(self) -> None:
        """Read what is there.

        Raises:
            OSError: it cannot be read.
        """
        end = 0
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                end += len(line)
                try:
                    value = json.loads(line) if line.endswith(b"\n") else None
                except (ValueError, RecursionError):
                    value = None
                if not isinstance(value, dict) or not self._take(value, end):
                    break

    def _take(self, value: dict[str, Any], end: int) -> bool:
        if self.settings is None:
            self.settings, self.kept = value, end
        elif isinstance(value.get("sealed"), dict):
            self.sealed = value["sealed"]
        elif _is_checkpoint(value, self._outputs):
            self.checkpoints.append((end, value))
        else:
            return False
        return True

    def cut(self) -> None:
        """Leave out what is not to stay.

        Raises:
            OSError: it cannot be written.
        """
        with naming(self.path), self.path.open("ab") as file:
            if file.tell() > self.kept:
                file.truncate(self.kept)
                os.fsync(file.fileno())

    def say(self, what: Mapping[str, Any]) -> None:
        """Add a line, on the disk when this returns; all of it, or nothing.

        Raises:
            OSError: it cannot be written.
        """
        line = json.dumps(what).encode() + b"\n"
        with naming(self.path), self.path.open("ab") as file:
            try:
                file.truncate(self.kept)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(self.kept)
                raise
        self.kept += len(line)


def _is_checkpoint(value: Mapping[str, Any], outputs: int) -> bool:
    """Whether a line of a manifest is a checkpoint, and not something else that is JSON."""
    ours = value.get("outputs")
    return (
        isinstance(value.get("texts"), int)
        and isinstance(value.get("sha256_of_texts"), str)
        and isinstance(value.get("totals"), dict)
        and isinstance(ours, list)
        and len(ours) == outputs
        and all(isinstance(o, dict) and isinstance(o.get("bytes"), int) and "sha256" in o for o in ours)
    )


def digest_of(path: Path, length: int | None = None) -> Any:
    """The digest of the first `length` bytes of a file, or of all, as an object that can go on.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in _blocks(file, length):
            digest.update(block)
    return digest


def _blocks(file: Any, length: int | None) -> Iterator[bytes]:
    while length is None or length:
        block = file.read(BLOCK if length is None else min(length, BLOCK))
        if not block:
            return
        length = None if length is None else length - len(block)
        yield block


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Name the file in errors of the system, which know a file by its number where it is written."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
