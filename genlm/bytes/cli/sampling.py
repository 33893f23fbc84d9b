"""The options of `ByteLM.complete` that commands which generate text share, made from `GenerationOptions`."""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from genlm.bytes.cli.source import argument_bytes
from genlm.bytes.options import GenerationOptions, Options, first_sentence

__all__ = ["Sampling", "Streaming"]

OWN = ("token_healing", "valid_utf8", "mask", "echo", "logprobs", "top_logprobs", "suffix", "fim")
"""What commands have in a form of their own, or not at all."""
LETTERS = {"temperature": ("--temperature", "-t")}

_kinds = get_type_hints(GenerationOptions, localns={"Mask": Any}) | {"stop": list[str] | None}
_defaults = {field.name: field.default for field in fields(Options)}


def _option(name: str) -> Any:
    help = "a string before which to end; may be given several times"
    if name != "stop":
        help = first_sentence(name)
    help = f"{help[:1].upper()}{help[1:]}."
    return Annotated[_kinds[name], typer.Option(*LETTERS.get(name, ()), help=help)]


Streaming = Annotated[
    bool | None,
    typer.Option("--stream/--no-stream", help="Write text as it comes: the default, except for --json."),
]

_Fields: Any = make_dataclass(
    "_Fields", [(name, _option(name), _defaults[name]) for name in _kinds if name not in OWN], frozen=True
)


class Sampling(_Fields):  # type: ignore[misc]
    """How text is generated; `Options` checks it."""

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `ByteLM.complete` and `ByteLM.stream`."""
        stop = [argument_bytes(stop) for stop in self.stop] if self.stop else None
        return {**vars(self), "stop": stop}
