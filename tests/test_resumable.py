"""`Growing` by itself: what a run leaves behind wherever it ends, and what the next one finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genlm.bytes.resumable.growing import Growing
from genlm.bytes.resumable.output import Output

PIECES = [b"one\n", b"two\n", b"three\n"]
SETTINGS = {"command": "test", "form": 1}


def started(path: Path, outputs: int = 1) -> Growing:
    return Growing([Output(path.with_name(f"{path.name}{i or ''}")) for i in range(outputs)], SETTINGS)


def add(files: Growing, pieces: list[bytes], done: int = 0) -> None:
    """Pieces, each with its checkpoint."""
    for n, piece in enumerate(pieces, done + 1):
        files.append(lambda output, piece=piece: piece)
        files.checkpoint({"done": n})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize("checkpoint", range(3))
@pytest.mark.parametrize("outputs", [1, 2])
def test_killed_after_files_were_cut_back(path: Path, checkpoint: int, outputs: int) -> None:
    """Checkpoints beyond the one that a run goes on from tell of bytes that are not there any more.

    The run writes others, as many, and is killed before it can say so.
    """
    files = started(path, outputs)
    files.begin({"done": 0})
    add(files, PIECES)
    files.close()

    files = started(path, outputs)
    assert [entry["done"] for entry in files.entries] == [0, 1, 2, 3]
    files.go_on(files.entries[checkpoint])
    files.begin({})
    files.append(lambda output: b"".join(PIECES[checkpoint:]).upper())
    files.close()

    files = started(path, outputs)
    assert [entry["done"] for entry in files.entries] == [*range(checkpoint + 1)]
    files.go_on(files.entries[-1])
    files.begin({})
    add(files, PIECES[checkpoint:], checkpoint)
    files.finish({"done": 3})
    files.close()
    assert all(output.path.read_bytes() == b"".join(PIECES) for output in files.outputs)
    assert started(path, outputs).complete


def test_a_checkpoint_that_cannot_be_written_leaves_no_part_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk takes half a line: the next run finds the checkpoint before."""
    files = started(path)
    files.begin({"done": 0})
    add(files, PIECES[:1])
    (manifest,) = path.parent.glob("*.manifest.jsonl")
    whole = manifest.read_bytes()
    add(files, PIECES[1:2], 1)
    line = manifest.read_bytes()[len(whole) :]
    files.close()
    for length in range(len(line)):
        manifest.write_bytes(whole + line[:length])
        again: Any = started(path)
        assert [entry["done"] for entry in again.entries] == [0, 1]
        again.go_on(again.entries[-1])
        again.begin({})
        add(again, PIECES[1:2], 1)
        again.close()
        assert manifest.read_bytes() == whole + line
