"""`score --out` on a disk that fails: any operation, any error; and two runs on one output."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import REPOSITORY, Run, fine
from toy import TOY, ToyLM

from genlm.bytes import ByteLM
from genlm.bytes.cli.scoring import files
from genlm.bytes.cli.scoring.files import Files
from genlm.bytes.cli.scoring.formats import Format, Html, format_of
from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.cli.scoring.results import write
from genlm.bytes.cli.scoring.rows import Asked
from genlm.bytes.errors import InvalidValueError
from genlm.bytes.resumable import Locks
from genlm.bytes.score import RegionOptions, ScoredText, Scoring, TextRecord

RECORDS = tuple(TextRecord(str(i), t) for i, t in enumerate([b"ab", b"abc", b"", b"ca b", b"bb"], 1))
NAMES = (("x.tsv",), ("x.jsonl", "x.html"), ("x.npz", "x.html"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "EVERY", 2)


@pytest.fixture(scope="module")
def results() -> list[ScoredText]:
    with ByteLM(ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)) as lm:
        return Scoring(regions=RegionOptions()).of(lm, RECORDS)


def made(names: tuple[str, ...]) -> list[Format]:
    asked = Asked(Unit.region, (), 2.0, False)
    return [(Html if n.endswith("html") else format_of)(Path(n), asked) for n in names]


def go(results: list[ScoredText], names: tuple[str, ...], settings: Any = None) -> Files:
    """What the command does once texts are read: lock, compare, score what is left, write."""
    run = Files(made(names), settings or {"on_impossible": "error"}, False)
    left = run.remaining(iter(RECORDS))
    write((results[int(record.id) - 1] for record in left), run)
    return run


def contents() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path().iterdir() if not p.name.endswith(".manifest.jsonl")}


class Disk:
    """Counts what is done to files, and fails at one of them, or from one of them on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, number: int, forever: bool) -> None:
        self.at, self.number, self.forever, self.count = at, number, forever, 0
        real = io.open

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real(file, mode, *args, **options)
            self.fail()
            return Proxy(real(file, mode, *args, **options), self)

        monkeypatch.setattr(io, "open", opened)
        for name in ("fsync", "replace", "unlink"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))

    def fail(self) -> None:
        self.count += 1
        if self.count == self.at or (self.forever and self.count > self.at):
            raise OSError(self.number, os.strerror(self.number))

    def failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.fail()
            return real(*args, **options)

        return call


class Proxy:
    """A file whose operations are counted; what fails halfway has written half."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def write(self, data: Any) -> int:
        try:
            self.disk.fail()
        except OSError:
            self.file.write(bytes(data)[: len(data) // 2])
            raise
        return int(self.file.write(data))

    def truncate(self, length: int) -> None:
        self.disk.fail()
        self.file.truncate(length)

    def close(self) -> None:
        self.file.close()
        self.disk.fail()


class TestFailing:
    @pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.thorough), 5])
    @pytest.mark.parametrize("forever", [False, True])
    @pytest.mark.parametrize("names", NAMES, ids=" ".join)
    def test_at_any_operation(
        self, results: list[ScoredText], names: tuple[str, ...], forever: bool, step: int, monkeypatch: Any
    ) -> None:
        """An error of ours that names the file and the reason; the same run then ends as ever."""
        monkeypatch.setattr("os.fsync", lambda _: None)  # no power fails here; it is most of the time
        go(results, names)
        whole = contents()
        numbers = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EPERM]
        at, failed, tried = 1 - step, 0, 0
        while True:
            for path in Path().iterdir():
                path.unlink()
            at, tried = at + step, tried + 1
            with monkeypatch.context() as patch:
                disk = Disk(patch, at, number := numbers[at % 4], forever)
                try:
                    go(results, names)
                except InvalidValueError as error:
                    failed += 1
                    assert os.strerror(number) in str(error) and "cannot be" in str(error)
                    assert any(f"'{name}" in str(error) or f"'./{name}" in str(error) for name in names)
            if disk.count < at:
                break
            go(results, names)
            assert contents() == whole, at
        assert failed > 20 / step and failed >= tried - 8  # what fails of tidying up is no error

    def test_after_a_failed_fsync_nothing_is_believed(
        self, results: list[ScoredText], monkeypatch: Any
    ) -> None:
        """A system that has lost what it could not write says yes when it is asked again."""
        with monkeypatch.context() as patch:
            calls = iter([None, None, None, OSError(errno.EIO, "lost")])

            def fsync(_: Any) -> None:
                if (error := next(calls, None)) is not None:
                    raise error

            patch.setattr(os, "fsync", fsync)
            with pytest.raises(InvalidValueError, match="lost"):
                go(results, ("x.tsv",))
        counted = Path("x.tsv.manifest.jsonl").read_text().count('"sha256_of_texts"')
        assert counted == 1  # before the first text; what came after two texts cannot be trusted

    def test_the_command_says_it_in_a_line(self, run: Run, monkeypatch: Any) -> None:
        toy = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)
        with monkeypatch.context() as patch:
            Disk(patch, 4, errno.ENOSPC, True)
            done = run("score", "ab", "--out", "x.tsv", model=toy)
        assert (done.code, done.out, done.err.count("\n")) == (1, b"", 1)
        assert "`--out` is 'x.tsv" in done.err and "No space left" in done.err and "there is room" in done.err
        assert fine(run("score", "ab", "--out", "x.tsv", model=toy)).startswith(b"1 text")


class TestDamaged:
    @pytest.fixture
    def whole(self, results: list[ScoredText]) -> dict[str, bytes]:
        go(results, ("x.npz", "x.html"))
        return contents()

    def test_arrays(self, results: list[ScoredText], whole: dict[str, bytes]) -> None:
        """Any byte that is other, missing or too many."""
        content = whole["x.npz"]
        for at in range(0, len(content), max(1, len(content) // 40)):
            flipped = bytes([content[at] ^ 1])
            for damaged in (content[:at], content[:at] + flipped + content[at + 1 :], content + b"\0"):
                Path("x.npz").write_bytes(damaged)
                with pytest.raises(InvalidValueError, match=r"x\.npz'.*damaged.*--overwrite"):
                    go(results, ("x.npz", "x.html"))
                assert Path("x.npz").read_bytes() == damaged
        Path("x.npz").write_bytes(content)
        go(results, ("x.npz", "x.html"))
        assert contents() == whole

    def test_arrays_that_are_gone_are_made_again(
        self, results: list[ScoredText], whole: dict[str, bytes]
    ) -> None:
        Path("x.npz").unlink()
        with pytest.raises(InvalidValueError, match=r"x\.npz'.*not there any more"):
            go(results, ("x.npz", "x.html"))
        Path("x.html").unlink()
        go(results, ("x.npz", "x.html"))
        assert contents() == whole
        with np.load("x.npz") as arrays:
            assert arrays["id"].tolist() == list("12345")

    @pytest.mark.parametrize(
        "line", [b"{}\n", b'{"texts": 3}\n', b'{"files": 7}\n', b"[" * 10**5 + b"\n", b"\xff\n", b"null\n"]
    )
    def test_a_manifest_that_goes_wrong(self, results: list[ScoredText], line: bytes) -> None:
        """What is before the line counts."""
        go(results, ("x.tsv",))
        whole, path = contents(), Path("x.tsv.manifest.jsonl")
        lines = path.read_bytes().splitlines(keepends=True)
        for at in range(2, len(lines) + 1):
            path.write_bytes(b"".join([*lines[:at], line, *lines[at:]]))
            go(results, ("x.tsv",))
            assert contents() == whole

    def test_another_release(self, results: list[ScoredText], monkeypatch: Any) -> None:
        go(results, ("x.tsv",), {"command": "c"})
        monkeypatch.setattr(files, "FORM", files.FORM + 1)
        with pytest.raises(InvalidValueError, match="another release"):
            go(results, ("x.tsv",), {"command": "c"})


class TestTwoRuns:
    def test_the_second_is_refused(self, run: Run) -> None:
        toy = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)
        Path("link.tsv").symlink_to("x.tsv")
        held = Files(made(("x.tsv", "x.html")), {}, False)
        for args in (["--out", "x.tsv"], ["--out", "link.tsv"], ["--html", "x.html"]):
            for more in ([], ["--overwrite"]):
                done = run("score", "ab", *args, *more, model=toy)
                assert (done.code, done.out, done.loaded, done.err.count("\n")) == (1, b"", [], 1)
                assert "another run" in done.err and ".lock" in done.err
        held.close()
        assert [p.name for p in Path().iterdir()] == ["link.tsv"]  # a refused run has changed nothing
        fine(run("score", "ab", "--out", "link.tsv", model=toy))
        assert Path("link.tsv").is_symlink() and Path("x.tsv").read_text().startswith("id\t")

    def test_a_killed_run_locks_nothing(self, run: Run) -> None:
        program = (
            "import os, sys; from pathlib import Path; from genlm.bytes.resumable import Locks\n"
            "locks = Locks({Path('x.tsv'): 'out'}); os.kill(os.getpid(), 9)"
        )
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([sys.executable, "-c", program], env=environment)
        assert done.returncode != 0 and Path(".x.tsv.lock").exists()
        toy = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)
        fine(run("score", "ab", "--out", "x.tsv", model=toy))
        assert not Path(".x.tsv.lock").exists()

    def test_a_disk_without_locks(self, run: Run, monkeypatch: Any) -> None:
        """It is said, and goes on: a lock is a help, not a condition."""
        toy = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)

        def acquire(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("filelock.BaseFileLock.acquire", acquire)
        done = run("score", "ab", "--out", "x.tsv", model=toy)
        assert done.code == 0 and "has no locks" in done.err and done.err.count("\n") == 1
        assert fine(run("score", "ab", "--out", "y.tsv", "--quiet", model=toy))

    def test_all_or_none(self) -> None:
        first = Locks({Path("b"): "out"})
        with pytest.raises(InvalidValueError, match=r"`html` is .*b'.*another run"):
            Locks({Path("a"): "out", Path("b"): "html"})
        Locks({Path("a"): "out"}).release()
        first.release()
        assert not [*Path().iterdir()]


class TestPlaces:
    @pytest.mark.parametrize("option", ["--out", "--html"])
    def test_no_ordinary_file(self, run: Run, option: str) -> None:
        """A device is not deleted to be made anew."""
        os.mkfifo("pipe")
        for name, word in ((".", "is a folder"), ("link.tsv", "device"), ("n" * 300 + ".tsv", "too long")):
            if name == "link.tsv":
                Path("link.tsv").symlink_to("pipe")
            done = run("score", "ab", option, name)
            assert (done.code, done.loaded, done.err.count("\n")) == (1, [], 1), done.err
            if name != "." or option == "--html":
                assert word in done.err and f"`{option}`" in done.err
        assert Path("pipe").is_fifo() and Path("link.tsv").is_symlink()

    def test_a_loop_of_links(self, run: Run) -> None:
        Path("x.tsv").symlink_to("x.tsv")
        done = run("score", "ab", "--out", "x.tsv")
        assert (done.code, done.loaded, done.err.count("\n")) == (1, [], 1)

    def test_a_page_is_not_made_over_something_else(self, run: Run) -> None:
        toy = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)
        Path("notes.txt").write_text("mine")
        done = run("score", "ab", "--html", "notes.txt", model=toy)
        assert (done.code, done.loaded, done.err.count("\n")) == (1, [], 1)
        assert "--overwrite" in done.err and Path("notes.txt").read_text() == "mine"
        fine(run("score", "ab", "--html", "notes.txt", "--overwrite", model=toy))
        fine(run("score", "ab", "--html", "notes.txt", model=toy))
        assert Path("notes.txt").read_text().startswith("<!")
