"""The commands, and how errors are shown: one line, no traceback.

A new command is a function in a file of its own and one line in `COMMANDS`. Its modules import torch and
the model's libraries inside functions: help and the shell's completion are answered without them. Of the
commands only the one that is typed is imported.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Annotated, Any

import typer

from genlm.bytes.cli.groups import grouped
from genlm.bytes.cli.output import complain
from genlm.bytes.cli.streams import open_standard_streams, silence
from genlm.bytes.errors import GenlmBytesError

__all__ = ["COMMANDS", "app", "command", "main"]

COMMANDS = {
    "demo": "demo",
    "next": "next_byte",
    "predict": "predict",
    "complete": "complete",
    "chat": "chat",
    "info": "info",
    "watch": "watch",
    "score": "score",
    "serve": "serve",
    "pairs": "pairs",
    "tokenize": "tokenize",
}
"""The commands, which are modules too, with their functions, in the order in which help lists them."""


def command(name: str) -> Callable[..., None]:
    """The function of a command."""
    found: Callable[..., None] = getattr(import_module(f"genlm.bytes.cli.{name}"), COMMANDS[name])
    return found


def app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with some commands: what is not asked for takes a quarter of a second."""
    made = typer.Typer(
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    made.callback()(_commands)
    for name in names:
        made.command(name)(grouped(command(name)))
    return made


def _version(asked: bool) -> bool:
    if asked:
        from importlib import metadata

        try:
            number = metadata.version("genlm-bytes")
        except metadata.PackageNotFoundError:
            number = "(run from its source, not installed)"
        typer.echo(f"genlm-bytes {number}")
        raise typer.Exit
    return asked


def _commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Byte-level language models from token-level ones.

    Examples:

    genlm-bytes demo
    genlm-bytes complete "The capital of Fra"
    """


def main() -> None:
    """Run the command line. A mistake of the user's is one line on stderr; the exit code is 2 where the line
    typed is not understood, 1 where what it asks for cannot be done, 130 after Ctrl-C."""
    open_standard_streams()
    gc.set_threshold(50_000)  # looking for garbage among a vocabulary's tokens takes a fifth of a second
    named = [word for word in sys.argv[1:2] if word in COMMANDS]
    try:
        code = app(named or COMMANDS)(standalone_mode=False)
        sys.stdout.flush()  # what cannot be written is known now, and not when Python has gone
        sys.exit(code)
    except GenlmBytesError as error:
        from genlm.bytes.cli.spelling import as_typed

        complain(as_typed(str(error), command(named[0])) if named else str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except typer.Abort:
        sys.exit(1)
    except OSError as error:
        sys.exit(_failed(error))
    except MemoryError:
        complain("there is not enough memory. Give shorter texts, or score with --window.")
        sys.exit(1)
    except Exception as error:
        # The base of typer's usage errors has no public name; this is what all of them have.
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        _explain(error)
        sys.exit(error.exit_code)


def _failed(error: OSError) -> int:
    """What the system would not do, in a line; nothing where the reader of a pipe has left."""
    if error.errno != errno.EPIPE:
        why = error.strerror or str(error) or type(error).__name__
        name = "stdout cannot be written" if error.errno is not None else type(error).__name__
        complain(f"{name if error.filename is None else os.fsdecode(error.filename)}: {why}")
    silence(sys.stdout)
    return 1


def _explain(error: Any) -> None:
    """A line that was not understood: why, and where to read what can be said."""
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # nothing was asked: the help itself
        return
    command = context.command_path if context is not None else "genlm-bytes"
    message = " ".join(error.format_message().split())
    complain(f"{message.rstrip('.')}. Try: {command} --help")
