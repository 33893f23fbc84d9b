"""The texts to score: from the command line, stdin, files; whole, by lines, or from a table's column.

Texts are read as they are needed: an input may be larger than memory. A file that is one text is scored as
its bytes stand; a byte order mark at the head of lines or of a table is no text. A text's name (its id) is

- the file, as it was given, where a file is one text; `-` for stdin; 1, 2, … for texts typed;
- the line, or the row of the table (from 1, the head line not counted), where it is one of many; with
  several files `file:line`;
- what the table says in the column of `--id`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genlm.bytes.cli.scoring.source import Source, open_sources
from genlm.bytes.cli.scoring.tables import Quotes, json_rows, table_rows
from genlm.bytes.cli.source import argument_bytes
from genlm.bytes.errors import bad_value

if TYPE_CHECKING:
    from genlm.bytes.score import TextRecord

__all__ = ["Texts", "not_empty"]


_option = partial(typer.Option, rich_help_panel="Texts")


@dataclass(frozen=True)
class Texts:
    """The texts that are scored."""

    texts: Annotated[
        list[str] | None,
        typer.Argument(show_default=False, metavar="TEXT", help="Texts; - for stdin, as is none at all."),
    ] = None
    file: Annotated[
        list[Path] | None,
        _option("--file", "-f", help="Read a file, as its bytes stand; what else is given are files too."),
    ] = None
    lines: Annotated[
        bool, _option("--lines", "-l", help="Each line is a text; a byte order mark is none.")
    ] = False
    column: Annotated[
        str | None, _option(help="Each row of a .tsv or .csv is a text: the column's name.")
    ] = None
    key: Annotated[str | None, _option("--field", help="Each line is a JSON object: the text's key.")] = None
    id_column: Annotated[str | None, _option("--id", help="The column or key that names the texts.")] = None
    context_column: Annotated[
        str | None, _option(help="The column or key of what stands before each text.")
    ] = None
    quotes: Annotated[
        Quotes,
        _option(help="Quotes around cells: as spreadsheets do, nothing doubtful; RFC 4180; or letters."),
    ] = Quotes.auto
    chomp: Annotated[bool, _option("--chomp", help="Leave out one newline at the end of a text.")] = False

    @property
    def in_tables(self) -> bool:
        """Whether they are rows or objects, which can be wrong, and not files or lines, which cannot."""
        return self.column is not None or self.key is not None

    def sources(self, words: bool = False) -> list[Source]:
        """Where the texts are, looked at but not read; with `words` a table that has a row for each word."""
        if sum((self.lines, self.column is not None, self.key is not None)) > 1:
            raise typer.BadParameter("give one of --lines, --column and --field", param_hint="--lines")
        for name, given in (("--id", self.id_column), ("--context-column", self.context_column)):
            if given is not None and self.column is self.key is None and not words:
                raise typer.BadParameter("needs --column or --field", param_hint=name)
        if words and (self.lines or self.key is not None):
            raise typer.BadParameter("is for tables", param_hint="--word-column")
        if self.quotes is not Quotes.auto and self.column is None and not words:
            raise typer.BadParameter("needs --column", param_hint="--quotes")
        found = open_sources(self.texts or [], self.file or [])
        for text in () if self.file else self.texts or ():
            # The score of a file's name would look like a result.
            if text != "-" and os.path.isfile(argument_bytes(text)):
                said = f"{text!r} is a file: --file {text} scores what it holds"
                raise typer.BadParameter(said, param_hint="TEXT")
        return found

    def records(
        self, sources: list[Source], remark: Callable[[str], None] = lambda _: None
    ) -> Iterator[TextRecord]:
        """The texts, read as they are taken; `remark` takes what the user should know of them."""
        from genlm.bytes.score import TextRecord

        before = self.context_column
        for source in sources:
            prefix = f"{source.name}:" if len(sources) > 1 else ""
            if self.column is not None:
                yield from table_rows(
                    source, self.column, self.id_column, prefix, self.quotes, remark, before
                )
            elif self.key is not None:
                yield from json_rows(source, self.key, self.id_column, prefix, before)
            elif self.lines:
                for number, line in enumerate(source.lines(), 1):
                    yield TextRecord(f"{prefix}{number}", _chomped(line))
            else:
                text = source.read()
                yield TextRecord(source.name, _chomped(text) if self.chomp else text)


def not_empty(records: Iterable[TextRecord], end: bool) -> tuple[TextRecord, Iterator[TextRecord]]:
    """The first of some texts, and all of them, if there is anything to score; the end is, if it counts.

    Raises:
        ValueError: there is no text, or one, which is empty. Among others an empty text has its row.
    """
    remaining = iter(records)
    first = list(islice(remaining, 2))
    if not first:
        raise bad_value("text", "", "there is none", "Give a text, or a file with one.")
    if len(first) == 1 and not first[0].text and not end:
        raise bad_value("text", first[0].text, "is empty: there is nothing to score", "Give a longer text.")
    return first[0], chain(first, remaining)


def _chomped(text: bytes) -> bytes:
    return text.removesuffix(b"\n").removesuffix(b"\r")
