"""What people's tables hold: quotes of all kinds, numbers as they were written, names of ours, blank rows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import Run, fine
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyLM

from genlm.bytes.cli.scoring.jsontext import JsonText, dumps, members
from genlm.bytes.cli.scoring.rows import visible
from genlm.bytes.cli.scoring.source import Source
from genlm.bytes.cli.scoring.tables import Quotes, plain_rows, table_rows


@pytest.fixture
def toy() -> Any:
    """It reads every byte, at little cost."""
    return ToyLM([*(bytes([b]) for b in range(256)), b"<e>"], seed=1, eos=256)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def texts(content: str | bytes, quotes: Quotes = Quotes.auto, name: str = "t.tsv") -> list[str]:
    told: list[str] = []
    content = content if isinstance(content, bytes) else content.encode()
    found = table_rows(Source(name, typed=content), "text", None, "", quotes, told.append)
    return [record.text.decode() for record in found] + [f"told: {one}" for one in told]


def read(name: str) -> list[dict[str, str]]:
    text = Path(name).read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), dialect="excel-tab"))


class TestQuotes:
    @pytest.mark.parametrize(
        "content, found",
        [
            ('text\tn\n"a ""b"""\t1\n', ['a "b"']),  # pandas, readr, Excel
            ('"text"\t"n"\n"a b"\t1\n', ["a b"]),  # R
            ('n\ttext\n1\ta "b" c\n2\t5" nail\n', ['a "b" c', '5" nail']),  # inside a cell it is a letter
            ('text\tn\n"a\tb"\t1\n', ["a\tb"]),
            ("text\tn\r\n'a'\t1\r\n", ["'a'"]),
        ],
    )
    def test_as_people_write(self, content: str, found: list[str]) -> None:
        assert texts(content) == found == texts(content, Quotes.csv)

    @pytest.mark.parametrize(
        "content, line",
        [
            ('n\ttext\n1\t"Hello there\n2\tShe left.\n', "begins in line 2"),
            ('n\ttext\n1\t"Hello there\n2\tShe left."\n', "lines 2 to 3"),
            ('n\ttext\n0\tx\n1\t"Hello\n2\tthere\n3\tyes"\n4\ty\n', "lines 3 to 5"),
            ('n\ttext\n1\tNo.\n2\t"Yes," he said.\n', "begins in line 3"),
            ('n\ttext\n1\t"He said \\"no\\""\n', "begins in line 2"),  # R's write.table, as it comes
            ('text\n"a\n', "begins in line 2"),
        ],
    )
    def test_where_it_is_doubtful_nothing_is_guessed(self, content: str, line: str) -> None:
        with pytest.raises(ValueError, match=line) as caught:
            texts(content)
        assert "--quotes none" in str(caught.value)
        rows = [row.split("\t")[-1] for row in content.splitlines()[1:]]
        assert texts(content, Quotes.none) == rows

    def test_over_lines(self) -> None:
        content = 'n\ttext\n1\t"a\nb"\n2\tc\n3\t"d\ne"\n'
        first, second, third, told = texts(content)
        assert (first, second, third) == ("a\nb", "c", "d\ne") and "lines 2 to 3" in told
        assert texts(content, Quotes.csv) == ["a\nb", "c", "d\ne"]
        assert texts(content.replace("\t", ","), name="t.csv") == ["a\nb", "c", "d\ne"]

    @given(st.lists(st.lists(st.text(st.sampled_from('a"\t\n\r, é')), min_size=2, max_size=2), max_size=6))
    def test_what_is_written_is_read(self, rows: list[list[str]]) -> None:
        """By RFC 4180, whatever the cells hold; with tabs where that is asked for."""
        for name, separator in (("t.csv", ","), ("t.tsv", "\t")):
            out = io.StringIO()
            csv.writer(out, delimiter=separator).writerows([["n", "text"], *rows])
            content = out.getvalue().encode()
            assert texts(content, Quotes.csv, name) == [row[1] for row in rows]

    def test_lists_of_words_and_spans(self, run: Run, toy: Any) -> None:
        """Quotes are letters of the word."""
        Path("words").write_text('1\t"Yes"\n1\t"no\n2\tit"\n')
        Path("t").write_text('He said "Yes" and "no\nit"\n')
        done = run("score", "-f", "t", "--lines", "--word-list", "words", "--json", model=toy)
        found = [json.loads(line) for line in fine(done).splitlines()]
        assert [[r["word"] for r in one["regions"]] for one in found[:2]] == [['"Yes"', '"no'], ['it"']]

    def test_plain_rows(self) -> None:
        found = list(plain_rows(Source("x", typed=b'\xef\xbb\xbf1\t"a\r\n\n2\tb"\tc')))
        assert found == [(1, ["1", '"a']), (3, ["2", 'b"', "c"])]

    def test_the_option(self, run: Run) -> None:
        done = run("score", "a", "--quotes", "none")
        assert (done.code, done.loaded) == (2, []) and "--column" in done.err

    def test_another_encoding(self) -> None:
        for encoding, word in (("utf-16", "UTF-16"), ("utf-16-be", "line 1"), ("latin-1", "line 2")):
            with pytest.raises(ValueError, match=word):
                texts("text\té\ncafé\t1\n".encode(encoding) if encoding != "latin-1" else b"text\n\xe9\n")


class TestBlankRows:
    def test_one_column(self) -> None:
        """It is an empty text, and has its number."""
        assert texts("text\na\n\nb\n\n") == ["a", "", "b", ""] == texts("text\r\na\r\n\r\nb\r\n\r\n")
        assert texts("\n\ntext\na\n") == ["a"]
        assert texts('text\n""\nb\n') == ["", "b"]

    def test_more_columns(self) -> None:
        for quotes in Quotes:
            assert texts("n\ttext\n1\ta\n\n2\tb\n", quotes) == ["a", "b"]


WRITTEN = [
    *("NaN", "Infinity", "-Infinity", "-0.0", "1.0", "1e5", "1E+05", "1e999"),
    *("0.12345678901234567890", "12" * 3000, "true", "false", "null", "[]", "[1,  2]"),
    *('{"b": 1.50, "a": [NaN, 1e3], "b": 2}', '"a\\u00e9\\n"', '"é\\ud800"'),
]


class TestAsWritten:
    @pytest.mark.parametrize("written", WRITTEN)
    def test_json(self, run: Run, toy: Any, written: str) -> None:
        given = f'{{"v": {written} , "text": "ab", "w":"x"}}\n'.encode()
        args = ("score", "--field", "text")
        for end in ("jsonl", "tsv", "npz"):
            fine(run(*args, "--out", f"x.{end}", stdin=given, model=toy))
        assert f'"v": {written}, "w": "x", "bytes"' in Path("x.jsonl").read_text()
        value = JsonText(written)
        (row,) = read("x.tsv")
        shown = {"null": "", '"é\\ud800"': "é\\ud800", '"a\\u00e9\\n"': "aé\n"}.get(written, written)
        assert row["v"] == shown and row["w"] == "x"
        with np.load("x.npz") as arrays:
            assert arrays["column_v"].tolist() == [shown]
        out = fine(run(*args, "--json", stdin=given, model=toy)).decode()
        assert f'"v": {written},' in out
        assert fine(run(*args, "--out", "x.jsonl", stdin=given, model=toy))  # the same line goes on
        assert visible(value.name()) == (shown or "null")

    def test_names(self, run: Run, toy: Any) -> None:
        given = b"".join(b'{"text": "a", "n": %s}\n' % n for n in (b"7", b"1.50", b"true", b"null", b'"x"'))
        out = fine(run("score", "--field", "text", "--id", "n", stdin=given, model=toy)).decode()
        assert [line.split("\t")[0] for line in out.splitlines()[1:-1]] == ["7", "1.50", "true", "null", "x"]

    def test_cells_of_tables(self, run: Run, toy: Any) -> None:
        cells = ["1.0", "0.10", "NaN", "NA", "true", "007", " a ", "", "'", "é", "1e5", "None"]
        given = "v\ttext\n" + "".join(f"{cell}\ta\n" for cell in cells)
        fine(run("score", "--column", "text", "--out", "x.tsv", stdin=given.encode(), model=toy))
        assert [row["v"] for row in read("x.tsv")] == cells

    @given(
        st.dictionaries(st.text(), st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text()))
    )
    def test_members(self, values: dict[str, Any]) -> None:
        for ascii_only in (False, True):
            found = members(f" {json.dumps(values, ensure_ascii=ascii_only)}\r\n")
            written = {k: json.dumps(v, ensure_ascii=ascii_only) for k, v in values.items()}
            assert found == written and members(dumps(dict(found))) == found

    @pytest.mark.parametrize(
        "line",
        [
            *(
                "",
                "{",
                "{}x",
                '{"a"}',
                '{"a":}',
                '{"a": 1,}',
                '{"a": 1 "b": 2}',
                "{a: 1}",
                '{"a": 01}',
                "nope",
            ),
            *('{"a": 1, "a": 2}', '{"a": "\t"}', '{"a": ' + "[" * 10**5, "{,}"),
        ],
    )
    def test_no_json(self, run: Run, line: str) -> None:
        done = run("score", "--field", "a", stdin=f'{{"a": "x"}}\n{line}.\n'.encode())
        assert (done.code, done.err.count("\n")) == (1, 1) and "in line 2" in done.err

    @pytest.mark.parametrize("line", ["1", "[]", '"a"', "null", "NaN"])
    def test_no_object(self, run: Run, line: str) -> None:
        with pytest.raises(TypeError):
            members(line)
        assert "no JSON object in line 1" in run("score", "--field", "a", stdin=line.encode()).err


class TestNames:
    def test_our_own_results_again_and_again(self, run: Run, toy: Any) -> None:
        Path("0.tsv").write_text("t0\tt1\tt2\tt3\tlogprob\tlogprob_input\na\tb\ta\tb\tx\ty\n")
        for i in range(4):
            fine(run("score", "-f", f"{i}.tsv", "--column", f"t{i}", "--out", f"{i + 1}.tsv", model=toy))
        head = Path("4.tsv").read_text().split("\n")[0].split("\t")
        assert len(set(head)) == len(head)
        assert {"logprob", "logprob_input", "logprob_input_input", "id_input"} < set(head)
        (row,) = read("4.tsv")
        assert row["logprob" + "_input" * 4] == "x" and row["logprob" + "_input" * 5] == "y"
        fine(run("score", "ab", "--out", "0.jsonl", model=toy))
        for i in range(3):
            fine(run("score", "-f", f"{i}.jsonl", "--field", "text", "--out", f"{i + 1}.jsonl", model=toy))
        found = json.loads(Path("3.jsonl").read_text())
        first = json.loads(Path("0.jsonl").read_text())
        assert found["logprob_input_input_input"] == first["logprob"] and found["text"] == "ab"

    def test_a_name_that_only_ends_so_stays(self, run: Run, toy: Any) -> None:
        out = fine(
            run("score", "--column", "text", stdin=b"text\tmy_input\tinput\t_input\na\t1\t2\t3\n", model=toy)
        )
        assert out.decode().split("\n")[0].split("\t")[:4] == ["id", "my_input", "input", "_input"]

    def test_arrays_of_awkward_names(self, run: Run, toy: Any) -> None:
        given = json.dumps({"text": "a", "a\0b": "1", "a": "2", "\ud800": "3", "x/y": "4"}).encode()
        fine(run("score", "--field", "text", "--out", "x.npz", stdin=given, model=toy))
        with np.load("x.npz") as arrays:
            columns = {name: arrays[name].tolist() for name in arrays if name.startswith("column_")}
        assert sorted(columns.values()) == [["1"], ["2"], ["3"], ["4"]] and columns["column_a"] == ["2"]
