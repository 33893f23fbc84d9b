"""`genlm-bytes next`: what comes next, byte by byte or character by character."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from genlm.bytes.cli.output import bytes_json, number, stdout_console, write_json
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

    The text may stop anywhere: inside a word, inside a character. Of
    several models it is shown what each says.

    Examples:

    genlm-bytes next "The capital of Fra"
    genlm-bytes next --chars --top 5 "An apple a day keeps the "
    genlm-bytes next --file notes.txt
    genlm-bytes next "The capital of Fra" --model some/folder --model another
    printf 'caf\\303' | genlm-bytes next - --json
    """
    prompt = text.read()
    with shared.model() as lm:
        with shared.working(f"Reading {len(prompt):,} bytes"):
            rows, said = following(lm, prompt, top, chars, method)
        if shared.as_json:
            kind = "characters" if chars else "bytes"
            found = [_json(row, by_each) for row, by_each in zip(rows, said, strict=True)]
            names = {"models": shared.names} if said and said[0] else {}
            write_json({"prompt": bytes_json(prompt), "unit": kind, **names, "next": found})
        else:
            stdout_console().print(_table(rows, said, shared.names or [], "character" if chars else "byte"))


def following(
    lm: ByteLM, prompt: bytes, top: int, chars: bool, method: Method
) -> tuple[list[tuple[bytes | None, float]], list[list[float]]]:
    """What may come next with its natural log-probability, the likeliest first; None is the end.

    Returns:
        These; and for each what the members of an ensemble give it, nothing for one model.
    """
    from genlm.bytes.util import utf8
    from genlm.bytes.viz import likeliest

    found, begun = lm.next(prompt, method=method), b""
    if chars:
        begun = utf8.unfinished(prompt)
        rows = [(None if c == "EOS" else c.encode(), log) for c, log in found.chars(top).items()]
    else:
        rows = likeliest(found, top)
    rests = [None if what is None else what.removeprefix(begun) for what, _ in rows]
    by_each = getattr(found.beam, "members_logprobs", None)
    return rows, [lm.run(by_each(rest)) if by_each else [] for rest in rests]


def _json(row: tuple[bytes | None, float], by_each: list[float]) -> dict[str, Any]:
    what, log = row
    spelled = {"eos": True} if what is None else {"byte": what[0]} if len(what) == 1 else {}
    return {
        **spelled,
        **({} if what is None else bytes_json(what)),
        "logprob": number(log),
        "probability": math.exp(log),
        **({"logprobs": [number(one) for one in by_each]} if by_each else {}),
    }


def _table(
    rows: list[tuple[bytes | None, float]], said: list[list[float]], names: list[str], unit: str
) -> Table:
    from genlm.bytes.viz import one_line, safe_text, share_text

    table = Table(box=None, pad_edge=False)
    table.add_column(unit)
    table.add_column("hex", style="dim")
    table.add_column("probability", justify="right")
    table.add_column("logprob", justify="right")
    several = bool(said and said[0])
    for name in names if several else []:
        table.add_column(Text(safe_text(name, keep="")), justify="right")
    table.add_column("")
    for (what, log), by_each in zip(rows, said, strict=True):
        p = math.exp(log)
        name, code = ("EOS", "") if what is None else (one_line(what), what.hex(" "))
        bar = Text("█" * max(1, round(BAR * p)), style="green")
        each = [share_text(math.exp(one)) for one in by_each]
        table.add_row(Text(name, "bold"), code, share_text(p), f"{log:.3f}", *each, bar)
    return table
