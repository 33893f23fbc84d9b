"""What is wrong with any file of a command line is said before a model is loaded; nothing is a traceback."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cli_runner import REPOSITORY, Run, Terminal, fine
from toy import TOY, ToyLM

from genlm.bytes.cli.app import COMMANDS
from genlm.bytes.cli.streams import NotOpen


@pytest.fixture
def toy() -> Any:
    return ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(done: Any, *words: str) -> None:
    assert done.code in (1, 2) and done.err.count("\n") == 1 and done.err.startswith("genlm-bytes: "), (
        done.err
    )
    assert (done.out, done.loaded) == (b"", []) and all(word in done.err for word in words), done.err


class TestBeforeTheModel:
    @pytest.mark.parametrize("way", ["file", "stdin", "typed"])
    @pytest.mark.parametrize(
        "kind, content, words",
        [
            ("word-list", "item\tword\n1\tab\n", ["not there: 'item'"]),  # a head of the user's own
            ("word-list", "1\tab\n2\tbb\n9\tab\n", ["not there: '9'"]),
            ("word-list", "1\tab\n2\tno\n", ["text '2'", "does not occur"]),
            ("word-list", "1\tab\n2\tb\n", ["text '2'", "only inside other words"]),
            ("word-list", "1\tab\tx\n", ["3 fields in line 1"]),
            ("word-list", "1,ab\n", ["1 fields in line 1"]),
            ("spans", "1\t0\t1\n2\t1\t9\n", ["text '2'", "out of range"]),
            ("spans", "id\tfrom\tto\n1\t0\t1\n1\tx\t2\n", ["no offsets", "line 3"]),
        ],
    )
    def test_lists(self, run: Run, toy: Any, kind: str, content: str, words: list[str], way: str) -> None:
        Path("list").write_text(content)
        Path("texts").write_text("ab\nbb a\n")
        for out in ([], ["--out", "x.tsv"], ["--out", "x.npz"], ["--json"]):
            where = {
                "file": ["-f", "texts", "--lines"],
                "stdin": ["-", "--lines"],
                "typed": ["ab", "bb a"],
            }[way]
            done = run(
                "score", *where, f"--{kind}", "list", *out, stdin=Path("texts").read_bytes(), model=toy
            )
            refused(done, *words)
            assert not [*Path().glob("x.*")]

    @pytest.mark.parametrize("most", [1, 1 << 20])
    def test_lists_and_stdin(self, run: Run, toy: Any, monkeypatch: Any, most: int) -> None:
        """It is read twice, however long it is."""
        monkeypatch.setattr("genlm.bytes.cli.scoring.source.IN_MEMORY", most)
        Path("list").write_text("1\tab\n40\tbb\n")
        stdin = b"ab a\n" + b"\n" * 38 + b"a bb\n"
        out = fine(run("score", "--lines", "--word-list", "list", stdin=stdin, model=toy)).decode()
        assert [line.split("\t")[:4] for line in out.splitlines()[1:-1]] == [
            ["1", "0", "word", "ab"],
            ["40", "0", "word", "bb"],
        ]

    @pytest.mark.parametrize(
        "name, content, words",
        [
            ("t.tsv", "text\tn\nab\t1\nab\n", ["1 fields in the row of line 3"]),
            ("t.tsv", 'text\tn\nab\t1\n"ab\t1\n', ["line 3"]),
            ("t.csv", 'text,n\nab,1\n"a"b,1\n', ["line 3"]),
            ("t.jsonl", '{"text": "ab"}\n{"text": "ab", "n": 1}\n', ["text '2'", "'n'"]),
            ("t.jsonl", '{"text": "ab"}\n{"text": 7}\n', ["text in line 2"]),
            ("t.jsonl", '{"text": "ab"}\n{"text": \n', ["no JSON in line 2"]),
        ],
    )
    def test_tables(self, run: Run, toy: Any, name: str, content: str, words: list[str]) -> None:
        Path(name).write_text(content)
        option = "--field" if name.endswith("jsonl") else "--column"
        refused(run("score", "-f", name, option, "text", "--out", "x.tsv", model=toy), *words)
        assert sorted(p.name for p in Path().iterdir()) == [name]


STRANGE = {
    "missing": None,
    "folder": "folder",
    "empty": b"",
    "bom": b"\xef\xbb\xbf",
    "utf16": "text\tn\nab\t1\n".encode("utf-16"),
    "nul": b"text\tn\n\0\t1\n",
    "crlf": b"text\tn\r\nab\t1\r\n",
    "cr": b"text\tn\rab\t1\r",
    "binary": bytes(range(256)) * 4,
    "quote": b'"',
    "brace": b"{",
    "number": b"1\n",
    "deep": b'{"text": ' + b"[" * 200_000,
    "long": b"text\tn\nab\t" + b"1" * 100_000 + b"\n",
    "\u202e\x1b[31mname\udcff\n": b"a",
}
OPTIONS = [
    ["score", "--file", "NAME"],
    ["score", "--file", "NAME", "--lines"],
    ["score", "--file", "NAME", "--column", "text"],
    ["score", "--file", "NAME", "--column", "text", "--quotes", "none"],
    ["score", "--file", "NAME", "--field", "text"],
    ["score", "ab", "--spans", "NAME"],
    ["score", "ab", "--word-list", "NAME"],
    ["score", "ab", "--out", "NAME"],
    ["score", "ab", "--html", "NAME"],
    ["next", "--file", "NAME"],
    ["watch", "--file", "NAME", "--all"],
    ["watch", "ab", "--html", "NAME"],
    ["complete", "--file", "NAME", "--max-bytes", "1"],
    ["complete", "ab", "--json-schema", "NAME", "--max-bytes", "1"],
    ["chat", "--file", "NAME", "--max-bytes", "1"],
]
PAIRS = [
    pytest.param(name, options, marks=[] if (i + j) % 8 == 0 else pytest.mark.thorough, id=f"{i}-{j}")
    for i, name in enumerate(STRANGE)
    for j, options in enumerate(OPTIONS)
    if name != "deep" or "--field" in options
]


class TestByteOrderMark:
    """It is no text where a file holds lines, a table or a list. A file that is one text keeps its bytes."""

    @pytest.mark.parametrize(
        "content, options",
        [
            ("ab\nb\n", ["--file", "NAME", "--lines", "--bytes"]),
            ("ab\nb\n", ["--file", "NAME", "--lines", "--chomp", "--words"]),
            ("text\tn\nab\t1\n", ["--file", "NAME", "--column", "text"]),
            ("text\tn\nab\t1\n", ["--file", "NAME", "--column", "text", "--quotes", "none"]),
            ('{"text": "ab"}\n', ["--file", "NAME", "--field", "text"]),
            ("1\t0\t1\n", ["ab", "--spans", "NAME"]),
            ("1\tab\n", ["ab", "--word-list", "NAME"]),
        ],
    )
    def test_files(self, run: Run, toy: Any, content: str, options: list[str]) -> None:
        said = []
        for encoding in ("utf-8", "utf-8-sig"):
            Path("given.txt").write_bytes(content.encode(encoding))
            done = run("score", *("given.txt" if arg == "NAME" else arg for arg in options), model=toy)
            said.append(fine(done).rsplit(b";", 1)[0])  # what follows is the rate
        assert said[0] == said[1]

    def test_a_pipe_and_a_file_of_nothing_else(self, run: Run, toy: Any) -> None:
        mark = "\ufeff".encode()
        assert fine(run("score", "--lines", stdin=mark + b"ab\n" + b"b", model=toy)).count(b"\n") == 4
        refused(run("score", "--lines", stdin=mark, model=toy), "there is none")

    def test_one_text(self, run: Run) -> None:
        llm = ToyLM([*(bytes([b]) for b in range(256)), b"<e>"], seed=1, eos=256)
        Path("x.txt").write_bytes("\ufeffab".encode())
        assert b"# 1 text, 5 bytes" in fine(run("score", "--file", "x.txt", model=llm))

    def test_a_schema(self, run: Run) -> None:
        llm = ToyLM([*(bytes([b]) for b in range(256)), b"<e>"], seed=1, eos=256)
        Path("x.json").write_bytes('\ufeff{"const": 7}'.encode())
        assert fine(run("complete", "a", "--json-schema", "x.json", "--max-bytes", "1", model=llm)) == b"7"


class TestStrangeFiles:
    @pytest.mark.parametrize("name, options", PAIRS)
    def test_every_option_that_takes_a_file(self, run: Run, toy: Any, name: str, options: list[str]) -> None:
        """It is done, or refused in a line that no terminal obeys."""
        content = STRANGE[name]
        if isinstance(content, bytes):
            Path(name).write_bytes(content)
        elif content is not None:
            Path(name).mkdir()
        done = run(*(name if arg == "NAME" else arg for arg in options), model=toy)
        assert done.code in (0, 1, 2), done.err
        if done.code:
            assert done.err.count("\n") == 1 and done.err.startswith("genlm-bytes: "), done.err
            assert done.err[:-1].isprintable() and "Traceback" not in done.err


class TestTerminal:
    EVIL = "a\x1b[31m\x9b2J\u202e\u2028b"

    def test_rows_and_documents(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Text of the user's, also where there are no colours, and the names of texts and columns."""
        toy = ToyLM([*(bytes([b]) for b in range(256)), b"<e>"], seed=1, eos=256)
        Path("t.tsv").write_text(
            f"id\ttext\t{self.EVIL}\n{self.EVIL}\t{self.EVIL}\t{self.EVIL}\n", newline=""
        )
        for args in (["--words"], ["--json"], ["--words", "--json"], []):
            for term in ("dumb", "xterm-256color"):
                terminal = Terminal()
                with monkeypatch.context() as patch:
                    patch.setenv("TERM", term)
                    patch.setattr(sys, "stdout", terminal)
                    done = run(
                        "score", "-f", "t.tsv", "--column", "text", "--id", "id", "-q", *args, model=toy
                    )
                    assert done.code == 0
                shown = terminal.written()
                assert not {"\x9b", "\u202e", "\u2028"} & set(shown) and "\x1b[31m" not in shown
                assert "u202e" in shown

    def test_what_was_typed(self, run: Run) -> None:
        for args in (
            [self.EVIL],
            [f"--{self.EVIL}"],
            ["score", "-f", self.EVIL],
            ["next", "a", "--K", self.EVIL],
        ):
            done = run(*args)
            assert done.code in (1, 2) and done.err[:-1].isprintable()
        assert run("score", "a", "--out", f"{self.EVIL}.tsv/x.tsv").err[:-1].isprintable()


def process(*args: str, shell: str = "", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command as a process, on a model of two tokens; with a shell, in its hands."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import genlm.bytes.models; from toy import FixedLM\n"
        "llm = FixedLM([b'a', b'<e>'], eos=1, rule=lambda context: [0.5, 0.5])\n"
        "genlm.bytes.models.load_model = lambda *_, **__: llm\n"
        "from genlm.bytes.cli import main; main()"
    )
    Path("program.py").write_text(program)
    command = [sys.executable, "program.py", *args]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    if shell:
        command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *command]
    return subprocess.run(command, capture_output=True, env=environment, **options)


class Full(io.RawIOBase):
    """A device without room; or, by its number, a pipe that nobody reads."""

    def __init__(self, number: int) -> None:
        self.number = number

    def writable(self) -> bool:
        return True

    def write(self, _: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))


class TestStreams:
    @pytest.mark.parametrize("args", [["score", "ab"], ["score", "ab", "--json"], ["--version"]])
    def test_stdout_that_takes_nothing(self, run: Run, toy: Any, args: list[str], monkeypatch: Any) -> None:
        for number, said in ((errno.ENOSPC, "No space left"), (errno.EIO, "error"), (errno.EPIPE, "")):
            full = io.TextIOWrapper(io.BufferedWriter(Full(number)), encoding="utf-8")
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", full)
                done = run(*args, model=toy)
            assert done.code == 1 and said in done.err and done.err.count("\n") == bool(said), done.err
            full.buffer.raw.write = len  # type: ignore[attr-defined, method-assign]
            with suppress(OSError):
                full.close()

    def test_closed_streams(self, run: Run, toy: Any, monkeypatch: Any) -> None:
        """What was asked for in a file is there all the same."""
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", None)
            done = run("score", "ab", "--out", "x.tsv", model=toy)
        assert done.code == 1 and "stdout cannot be written: it is closed" in done.err
        assert Path("x.tsv").read_text().count("\n") == 2
        stream = NotOpen()
        for use in (stream.read, lambda: list(stream), lambda: stream.buffer.write(b"")):
            with pytest.raises(OSError, match="closed"):
                use()

    @pytest.mark.thorough
    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_in_a_shell(self) -> None:
        done = process("score", "--lines", shell="| head -1", input=b"aa\n" * 300)
        assert (done.returncode, done.stderr) == (1, b"") and done.stdout.startswith(b"id\t")
        for args in (("score", "aa"), ("score", "aa", "--out", "y.tsv")):
            done = process(*args, shell="> /dev/full")
            assert done.returncode == 1 and done.stderr.count(b"\n") == 1
            assert b"stdout cannot be written: No space left" in done.stderr
        assert Path("y.tsv").read_text().count("\n") == 2
        # No output gets the number of a closed stream, nor what libraries write there.
        done = process("score", "aa", "--out", "x.tsv", shell="<&- >&- 2>&-")
        assert done.returncode == 1 and Path("x.tsv").read_text().count("\n") == 2
        done = process("score", "-", shell="<&-")
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr


class TestEveryCommand:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_wrong_types(self, run: Run, command: str) -> None:
        for args in (
            ["--K", "x"],
            ["--K", "-1"],
            ["--tolerance", "nan"],
            ["--threshold", "2"],
            ["--nothing"],
        ):
            done = run(command, *(["a"] if command not in ("demo", "info") else []), *args)
            refused(done)
