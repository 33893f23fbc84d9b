"""Files that are gone on with after any end: a kill, an interrupt, a full disk.

Beside the first output stands `<name>.manifest.jsonl` (`manifest.py`): what was asked, then a checkpoint each
time some more texts are in the files for good. It says how many texts, a digest of them, totals, and how long
every output was, with a digest of that much. It is written after the outputs have reached the disk.

To go on, the last checkpoint is taken that the outputs are long enough for; the texts it counts are read
again, not scored, and compared by their digest. The run then begins with the batch in which that checkpoint
lies: what shares a batch decides the last digits of a figure (`score/groups.py`), and where a run was cut
must not. What the outputs hold beyond that batch's beginning is cut off. So no row is there twice, none is
missing, and every byte is that of a run without an end. Files that were made by other options, from other
texts, or changed since, are refused; so are files that another run is writing (`locks.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlm.bytes.cli.scoring.formats import Format
from genlm.bytes.cli.scoring.locks import HeldError, Locks
from genlm.bytes.cli.scoring.manifest import Manifest, digest_of, naming
from genlm.bytes.cli.scoring.state import State, identity
from genlm.bytes.cli.scoring.totals import Totals
from genlm.bytes.errors import GenlmBytesError, bad_value
from genlm.bytes.score import Filling

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText, TextRecord

__all__ = ["Files", "Output"]

EVERY = Filling().texts
"""Texts a batch, and so, at most, from one checkpoint to the next: each costs a wait for the disk."""
FORM = 3
"""Raise this where the same run would write other bytes: files of other releases are not gone on with."""
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
    """The outputs of a run. They are locked until `close`.

    Args:
        outputs: at least one.
        settings: what decides the figures and their form; JSON values.
        overwrite: whether what is there is thrown away.
        keep: whether the run may be gone on with: else its manifest goes when it is complete.

    Raises:
        ValueError: a file is there that these settings have not made, or cannot be written, or is being
            written by another run.
    """

    def __init__(
        self, outputs: Sequence[Output], settings: Mapping[str, Any], overwrite: bool, keep: bool = True
    ) -> None:
        self.outputs = list(outputs)
        for output in self.outputs:
            if output.path.name in ("", ".."):
                raise bad_value(output.format.option, str(output.path), "is a folder")
        first = self.outputs[0].path
        self.settings = {
            **settings,
            "form": FORM,
            "outputs": [str(output.path.name) for output in self.outputs],
        }
        self.keep = keep
        self._overwrite = overwrite
        self._manifest = Manifest(first.with_name(first.name + ".manifest.jsonl"), len(self.outputs))
        self._state = State.new(len(self.outputs))
        self._begins: deque[int] = deque()  # before how many texts the batches begin that are on their way
        self._open: list[Any] = []
        self._since = 0
        self._trusted = True
        self._start: dict[str, Any] | None = None
        self._usable: list[tuple[int, dict[str, Any]]] = []
        try:
            for output in self.outputs:
                _check_place(output)
            self._locks = Locks(output.path for output in self.outputs)
        except HeldError as held:
            raise self._refusal(
                "is being written by another run",
                held.path,
                f"Wait for it, or give another name. If no run is alive, delete {str(held.lock)!r}.",
            ) from None
        except OSError as error:
            raise self._bad("cannot be written", error) from None
        try:
            self._look(overwrite)
        except OSError as error:
            self.close()
            raise self._bad("cannot be read", error) from None
        except BaseException:
            self.close()
            raise

    @property
    def totals(self) -> Totals:
        """Sums over the texts that are in the files."""
        return self._state.totals

    @property
    def unlocked(self) -> Path | None:
        """An output on a file system that has no locks, if there is one."""
        return self._locks.missing

    # -- going on -------------------------------------------------------------------------------------

    def remaining(self, records: Iterator[TextRecord]) -> Iterator[TextRecord]:
        """The texts that are still to be scored; those in the files are read and compared.

        Raises:
            ValueError: they are not those that the files were made from.
        """
        if not self._usable:
            return self._passing(records)
        last = self._usable[-1][1]
        ends = {checkpoint["texts"]: end for end, checkpoint in self._usable}
        filling, digest, held = Filling(EVERY), hashlib.sha256(), list[Any]()
        start, before = 0, digest.copy()
        number = 0
        for record in itertools.islice(records, last["texts"]):
            if filling.begins(len(record.text)) and number in ends:
                start, before, held = number, digest.copy(), []
            held.append(record)
            digest.update(identity(record))
            number += 1
        if number < last["texts"] or digest.hexdigest() != last["sha256_of_texts"]:
            raise self._refusal("was made from other texts")
        following = next(records, None)
        if last.get("complete") if following is None else filling.begins(len(following.text)):
            start, before, held = number, digest, []
        if (following is not None or start < number) and any(output.sealed for output in self.outputs):
            raise self._refusal("is complete, and there are more texts now")
        self._go_on_from(start, before)
        left = [] if following is None else [following]
        return self._passing(itertools.chain(held, left, records))

    @property
    def resumed(self) -> int:
        """How many texts were there already, and stay."""
        return 0 if self._start is None else int(self._start["texts"])

    def _passing(self, records: Iterator[TextRecord]) -> Iterator[TextRecord]:
        """The texts on their way to be scored; where batches begin is noted."""
        filling = Filling(EVERY)
        for number, record in enumerate(records, self.resumed):
            if filling.begins(len(record.text)):
                self._begins.append(number)
            yield record

    def _go_on_from(self, texts: int, digest: Any) -> None:
        for end, checkpoint in self._usable:
            if checkpoint["texts"] == texts:
                lengths = _lengths(checkpoint)
                digests = [
                    hashlib.sha256() if output.sealed else digest_of(output.growing, length)
                    for output, length in zip(self.outputs, lengths, strict=True)
                ]
                self._state = State(lengths, tuple(digests), digest, Totals(**checkpoint["totals"]))
                self._manifest.kept, self._start = end, checkpoint

    def _look(self, overwrite: bool) -> None:
        """Find the checkpoints that the outputs are long enough for, and that they agree with."""
        for output in self.outputs:
            if not overwrite and not self.keep:
                self._check_ours(output)
        if overwrite or not self.keep:
            self._overwrite = True
            return
        manifest = self._manifest
        manifest.read()
        if manifest.settings is None:
            for output in self.outputs:
                for path in (output.path, output.growing):
                    if path.exists() and path.stat().st_size:
                        raise self._refusal("is there already, and not a run of this command's", path)
            return
        self._compare(manifest.settings)
        for output in self.outputs:
            if output.sealed:
                self._check_sealed(output)
        for number, (_, checkpoint) in reversed([*enumerate(manifest.checkpoints, 1)]):
            if all(map(_long_enough, self.outputs, _lengths(checkpoint))):
                self._compare_digests(checkpoint)
                self._usable = manifest.checkpoints[:number]
                return
        missing = [o.path for o in self.outputs if not o.growing.exists() and not o.path.exists()]
        for output in self.outputs:  # the first checkpoint has not been written: there is a part of a head
            head = output.format.head()
            there = b""
            if output.growing.exists():
                with output.growing.open("rb") as file:
                    there = file.read(len(head) + 1)
            if not head.startswith(there) or output.sealed:
                if missing and manifest.checkpoints:
                    raise self._refusal("is not there any more, and another output is", missing[0])
                raise self._refusal("has been changed since", output.path)

    def _check_ours(self, output: Output) -> None:
        """That a page which is made anew is one of ours, and no file of the user's."""
        head = output.format.head()[:256]
        if output.path.exists() and output.path.stat().st_size:
            with output.path.open("rb") as file:
                if not head.startswith(file.read(len(head))):
                    raise self._refusal("is there already, and was not made by this command", output.path)

    def _check_sealed(self, output: Output) -> None:
        """That a file which was made of another is as it was made."""
        known = self._manifest.sealed.get(output.path.name)
        there = {"bytes": output.path.stat().st_size, "sha256": digest_of(output.path).hexdigest()}
        if known != there:
            raise self._refusal(
                "is damaged, or has been changed since it was made",
                output.path,
                "Put back the file as it was; or --overwrite, which scores all texts again.",
            )

    def _compare(self, there: dict[str, Any]) -> None:
        differ = sorted(k for k in {*there, *self.settings} if there.get(k) != self.settings.get(k))
        if differ == ["on_impossible"] and there["on_impossible"] == "error":
            return  # nothing that is there would be other
        if "form" in differ and there.get("command") == self.settings.get("command"):
            raise self._refusal("was made by another release of genlm-bytes")
        if differ:
            raise self._refusal(f"was made by other options: {', '.join(differ)} differ")

    def _compare_digests(self, checkpoint: dict[str, Any]) -> None:
        for output, known in zip(self.outputs, checkpoint["outputs"], strict=True):
            if not output.sealed and digest_of(output.growing, known["bytes"]).hexdigest() != known["sha256"]:
                raise self._refusal("has been changed since", output.path)

    def _refusal(self, rule: str, path: Path | None = None, instead: str = WAY_OUT) -> GenlmBytesError:
        path = path or self.outputs[0].path
        return bad_value(self.option(str(path)), str(path), rule, instead)

    def _bad(self, rule: str, error: OSError) -> GenlmBytesError:
        name = str(error.filename or self.outputs[0].path)
        return bad_value(self.option(name), name, f"{rule}: {error.strerror or type(error).__name__}")

    def option(self, name: str) -> str:
        """The option that has asked for a file."""
        return next((o.format.option for o in self.outputs if str(o.path) == name), "out")

    # -- writing --------------------------------------------------------------------------------------

    def add(self, result: ScoredText) -> None:
        """Write a text's pieces."""
        self._begin()
        pieces = [output.format.piece(result, self.totals) for output in self.outputs]
        self._append(pieces)
        # At once: an interrupt finds the text counted in everything, or in nothing.
        self._state, self._since = self._state.after(result, pieces), self._since + 1
        ended = False
        while self._begins and self._begins[0] <= self.totals.texts:
            ended = self._begins.popleft() == self.totals.texts
        if ended or self._since >= EVERY:
            self.checkpoint()

    def checkpoint(self, complete: bool = False) -> None:
        """Bring to the disk what has been added, and say so in the manifest."""
        self._sync()
        self._manifest.say(self._state.checkpoint() | ({"complete": True} if complete else {}))
        self._since = 0

    def keep_what_came(self) -> None:
        """After a failure: a checkpoint, where there is something new, and the disk has not failed."""
        if self._open and self._since and self._trusted:
            self.checkpoint()

    def finish(self) -> None:
        """Write the ends of the files; a run that was complete is left as it was."""
        if any(output.sealed for output in self.outputs) and not self._open:
            return
        self._begin()
        self.checkpoint(complete=True)
        self._append([output.format.foot(self.totals) for output in self.outputs])
        self._sync()
        self._let_go()
        made = {output.path.name: self._seal(output) for output in self.outputs if output.format.part}
        if made:  # only when that is said, the files beside have done their duty
            self._manifest.say({"sealed": made})
            for output in self.outputs:
                if output.format.part:
                    output.growing.unlink()
        if not self.keep:
            self._manifest.path.unlink()

    def close(self) -> None:
        """Let the files go, as they are, for others too."""
        try:
            self._let_go()
        finally:
            self._locks.release()

    def _seal(self, output: Output) -> dict[str, Any]:
        with naming(output.path):
            output.format.seal(output.growing, output.path)
            length = output.path.stat().st_size
            return {"bytes": length, "sha256": digest_of(output.path).hexdigest()}

    def _begin(self) -> None:
        """Open the files: cut what is beyond the checkpoint, or write the heads."""
        if self._open:
            return
        if self._overwrite:
            self._manifest.path.unlink(missing_ok=True)
            for output in self.outputs:
                output.path.unlink(missing_ok=True)
                output.growing.unlink(missing_ok=True)
            self._overwrite = False
        self._manifest.cut()  # before the outputs: a checkpoint must not outlive what it tells of
        with ExitStack() as failing:
            opened: list[Any] = []
            for output, length in zip(self.outputs, self._state.lengths, strict=True):
                with naming(output.growing):
                    opened.append(failing.enter_context(output.growing.open("ab")))
                    opened[-1].truncate(length)
            if not self._manifest.kept:
                self._manifest.say(self.settings)
            failing.pop_all()
        self._open = opened
        if self._start is None:
            heads = [output.format.head() for output in self.outputs]
            self._append(heads)
            self._state = self._state.longer(heads)
            self.checkpoint()

    def _append(self, pieces: Sequence[bytes]) -> None:
        for file, piece in zip(self._open, pieces, strict=True):
            with naming(file.name):
                file.write(piece)
                file.flush()

    def _sync(self) -> None:
        for file in self._open:
            try:
                with naming(file.name):
                    os.fsync(file.fileno())
            except OSError:
                self._trusted = False  # what a system failed to write once, it may take for written
                raise

    def _let_go(self) -> None:
        with ExitStack() as closing:
            for file in self._open:
                closing.callback(_close, file)
            self._open = []


def _close(file: Any) -> None:
    with naming(file.name):
        file.close()


def _check_place(output: Output) -> None:
    """That there can be a file of this name.

    Raises:
        ValueError: a folder, a device, a folder that is not there.
        OSError: the system will not say, or not let us write.
    """
    path, option = output.path, output.format.option
    for name in (path, output.growing):
        try:
            mode = os.stat(name).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(mode):
            raise bad_value(option, str(name), "is a folder")
        if not stat.S_ISREG(mode):
            rule = "is a device or a pipe, and no file that can be gone on with"
            raise bad_value(option, str(name), rule, "Give a file's name; without it rows go to stdout.")
        if not os.access(name, os.W_OK):
            raise PermissionError(13, "Permission denied", str(name))
    if not path.parent.is_dir():
        raise bad_value(option, str(path), f"there is no folder {str(path.parent)!r}")


def _long_enough(output: Output, length: int) -> bool:
    """Whether all bytes of a checkpoint can be there."""
    return output.sealed or (output.growing.exists() and output.growing.stat().st_size >= length)


def _lengths(checkpoint: dict[str, Any]) -> tuple[int, ...]:
    return tuple(output["bytes"] for output in checkpoint["outputs"])
