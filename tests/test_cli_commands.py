"""The commands on small models: what they write where, what they refuse, how they end."""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from rich.console import Console
from toy import TOY, FixedLM, ToyLM

import genlm.bytes
from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.cli import app, demo, main
from genlm.bytes.cli import watch as watching
from genlm.bytes.cli.groups import grouped
from genlm.bytes.cli.sampling import Method, Unit
from genlm.bytes.cli.shared import Shared
from genlm.bytes.generate.options import METHODS
from genlm.bytes.models import describe_model
from genlm.bytes.show import safe_text

REPOSITORY = Path(genlm.bytes.__file__).parents[2]
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


@pytest.fixture(scope="module")
def llm() -> Any:
    """A small random model with a chat template."""
    from genlm.backend.llm import AsyncTransformer

    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = TEMPLATE
    return AsyncTransformer(tiny.model("llama"), tokenizer)


class Terminal(io.TextIOWrapper):
    """A standard stream that says it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(llm: Any, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> Run:
    """The command line on that model, in this process: its exit code, stdout, stderr, how it loaded."""
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, stdin: bytes = b"", typed: bool = False, model: Any = llm) -> SimpleNamespace:
        loaded: list[tuple[Any, dict[str, Any]]] = []

        def load(name: Any, **options: Any) -> Any:
            loaded.append((name, options))
            return model

        monkeypatch.setattr("genlm.bytes.models.load_model", load)
        piped = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", Terminal() if typed else piped)
        monkeypatch.setattr(sys, "argv", ["genlm-bytes", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsysbinary.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err.decode(), loaded=loaded)

    return run


def fine(done: SimpleNamespace) -> bytes:
    """Stdout of a command that went well and had nothing to remark."""
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def document(done: SimpleNamespace) -> dict[str, Any]:
    (line,) = fine(done).decode().splitlines()
    return json.loads(line)


def events(done: SimpleNamespace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fine(done).decode().splitlines()]


def exact(document: dict[str, Any]) -> bytes:
    return base64.b64decode(document["bytes_base64"])


@pytest.fixture(scope="module")
def lm(llm: Any) -> Iterator[ByteLM]:
    with ByteLM(llm) as lm:
        yield lm


# --- examples -------------------------------------------------------------------------------------


def examples() -> list[str]:
    """Every line of the commands' help that is there to be typed."""
    found = []
    for command in app.COMMANDS.values():
        lines = (command.__doc__ or "").split("Examples:")[1].splitlines()
        found += [line.strip() for line in lines if line.strip()]
    return found


class TestExamples:
    def test_each_command_has_some(self) -> None:
        for name in app.COMMANDS:
            assert any(f"genlm-bytes {name}" in line for line in examples())

    @pytest.mark.parametrize("line", examples())
    def test_they_run(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
        """As typed, but in this process: the shell runs what stands before a `|`."""
        monkeypatch.chdir(tmp_path)
        Path("notes.txt").write_text("The land. And then the")
        before, pipe, command = line.rpartition(" | ")
        stdin = subprocess.run(["sh", "-c", before], check=True, capture_output=True).stdout if pipe else b""
        command, _, _ = command.partition(" > ")
        name, *args = shlex.split(command)
        assert name == "genlm-bytes"
        done = run(*args, stdin=stdin)
        written = [path for path in tmp_path.iterdir() if path.name != "notes.txt"]
        talks_to_nobody = args == ["chat"]  # its input is at its end
        assert fine(done) or written or talks_to_nobody
        assert bool(written) == ("--html" in args)
        assert b"\x1b[" not in done.out


# --- shared options -------------------------------------------------------------------------------


class TestShared:
    @pytest.mark.parametrize(
        "args, params",
        [
            ([], BeamParams()),
            (["--K", "7"], BeamParams(K=7)),
            (["--K", "7", "--threshold", "0.01"], BeamParams(K=7, prune_threshold=0.01)),
            (["--tolerance", "0.01"], BeamParams(tolerance=0.01)),
            (["--K", "7", "--tolerance", "0.01"], BeamParams(K=7, tolerance=0.01)),
        ],
    )
    def test_beam(self, run: Run, monkeypatch: pytest.MonkeyPatch, args: list[str], params: Any) -> None:
        seen = []
        monkeypatch.setattr(
            "genlm.bytes.front.lm.ByteLM.__enter__", lambda self: (seen.append(self.params), self)[1]
        )
        fine(run("next", "the", *args))
        (used,) = seen
        assert (used.K, used.prune_threshold, used.tolerance) == (
            params.K,
            params.prune_threshold,
            params.tolerance,
        )

    def test_a_commands_own_default_gives_way(self) -> None:
        own = BeamParams(K=5, prune_threshold=0.05)
        assert Shared().params(own) is own
        assert Shared(tolerance=0.5).params(own) == BeamParams(tolerance=0.5)

    def test_model_device_dtype(self, run: Run) -> None:
        done = run("info", "-m", "name", "--device", "cpu", "--dtype", "bfloat16")
        assert done.loaded == [("name", {"device": "cpu", "dtype": "bfloat16", "progress": False})]
        assert run("info").loaded == [(None, {"device": None, "dtype": None, "progress": False})]

    def test_every_command_has_them(self) -> None:
        import inspect

        names = {"name", "K", "threshold", "tolerance", "device", "dtype", "as_json", "quiet"}
        for command in app.COMMANDS.values():
            assert names <= set(inspect.signature(grouped(command)).parameters)

    @pytest.mark.parametrize(
        "args, word",
        [
            (["--K", "0"], "`K` is 0"),
            (["--threshold", "0.1"], "`K` is None"),
            (["--threshold", "1.5", "--K", "5"], "`prune_threshold`"),
            (["--tolerance", "nan"], "`tolerance`"),
            (["--tolerance", "0.1", "--threshold", "0.1"], "`prune_threshold`"),
        ],
    )
    def test_mistakes_are_found_before_a_model_is_loaded(self, run: Run, args: list[str], word: str) -> None:
        for command in (["next", "a"], ["complete", "a"], ["chat", "a"], ["watch", "a"], ["info"], ["demo"]):
            done = run(*command, *args)
            assert (done.code, done.out, done.loaded) == (1, b"", [])
            assert done.err.startswith("genlm-bytes: ") and word in done.err and done.err.count("\n") == 1

    def test_progress_for_whoever_watches(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for args, watched in ((), True), (("--quiet",), False):
            terminal = Terminal()
            monkeypatch.setattr(sys, "stderr", terminal)
            done = run("complete", "the", "--max-bytes", "3", *args)
            assert (done.code, len(done.out), done.loaded[0][1]["progress"]) == (0, 3, watched)
            assert ("[length: 3 bytes" in terminal.written()) == watched
            if not watched:
                assert not terminal.written()


class TestGroups:
    def test_choices_are_the_librarys(self) -> None:
        assert sorted(METHODS) == sorted(Method) and set(Unit) == {"token", "byte"}


# --- text -----------------------------------------------------------------------------------------


class TestText:
    def test_from_everywhere(self, run: Run, tmp_path: Path) -> None:
        text = b"caf\xc3"
        (tmp_path / "text").write_bytes(text)
        ways = [
            run("next", os.fsdecode(text), "--json"),
            run("next", "-", "--json", stdin=text),
            run("next", "--file", str(tmp_path / "text"), "--json"),
            run("next", "-", "--chomp", "--json", stdin=text + b"\r\n"),
        ]
        documents = [document(done) for done in ways]
        assert all(exact(found["prompt"]) == text for found in documents)
        assert len({json.dumps(found["next"]) for found in documents}) == 1

    def test_a_newline_is_text(self, run: Run) -> None:
        assert exact(document(run("next", "-", "--json", stdin=b"the\n"))["prompt"]) == b"the\n"
        one_only = document(run("next", "-", "--json", "--chomp", stdin=b"the\n\n"))
        assert exact(one_only["prompt"]) == b"the\n"

    def test_empty_is_a_text(self, run: Run) -> None:
        assert len(document(run("next", "", "--json"))["next"]) == 10

    @pytest.mark.parametrize(
        "args, word",
        [([], "--file"), (["a", "--file", "b"], "not both")],
    )
    def test_none_or_two(self, run: Run, args: list[str], word: str) -> None:
        for command in ("next", "complete", "watch"):
            done = run(command, *args)
            assert (done.code, done.out, done.loaded) == (2, b"", []) and word in done.err
            assert done.err.count("\n") == 1 and "Try: " in done.err and "--help" in done.err

    @pytest.mark.parametrize("name, word", [("absent", "No such file"), (".", "directory")])
    def test_an_unreadable_file(self, run: Run, name: str, word: str) -> None:
        done = run("complete", "--file", name)
        assert (done.code, done.out, done.loaded) == (1, b"", []) and done.err.count("\n") == 1
        assert "`file` is" in done.err and word in done.err and "Traceback" not in done.err


# --- next -----------------------------------------------------------------------------------------


class TestNext:
    def test_is_what_the_model_says(self, run: Run, lm: ByteLM) -> None:
        found = document(run("next", "the an", "--top", "258", "--json"))["next"]
        p = lm.next("the an")
        assert len(found) == sum(x > -math.inf for x in p.ps[[*range(256), 257]])
        for entry in found:
            assert entry["logprob"] == pytest.approx(p[257 if "eos" in entry else entry["byte"]], abs=1e-4)
            assert entry["probability"] == pytest.approx(math.exp(entry["logprob"]))
        assert sum(entry["probability"] for entry in found) == pytest.approx(1)
        logs = [entry["logprob"] for entry in found]
        assert logs == sorted(logs, reverse=True)
        assert sum("eos" in entry for entry in found) == 1

    def test_characters(self, run: Run, lm: ByteLM) -> None:
        found = document(run("next", "-", "--chars", "--top", "4", "--json", stdin=b"the caf\xc3"))["next"]
        expected = lm.next(b"the caf\xc3").chars(4)
        assert [entry.get("text") for entry in found] == list(expected)
        assert [entry["logprob"] for entry in found] == pytest.approx(list(expected.values()), abs=1e-4)

    def test_for_people(self, run: Run) -> None:
        lines = fine(run("next", "the", "--top", "3")).decode().splitlines()
        assert lines[0].split() == ["byte", "hex", "probability", "logprob"] and len(lines) == 4
        assert all("█" in line for line in lines[1:])
        assert fine(run("next", "the", "--chars")).decode().split()[0] == "character"

    def test_the_end(self, run: Run) -> None:
        toy = ToyLM(TOY, eos=6)
        assert "EOS" in fine(run("next", "a", "--top", "9", model=toy)).decode()


class TestDemo:
    def test_document(self, run: Run, lm: ByteLM) -> None:
        found = document(run("demo", "--json"))
        assert found["question"].startswith("An apple") and len(found["next"]) == 5
        assert [row["prompt"] for row in found["completions"]] == list(demo.CUT_PROMPTS)
        assert all(row["by_bytes"] or row["by_tokens"] for row in found["completions"])

    def test_json_where_stdout_has_a_code_page(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a code page cannot hold is escaped, and not lost."""
        latin = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", latin)
            assert run("next", "日本", "--json").code == 0
        latin.flush()
        assert json.loads(latin.buffer.getvalue().decode("ascii"))["prompt"]["text"] == "日本"  # type: ignore[attr-defined]


# --- complete -------------------------------------------------------------------------------------


class TestComplete:
    def test_exactly_the_new_bytes(self, run: Run, lm: ByteLM) -> None:
        done = run("complete", "the an", "--max-bytes", "20", "--any-bytes")
        assert fine(done) == lm.complete("the an", max_bytes=20, valid_utf8=False).bytes
        assert len(done.out) == 20

    def test_echo(self, run: Run, lm: ByteLM) -> None:
        new = lm.complete(b"the \xc3", max_bytes=5).bytes
        for args in ((), ("--no-stream",)):
            done = run("complete", "-", "--echo", "--max-bytes", "5", *args, stdin=b"the \xc3")
            assert fine(done) == b"the \xc3" + new

    def test_a_document(self, run: Run, lm: ByteLM) -> None:
        found = document(run("complete", "the", "--max-bytes", "9", "--json"))
        expected = lm.complete("the", max_bytes=9)
        (completion,) = found["completions"]
        assert found["prompt"]["text"] == "the" and exact(completion) == expected.bytes
        assert completion["text"] == expected.text and completion["finish_reason"] == "length"
        assert completion["logprob"] == pytest.approx(expected.logprob, abs=1e-3)
        assert completion["usage"]["completion_bytes"] == 9 and completion["stop"] is None

    def test_events(self, run: Run, lm: ByteLM) -> None:
        *chunks, last = events(run("complete", "the", "--max-bytes", "9", "--json", "--stream"))
        assert len(chunks) > 1 and {chunk["event"] for chunk in chunks} == {"chunk"}
        assert last["event"] == "completion" and last["prompt"]["text"] == "the"
        assert b"".join(map(exact, chunks)) == exact(last) == lm.complete("the", max_bytes=9).bytes

    def test_several(self, run: Run, lm: ByteLM) -> None:
        args = ("complete", "the", "--max-bytes", "6", "-n", "3", "--seed", "5")
        expected = lm.complete("the", max_bytes=6, n=3, seed=5)
        assert fine(run(*args)) == b"".join(c.bytes + b"\n" for c in expected)
        found = document(run(*args, "--json"))["completions"]
        assert [exact(c) for c in found] == [c.bytes for c in expected]
        best = lm.complete("the", max_bytes=6, best_of=3, seed=5)
        assert fine(run("complete", "the", "--max-bytes", "6", "--best-of", "3", "--seed", "5")) == best.bytes

    def test_several_on_a_terminal(self, run: Run, lm: ByteLM, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each on lines of its own; which is which, and its figures, on stderr."""
        out, err = Terminal(), Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            assert run("complete", "the", "--max-bytes", "6", "-n", "2", "--seed", "5").code == 0
        texts = [c.text for c in lm.complete("the", max_bytes=6, n=2, seed=5)]
        assert out.written() == "".join(f"{safe_text(text)}\n" for text in texts)
        assert err.written().count("bytes, ") == 2

    def test_options_arrive(self, run: Run, lm: ByteLM) -> None:
        args = {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 3, "unit": "byte"}
        given = [word for name, x in args.items() for word in (f"--{name.replace('_', '-')}", str(x))]
        expected = lm.complete(
            "the", **args, max_bytes=12, method="beam", token_healing=False, stop=["t", b"\n"]
        )
        given += ["--max-bytes", "12", "--method", "beam", "--no-healing", "--stop", "t", "--stop", "\n"]
        assert fine(run("complete", "the", *given)) == expected.bytes

    @pytest.mark.parametrize("args", [(), ("--json",), ("--json", "--stream")])
    def test_whoever_reads_has_left(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
    ) -> None:
        """`| head -c 1`: no traceback, and an exit code that says so."""
        read_end, write_end = os.pipe()
        os.close(read_end)
        with monkeypatch.context() as patch, suppress(BrokenPipeError), open(write_end, "w") as pipe:
            patch.setattr(sys, "stdout", pipe)
            done = run("complete", "the", "--max-bytes", "4", *args)
        assert (done.code, done.err) == (1, "")

    def test_masks(self, run: Run, tmp_path: Path) -> None:
        assert fine(run("complete", "the ", "--regex", "x{3}")) == b"xxx"
        (tmp_path / "schema").write_text('{"enum": [12]}')
        assert fine(run("complete", "the ", "--json-schema", str(tmp_path / "schema"))) == b"12"

    def test_middle(self, run: Run, lm: ByteLM) -> None:
        expected = lm.complete("the", suffix="and", fim=("<s>", "</s>", None), max_bytes=4)
        args = ("--suffix", "and", "--fim", "<s>", "</s>", "", "--max-bytes", "4")
        assert fine(run("complete", "the", *args)) == expected.bytes

    def test_on_a_terminal(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the model writes cannot drive it; the shell's prompt comes on a line of its own."""
        says = [b"\x1b[31m", b"\xc2\x9b", "é".encode(), b"<e>"]
        path = FixedLM(says, eos=3, rule=lambda c: [float(i == min(len(c) - 1, 3)) for i in range(4)])
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert run("complete", "", "--echo", model=path).code == 0
        assert terminal.written() == "\\x1b[31m\\u009bé\n"
        assert fine(run("complete", "", model=path)) == b"".join(says[:3])

    @pytest.mark.parametrize(
        "args, word",
        [
            (["--max-bytes", "0"], "`max_bytes` is 0"),
            (["--max-bytes", "-3"], "`max_bytes` is -3"),
            (["--temperature", "nan"], "`temperature` is nan"),
            (["--temperature", "-1"], "`temperature`"),
            (["--top-p", "0"], "`top_p`"),
            (["--stop", ""], "`stop` is b''"),
            (["-n", "0"], "`n` is 0"),
            (["-n", "3", "--best-of", "2"], "`best_of` is 2"),
            (["--regex", "("], "`pattern` is '('"),
            (["--json-schema", "absent.json"], "`file` is 'absent.json'"),
            (["--max-tokens", "3", "--unit", "byte"], "`max_tokens`"),
        ],
    )
    def test_bad_values_are_found_before_a_model_is_loaded(
        self, run: Run, args: list[str], word: str
    ) -> None:
        done = run("complete", "the", *args)
        assert (done.code, done.out, done.loaded) == (1, b"", [])
        assert done.err.startswith("genlm-bytes: ") and word in done.err and done.err.count("\n") == 1

    @pytest.mark.parametrize(
        "args",
        [
            ["--max-bytes", "many"],
            ["--unit", "word"],
            ["--method", "guess"],
            ["-n", "2", "--stream"],
            ["--regex", "a", "--json-schema", "b"],
            ["--no-such-option"],
        ],
    )
    def test_typing_mistakes(self, run: Run, args: list[str]) -> None:
        done = run("complete", "the", *args)
        assert (done.code, done.out, done.loaded) == (2, b"", [])
        assert "Traceback" not in done.err and "\x1b" not in done.err

    @pytest.mark.parametrize("args", [["--regex", "\udcff"], ["--fim", "a", "\udcff", "b"]])
    def test_arguments_that_are_no_text(self, run: Run, args: list[str]) -> None:
        done = run("complete", "the", *args)
        assert (done.code, done.out, done.loaded) == (1, b"", [])
        assert f"`{args[0][2:]}` is b'\\xff': must be UTF-8" in done.err and done.err.count("\n") == 1

    def test_a_text_that_is_too_long(self, run: Run) -> None:
        done = run("complete", "x" * 2 * tiny.LONGEST)
        assert (done.code, done.out, done.err.count("\n")) == (1, b"", 1)
        assert f"reads at most {tiny.LONGEST} tokens" in done.err

    def test_a_byte_that_no_token_has(self, run: Run) -> None:
        for args in (["complete", "az"], ["next", "az"], ["watch", "az"]):
            done = run(*args, model=ToyLM(TOY))
            assert (done.code, done.err.count("\n")) == (1, 1) and "0x7a" in done.err


# --- chat -----------------------------------------------------------------------------------------


USER = [{"role": "user", "content": "the?"}]


class TestChat:
    def test_one_answer(self, run: Run, lm: ByteLM) -> None:
        expected = lm.complete(USER, max_bytes=8)
        assert fine(run("chat", "the?", "--max-bytes", "8")) == expected.bytes + b"\n"

    def test_a_begun_answer_and_a_system_message(self, run: Run, lm: ByteLM) -> None:
        messages = [{"role": "system", "content": "be"}, *USER, {"role": "assistant", "content": "an"}]
        expected = lm.complete(messages, max_bytes=8)
        args = ("chat", "the?", "--system", "be", "--begin", "an", "--max-bytes", "8")
        assert fine(run(*args)) == b"an" + expected.bytes + b"\n"
        found = document(run(*args, "--json"))
        assert found["content"] == "an" + expected.text and exact(found) == expected.bytes
        assert (found["event"], found["role"]) == ("answer", "assistant")

    def test_turns(self, run: Run, lm: ByteLM) -> None:
        """Each line is a turn, and later ones see the earlier."""
        first = lm.complete(USER, max_bytes=5)
        more = [*USER, {"role": "assistant", "content": first.text}, {"role": "user", "content": "and"}]
        second = lm.complete(more, max_bytes=5)
        done = run("chat", "--max-bytes", "5", "--json", stdin=b"the?\r\nand")
        assert [event["content"] for event in events(done)] == [first.text, second.text]

    def test_events(self, run: Run) -> None:
        *chunks, answer = events(run("chat", "the?", "--max-bytes", "5", "--json", "--stream"))
        assert chunks and b"".join(map(exact, chunks)) == exact(answer)

    def test_a_conversation(self, run: Run, lm: ByteLM, monkeypatch: pytest.MonkeyPatch) -> None:
        """Typed: an interrupt ends an answer, an error too, and the conversation goes on without them."""
        terminal, errors = Terminal(), Terminal()
        typed = iter(["stop me", "x" * 200, "  ", "the?"])
        given = []

        def type_line(prompt: str) -> str:
            given.append(prompt)
            said = next(typed, None)
            if said is None:
                raise EOFError
            return said

        def stream(self: ByteLM, prompt: Any, **options: Any) -> Any:
            if prompt[-1]["content"] == "stop me":
                raise KeyboardInterrupt
            return plain(self, prompt, **options)

        plain = ByteLM.stream
        monkeypatch.setattr(ByteLM, "stream", stream)
        monkeypatch.setattr("builtins.input", type_line)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", errors)
            code = run("chat", "--max-bytes", "6", typed=True).code
        assert code == 0 and len(given) == 5
        # Nothing of what failed; the answer on a line of its own; the end of the input ends the line.
        assert terminal.written() == safe_text(lm.complete(USER, max_bytes=6).text) + "\n\n"
        assert "the question is forgotten" in errors.written()
        assert f"at most {tiny.LONGEST} tokens" in errors.written()

    def test_an_interrupt_between_answers_ends_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(prompt: str) -> str:
            raise KeyboardInterrupt

        terminal = Terminal()
        monkeypatch.setattr("builtins.input", interrupt)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert run("chat", "--quiet", typed=True).code == 130
        assert terminal.written() == "\n"

    def test_no_template(self, run: Run) -> None:
        done = run("chat", "the?", model=tiny.transformer("llama"))
        assert (done.code, done.err.count("\n")) == (1, 1) and "has no chat template" in done.err

    def test_only_text(self, run: Run) -> None:
        for args in (["-"], []):
            done = run("chat", *args, stdin=b"\xff")
            assert (done.code, done.out, done.err.count("\n")) == (1, b"", 1) and "UTF-8" in done.err
        for option in ("--begin", "--system"):
            done = run("chat", "the", option, os.fsdecode(b"\xff"))
            assert (done.code, done.loaded) == (1, []) and f"`{option[2:]}` is" in done.err


# --- info -----------------------------------------------------------------------------------------


class TestInfo:
    def test_a_vocabulary_with_everything_odd(self, run: Run) -> None:
        odd = ToyLM([b"a", b"ab", b"", b"a", b"\xff"], ids=[0, 2, 3, 5, 9], bos=2, eos=9)
        found = document(run("info", "--json", model=odd))
        assert found["duplicates"] == [{"text": "a", "bytes_base64": "YQ==", "ids": [0, 5]}]
        assert found["empty"] == [3] and found["tokens"] == 5 and found["longest"] == 2
        assert found["without_token"] == [b for b in range(256) if b not in b"a\xff"]
        assert found["absent"] == [b for b in range(256) if b not in b"ab\xff"]
        assert found["start"] == [2] and [exact(end) for end in found["ends"]] == [b"\xff"]
        assert found["parameters"] is found["context_length"] is None and found["chat_template"] is False
        lines = fine(run("info", model=odd)).decode()
        assert "1: a (0, 5)" in lines and "255: " not in lines and "254: 00, 01" in lines

    def test_a_transformer(self, run: Run, llm: Any) -> None:
        found = document(run("info", "--json", "-m", "somewhere"))
        assert found["model"] == "somewhere" and found["architecture"] == "LlamaForCausalLM"
        assert found["context_length"] == tiny.LONGEST and found["chat_template"] is True
        assert found["parameters"] == llm.model.num_parameters()
        assert found["tokens"] == len(llm.byte_vocab) and found["logits"] == len(tiny.tokenizer())
        assert found["special"] == {"<s>": 0, "</s>": 1} and found["family"] == "byte-level BPE"
        assert (found["dtype"], found["device"]) == ("float32", "cpu")
        assert found["absent"] == found["without_token"] == []
        assert fine(run("info")).decode().splitlines()[0].split() == ["model", "smollm2-135m-instruct"]

    def test_families(self) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        def family(model: Any, pre: Any = None, decoder: Any = None) -> str:
            fast = Tokenizer(model)
            if pre is not None:
                fast.pre_tokenizer = pre
            if decoder is not None:
                fast.decoder = decoder
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast)
            return describe_model(
                SimpleNamespace(byte_vocab=ToyLM(TOY).byte_vocab, tokenizer=tokenizer)
            ).family

        words = {"a": 0, "[UNK]": 1}
        llama = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        assert family(models.BPE(vocab=words, merges=[], byte_fallback=True), decoder=llama) == (
            "SentencePiece BPE with byte fallback"
        )
        unigram = models.Unigram([("a", 0.0)], 0, False)
        assert family(unigram, pre_tokenizers.Metaspace()) == "SentencePiece Unigram"
        split = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
        assert family(models.BPE(vocab=words, merges=[]), split) == "byte-level BPE"
        assert family(models.WordPiece(words), pre_tokenizers.Whitespace()) == "WordPiece"


# --- watch ----------------------------------------------------------------------------------------


class TestWatch:
    def test_a_line_for_each_byte(self, run: Run, lm: ByteLM) -> None:
        found = events(run("watch", "the a", "--json", "--context", "in ", "--top", "3"))
        assert [exact(event) for event in found] == [b"in the a"[:n] for n in range(3, 9)]
        last = found[-1]
        assert len(last["next"]) == 3
        for candidate in last["candidates"]:
            tokens = [*last["shared"], *candidate["tokens"], candidate["partial"]]
            assert b"".join(map(exact, tokens)) == b"in the a"
        shares = [candidate["share"] for candidate in last["candidates"]]
        assert sum(shares) + last["others"]["share"] == pytest.approx(1)

    def test_text(self, run: Run) -> None:
        text = fine(run("watch", "the")).decode()
        assert text.count("logp") == 8 and text.index("0 bytes") < text.index("3 bytes")  # heads and columns
        assert "\x1b" not in text

    def test_most(self, run: Run) -> None:
        found = events(run("watch", "the a", "--json", "--most", "1", "--K", "9", "--top", "0"))
        assert all(len(event["candidates"]) == 1 and event["next"] == [] for event in found)
        assert any(event["others"]["number"] for event in found)

    def test_a_page(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page = tmp_path / "beam.html"
        errors = Terminal()
        assert fine(run("watch", "the <b>", "--html", str(page))) == b""
        assert page.read_text(encoding="utf-8").count("<section") == 8
        monkeypatch.setattr(sys, "stderr", errors)
        assert run("watch", "the", "--html", str(page)).code == 0
        assert f"{page}: 4 beams" in errors.written()

    def test_a_page_that_cannot_be_written(self, run: Run, tmp_path: Path) -> None:
        done = run("watch", "a", "--html", str(tmp_path / "absent" / "page.html"))
        assert (done.code, done.err.count("\n")) == (1, 1) and "cannot be written" in done.err

    @pytest.mark.parametrize(
        "keys, places",
        [
            ("q", [0]),
            ([" ", "\x1b[C", "h", "q"], [0, 1, 2, 1]),
            (["h", "G", "l", "x", "g", "\x1b"], [0, 0, 3, 3, 3, 0]),
        ],
    )
    def test_keys(self, lm: ByteLM, keys: Any, places: list[int]) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
        made = []
        views = watching._views(lm, lm.beam(), b"the", 5, 0)
        counted = (made.append(view) or view for view in views)
        shown = []
        pressed = iter(keys)

        def key() -> str:
            screen = console.file.getvalue()  # type: ignore[attr-defined]
            shown.append(int(screen.rsplit(" / 3", 1)[0].split()[-1].removeprefix("\x1b[2m")))
            return next(pressed)

        watching.browse(counted, 4, console, key)
        assert shown == places and len(made) == max(places) + 1  # read as far as was looked
        out = console.file.getvalue()  # type: ignore[attr-defined]
        assert out.count("\x1b[?1049h") == out.count("\x1b[?1049l") == 1

    def test_an_interrupt_leaves_the_screen(self, lm: ByteLM) -> None:
        console = Console(file=io.StringIO(), force_terminal=True)

        def key() -> str:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            watching.browse(watching._views(lm, lm.beam(), b"a", 5, 0), 2, console, key)
        assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")  # type: ignore[attr-defined]

    def test_the_terminal_steps(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal()
        monkeypatch.setattr("typer.getchar", lambda: "q")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert run("watch", "the", "--quiet", typed=True).code == 0
        assert "0 / 3" in terminal.written() and "\x1b[?1049h" in terminal.written()


# --- as a process ---------------------------------------------------------------------------------


TALKS_FOREVER = """
import asyncio, signal, sys
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
import genlm.bytes.models
from toy import FixedLM

class Slow(FixedLM):
    async def next_token_logprobs(self, ids, lora_name=None):
        if len(ids) > 6:
            await asyncio.Event().wait()
        return await super().next_token_logprobs(ids)

llm = Slow([b"a", b"<e>"], eos=1, rule=lambda context: [1.0, 0.0])
genlm.bytes.models.load_model = lambda *_, **__: llm
from genlm.bytes.cli import main
sys.argv[1:] = {args!r}
main()
"""


def start(*args: str) -> subprocess.Popen[bytes]:
    program = TALKS_FOREVER.format(tests=str(Path(__file__).parent), args=list(args))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
class TestProcess:
    def test_interrupted_in_a_stream(self) -> None:
        """What has come so far is out, the exit code is 130, and nothing is left that complains."""
        with start("complete", "aa") as process:
            assert process.stdout and process.stdout.read(3) == b"aaa"  # it is in the middle of it
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, b"") and set(out) <= set(b"a")

    def test_completion_for_the_shell(self) -> None:
        """The commands' names, without the model's libraries."""
        program = "import sys; from genlm.bytes.cli import main; main()"
        environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "_GENLM_BYTES_COMPLETE": "complete_bash",
            "COMP_WORDS": "genlm-bytes ",
            "COMP_CWORD": "1",
        }
        code = f"import sys; sys.argv[0] = 'genlm-bytes'\n{program}"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert set(app.COMMANDS) <= set(done.stdout.split()), done.stderr

    def test_the_module_is_the_command(self) -> None:
        """`python -m genlm.bytes` and `genlm-bytes`: one function, one help."""
        texts = []
        for run in (["-m", "genlm.bytes"], ["-c", "from genlm.bytes.cli import main; main()"]):
            environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}
            command = [sys.executable, *run, "complete", "--help"]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            texts.append(done.stdout.split("\n", 2)[2])  # the first lines name the program as it was called
        assert "--max-bytes" in texts[0] and texts[0] == texts[1]


class TestVersion:
    def test_version(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.metadata.version", lambda name: f"9 of {name}")
        assert fine(run("--version")).decode() == "genlm-bytes 9 of genlm-bytes\n"

    def test_not_installed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr("importlib.metadata.version", version)
        assert b"not installed" in fine(run("--version"))
