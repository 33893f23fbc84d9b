"""`genlm-bytes predict`: the words that may come next, or the characters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from genlm.bytes.cli.output import stdout_console, write_json
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import TextInput, argument_text

if TYPE_CHECKING:
    from genlm.bytes.predict import CharPredictions, WordPredictions

__all__ = ["predict"]

BAR = 30


def predict(
    text: TextInput,
    shared: Shared,
    n: Annotated[int, typer.Option("-n", "--top", min=1, help="How many to show.")] = 5,
    prefix: Annotated[
        str | None, typer.Option(help="The first letters of the word that the text stops in.")
    ] = None,
    word: Annotated[str | None, typer.Option(help="What a word is: a regular expression.")] = None,
    chars: Annotated[bool, typer.Option("--chars", help="Characters of an alphabet, not words.")] = False,
    alphabet: Annotated[
        str | None, typer.Option(help="Those characters; a to z, ' and space if not given.")
    ] = None,
    floor: Annotated[float, typer.Option(min=0.0, max=1.0, help="Each has at least this.")] = 0.0,
    budget: Annotated[int, typer.Option(min=1, help="Contexts of the model to look at.")] = 256,
    milliseconds: Annotated[
        float | None, typer.Option("--milliseconds", "--ms", help="Or how long to look.", show_default=False)
    ] = None,
) -> None:
    """The likeliest next words after a text, each with its end.

    If the text stops in a word, these complete it. The last line is what
    is left for everything else.

    Examples:

    genlm-bytes predict "The chef cooked dinner for the "
    genlm-bytes predict "The capital of Fra" -n 3
    genlm-bytes predict "I would like a cup of t" --chars --floor 0.001
    genlm-bytes predict --json --file notes.txt
    """
    if (alphabet is not None or floor) and not chars:
        hint = "--alphabet" if alphabet is not None else "--floor"
        raise typer.BadParameter("needs --chars", param_hint=hint)
    if chars and (prefix is not None or word is not None):
        raise typer.BadParameter(
            "is for words: leave out --chars", param_hint="--prefix" if word is None else "--word"
        )
    prompt = text.read()
    begun = None if prefix is None else argument_text("prefix", prefix)
    symbols = None if alphabet is None else argument_text("alphabet", alphabet)
    found: Any
    with shared.model() as lm:
        with shared.working(f"Reading {len(prompt):,} bytes"):
            if chars:
                found = lm.predict_chars(prompt, symbols, floor)
            else:
                found = lm.predict_words(
                    prompt, n, begun, budget=budget, milliseconds=milliseconds, word=word
                )
        if shared.as_json:
            document = found.to_dict()
            if chars:
                document["symbols"] = document["symbols"][:n]
            write_json(document)
        else:
            stdout_console().print(_chars(found, n) if chars else _words(found))


def _words(found: WordPredictions) -> Table:
    table = _table("word")
    for one in found:
        _row(table, one.word, one.probability, f"{one.logprob:.3f}")
    left = "others" if found.complete else "others (the budget is spent)"
    _row(table, Text(left, "dim"), found.remainder, "")
    return table


def _chars(found: CharPredictions, n: int) -> Table:
    table = _table("character")
    for symbol, logp in list(found.items())[:n]:
        _row(table, symbol, math.exp(logp), f"{logp:.3f}")
    return table


def _table(what: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(what)
    table.add_column("probability", justify="right")
    table.add_column("logprob", justify="right")
    table.add_column("")
    return table


def _row(table: Table, name: str | Text, p: float, logp: str) -> None:
    from genlm.bytes.viz import one_line, share_text

    shown = Text(one_line(name.encode()), "bold") if isinstance(name, str) else name
    table.add_row(shown, share_text(p), logp, Text("█" * max(1, round(BAR * p)), style="green"))
