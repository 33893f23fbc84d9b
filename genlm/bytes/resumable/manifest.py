"""The manifest of a run: what was asked, and what is in its files for good.

Lines of JSON: the settings; then an entry each time some more is on the disk, with `files`, a list of records
(a file's name, how many bytes of it count, their SHA-256), and whatever else the run has to know. A line that
was cut by a crash ends the reading: what is before it counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genlm.bytes.resumable.whole import naming

__all__ = ["Manifest"]


class Manifest:
    """A manifest on disk, read; it need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] | None = None
        self.entries: list[tuple[int, dict[str, Any]]] = []
        """Each with where its line ends."""
        self._kept = 0  # bytes that stay when a line is added
        with suppress(FileNotFoundError), path.open("rb") as file:
            end = 0
            for line in file:
                end += len(line)
                try:
                    value = json.loads(line) if line.endswith(b"\n") else None
                except (ValueError, RecursionError):
                    value = None
                if self.settings is None and isinstance(value, dict):
                    self.settings = value
                elif self.settings is not None and value is not None and _is_entry(value):
                    self.entries.append((end, value))
                else:
                    break
                self._kept = end

    def compare(
        self, settings: Mapping[str, Any], refusal: Callable[[str], Exception], lenient: tuple[Any, ...] = ()
    ) -> None:
        """That what is there was made by the same call.

        Args:
            refusal: makes the error, of the rule that is broken.
            lenient: a setting and a value of it; another value would have made the same of what is there.

        Raises:
            Exception: it was made by another.
        """
        there = self.settings or {}
        differ = sorted(k for k in {*there, *settings} if there.get(k) != settings.get(k))
        if "form" in differ and there.get("command") == settings.get("command"):
            raise refusal("was made by another release of genlm-bytes")
        if differ and [(name, there.get(name)) for name in differ] != [lenient]:
            raise refusal(f"was made by another call: {', '.join(differ)} differ")

    def cut(self, length: int) -> None:
        """Leave out what is beyond so many bytes."""
        self._kept = length
        if length:  # else the settings are written anew, and nothing stays
            self._add(b"")

    def say(self, what: Mapping[str, Any]) -> None:
        """Add a line, on the disk when this returns. A part of it counts for nothing."""
        self._add(json.dumps(what).encode() + b"\n")

    def _add(self, line: bytes) -> None:
        with naming(self.path), self.path.open("ab") as file:
            file.truncate(self._kept)  # with what is left of a line that found no room
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._kept += len(line)


def _is_entry(value: Any) -> bool:
    """Whether a line is an entry, and not something else that is JSON."""
    files = value.get("files") if isinstance(value, dict) else None
    return isinstance(files, list) and all(
        isinstance(record, dict) and {"name", "bytes", "sha256"} <= record.keys() for record in files
    )
