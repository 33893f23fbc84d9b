r"""Where a command's text comes from: the command line, stdin (`-`) or a file. Always exact bytes.

A command has one parameter `text: TextInput` and calls `text.read()` (bytes) or `text.read_text()` (str).
Nothing is added or taken away, a newline at the end included: it is part of what the model continues.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from genlm.bytes.errors import bad_value
from genlm.bytes.resumable import saying

__all__ = ["TextInput", "argument_bytes", "argument_text", "as_text", "reading"]


@dataclass(frozen=True)
class TextInput:
    """The text that a command works on."""

    text: Annotated[
        str | None, typer.Argument(show_default=False, help="The text; - reads it from stdin.")
    ] = None
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the text from a file instead.")] = (
        None
    )
    chomp: Annotated[
        bool, typer.Option("--chomp", help="Leave out one newline at the text's end, as echo adds it.")
    ] = False

    @property
    def given(self) -> bool:
        """Whether the command line says where the text is."""
        return self.text is not None or self.file is not None

    def read(self) -> bytes:
        """The text."""
        if self.text is not None and self.file is not None:
            raise typer.BadParameter("give a text or --file, not both", param_hint="TEXT")
        if self.file is not None:
            with reading(self.file):
                text = self.file.read_bytes()
        elif self.text == "-":
            text = sys.stdin.buffer.read()
        elif self.text is not None:
            text = argument_bytes(self.text)
        else:
            raise typer.BadParameter("missing: give a text, - for stdin, or --file", param_hint="TEXT")
        return text.removesuffix(b"\n").removesuffix(b"\r") if self.chomp else text

    def read_text(self) -> str:
        """The text, where only text will do."""
        return as_text("text", self.read())


def argument_bytes(argument: str) -> bytes:
    """An argument as the bytes that were typed, also where they are no UTF-8."""
    return os.fsencode(argument)


def argument_text(name: str, argument: str) -> str:
    """An argument where only text will do; `ValueError` where it is none."""
    return as_text(name, argument_bytes(argument))


def as_text(name: str, text: bytes) -> str:
    """Bytes as text; `ValueError` where they are none."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise bad_value(name, text, f"must be UTF-8, and is not at offset {error.start}") from None


def reading(path: Path) -> AbstractContextManager[None]:
    """What the system says of a file that cannot be read, as an error of ours."""
    return saying("cannot be read", lambda rule, _: bad_value("file", str(path), rule))
