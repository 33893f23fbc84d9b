"""`score` on small models: where texts come from, what is written of them where, what is refused."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import Run, Terminal, events, fine
from toy import TOY, ToyLM

from genlm.bytes import ByteLM
from genlm.bytes.cli.scoring.watching import Pace
from genlm.bytes.score import Score, ScoredText, TextRecord


def table(done: Any) -> list[dict[str, str]]:
    """The rows on stdout, after which come totals."""
    text = fine(done).decode()
    assert text.splitlines()[-1].startswith("# ")
    return rows(text[: text.rindex("# ")])


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), dialect="excel-tab", strict=True))


def refused(done: Any, code: int, *words: str) -> None:
    assert (done.code, done.err.count("\n")) == (code, 1), done.err
    assert done.err.startswith("genlm-bytes: ") and all(word in done.err for word in words), done.err


class TestTexts:
    def test_from_everywhere(self, run: Run, tmp_path: Path) -> None:
        text = "the cat\nand"
        (tmp_path / "text").write_text(text)
        file = str(tmp_path / "text")
        ways = {
            "1": run("score", text, "--json"),
            "-": run("score", "-", "--json", stdin=text.encode()),
            file: run("score", "--file", file, "--json"),
        }
        ways["-"] = run("score", "--json", stdin=text.encode())
        found = {name: events(done)[0] for name, done in ways.items()}
        assert all(document.pop("id") == name for name, document in found.items())
        assert all(document == found["1"] for document in found.values()) and found["1"]["text"] == text

    def test_several(self, run: Run, tmp_path: Path) -> None:
        for name in "ab":
            (tmp_path / name).write_text(f"the {name}\nand\n")
        files = [str(tmp_path / name) for name in "ab"]
        assert [row["id"] for row in table(run("score", "the", "and"))] == ["1", "2"]
        for args in (["-f", files[0], "-f", files[1]], ["-f", *files]):  # as `-f *.txt` becomes
            assert [row["id"] for row in table(run("score", *args))] == files
            found = table(run("score", *args, "--lines"))
            assert [row["id"] for row in found] == [f"{file}:{n}" for file in files for n in (1, 2)]

    def test_lines(self, run: Run, lm: ByteLM) -> None:
        found = events(run("score", "--lines", "--json", stdin=b"the\r\n\nan\xff"))[:-1]
        assert [event["id"] for event in found] == ["1", "2", "3"]
        assert [event["bytes"] for event in found] == [3, 0, 3]  # an empty line is a text among others
        assert found[1]["bits_per_byte"] is None and found[2]["bytes_base64"] == "YW7/"
        assert found[0]["logprob"] == pytest.approx(lm.score("the").logprob, abs=1e-3)

    def test_chomp(self, run: Run) -> None:
        assert events(run("score", "-", "--chomp", "--json", stdin=b"the\r\n"))[0]["bytes"] == 3

    @pytest.mark.parametrize("name, separator", [("t.tsv", "\t"), ("t.csv", ","), ("t.txt", "\t")])
    def test_a_column(self, run: Run, tmp_path: Path, name: str, separator: str) -> None:
        file = tmp_path / name
        with file.open("w", encoding="utf-8-sig", newline="") as out:
            writer = csv.writer(out, delimiter=separator)
            writer.writerows([["n", "text", "bytes"], ["x", 'a "b",\tc\nd', "1"], ["y", "", "2"]])
        args = ("score", "-f", str(file), "--column", "text")
        if separator == "\t":  # a quoted cell over lines may be a mistake: told of, unless it was asked for
            told = run(*args)
            assert told.code == 0 and "lines 2 to 3" in told.err and "--quotes none" in told.err
            args = (*args, "--quotes", "csv")
        found = table(run(*args))
        assert [(row["id"], row["n"], row["bytes_input"]) for row in found] == [
            ("1", "x", "1"),
            ("2", "y", "2"),
        ]
        assert [int(row["bytes"]) for row in found] == [10, 0]
        named = table(run(*args, "--id", "n"))
        assert [row["id"] for row in named] == ["x", "y"] and "n" not in named[0]

    def test_a_key(self, run: Run) -> None:
        given = b'{"text": "the", "n": {"a": 1}, "id": 7}\n\n{"text": "and", "n": null}'
        first, second, _ = events(run("score", "--field", "text", "--json", stdin=given))
        assert (first["id"], first["n"], first["id_input"]) == ("1", {"a": 1}, 7) and first["text"] == "the"
        assert (second["id"], second["n"]) == ("3", None)
        assert [row["n"] for row in table(run("score", "--field", "text", stdin=given))] == ['{"a": 1}', ""]

    @pytest.mark.parametrize(
        "args, stdin, words",
        [
            ([], b"", ["`text` is b''", "nothing to score"]),
            (["--lines"], b"", ["there is none"]),
            (["", "--quiet"], b"", ["`text` is b''"]),
            (["-f", "absent"], b"", ["`--file` is 'absent'", "No such file"]),
            (["-f", "."], b"", ["`--file` is '.'", "directory"]),
            (["--column", "b"], b"a,b\n1,2\n", ["`--column` is 'b'", "'a,b'", "does not end with .csv"]),
            (["the", "--spans", "absent"], b"", ["`--spans` is 'absent'"]),
            (["the", "--word-list", "absent"], b"", ["`--word-list` is 'absent'"]),
            (["--column", "text"], b"", ["`--column` is 'text'", "nothing"]),
            (["--column", "text"], b"a\tb\n", ["`--column` is 'text'", "'a', 'b'"]),
            (["--column", "a", "--id", "c"], b"a\tb\n1\t2\n", ["`--id` is 'c'"]),
            (["--column", "a"], b"a\tb\n1\n", ["1 fields", "line 2"]),
            (["--column", "a"], b"a\ta\n1\t2\n", ["two columns"]),
            (["--column", "a"], b'a\n"b\n', ["is no table", "line 2", "never closed", "--quotes none"]),
            (["--column", "a"], b"a\nb\n\xff\n", ["is no UTF-8 in line 3"]),
            (["--field", "a"], b"{", ["is no JSON in line 1"]),
            (["--field", "a"], b"[1]", ["no JSON object in line 1"]),
            (["--field", "a"], b'{"b": 1}', ["`--field` is 'a'", "line 1"]),
            (["--field", "a"], b'{"a": 1}', ["must be a string"]),
            (["--field", "a"], b'{"a": "\\ud800"}', ["text '1'", "surrogate"]),
            (["--field", "a", "--id", "b"], b'{"a": ""}', ["`--id` is 'b'"]),
        ],
    )
    def test_no_texts(self, run: Run, args: list[str], stdin: bytes, words: list[str]) -> None:
        done = run("score", *args, stdin=stdin)
        refused(done, 1, *words)
        assert (done.out, done.loaded) == (b"", [])

    def test_later_in_a_table(self, run: Run) -> None:
        """What is before has been scored and written."""
        done = run("score", "--field", "a", stdin=b'{"a": "the"}\n{"a": "an", "b": 1}')
        refused(done, 1, "text '2'", "'b'", ".jsonl")
        assert len(done.out.splitlines()) == 2

    def test_nobody_types(self, run: Run) -> None:
        refused(run("score", typed=True), 2, "--file")

    def test_a_name_is_no_text(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("notes.txt").write_text("the")
        refused(run("score", "notes.txt"), 2, "--file notes.txt")


class TestCheck:
    def test_what_moves_is_told(self, run: Run) -> None:
        said = fine(run("score", "the né", "--words", "--check")).decode().splitlines()[-1]
        assert said.startswith("# read again at tolerance 0.0001: log-probabilities of texts moved by ")
        assert "surprisals moved by" in said and "% of these within the stated error" in said
        found = events(run("score", "the né", "--json", "--check", "--tolerance", "0.1"))[-1]["check"]
        assert found["tolerance"] == pytest.approx(0.02) and 0.0 <= found["text_mean"] <= found["text_most"]

    def test_only_with_a_tolerance(self, run: Run) -> None:
        refused(run("score", "a", "--check", "--threshold", "0.1", "--K", "3"), 2, "--check", "--K without")
        done = run("score", "a", "--check", "--K", "3")
        refused(done, 2, "--check", "--K without --tolerance has none: give one")
        assert "threshold" not in done.err  # which nobody has typed
        fine(run("score", "a", "--check", "--K", "3", "--tolerance", "0.01"))


class TestRows:
    def test_texts(self, run: Run, lm: ByteLM) -> None:
        (row,) = table(run("score", "the né", "--end", "--context", "in "))
        score = lm.score("the né", "in ", end=True)
        expected = {
            "bytes": 7,
            "chars": 6,
            "logprob": score.logprob,
            "bits_per_byte": score.bits_per_byte,
            "bits_per_char": score.bits_per_char,
            "slack": score.slack,
            "above_one": score.above_one,
            "error": score.error,
            "end": score.end,
        }
        assert row.pop("id") == "1"
        assert {k: float(v) for k, v in row.items()} == pytest.approx(expected, abs=1e-3)

    def test_bytes_and_characters(self, run: Run, lm: ByteLM) -> None:
        text = 'né"\n\t'
        score = lm.score(text)
        found = table(run("score", text, "--bytes", "--bits"))
        assert [row["byte"] for row in found] == [f"{byte:02x}" for byte in text.encode()]
        costs = [float(row["surprisal"]) for row in found]
        assert costs == pytest.approx(list(-score.logprobs / math.log(2)), abs=1e-3)
        found = table(run("score", text, "--chars", "--base", "10"))
        assert "".join(row["char"] for row in found) == text
        assert [int(row["offset"]) for row in found] == [0, 1, 3, 4, 5]
        costs = [float(row["surprisal"]) for row in found]
        assert costs == pytest.approx(list(-score.chars.logprobs / math.log(10)), abs=1e-3)

    def test_words(self, run: Run, lm: ByteLM) -> None:
        text = "the cat, and\tthe"
        for args, options in (
            ([], {}),
            (["--any-space", "--punctuation"], {"sep": None, "punctuation": True}),
            (["--boundary", "leading"], {"boundary": "leading"}),
            (["--sep", "t", "--marks", "c"], {"sep": "t", "punctuation": "c"}),
        ):
            found = table(run("score", text, "--words", "--bits", "--context", "a", *args))
            expected = lm.word_surprisal(text, context="a", **options).records()
            assert [row.pop("id") for row in found] == ["1"] * len(expected)
            for row, record in zip(found, expected, strict=True):
                del record["text"]
                assert row.pop("kind") == record.pop("kind") and row.pop("word") == record.pop("word")
                assert {k: float(v) for k, v in row.items()} == pytest.approx(record, abs=2e-3, nan_ok=True)

    @pytest.mark.parametrize("head", ["", "id\tstart\tend\n"])
    def test_spans(self, run: Run, lm: ByteLM, tmp_path: Path, head: str) -> None:
        spans = tmp_path / "spans.tsv"
        spans.write_text(f"{head}1\t0\t2\n1\t2\t4\n3\t1\t2\n")
        found = table(run("score", "née ", "the", "an", "--spans", str(spans)))
        assert [(row["id"], row["word"]) for row in found] == [("1", "né"), ("1", "e "), ("3", "n")]
        assert float(found[0]["surprisal"]) == pytest.approx(-lm.score("né").logprob, abs=1e-3)

    @pytest.mark.parametrize("head", ["", "id\tword\n"])
    def test_given_words(self, run: Run, tmp_path: Path, head: str) -> None:
        words = tmp_path / "words.tsv"
        words.write_text(f"{head}1\t日\n1\t本\n")
        found = table(run("score", "日本語", "--word-list", str(words), "--sep", ""))
        assert [(row["kind"], row["word"], row["start"]) for row in found] == [
            ("word", "日", "0"),
            ("word", "本", "1"),
        ]

    def test_impossible(self, run: Run) -> None:
        args = ("score", "ab", "azb", "--on-impossible", "inf")
        toy = ToyLM(TOY, eos=6)
        costs = [row["surprisal"] for row in table(run(*args, "--chars", model=toy))]
        assert costs[3:] == ["inf", "nan"] and all(math.isfinite(float(cost)) for cost in costs[:3])
        _, second, total = events(run(*args, "--json", model=toy))
        assert second["surprisals"][1:] == [None, None] and total["logprob"] is None
        assert total["impossible"] == 1
        refused(run(*args[:3], model=toy), 1, "text '2'", "0x7a", "offset 1")

    @pytest.mark.parametrize(
        "kind, content, words",
        [
            ("spans", "1\t0\t9\n", ["text '1'", "out of range"]),
            ("spans", "1\t0\t2\n1\t1\t3\n", ["overlaps"]),
            ("spans", "1\t1\t1\n", ["is empty"]),
            ("spans", "1\t0\n", ["2 fields in line 1"]),
            ("spans", "1\t0\t1\n1\ta\tb\n", ["no offsets", "line 2"]),
            ("spans", "1\t0\t1\n2\t0\t1\n", ["not there: '2'"]),
            ("word-list", "1\tdog\n", ["text '1': `--word-list[0]` is", "does not occur"]),
            ("word-list", "1\tth\n", ["text '1'", "only inside other words"]),
        ],
    )
    def test_regions_that_are_none(
        self, run: Run, tmp_path: Path, kind: str, content: str, words: list[str]
    ) -> None:
        file = tmp_path / "regions.tsv"
        file.write_text(content)
        refused(run("score", "the", f"--{kind}", str(file)), 1, *words)


class TestTotals:
    def test_line(self, run: Run, lm: ByteLM) -> None:
        last = fine(run("score", "thé", "an", "--bits")).decode().splitlines()[-1]
        score = sum(s.bits for s in lm.score(["thé", "an"]))
        said, rate = last.split("; ")
        assert said == (
            f"# 2 texts, 6 bytes, 5 characters: log-probability {-score:.3f} bits, "
            f"{score / 6:.4f} bits per byte, {score / 5:.4f} bits per character"
        )
        assert rate.endswith(" bytes/s")

    def test_document(self, run: Run, lm: ByteLM) -> None:
        total = events(run("score", "the", "--json", "--words"))[-1]
        score = lm.score("the")
        assert (total["event"], total["texts"], total["bytes"]) == ("totals", 1, 3)
        assert total["logprob"] == pytest.approx(score.logprob, abs=1e-3)
        assert total["bits_per_char"] == pytest.approx(score.bits_per_char, abs=1e-3)


class TestTerminal:
    def show(self, run: Run, monkeypatch: pytest.MonkeyPatch, *args: str, **environment: str) -> str:
        terminal = Terminal()
        for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}.items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert run("score", "--quiet", *args).code == 0
        return terminal.written()

    def test_colours(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = self.show(run, monkeypatch, "the\x1b[2Jx\n")
        assert "\x1b[2J" not in shown and ";48;2;" in shown and "⏎" in shown
        *_, scale, totals = shown.splitlines()
        assert "5.55 nats and more" in scale and totals.startswith("1 text, 9 bytes")

    def test_words(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = self.show(run, monkeypatch, "the an", "of", "--words", "--bits")
        lines = shown.splitlines()
        assert "the" in lines[0] and "48;2;" in lines[0] and "an" in lines[1]
        assert lines[2] == "\x1b[2m2\x1b[0m"
        assert "20 bits and more" in lines[-2]

    def test_without_colours(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
            with monkeypatch.context() as patch:
                shown = self.show(run, patch, "the", **{name: value})
            assert "\x1b" not in shown and shown.startswith("id\tbytes\t")
            assert not shown.splitlines()[-1].startswith("#")


class TestMistakes:
    @pytest.mark.parametrize(
        "args",
        [
            ["--lines", "--column", "x"],
            ["--id", "x"],
            ["--words", "--chars"],
            ["--sep", ","],
            ["--bytes", "--punctuation"],
            ["--bits", "--base", "3"],
            ["--json", "--out", "x.tsv"],
            ["--overwrite"],
            ["-", "-"],
            ["--out", "x.tsv", "--html", "x.tsv"],
            ["--on-impossible", "skip"],
            ["--boundary", "both"],
        ],
    )
    def test_typing_mistakes(self, run: Run, args: list[str]) -> None:
        done = run("score", "the", *args)
        refused(done, 2, "--help")
        assert (done.out, done.loaded) == (b"", [])

    @pytest.mark.parametrize(
        "args, word",
        [
            (["--base", "1"], "`--base`"),
            (["--window", "3"], "`--window`"),
            (["--window", "20", "--overlap", "0"], "`--overlap`"),
            (["--words", "--end"], "`--end`"),
            (["--words", "--sep", ""], "`--sep`"),
            (["--words", "--sep", "\udcff"], "`--sep`"),
            (["--out", "x.csv"], "`--out` is 'x.csv'"),
            (["--out", "absent/x.tsv"], "no folder"),
        ],
    )
    def test_bad_values_are_found_before_a_model_is_loaded(
        self, run: Run, args: list[str], word: str
    ) -> None:
        done = run("score", "the", *args)
        refused(done, 1, word)
        assert (done.out, done.loaded) == (b"", [])

    def test_nothing_is_written_over_what_is_read(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "t.tsv"
        file.write_text("text\nthe\n")
        args = ("-f", str(file), "--column", "text", "--out", str(tmp_path / "." / "t.tsv"), "--overwrite")
        refused(run("score", *args), 2, "--out")
        assert file.read_text() == "text\nthe\n"

    def test_more_than_the_model_reads(self, run: Run, lm: ByteLM) -> None:
        """A window slides: no text is too long."""
        text = "the and " * 5
        found = events(run("score", text, "--json", "--window", "12", "--overlap", "4"))[0]
        assert found["logprob"] == pytest.approx(lm.score(text, window=12, overlap=4).logprob, rel=1e-4)
        assert found["logprob"] != pytest.approx(lm.score(text).logprob, rel=1e-4)


class TestProgress:
    def test_for_whoever_watches(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "t").write_text("the\nan\n")
        for quiet, watched in ((), True), (("--quiet",), False):
            terminal = Terminal()
            monkeypatch.setattr(sys, "stderr", terminal)
            out = tmp_path / f"{watched}.tsv"
            done = run("score", "-f", str(tmp_path / "t"), "--lines", "--out", str(out), *quiet)
            assert done.code == 0 and done.out.startswith(b"2 texts") and done.out.count(b"\n") == 1
            assert ("2 texts, 5 bytes, " in terminal.written()) == watched
            assert bool(terminal.written()) == watched

    def test_the_clock_starts_when_the_model_is_there(self) -> None:
        pace = Pace([], False)
        found = ScoredText(TextRecord("", b"ab"), Score(b"ab", np.zeros(2)))

        def results() -> Iterator[ScoredText]:
            assert pace.rate is None  # here a model is loaded
            pace.start()
            yield found

        assert list(pace.follow(results())) == [found]
        assert pace.rate is not None and pace.rate > 0


class TestFiles:
    def test_formats_agree(self, run: Run, tmp_path: Path) -> None:
        given = b'n\ttext\n"a\tb"\tthe n\xc3\xa9\nc\t\n\td\n'
        args = ("--column", "text", "--bits")
        for end in ("tsv", "jsonl", "npz"):
            asked = ("--words", "--rank", "--budget", "2", "--out", str(tmp_path / f"x.{end}"))
            done = run("score", *args, *asked, stdin=given)
            assert fine(done).startswith(b"3 texts, 8 bytes, 7 characters: ")
        by_rows = rows((tmp_path / "x.tsv").read_text())
        documents = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
        regions = [region for document in documents for region in document["regions"]]
        with np.load(tmp_path / "x.npz") as arrays:
            z = dict(arrays)
        assert [row["word"] for row in by_rows] == [r["word"] for r in regions] == ["the", "né", "d"]
        costs = [float(row["surprisal"]) for row in by_rows]
        assert costs == pytest.approx([r["surprisal"] for r in regions], rel=1e-7)
        assert z["region_surprisal"].tolist() == [r["surprisal"] for r in regions]
        ranks = [int(row["rank"]) for row in by_rows]
        assert ranks == [r["rank"] for r in regions] == z["region_rank"].tolist() and min(ranks) >= 1
        assert [row["n"] for row in by_rows] == ["a\tb", "a\tb", ""]
        assert z["id"].tolist() == ["1", "2", "3"] and z["column_n"].tolist() == ["a\tb", "c", ""]
        assert z["offset"].tolist() == [0, 7, 7, 8] and z["text"].tobytes() == "the néd".encode()
        assert z["region_text"].tolist() == [0, 0, 2] and z["region_end"].tolist() == [3, 6, 1]
        totals = [-x / math.log(2) for x in (z["logprob"][:7].sum(), 0.0, z["logprob"][7])]
        assert [-d["logprob"] for d in documents] == pytest.approx(totals)
        assert np.isnan(z["end"]).all() and z["slack"].shape == (3,)

    def test_bytes_that_are_no_text(self, run: Run, tmp_path: Path) -> None:
        for end in ("tsv", "jsonl", "npz"):
            fine(run("score", "-", "--words", "--out", str(tmp_path / f"x.{end}"), stdin=b"a\xff b\r"))
        assert [row["word"] for row in rows((tmp_path / "x.tsv").read_bytes().decode())] == ["a\\xff", "b\r"]
        found = json.loads((tmp_path / "x.jsonl").read_text())
        assert found["text"] == "a\ufffd b\r" and found["bytes_base64"] == "Yf8gYg0="
        with np.load(tmp_path / "x.npz") as arrays:
            assert arrays["text"].tobytes() == b"a\xff b\r"

    def test_a_page(self, run: Run, tmp_path: Path) -> None:
        page = tmp_path / "x.html"
        args = ("score", "<b>\n", "az", "--html", str(page), "--on-impossible", "inf")
        toy = ToyLM([b"<", b"b", b">", b"\n", b"a", b"<e>"], eos=5)
        assert fine(run(*args, model=toy)).startswith(b"2 texts")
        text = page.read_text(encoding="utf-8")
        assert text.count("<section>") == 2 and "&lt;</span>" in text and "<b>" not in text
        assert "⏎\n</span>" in text and 'title="z at byte 1: impossible">z<' in text
        assert text.endswith("</html>\n") and "http" not in text and "</footer>" in text
        assert list(tmp_path.iterdir()) == [page]
        fine(run(*args, "--words", model=toy))  # a page alone is made anew
        assert page.read_text(encoding="utf-8").count("<section>") == 2 != text.count("by tokens")
