"""One file that grows by pieces, and knows how long it is for good, and the digest of that much.

A file that cannot grow (`.npz`) is made, in the end, of one beside it that does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from genlm.bytes.resumable.whole import check_place, digest_of, naming, write_whole

__all__ = ["Output"]


class Output:
    """A file that pieces go to."""

    part = ""
    """What is after the name of the file that grows; nothing if it is the file itself."""
    option = "out"
    """The argument that asks for it."""

    def __init__(self, path: Path) -> None:
        check_place(path, self.option)
        self.path, self.growing = path, path.with_name(path.name + self.part)
        check_place(self.growing, self.option)
        self.length = 0
        self._digest: Any = None
        self._file: Any = None

    def head(self) -> bytes:
        """What it begins with."""
        return b""

    def opening(self) -> bytes:
        """How all files of this kind begin, and no others, so far as that can be."""
        return self.head()

    def made(self, file: BinaryIO) -> None:
        """Write the file that is made of the one that grew."""
        raise NotImplementedError

    def where(self, record: Mapping[str, Any]) -> Path:
        """The file that a record tells of: itself, or the one that grows."""
        return self.path.with_name(record["name"])

    def has(self, record: Mapping[str, Any], whole: bool) -> bool:
        """Whether all bytes that a record tells of can be there; if it is of the whole file, no more."""
        path = self.where(record)
        size = path.stat().st_size if path.exists() else -1
        return bool(size == record["bytes"] if whole else size >= record["bytes"])

    def begun(self) -> bool:
        """Whether nothing is there but a part of the head, or nothing at all."""
        there = self.growing.read_bytes() if self.growing.exists() else b""
        return self.head().startswith(there) and not (self.part and self.path.exists())

    def delete(self) -> None:
        """Delete what is there."""
        for path in (self.path, self.growing):
            path.unlink(missing_ok=True)

    def open(self, length: int) -> None:
        """Open the file that grows, with so many bytes of what is there."""
        with naming(self.growing):
            self._file = self.growing.open("ab")
            self._file.truncate(length)
        self.length, self._digest = length, digest_of(self.growing, length)

    def append(self, piece: bytes) -> None:
        """Add a piece."""
        with naming(self.growing):
            self._file.write(piece)
            self._file.flush()
        self.length += len(piece)
        self._digest.update(piece)

    def sync(self) -> dict[str, Any]:
        """Bring to the disk what has been added; the record of it."""
        with naming(self.growing):
            os.fsync(self._file.fileno())
        return {"name": self.growing.name, "bytes": self.length, "sha256": self._digest.hexdigest()}

    def seal(self) -> dict[str, Any]:
        """End it, on the disk: the record of what has come of it."""
        record = self.sync()
        self.close()
        if not self.part:
            return record
        write_whole(self.path, self.made)
        length = self.path.stat().st_size
        return {"name": self.path.name, "bytes": length, "sha256": digest_of(self.path, length).hexdigest()}

    def close(self) -> None:
        """Let it go, as it is."""
        file, self._file = self._file, None
        if file is not None:
            with naming(self.growing):
                file.close()
