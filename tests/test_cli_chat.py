"""`chat` on small models: answers, turns, conversations."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import tiny
from cli_runner import Run, Terminal, document, events, exact, fine

from genlm.bytes import ByteLM
from genlm.bytes.viz import safe_text

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
            assert (done.code, done.loaded) == (1, []) and f"`{option}` is" in done.err
