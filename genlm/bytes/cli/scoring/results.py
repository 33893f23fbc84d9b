"""Where results go: to stdout as rows, as JSON, or as colours; or to files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from rich.console import Console
from rich.text import Text

from genlm.bytes.cli.output import on_terminal, write_json_line
from genlm.bytes.cli.scoring import heat, rows
from genlm.bytes.cli.scoring.files import Files
from genlm.bytes.cli.scoring.jsontext import dumps
from genlm.bytes.cli.scoring.rows import Asked
from genlm.bytes.cli.scoring.totals import Totals
from genlm.bytes.cli.scoring.word_tables import WordTable
from genlm.bytes.score import ScoredText
from genlm.bytes.viz import draw_heat, draw_scale, safe_text

__all__ = ["show", "write"]


def show(
    results: Iterable[ScoredText], asked: Asked, as_json: bool, table: WordTable | None = None
) -> Totals:
    """Write results to stdout as they come: documents, a heat map where there are colours, else rows."""
    console = Console(highlight=False, emoji=False)
    coloured = on_terminal() and console.color_system is not None and not console.no_color
    each: Callable[[ScoredText, Totals], Any]
    if as_json:

        def each(result: ScoredText, _: Totals) -> None:
            write_json_line(dumps({"event": "text", **rows.document(result, asked)}))

    elif coloured:

        def each(result: ScoredText, before: Totals) -> None:
            _colours(result, asked, console, before.texts == 0)

    elif table is not None:  # its rows come in their own order, when all are known
        every: list[list[list[Any]]] = []

        def each(result: ScoredText, _: Totals) -> None:
            every.append(table.figures(result))

    else:

        def each(result: ScoredText, before: Totals) -> None:
            # The head line comes with the first text: where there is none, no model, say, nothing is written.
            head = [] if before.texts else [asked.head]
            _put([*head, *rows.rows(result, asked)])

    totals = Totals()
    for result in results:
        each(result, totals)
        totals = totals.after(result)
    if table is not None and not as_json and not coloured:
        _put(table.lines(every))
    if coloured and not as_json:
        console.print(draw_scale(heat.scale_end(asked)), soft_wrap=True)
    return totals


def write(results: Iterable[ScoredText], files: Files) -> Totals:
    """Write results to files."""
    with closing(files):
        for result in results:
            files.add(result)
        files.finish()
    return files.totals


def _put(lines: Iterable[list[Any]]) -> None:
    text = rows.tsv(lines).decode()
    sys.stdout.write(safe_text(text) if on_terminal() else text)
    sys.stdout.flush()


def _colours(result: ScoredText, asked: Asked, console: Console, first: bool) -> None:
    if not first or result.record.fields or not result.record.id.isdigit():
        name = safe_text(rows.visible(result.record.id), keep="")
        console.print(Text(name, "dim"), soft_wrap=True)
    console.print(draw_heat(heat.pieces(result, asked)), soft_wrap=True)
    if result.regions:
        console.print(_figures(result), soft_wrap=True)


def _figures(result: ScoredText) -> Text:
    """The regions and their figures in a line: `The 19.80  chef 20.21`."""
    found = Text()
    for region in result.regions or ():
        found.append(f"{safe_text(rows.visible(region.word), keep='')} ", "bold")
        found.append(f"{region.surprisal:.2f}{' (above probability 1)' if region.surprisal < 0.0 else ''}  ")
    return found
