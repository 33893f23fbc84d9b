"""`score --out`: whatever ends it, the same line goes on, and the files are those of a run without an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import REPOSITORY, Run, fine
from toy import TOY, ToyLM

from genlm.bytes import ByteLM
from genlm.bytes.cli.scoring import files
from genlm.bytes.cli.scoring.files import Files, Output
from genlm.bytes.cli.scoring.formats import Asked, Html, format_of
from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.score import RegionOptions, ScoredText, Scoring, TextRecord

TEXTS = b"ab\nabc\n\nca b\ncab\nbb\na\n"
TOTALS = b"7 texts, 15 bytes, 15 characters: "
KINDS = {
    "tsv": ["--out", "x.tsv"],
    "words": ["--out", "x.tsv", "--words", "--html", "x.html"],
    "jsonl": ["--out", "x.jsonl", "--end"],
    "npz": ["--out", "x.npz", "--html", "x.html"],
}


@pytest.fixture
def toy() -> Any:
    return ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "EVERY", 2)


def line(kind: str) -> tuple[str, ...]:
    return ("score", "--lines", "--tolerance", "1e-9", *KINDS[kind])


def contents() -> dict[str, Any]:
    """What the outputs hold; of arrays their values, since a zip holds the time."""
    found: dict[str, Any] = {}
    for path in Path().iterdir():
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = {name: (arrays[name].dtype, arrays[name].tobytes()) for name in arrays}
        elif not path.name.endswith(".manifest.jsonl"):
            found[path.name] = path.read_bytes()
    return found


def manifest() -> Path:
    (path,) = Path().glob("*.manifest.jsonl")
    return path


@pytest.mark.parametrize("kind", KINDS)
class TestAgain:
    def test_a_run_that_was_complete(self, run: Run, toy: Any, kind: str) -> None:
        first = fine(run(*line(kind), stdin=TEXTS, model=toy))
        whole = contents()
        again = run(*line(kind), stdin=TEXTS, model=toy)
        assert fine(again).strip() + b"; " in first and again.loaded == [] and contents() == whole
        assert first.startswith(TOTALS)

    def test_a_manifest_cut_anywhere(self, run: Run, toy: Any, kind: str) -> None:
        fine(run(*line(kind), stdin=TEXTS, model=toy))
        whole, said = contents(), manifest().read_bytes()
        starts = [i + 1 for i, byte in enumerate(said) if byte == ord("\n")]
        if kind == "npz":
            starts = starts[-1:]
        for length in [*starts[:-1], *(s - 9 for s in starts[1:-1])]:
            manifest().write_bytes(said[:length])
            done = run(*line(kind), stdin=TEXTS, model=toy)
            if length < starts[1]:  # no checkpoint, and rows: not a file that is known
                assert done.code == 1 and "has been changed" in done.err
            else:
                assert fine(done).startswith(TOTALS) and contents() == whole

    def test_a_failure_in_the_middle(
        self, run: Run, toy: Any, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What has come is kept: the next run goes on from there, and the files are the same."""
        fine(run(*line(kind), stdin=TEXTS, model=toy))
        whole = contents()
        for path in Path().iterdir():
            path.unlink()
        added = files.Files.add
        for stop in range(1, 8):

            def add(self: Any, result: Any, stop: int = stop) -> None:
                if self.totals.texts == stop:
                    raise KeyboardInterrupt
                added(self, result)

            monkeypatch.setattr(files.Files, "add", add)
            done = run(*line(kind), stdin=TEXTS, model=toy)
            if stop < 7:
                assert (done.code, done.err.count("\n")) == (130, 1) and "goes on from there" in done.err
                assert f"after {stop} texts" in done.err and "x.npz" not in contents()
        assert fine(done).startswith(TOTALS) and contents() == whole

    def test_refused(self, run: Run, toy: Any, kind: str) -> None:
        fine(run(*line(kind), stdin=TEXTS, model=toy))
        whole = contents()
        for args, stdin, word in (
            (["--K", "9"], TEXTS, "K differ"),
            (["--context", "a"], TEXTS, "context differ"),
            ([], TEXTS.replace(b"abc", b"abb"), "other texts"),
            ([], TEXTS[:9], "other texts"),
        ):
            done = run(*line(kind), *args, stdin=stdin, model=toy)
            assert (done.code, done.out, done.loaded) == (1, b"", []) and done.err.count("\n") == 1
            assert word in done.err and "--overwrite" in done.err and contents() == whole
        fine(run(*line(kind), "--context", "a", "--overwrite", stdin=TEXTS, model=toy))
        assert contents() != whole and contents().keys() == whole.keys()


class TestCut:
    """As a kill leaves it: any length of a file that grows, with rows that no checkpoint counts."""

    RECORDS = tuple(TextRecord(str(i), text) for i, text in enumerate(TEXTS.splitlines(), 1))

    @pytest.fixture
    def results(self, monkeypatch: pytest.MonkeyPatch) -> list[ScoredText]:
        monkeypatch.setattr("os.fsync", lambda _: None)  # no power fails here; it is most of the time
        with ByteLM(ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)) as lm:
            return Scoring(regions=RegionOptions()).of(lm, self.RECORDS)

    def write(self, results: list[ScoredText], names: list[str], most: int | None = None) -> int:
        """Go on as the command does; the number of texts that were left to score."""
        asked = Asked(Unit.region, (), 2.0, False)
        outputs = [
            Output(Path(n), Html(asked) if n.endswith("html") else format_of(Path(n), asked)) for n in names
        ]
        run = Files(outputs, {"on_impossible": "error"}, False)
        left = [int(record.id) for record in run.remaining(iter(self.RECORDS))]
        for number in left[:most]:
            run.add(results[number - 1])
        if most is None:
            run.finish()
        run.close()
        return len(left)

    @pytest.mark.parametrize("name", ["x.tsv", "x.jsonl", "x.npz"])
    def test_anywhere(self, results: list[ScoredText], name: str) -> None:
        names = [name, "x.html"]
        assert self.write(results, names) == 7
        whole = contents()
        for path in Path().iterdir():
            path.unlink()
        assert self.write(results, names, most=5) == 7  # the fifth is in no checkpoint
        kept = {path: path.read_bytes() for path in Path().iterdir()}
        (grows,) = (path for path in kept if path.name.startswith(name) and "manifest" not in path.name)
        counted = [json.loads(line) for line in manifest().read_text().splitlines()[1:]]
        assert [checkpoint["texts"] for checkpoint in counted] == [0, 2, 4]
        first, *_, last = (checkpoint["outputs"][0]["bytes"] for checkpoint in counted)
        for length in [*range(first, last, 61), *range(last - 1, len(kept[grows]) + 1)]:
            for path in Path().iterdir():
                path.unlink()
            for path, content in kept.items():
                path.write_bytes(content[:length] if path == grows else content)
            fits = [c["texts"] for c in counted if c["outputs"][0]["bytes"] <= length]
            assert self.write(results, names) == 7 - max(fits, default=0)
            assert contents() == whole, length

    def test_the_page_anywhere(self, results: list[ScoredText]) -> None:
        self.write(results, ["x.tsv", "x.html"])
        whole = contents()
        said = manifest().read_bytes()
        for cut in range(1, 300, 7):
            Path("x.html").write_bytes(whole["x.html"][:-cut])
            manifest().write_bytes(said)
            self.write(results, ["x.tsv", "x.html"])
            assert contents() == whole, cut


class TestOthers:
    def test_more_texts_at_the_end(self, run: Run, toy: Any) -> None:
        fine(run(*line("words"), stdin=TEXTS[:7], model=toy))
        assert fine(run(*line("words"), stdin=TEXTS, model=toy)).startswith(TOTALS)
        found = contents()
        fine(run(*line("words"), "--overwrite", stdin=TEXTS, model=toy))
        assert contents() == found

    def test_more_texts_than_arrays(self, run: Run, toy: Any) -> None:
        fine(run(*line("npz"), stdin=TEXTS[:7], model=toy))
        done = run(*line("npz"), stdin=TEXTS, model=toy)
        assert (done.code, done.loaded) == (1, []) and "is complete" in done.err

    def test_no_room_for_arrays(self, run: Run, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("genlm.bytes.cli.scoring.npz.write", _no_room)
            done = run(*line("npz"), stdin=TEXTS, model=toy)
        assert done.code == 1 and "No space left" in done.err and done.err.count("\n") == 1
        assert not [*Path().glob("*.half"), *Path().glob("*.npz")]
        again = run(*line("npz"), stdin=TEXTS, model=toy)
        assert fine(again).startswith(TOTALS) and again.loaded == [] and Path("x.npz").exists()

    def test_somebody_elses_file(self, run: Run, toy: Any) -> None:
        Path("x.tsv").write_text("mine\n")
        done = run(*line("tsv"), stdin=TEXTS, model=toy)
        assert (done.code, done.err.count("\n")) == (1, 1) and "--overwrite" in done.err
        assert Path("x.tsv").read_text() == "mine\n"

    def test_a_manifest_that_is_none(self, run: Run, toy: Any) -> None:
        Path("x.tsv.manifest.jsonl").mkdir()
        done = run(*line("tsv"), stdin=TEXTS, model=toy)
        assert (done.code, done.err.count("\n")) == (1, 1) and "cannot be read" in done.err

    def test_changed_since(self, run: Run, toy: Any) -> None:
        fine(run(*line("tsv"), stdin=TEXTS, model=toy))
        text = Path("x.tsv").read_text()
        Path("x.tsv").write_text(text.replace("2", "3"))
        done = run(*line("tsv"), stdin=TEXTS, model=toy)
        assert (done.code, done.err.count("\n")) == (1, 1) and "has been changed" in done.err

    def test_an_impossible_byte_has_a_way_on(self, run: Run, toy: Any) -> None:
        texts = TEXTS + b"az\nb\n"
        done = run(*line("tsv"), stdin=texts, model=toy)
        assert (done.code, done.err.count("\n")) == (1, 1) and "text '8'" in done.err
        assert Path("x.tsv").read_bytes().count(b"\n") == 8
        fine(run(*line("tsv"), "--on-impossible", "inf", stdin=texts, model=toy))
        assert Path("x.tsv").read_bytes().count(b"\n") == 10

    def test_a_full_disk(self, run: Run, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", _no_room)
            done = run(*line("tsv"), stdin=TEXTS, model=toy)
        assert (done.code, done.err.count("\n")) == (1, 1) and "No space left" in done.err
        assert fine(run(*line("tsv"), stdin=TEXTS, model=toy)).startswith(TOTALS)

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_is_not_ours(self, run: Run, toy: Any) -> None:
        Path("closed").mkdir(mode=0o500)
        done = run("score", "ab", "--out", "closed/x.tsv", model=toy)
        assert (done.code, done.err.count("\n")) == (1, 1) and "cannot be written" in done.err


def _no_room(*_: Any) -> None:
    raise OSError(28, "No space left on device")


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.path.insert(0, {tests!r})
import genlm.bytes.models
from genlm.bytes import ByteLM
from genlm.bytes.cli.scoring import files
from genlm.bytes.cli.scoring.files import Files, Output
from genlm.bytes.cli.scoring.formats import Asked, Html, format_of
from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.score import RegionOptions, ScoredText, Scoring, TextRecord
from toy import TOY, ToyLM

files.EVERY = 2
llm = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)
genlm.bytes.models.load_model = lambda *_, **__: llm
from genlm.bytes.cli import main
add = files.Files.add

def slowly(self, result):
    if self.totals.texts == 5:
        self._open[0].write(b"half a ro")
        self._open[0].flush()
        print("now", flush=True)
        time.sleep(600)
    add(self, result)

files.Files.add = slowly
sys.argv[1:] = {args!r}
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
class TestProcess:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
    def test_killed(self, run: Run, toy: Any, how: signal.Signals) -> None:
        fine(run(*line("words"), stdin=TEXTS, model=toy))
        whole = contents()
        for path in Path().iterdir():
            path.unlink()
        Path("texts").write_bytes(TEXTS)
        program = SLOW.format(tests=str(Path(__file__).parent), args=[*line("words")])
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        with (
            Path("texts").open("rb") as texts,
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"import signal; signal.signal(2, signal.default_int_handler)\n{program}",
                ],
                env=environment,
                stdin=texts,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            assert process.stdout and process.stdout.readline() == b"now\n"
            process.send_signal(how)
            _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if how == signal.SIGINT else -how)
        assert (b"the same command goes on" in err) == (how == signal.SIGINT) and b"Traceback" not in err
        Path("texts").unlink()
        assert fine(run(*line("words"), stdin=TEXTS, model=toy)).startswith(TOTALS)
        assert contents() == whole
