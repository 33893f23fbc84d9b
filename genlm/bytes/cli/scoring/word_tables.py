"""A table that has a row for each word: read, aligned with its texts, and written again with figures.

It is held in memory, as its rows come out again in their order, whatever the order of the texts. While texts
are scored, their figures go to a file beside, a line of JSON a text; the table is made of it at the end.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from genlm.bytes.cli.scoring.source import Source, open_sources
from genlm.bytes.cli.scoring.tables import Quotes, check_column, read_table
from genlm.bytes.errors import called

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText, TextRecord, WordRows

__all__ = ["WordTable", "WordTables"]

_option = partial(typer.Option, rich_help_panel="Tables of words (--word-column)")


@dataclass(frozen=True)
class WordTables:
    """How a table of words is read."""

    position: Annotated[
        str | None, _option(help="The column of a number that orders a text's words; else as they stand.")
    ] = None
    texts_file: Annotated[
        Path | None, _option("--texts", help="A table of whole texts: columns of --id and --column (text).")
    ] = None
    align: Annotated[
        str, _option(help="What may differ: exact, loose, or some of quotes,dashes,spaces,case,forms,penn.")
    ] = "exact"
    on_missing: Annotated[
        Literal["error", "ignore"], _option(help="What gaps between positions are, where there are no texts.")
    ] = "error"
    on_unmatched: Annotated[
        Literal["error", "missing"], _option(help="What words are that are not in their text.")
    ] = "error"

    def check(self, word_column: str | None) -> None:
        """That these options come with `--word-column`."""
        for name in ("position", "texts_file", "align", "on_missing", "on_unmatched"):
            if word_column is None and getattr(self, name) != getattr(WordTables(), name):
                hint = "--texts" if name == "texts_file" else f"--{name.replace('_', '-')}"
                raise typer.BadParameter("needs --word-column", param_hint=hint)

    def read(
        self,
        sources: list[Source],
        word: str,
        texts: Any,
        sep: str | None,
        asked: Iterable[str],
        remark: Callable[[str], None],
    ) -> WordTable:
        """The table, aligned; mistakes in it are found here.

        Args:
            asked: the columns asked for beside the usual figures.
            texts: the options of that name: which columns name the texts, have them, stand before them.
        """
        from genlm.bytes.score import Columns, WordRows, figure_names

        if len(sources) != 1:
            raise typer.BadParameter("is for one table at a time", param_hint="--word-column")
        head, lines = read_table(sources[0], texts.quotes, remark)
        rows = [row for _, row in lines]
        whole = texts.column if self.texts_file is None else None
        columns = Columns(word, texts.id_column, self.position, texts.context_column, whole)
        for name, option in ((word, "word_column"), (columns.text_id, "id"), (self.position, "position")):
            check_column(name, option, head, sources[0])
        check_column(columns.context, "context_column", head, sources[0])
        check_column(whole, "column", head, sources[0])
        given = None
        if self.texts_file is not None:
            given = _texts(self.texts_file, texts.id_column, texts.column or "text", texts.quotes, remark)
        named = [dict(zip(head, row, strict=True)) for row in rows]
        how = (self.align, self.on_missing, self.on_unmatched, sep)
        with called(texts="column" if given is None else "texts", context="context_column"):
            aligned = WordRows.of(named, columns, given, *how)
        if texts.id_column is None and len(rows) > 1:
            # Each word follows all rows before it: no figure shows that these are another item's.
            other = [name for name in head if name not in (word, self.position, columns.context, whole)]
            remark(_one_text(len(rows), _names_of_texts(head, rows, other)))
        if aligned.unmatched:
            first = aligned.unmatched[0]
            where = f"the first is {first.word!r} in row {first.row + 1}, of text {first.text!r}"
            remark(f"{aligned.lacking}: without figures; {where}.")
        return WordTable(head, rows, aligned, figure_names(asked))


def _one_text(words: int, candidate: tuple[str, int] | None) -> str:
    """That all rows are one text, and what may say of which of several they are."""
    said = f"without --id all {words:,} rows are the words of 1 text"
    if candidate is None:
        return f"{said}."
    name, texts = candidate
    return f"{said}; --id {shlex.quote(name)} makes {texts:,} of them."


def _names_of_texts(head: list[str], rows: list[list[str]], names: Iterable[str]) -> tuple[str, int] | None:
    """The first of some columns that looks as if it named texts, with how many it names: each value stands in
    rows that follow one another, two or more on the average."""
    for name in names:
        at = head.index(name)
        runs = [value for value, _ in groupby(row[at] for row in rows)]
        if 1 < len(runs) <= len(rows) / 2 and len(set(runs)) == len(runs):
            return name, len(runs)
    return None


def _texts(
    path: Path, id_column: str | None, column: str, quotes: Quotes, remark: Callable[[str], None]
) -> dict[str, str]:
    """Whole texts by their ids."""
    with called(file="texts"):
        (source,) = open_sources([], [path])
        head, lines = read_table(source, quotes, remark)
        check_column(id_column or "id", "id", head, source)
        check_column(column, "column", head, source)
        at, of = head.index(id_column or "id"), head.index(column)
        return {("1" if id_column is None else row[at]): row[of] for _, row in lines}


@dataclass
class WordTable:
    """A table, its texts, and the places of its rows."""

    head: list[str]
    rows: list[list[str]]
    aligned: WordRows
    names: tuple[str, ...]

    @property
    def records(self) -> Iterator[TextRecord]:
        """The texts."""
        return iter(self.aligned.records)

    @property
    def digest(self) -> str:
        """Of all that comes out again."""
        return hashlib.sha256(json.dumps([self.head, self.rows]).encode()).hexdigest()

    def figures(self, result: ScoredText) -> list[list[Any]]:
        """The cells of each region of a text."""
        return [list(self.aligned.figures(row, self.names).values()) for row in result.regions or ()]

    def lines(self, every: Iterable[list[list[Any]]]) -> Iterator[list[Any]]:
        """The table with figures: the head line, and each row.

        Args:
            every: the figures of all texts, in order.
        """
        found = list(every)
        yield self.aligned.head(self.head, self.names)
        nothing = [""] * len(self.names)
        for row, place in zip(self.rows, self.aligned.places, strict=True):
            yield [*row, *(nothing if place is None else found[place[0]][place[1]])]
