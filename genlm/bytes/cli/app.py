"""The commands, and how errors are shown: one line, no traceback.

A new command is a function in a file of its own and one line in `COMMANDS`. Its modules import torch and
the model's libraries inside functions: help and the shell's completion are answered without them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from genlm.bytes.cli.chat import chat
from genlm.bytes.cli.complete import complete
from genlm.bytes.cli.demo import demo
from genlm.bytes.cli.groups import grouped
from genlm.bytes.cli.info import info
from genlm.bytes.cli.next import next_byte
from genlm.bytes.cli.watch import watch
from genlm.bytes.errors import GenlmBytesError

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "next": next_byte,
    "complete": complete,
    "chat": chat,
    "info": info,
    "watch": watch,
}
"""The commands by name, in the order in which help lists them."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(grouped(_command))


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        try:
            number = metadata.version("genlm-bytes")
        except metadata.PackageNotFoundError:
            number = "(run from its source, not installed)"
        typer.echo(f"genlm-bytes {number}")
        raise typer.Exit


@app.callback()
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
    """Run the command line. A mistake of the user's is one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # bars and a model's text where stdout is no UTF-8
            stream.reconfigure(errors="replace")
    try:
        app()
    except GenlmBytesError as error:
        Console(stderr=True, highlight=False, emoji=False).print(
            f"genlm-bytes: {error}", markup=False, soft_wrap=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
