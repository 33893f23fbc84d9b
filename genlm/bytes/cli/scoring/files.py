"""Files that are gone on with after any end: a kill, an interrupt, a full disk.

Beside the first output stands `<name>.manifest.jsonl`: a line with what was asked, then a line (a checkpoint)
each time some more texts are in the files for good. A checkpoint says how many texts, a digest of them,
totals, and how long every output was, with a digest of that much. It is written after the outputs have
reached the disk.

To go on, the last checkpoint is taken that the outputs are long enough for; what they hold beyond it (a row
cut in the middle, or rows whose checkpoint was not written) is cut off. The texts it counts are read again,
not scored, and compared by their digest. So no row is there twice and none is missing; files that were made
by other options, from other texts, or changed since, are refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlm.bytes.cli.scoring.formats import Format
from genlm.bytes.cli.scoring.state import State, identity
from genlm.bytes.cli.scoring.totals import Totals
from genlm.bytes.errors import GenlmBytesError, bad_value

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText, TextRecord

__all__ = ["Files", "Output"]

EVERY = 64
"""Texts from one checkpoint to the next: each costs a wait for the disk. As many as a batch has: a run that
goes on then scores the same texts together, and round-off is the same too."""
WAY_OUT = "Give another name, or --overwrite."


@dataclass
class Output:
    """A file that results go to."""

    path: Path
    format: Format

    @property
    def growing(self) -> Path:
        """The file that grows: itself, or one beside."""
        return self.path.with_name(self.path.name + self.format.part)

    @property
    def sealed(self) -> bool:
        """Whether the file beside has done its duty."""
        return bool(self.format.part) and self.path.exists() and not self.growing.exists()


class Files:
    """The outputs of a run.

    Args:
        outputs: at least one.
        settings: what decides the figures and their form; JSON values.
        overwrite: whether what is there is thrown away.
        keep: whether the run may be gone on with: else its manifest goes when it is complete.

    Raises:
        ValueError: a file is there that these settings have not made, or cannot be written.
    """

    def __init__(
        self, outputs: Sequence[Output], settings: Mapping[str, Any], overwrite: bool, keep: bool = True
    ) -> None:
        self.outputs = list(outputs)
        first = self.outputs[0].path
        self.manifest = first.with_name(first.name + ".manifest.jsonl")
        self.settings = {**settings, "outputs": [str(output.path.name) for output in self.outputs]}
        self.keep = keep
        self._overwrite = overwrite
        self._state = State.new(len(self.outputs))
        self._open: list[Any] = []
        self._since = 0
        for path in (first, *(output.path for output in self.outputs)):
            if path.is_dir() or not path.parent.is_dir():
                why = "is a folder" if path.is_dir() else f"there is no folder {str(path.parent)!r}"
                raise bad_value("out", str(path), why)
        self._kept = 0  # bytes of the manifest that stay
        try:
            self._start: dict[str, Any] | None = None if overwrite else self._last_checkpoint()
        except OSError as error:
            rule = f"cannot be read: {error.strerror or type(error).__name__}"
            raise bad_value("out", str(error.filename or first), rule) from None

    @property
    def totals(self) -> Totals:
        """Sums over the texts that are in the files."""
        return self._state.totals

    # -- going on -------------------------------------------------------------------------------------

    def remaining(self, records: Iterator[TextRecord]) -> Iterator[TextRecord]:
        """The texts that are still to be scored; those in the files are read and compared.

        Raises:
            ValueError: they are not those that the files were made from.
        """
        start = self._start
        if start is None:
            return records
        texts, count = hashlib.sha256(), self.resumed
        for record in itertools.islice(records, count):
            texts.update(identity(record))
            count -= 1
        if count or texts.hexdigest() != start["sha256_of_texts"]:
            raise self._refusal("was made from other texts")
        self._state = replace(self._state, texts=texts, totals=Totals(**start["totals"]))
        following = next(records, None)
        if any(output.sealed for output in self.outputs) and following is not None:
            raise self._refusal("is complete, and there are more texts now")
        return records if following is None else itertools.chain([following], records)

    @property
    def resumed(self) -> int:
        """How many texts were there already."""
        return 0 if self._start is None else int(self._start["texts"])

    def _last_checkpoint(self) -> dict[str, Any] | None:
        """The checkpoint to go on from; None to begin anew."""
        lines = self._lines()
        if not lines:
            for output in self.outputs:
                for path in (output.path, output.growing):
                    if path.exists() and path.stat().st_size:
                        raise self._refusal("is there already, and not a run of this command's", path)
            return None
        self._compare(lines[0][1])
        self._kept = lines[0][0]
        checkpoint: dict[str, Any]
        for end, checkpoint in reversed(lines[1:]):
            if all(map(_long_enough, self.outputs, _lengths(checkpoint))):
                digests = tuple(map(self._digest, self.outputs, checkpoint["outputs"]))
                self._state = replace(self._state, lengths=_lengths(checkpoint), digests=digests)
                self._kept = end
                return checkpoint
        for output in self.outputs:  # the first checkpoint has not been written: there is a part of a head
            there = output.growing.read_bytes() if output.growing.exists() else b""
            if not output.format.head().startswith(there) or output.sealed:
                raise self._refusal("has been changed since", output.path)
        return None

    def _lines(self) -> list[tuple[int, dict[str, Any]]]:
        """The manifest's whole lines, each with where it ends."""
        found: list[tuple[int, dict[str, Any]]] = []
        end = 0
        with suppress(FileNotFoundError), self.manifest.open("rb") as file:
            for line in file:
                end += len(line)
                try:
                    value = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    value = None
                if not isinstance(value, dict):
                    break
                found.append((end, value))
        return found

    def _compare(self, there: dict[str, Any]) -> None:
        differ = sorted(k for k in {*there, *self.settings} if there.get(k) != self.settings.get(k))
        if differ == ["on_impossible"] and there["on_impossible"] == "error":
            return  # nothing that is there would be other
        if differ:
            raise self._refusal(f"was made by other options: {', '.join(differ)} differ")

    def _digest(self, output: Output, checkpoint: dict[str, Any]) -> Any:
        """The digest of what an output has of a checkpoint.

        Raises:
            ValueError: it is not the checkpoint's.
        """
        digest, length = hashlib.sha256(), checkpoint["bytes"]
        if output.sealed:
            return digest
        with output.growing.open("rb") as file:
            while length and (block := file.read(min(length, 1 << 20))):
                digest.update(block)
                length -= len(block)
        if digest.hexdigest() != checkpoint["sha256"]:
            raise self._refusal("has been changed since", output.path)
        return digest

    def _refusal(self, rule: str, path: Path | None = None) -> GenlmBytesError:
        return bad_value("out", str(path or self.outputs[0].path), rule, WAY_OUT)

    # -- writing --------------------------------------------------------------------------------------

    def add(self, result: ScoredText) -> None:
        """Write a text's pieces."""
        self._begin()
        pieces = [output.format.piece(result) for output in self.outputs]
        self._append(pieces)
        # At once: an interrupt finds the text counted in everything, or in nothing.
        self._state, self._since = self._state.after(result, pieces), self._since + 1
        if self._since >= EVERY:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Bring to the disk what has been added, and say so in the manifest."""
        if not self._open:
            return
        for file in self._open:
            os.fsync(file.fileno())
        self._say(self._state.checkpoint())
        self._since = 0

    def finish(self) -> None:
        """Write the ends of the files; a run that was complete is left as it was."""
        if any(output.sealed for output in self.outputs) and not self._open:
            return
        self._begin()
        self.checkpoint()
        for file, output in zip(self._open, self.outputs, strict=True):
            file.write(output.format.foot(self.totals))
        self.close()
        for output in self.outputs:
            if output.format.part:
                output.format.seal(output.growing, output.path)
        if not self.keep:
            self.manifest.unlink()

    def close(self) -> None:
        """Let the files go, as they are."""
        for file in self._open:
            file.close()
        self._open = []

    def _begin(self) -> None:
        """Open the files: cut what is beyond the checkpoint, or write the heads."""
        if self._open:
            return
        if self._overwrite:
            self.manifest.unlink(missing_ok=True)
            for output in self.outputs:
                output.path.unlink(missing_ok=True)
                output.growing.unlink(missing_ok=True)
        try:
            self._open = [output.growing.open("ab") for output in self.outputs]
            for file, length in zip(self._open, self._state.lengths, strict=True):
                file.truncate(length)
                file.seek(length)
            if not self._kept:
                with self.manifest.open("wb"):
                    pass
                self._say(self.settings)
            else:
                os.truncate(self.manifest, self._kept)
        except OSError as error:
            name = error.filename or self.outputs[0].path
            raise bad_value("out", str(name), f"cannot be written: {error.strerror}") from None
        if self._start is None:
            heads = [output.format.head() for output in self.outputs]
            self._append(heads)
            self._state = self._state.longer(heads)
            self.checkpoint()

    def _append(self, pieces: Sequence[bytes]) -> None:
        for file, piece in zip(self._open, pieces, strict=True):
            file.write(piece)
            file.flush()

    def _say(self, what: Mapping[str, Any]) -> None:
        with self.manifest.open("ab") as file:
            file.write(json.dumps(what).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _long_enough(output: Output, length: int) -> bool:
    """Whether all bytes of a checkpoint can be there."""
    return output.sealed or (output.growing.exists() and output.growing.stat().st_size >= length)


def _lengths(checkpoint: dict[str, Any]) -> tuple[int, ...]:
    return tuple(output["bytes"] for output in checkpoint["outputs"])
