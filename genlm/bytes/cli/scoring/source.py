"""One place that texts come from, read once from beginning to end."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import typer

from genlm.bytes.cli.source import argument_bytes, reading
from genlm.bytes.escaping import safe_text

__all__ = ["Source", "open_sources"]

IN_MEMORY = 1 << 24
"""Bytes of a pipe that are kept in memory, where it has to be read twice."""


@dataclass
class Source:
    """A text that was typed, stdin, or a file.

    Attributes:
        size: in bytes; None where it is not known beforehand.
        consumed: how many bytes have been read.
    """

    name: str
    path: Path | None = None
    typed: bytes | None = None
    size: int | None = None
    consumed: int = 0
    _kept: Any = None

    @property
    def shown(self) -> str:
        """The name inside a sentence."""
        return safe_text(self.name, keep="")

    @property
    def again(self) -> bool:
        """Whether it can be read more than once."""
        return self.typed is not None or self.size is not None or self._kept is not None

    def keep(self) -> None:
        """Make sure that it can be read again: what comes through a pipe is put on the disk."""
        if self.again:
            return
        with self._open() as file:
            self._kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)
            shutil.copyfileobj(file, self._kept)

    def close(self) -> None:
        """Let go what was kept."""
        if self._kept is not None:
            self._kept.close()

    def read(self) -> bytes:
        """Everything."""
        with self._open() as file:
            text = file.read()
        self.consumed += len(text)
        return text

    def lines(self) -> Iterator[bytes]:
        r"""Each line with its `\n`; the last may have none. A byte order mark before them is left out."""
        with self._open() as file:
            for number, line in enumerate(file):
                self.consumed += len(line)
                if line := line if number else line.removeprefix(BOM_UTF8):
                    yield line

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self._kept is not None:
            self._kept.seek(0)
            yield self._kept
        elif self.typed is not None:
            yield io.BytesIO(self.typed)
        elif self.path is None:
            yield sys.stdin.buffer
        else:
            with reading(self.path), self.path.open("rb") as file:
                yield file


def open_sources(texts: list[str], files: list[Path]) -> list[Source]:
    """Where the texts of a command line are; with `files` these are more files. They are not read yet."""
    if not texts and not files:
        if sys.stdin.isatty():
            hint = "missing: give a text, - for stdin, or --file"
            raise typer.BadParameter(hint, param_hint="TEXT")
        texts = ["-"]
    if [*texts, *map(str, files)].count("-") > 1:
        raise typer.BadParameter("stdin (-) can be read once", param_hint="TEXT")
    if files:
        return [_file(path) for path in [*files, *map(Path, texts)]]
    exact = [argument_bytes(text) for text in texts]
    return [
        Source("-") if text == b"-" else Source(str(i), typed=text, size=len(text))
        for i, text in enumerate(exact, 1)
    ]


def _file(path: Path) -> Source:
    if str(path) == "-":
        return Source("-")
    with reading(path):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(None, "Is a directory")
        if not os.access(path, os.R_OK):
            raise PermissionError(None, "Permission denied")
    return Source(str(path), path, size=found.st_size if stat.S_ISREG(found.st_mode) else None)
