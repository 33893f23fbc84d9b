"""`genlm-bytes next`: what comes next, byte by byte or character by character."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genlm.bytes.cli.output import bytes_json, number, write_json
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import TextInput
from genlm.bytes.options import Method

if TYPE_CHECKING:
    from genlm.bytes import ByteLM

__all__ = ["next_byte"]

BAR = 30


def next_byte(
    text: TextInput,
    shared: Shared,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    chars: Annotated[bool, typer.Option("--chars", help="Whole characters instead of bytes.")] = False,
    method: Annotated[Method, typer.Option(help="How the text is read.")] = "tokenize",
) -> None:
    """The probability of each next byte after a text.

    The text may stop anywhere: inside a word, inside a character.

    Examples:

    genlm-bytes next "The capital of Fra"
    genlm-bytes next --chars --top 5 "An apple a day keeps the "
    genlm-bytes next --file notes.txt
    printf 'caf\\303' | genlm-bytes next - --json
    """
    prompt = text.read()
    with shared.model() as lm:
        with shared.working(f"Reading {len(prompt):,} bytes"):
            rows = following(lm, prompt, top, chars, method)
        if shared.as_json:
            kind = "characters" if chars else "bytes"
            write_json({"prompt": bytes_json(prompt), "unit": kind, "next": [_json(row) for row in rows]})
        else:
            Console().print(_table(rows, "character" if chars else "byte"))


def following(
    lm: ByteLM, prompt: bytes, top: int, chars: bool, method: Method
) -> list[tuple[bytes | None, float]]:
    """What may come next with its natural log-probability, the likeliest first; None is the end."""
    from genlm.bytes.viz import likeliest

    found = lm.next(prompt, method=method)
    if not chars:
        return likeliest(found, top)
    return [(None if c == "EOS" else c.encode(), log) for c, log in found.chars(top).items()]


def _json(row: tuple[bytes | None, float]) -> dict[str, Any]:
    what, log = row
    spelled = {"eos": True} if what is None else {"byte": what[0]} if len(what) == 1 else {}
    return {
        **spelled,
        **({} if what is None else bytes_json(what)),
        "logprob": number(log),
        "probability": math.exp(log),
    }


def _table(rows: list[tuple[bytes | None, float]], unit: str) -> Table:
    from genlm.bytes.viz import one_line, share_text

    table = Table(box=None, pad_edge=False)
    table.add_column(unit)
    table.add_column("hex", style="dim")
    table.add_column("probability", justify="right")
    table.add_column("logprob", justify="right")
    table.add_column("")
    for what, log in rows:
        p = math.exp(log)
        name, code = ("EOS", "") if what is None else (one_line(what), what.hex(" "))
        bar = Text("█" * max(1, round(BAR * p)), style="green")
        table.add_row(Text(name, "bold"), code, share_text(p), f"{log:.3f}", bar)
    return table
