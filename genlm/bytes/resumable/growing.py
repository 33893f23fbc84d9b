"""Files that grow together, and are gone on with after any end: a kill, an interrupt, a full disk.

Beside the first stands `<name>.manifest.jsonl`: what was asked, then an entry each time some more is in the
files for good (a checkpoint), written after they have reached the disk. A complete run's last entry tells of
the files as they are then, to their last byte.

To go on, the last entry is taken whose files are long enough, and compared by their digests; whoever goes on
says after which of the entries so far, and what is beyond that is cut off. So nothing is there twice, nothing
is missing, and every byte is that of a run without an end. Files that were made by another call, or changed
since, are refused; so are files that another run is writing (`locks.py`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from genlm.bytes.errors import GenlmBytesError, bad_value
from genlm.bytes.resumable.locks import Locks
from genlm.bytes.resumable.manifest import Manifest
from genlm.bytes.resumable.output import Output
from genlm.bytes.resumable.whole import check_place, digest_of, saying

__all__ = ["Growing"]

WAY_OUT = "Give another name, or --overwrite."
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Growing:
    """The files of a run. They are locked until `close`.

    Args:
        settings: what decides their bytes; JSON values.
        keep: whether the run may be gone on with; else they are made anew, and the manifest goes in the end.
        lenient: see `Manifest.compare`.

    Raises:
        ValueError: a file is there that these settings have not made, or cannot be written, or is being
            written by another run.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        settings: Mapping[str, Any],
        overwrite: bool = False,
        keep: bool = True,
        lenient: tuple[Any, ...] = (),
    ) -> None:
        self.outputs = list(outputs)
        self.entries: list[dict[str, Any]] = []
        """The checkpoints that the files can be cut to, the last with all that counts."""
        self.complete = False
        """Whether nothing is left to write."""
        self._settings = {**settings, "outputs": [output.path.name for output in self.outputs]}
        self._keep, self._anew, self._began = keep, overwrite or not keep, False
        self._start: Mapping[str, Any] | None = None  # the entry that the run goes on from
        with self._saying("cannot be written"):
            self._locks = Locks({output.path: output.option for output in self.outputs})
        self.unlocked = self._locks.missing
        """An output on a file system that has no locks, if there is one."""
        try:
            with self._saying("cannot be read"):
                first = self.outputs[0].path
                self._manifest = Manifest(first.with_name(first.name + ".manifest.jsonl"))
                if not self._anew:
                    self._look(lenient)
                for output in self.outputs if not (keep or overwrite) else ():
                    check_place(output.path, output.option, output.opening())
        except BaseException:
            self.close()
            raise

    # -- what is there --------------------------------------------------------------------------------

    def _look(self, lenient: tuple[Any, ...]) -> None:
        """Find the checkpoints that the outputs are long enough for, and that they agree with."""
        if self._manifest.settings is None:
            for path in [path for output in self.outputs for path in (output.path, output.growing)]:
                if path.exists() and path.stat().st_size:
                    raise self.refusal("is there already, and not a run of this command's", path)
            return
        self._manifest.compare(self._settings, self.refusal, lenient)
        known = [entry for _, entry in self._manifest.entries]
        self.entries = known[:]
        while self.entries and self._lacking(self.entries[-1]):
            self.entries.pop()
        if self.entries:
            self.complete = bool(self.entries[-1].get("complete"))
            for output, record in zip(self.outputs, self.entries[-1]["files"], strict=True):
                path = output.where(record)
                if digest_of(path, record["bytes"]).hexdigest() != record["sha256"]:
                    raise self._damaged(path)
        elif other := [output.path for output in self.outputs if not output.begun()]:
            # Before the first checkpoint there is a part of a head, at most.
            raise self._damaged((self._lacking(known[-1]) if known else other)[0])

    def _lacking(self, entry: Mapping[str, Any]) -> list[Path]:
        """The files that are not what an entry tells of."""
        both, whole = zip(self.outputs, entry["files"], strict=True), bool(entry.get("complete"))
        return [output.where(record) for output, record in both if not output.has(record, whole)]

    def _damaged(self, path: Path) -> GenlmBytesError:
        if not path.exists():
            return self.refusal("is not there any more, and another output is", path)
        way_out = "Put it back as it was; or --overwrite, which begins again."
        return self.refusal("is damaged, or has been changed since it was made", path, way_out)

    def refusal(self, rule: str, path: Path | None = None, instead: str = WAY_OUT) -> GenlmBytesError:
        """The error for files that are not gone on with; the first of them if none is named."""
        name = str(path or self.outputs[0].path)
        option = next((o.option for o in self.outputs if name in (str(o.path), str(o.growing))), "out")
        return bad_value(option, name, rule, instead)

    def _saying(self, rule: str) -> AbstractContextManager[None]:
        """What the disk says, as an error of ours: what failed, why, and what to do."""

        def refusal(rule: str, error: OSError) -> GenlmBytesError:
            again = "when there is room" if error.errno in FULL else "from here"
            instead = f"The same command goes on {again}." if self._began and self._keep else ""
            return self.refusal(rule, error.filename and Path(error.filename), instead)

        return saying(rule, refusal)

    # -- writing --------------------------------------------------------------------------------------

    def go_on(self, entry: Mapping[str, Any]) -> None:
        """Go on after one of `entries`; what was written later is cut off.

        Raises:
            ValueError: the files are complete and cannot grow any more.
        """
        if not all(output.growing.exists() for output in self.outputs):
            raise self.refusal("is complete, and there is more now")
        self._start, self.complete = entry, False

    def begin(self, state: Mapping[str, Any]) -> None:
        """Open the files: cut what is beyond the checkpoint, or write the heads.

        Args:
            state: what the run has to know to go on from here; JSON values.
        """
        if self._began:
            return
        self._began = True
        with self._saying("cannot be written"):
            if self._anew:
                self._manifest.path.unlink(missing_ok=True)
                for output in self.outputs:
                    output.delete()
            # The manifest first: an entry must not outlive what it tells of.
            self._manifest.cut(next((end for end, e in self._manifest.entries if e is self._start), 0))
            for i, output in enumerate(self.outputs):
                output.open(self._start["files"][i]["bytes"] if self._start else 0)
            if self._start is None:
                self._manifest.say(self._settings)
                self.append(lambda output: output.head())
                self.checkpoint(state)

    def append(self, piece: Callable[[Any], bytes]) -> None:
        """Add a piece to each file."""
        with self._saying("cannot be written"):
            for output in self.outputs:
                output.append(piece(output))

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Bring to the disk what has been added, and say so in the manifest."""
        with self._saying("cannot be written"):
            self._manifest.say({**state, "files": [output.sync() for output in self.outputs]})

    def finish(self, state: Mapping[str, Any]) -> None:
        """Make the files that are made of others, say that nothing is left, and tidy up."""
        with self._saying("cannot be written"):
            if not self.complete:
                files = [output.seal() for output in self.outputs]
                self._manifest.say({**state, "files": files, "complete": True})
            for output in self.outputs:
                if output.part:
                    output.growing.unlink(missing_ok=True)
            if not self._keep:
                self._manifest.path.unlink()

    def close(self) -> None:
        """Let the files go, as they are, for others too."""
        with ExitStack() as closing:
            closing.callback(self._locks.release)
            closing.enter_context(self._saying("cannot be written"))
            for output in self.outputs:
                closing.callback(output.close)
