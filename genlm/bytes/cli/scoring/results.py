"""Where results go: to stdout as rows, as JSON, or as colours; or to files."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from genlm.bytes.cli.output import on_terminal, write_json_line
from genlm.bytes.cli.scoring import heat, rows
from genlm.bytes.cli.scoring.formats import Asked
from genlm.bytes.cli.scoring.jsontext import dumps
from genlm.bytes.cli.scoring.totals import Totals
from genlm.bytes.show import draw_heat, draw_scale, safe_text

if TYPE_CHECKING:
    from genlm.bytes.cli.scoring.files import Files
    from genlm.bytes.score import ScoredText

__all__ = ["show", "write"]


def show(results: Iterable[ScoredText], asked: Asked, as_json: bool) -> Totals:
    """Write results to stdout as they come: documents, a heat map where there are colours, else rows.

    Args:
        results: the results.
        asked: what decides their form.
        as_json: whether documents are wanted.
    """
    if as_json:
        return _documents(results, asked)
    console = Console(highlight=False, emoji=False)
    coloured = on_terminal() and console.color_system is not None and not console.no_color
    return _colours(results, asked, console) if coloured else _rows(results, asked)


def write(results: Iterable[ScoredText], files: Files) -> Totals:
    """Write results to files; whatever ends it, what has come so far is kept.

    Args:
        results: the results.
        files: the files.

    Raises:
        ValueError: a file cannot be written.
    """
    with closing(files):
        for result in results:
            files.add(result)
        files.finish()
    return files.totals


def _documents(results: Iterable[ScoredText], asked: Asked) -> Totals:
    totals = Totals()
    for result in results:
        totals = totals.after(result)
        write_json_line(dumps({"event": "text", **rows.document(result, asked.unit, asked.base)}))
    return totals


def _rows(results: Iterable[ScoredText], asked: Asked) -> Totals:
    totals = Totals()
    _put([rows.head(asked.unit, asked.fields, asked.end)])
    for result in results:
        totals = totals.after(result)
        _put(list(rows.rows(result, asked.unit, asked.fields, asked.base, asked.end)))
    return totals


def _put(lines: list[list[object]] | list[list[str]]) -> None:
    text = rows.tsv(lines).decode()
    sys.stdout.write(safe_text(text) if on_terminal() else text)
    sys.stdout.flush()


def _colours(results: Iterable[ScoredText], asked: Asked, console: Console) -> Totals:
    totals = Totals()
    for result in results:
        totals = totals.after(result)
        if totals.texts > 1 or result.record.fields or not result.record.id.isdigit():
            name = safe_text(rows.visible(result.record.id), keep="")
            console.print(Text(name, "dim"), soft_wrap=True)
        console.print(draw_heat(heat.pieces(result, asked.base)), soft_wrap=True)
        if result.regions:
            console.print(_figures(result, asked.base), soft_wrap=True)
    console.print(draw_scale(heat.scale_end(asked.unit, asked.base)), soft_wrap=True)
    return totals


def _figures(result: ScoredText, base: float) -> Text:
    """The regions and their figures in a line: `The 19.80  chef 20.21`."""
    found = Text()
    for region in result.regions or ():
        found.append(f"{safe_text(rows.visible(region.word), keep='')} ", "bold")
        found.append(f"{region.surprisal:.2f}{' (above probability 1)' if region.surprisal < 0.0 else ''}  ")
    return found
