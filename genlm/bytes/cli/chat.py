"""`genlm-bytes chat`: a conversation, or one answer."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genlm.bytes.cli.complete import play, summary
from genlm.bytes.cli.output import complain, completion_json, on_terminal, write_json
from genlm.bytes.cli.sampling import Sampling, Streaming
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import TextInput, argument_text, as_text
from genlm.bytes.errors import GenlmBytesError
from genlm.bytes.options import Options

if TYPE_CHECKING:
    from genlm.bytes import ByteLM

__all__ = ["chat"]

LONGEST_ANSWER = 2048
"""Bytes, where no limit is given: an answer ends by itself."""


def chat(
    text: TextInput,
    sampling: Sampling,
    shared: Shared,
    system: Annotated[str | None, typer.Option(help="What the model is told about its part.")] = None,
    begin: Annotated[
        str, typer.Option(help="How the answer begins; it may stop inside a word.", show_default=False)
    ] = "",
    stream: Streaming = None,
) -> None:
    """Talk with a model that has a chat template.

    With a text: one answer. Without: a conversation, a line a turn, until
    the end of the input (Ctrl-D). Ctrl-C stops an answer, and between
    answers the conversation.

    Examples:

    genlm-bytes chat
    genlm-bytes chat "Name a colour." --max-bytes 60
    genlm-bytes chat "What is the capital of France?" --begin "The capital of Fra"
    printf 'Hello.\\nAnd again.\\n' | genlm-bytes chat --max-tokens 8 --json
    """
    options = sampling.options()
    if sampling.max_bytes is None and sampling.max_tokens is None:
        options["max_bytes"] = LONGEST_ANSWER
    with shared.working("Starting"):  # mistakes are found before the seconds that a model takes to load
        Options.of(options)
    question = text.read_text() if text.given else None
    begin = argument_text("begin", begin)
    system = None if system is None else argument_text("system", system)
    with shared.model() as lm:
        talk = _Talk(lm, options, shared, system, begin, bool(stream))
        if question is not None:
            talk.turn(question)
        elif sys.stdin.isatty() and on_terminal():
            talk.converse()
        else:
            for line in sys.stdin.buffer:
                talk.turn(as_text("text", line).rstrip("\r\n"))


class _Talk:
    """A conversation so far."""

    def __init__(
        self,
        lm: ByteLM,
        options: dict[str, Any],
        shared: Shared,
        system: str | None,
        begin: str,
        events: bool,
    ) -> None:
        self.lm, self.options, self.shared = lm, options, shared
        self.begin, self.events = begin, events
        self.messages = [] if system is None else [{"role": "system", "content": system}]

    def turn(self, said: str) -> None:
        """Answer one message. Where that fails the conversation is as it was."""
        question = {"role": "user", "content": said}
        opening = [{"role": "assistant", "content": self.begin}] if self.begin else []
        prompt = [*self.messages, question, *opening]
        if self.shared.as_json and not self.events:
            completion = self.lm.complete(prompt, **self.options)
            assert not isinstance(completion, list)
        else:
            completion = play(self.lm, prompt, self.options, self.shared, self.begin.encode())
        answer = {"role": "assistant", "content": self.begin + completion.text}
        self.messages += [question, answer]
        if self.shared.as_json:
            event = {"event": "answer", **answer, **completion_json(completion)}
            write_json(event)
        else:
            if not on_terminal():  # one answer a line's end, so that the next begins its own
                sys.stdout.write("\n")
                sys.stdout.flush()
            self.shared.remark(summary(completion))

    def converse(self) -> None:
        """Turns typed by a person. Ctrl-C during an answer leaves the answer, not the conversation."""
        with suppress(ImportError):
            import readline  # noqa: F401  (gives `input` its editing keys; Windows has its own)
        self.shared.remark("Ctrl-C stops an answer, Ctrl-D ends.")
        while (said := _typed()) is not None:
            if not said.strip():
                continue
            try:
                self.turn(said)
            except KeyboardInterrupt:
                self.shared.remark("[stopped; the question is forgotten]")
            except GenlmBytesError as error:
                complain(str(error))


def _typed() -> str | None:
    """A line that somebody types; None at the end of the input."""
    try:
        return input("> ").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except EOFError:
        sys.stdout.write("\n")
        return None
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        raise
