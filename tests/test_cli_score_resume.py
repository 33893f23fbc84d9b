"""`score --out`: whatever ends it, the same line goes on, and the files are those of a run without an end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_runner import REPOSITORY, Run, fine
from toy import TOY, ToyLM

from genlm.bytes import ByteLM
from genlm.bytes.cli.scoring import files
from genlm.bytes.cli.scoring.files import Files
from genlm.bytes.cli.scoring.formats import Html, format_of
from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.cli.scoring.results import write
from genlm.bytes.cli.scoring.rows import Asked
from genlm.bytes.errors import InvalidValueError
from genlm.bytes.score import (
    Filling,
    RegionOptions,
    Score,
    ScoredText,
    Scoring,
    TextRecord,
    score_groups,
)

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
        for length in [*starts[:-1], *(s - n for s in starts[1:-1] for n in (1, 9))]:
            manifest().write_bytes(said[:length])
            done = run(*line(kind), stdin=TEXTS, model=toy)
            if length < starts[1]:  # no checkpoint, and rows: not a file that is known
                assert done.code == 1 and "has been changed" in done.err
            else:
                assert fine(done).startswith(TOTALS) and contents() == whole
                assert run(*line(kind), stdin=TEXTS, model=toy).loaded == []

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
        outputs = [(Html if n.endswith("html") else format_of)(Path(n), asked) for n in names]
        run = Files(outputs, {"on_impossible": "error"}, False)
        left = [int(record.id) for record in run.remaining(iter(self.RECORDS))]
        for number in left[:most]:
            run.add(results[number - 1])
        if most is None:
            run.finish()
        run.close()
        return len(left)

    @pytest.mark.parametrize(
        "name",
        [
            "x.tsv",
            pytest.param("x.jsonl", marks=pytest.mark.slow),
            pytest.param("x.npz", marks=pytest.mark.slow),
        ],
    )
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
        first, *_, last = (checkpoint["files"][0]["bytes"] for checkpoint in counted)
        for length in [*range(first, last, 61), *range(last - 1, len(kept[grows]) + 1)]:
            for path in Path().iterdir():
                path.unlink()
            for path, content in kept.items():
                path.write_bytes(content[:length] if path == grows else content)
            fits = [c["texts"] for c in counted if c["files"][0]["bytes"] <= length]
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


class TestSameBytes:
    """Where a run was cut decides no digit: what is scored together depends on the texts alone."""

    @staticmethod
    def of(_: Scoring, lm: Any, records: Any) -> list[ScoredText]:
        """Figures that tell every batch, and every place in it, from all others."""
        key = zlib.crc32(repr([record.id for record in records]).encode())
        return [
            ScoredText(r, Score(r.text, np.full(len(r.text), -(1 + key % 9973 + i) / 7e4)))
            for i, r in enumerate(records)
        ]

    def go(self, records: list[TextRecord], names: list[str], cut: int | None, kill: bool) -> None:
        """A run that ends after so many of its texts, if there are so many: by Ctrl-C, or as a kill does."""
        asked = Asked(Unit.byte, (), 2.0, False)
        outputs = [(Html if n.endswith("html") else format_of)(Path(n), asked) for n in names]
        run = Files(outputs, {}, False)
        model = SimpleNamespace(forget=lambda **_: None)
        results = score_groups(model, run.remaining(iter(records)), Scoring(), files.EVERY, 40)

        def until_it_ends() -> Iterator[ScoredText]:
            yield from islice(results, cut)
            if cut is not None:
                raise KeyboardInterrupt

        try:
            if not kill:
                write(until_it_ends(), run)
            else:
                for result in until_it_ends():
                    run.add(result)
        except KeyboardInterrupt:
            pass
        finally:
            run.close()  # as a kill does too: the system lets its files and locks go

    @pytest.mark.parametrize("seed", [0, 1, 2, pytest.param(range(3, 60), marks=pytest.mark.thorough)])
    def test_any_cuts(self, monkeypatch: pytest.MonkeyPatch, seed: Any) -> None:
        monkeypatch.setattr("os.fsync", lambda _: None)
        monkeypatch.setattr("genlm.bytes.score.corpus.Scoring.of", self.of)
        monkeypatch.setattr(files, "EVERY", 5)
        monkeypatch.setattr(files, "Filling", partial(Filling, most=40))
        for one in [seed] if isinstance(seed, int) else seed:
            rng = random.Random(one)
            sizes = [rng.choice([0, 1, 3, 9, 20, 39, 40, 41, 90]) for _ in range(rng.randrange(1, 30))]
            records = [TextRecord(str(i), b"x" * size) for i, size in enumerate(sizes)]
            for names in (["x.tsv"], ["x.jsonl", "x.html"], ["x.npz"]):
                self.go(records, names, None, False)
                whole = {p: p.read_bytes() for p in Path().iterdir() if "manifest" not in p.name}
                for path in Path().iterdir():
                    path.unlink()
                grows = names[0] != "x.npz"
                for _ in range(rng.randrange(1, 8)):  # some of them of an input that is not all there yet
                    there = rng.choice([len(records), len(records), rng.randrange(len(records)) + 1])
                    cut = rng.randrange(there + 1)
                    with suppress(InvalidValueError):  # fewer texts than are in the files
                        self.go(records[:there], names, cut, rng.random() < 0.5)
                    if grows and rng.random() < 0.3:
                        with suppress(InvalidValueError):
                            self.go(records[:there], names, None, False)
                self.go(records, names, None, False)
                found = {p: p.read_bytes() for p in Path().iterdir() if "manifest" not in p.name}
                assert found == whole, (one, names)
                for path in Path().iterdir():
                    path.unlink()

    @pytest.mark.real_model
    @pytest.mark.slow
    def test_the_embedded_model(self, run: Run, default_llm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "EVERY", 3)
        texts = b"The cat sat on the mat.\nNo idea\nx = fib(10)\nGuten Tag, Frau Schmidt!\n\nyes\n"
        args = ("score", "--lines", "--bytes", "--out")
        fine(run(*args, "x.jsonl", stdin=texts, model=default_llm))
        whole = Path("x.jsonl").read_bytes()
        added = files.Files.add
        for stop in (1, 4):

            def add(self: Any, result: Any, stop: int = stop) -> None:
                if self.totals.texts == stop:
                    raise KeyboardInterrupt
                added(self, result)

            monkeypatch.setattr(files.Files, "add", add)
            assert run(*args, "y.jsonl", stdin=texts, model=default_llm).code == 130
        monkeypatch.setattr(files.Files, "add", added)
        fine(run(*args, "y.jsonl", stdin=texts, model=default_llm))
        assert Path("y.jsonl").read_bytes() == whole


class TestOthers:
    @pytest.mark.parametrize("count", [2, 5])
    def test_more_texts_at_the_end(self, run: Run, toy: Any, count: int) -> None:
        """After whole batches; and after a part of one, which is scored again with what makes it whole."""
        fine(run(*line("words"), stdin=b"".join(TEXTS.splitlines(True)[:count]), model=toy))
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
from genlm.bytes.cli.scoring.files import Files
from toy import TOY, ToyLM

files.EVERY = 2
llm = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)
genlm.bytes.models.load_model = lambda *_, **__: llm
from genlm.bytes.cli import main
add = files.Files.add

def slowly(self, result):
    if self.totals.texts == 5:
        self.outputs[0].append(b"half a ro")
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
