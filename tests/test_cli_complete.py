"""`complete` on small models: what it writes where, what it refuses, how it ends."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import tiny
from cli_runner import Run, Terminal, document, events, exact, fine
from toy import TOY, FixedLM, ToyLM

from genlm.bytes import ByteLM
from genlm.bytes.viz import safe_text


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

    @pytest.mark.parametrize("more", [(), ("--stream",), ("--json",)])
    def test_special_tokens(self, run: Run, lm: ByteLM, more: tuple[str, ...]) -> None:
        """The text spells one: it is text, unless it is said that such a token is meant."""
        text, options = "the</s>an", ("--max-bytes", "6", *more)
        for args, prompt in (((), text), (("--parse-special",), ("the", lm.special("</s>"), "an"))):
            done, want = run("complete", text, *options, *args), lm.complete(prompt, max_bytes=6)
            found = exact(document(done)["completions"][0]) if "--json" in more else fine(done)
            assert found == want.bytes
        assert run("complete", text, "--parse-special", "--suffix", "x").code == 2

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
        penalised = lm.complete("the", max_bytes=30, repetition_penalty=1.5)
        done = run("complete", "the", "--max-bytes", "30", "--repetition-penalty", "1.5")
        assert fine(done) == penalised.bytes != lm.complete("the", max_bytes=30).bytes
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
        cut = run("complete", "the ", "--regex", "x{3}", "--particles", "2", "--max-bytes", "2")
        assert "100% of the weight is on texts that were cut short" in cut.err and cut.code == 0
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
            (["--max-bytes", "0"], "`--max-bytes` is 0"),
            (["--max-bytes", "-3"], "`--max-bytes` is -3"),
            (["--temperature", "nan"], "`--temperature` is nan"),
            (["--temperature", "-1"], "`--temperature`"),
            (["--top-p", "0"], "`--top-p`"),
            (["--stop", ""], "`--stop` is b''"),
            (["-n", "0"], "`-n` is 0"),
            (["-n", "3", "--best-of", "2"], "`--best-of` is 2"),
            (["--regex", "("], "`--regex` is '('"),
            (["--json-schema", "absent.json"], "`--json-schema` is 'absent.json'"),
            (["--max-tokens", "3", "--unit", "byte"], "`--max-tokens`"),
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
        assert f"`{args[0]}` is b'\\xff': must be UTF-8" in done.err and done.err.count("\n") == 1

    def test_a_text_that_is_too_long(self, run: Run) -> None:
        done = run("complete", "x" * 2 * tiny.LONGEST)
        assert (done.code, done.out, done.err.count("\n")) == (1, b"", 1)
        assert f"reads at most {tiny.LONGEST} tokens" in done.err

    def test_a_byte_that_no_token_has(self, run: Run) -> None:
        for args in (["complete", "az"], ["next", "az"], ["watch", "az"]):
            done = run(*args, model=ToyLM(TOY))
            assert (done.code, done.err.count("\n")) == (1, 1) and "0x7a" in done.err
