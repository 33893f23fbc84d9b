"""The options of `ByteLM.complete` that commands which generate text share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from genlm.bytes.cli.source import argument_bytes

__all__ = ["Method", "Sampling", "Unit"]


class Unit(StrEnum):
    """What is drawn."""

    token = "token"
    byte = "byte"


class Method(StrEnum):
    """How a prompt is read."""

    tokenize = "tokenize"
    beam = "beam"
    heal = "heal"


@dataclass(frozen=True)
class Sampling:
    """How text is generated; the options are those of `ByteLM.complete`, which also checks them."""

    max_bytes: Annotated[int | None, typer.Option(help="The most new bytes; 256 if no limit is given.")] = (
        None
    )
    max_tokens: Annotated[int | None, typer.Option(help="The most new tokens.")] = None
    stop: Annotated[
        list[str] | None, typer.Option(help="A string before which to end; may be given several times.")
    ] = None
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", help="0, the default, takes the likeliest.")
    ] = None
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.")] = None
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest that together reach this probability.")
    ] = None
    min_p: Annotated[
        float | None,
        typer.Option(help="Draw among those at least this many times as likely as the likeliest."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Makes a draw reproducible.")] = None
    unit: Annotated[
        Unit | None, typer.Option(help="What is drawn, and what temperature and truncation act on.")
    ] = None
    method: Annotated[Method, typer.Option(help="How the prompt is read.")] = Method.tokenize

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `ByteLM.complete` and `ByteLM.stream`."""
        found = dict(vars(self))
        found["stop"] = [argument_bytes(stop) for stop in self.stop] if self.stop else None
        found["unit"] = None if self.unit is None else str(self.unit)
        found["method"] = str(self.method)
        return found
