"""Texts in tables: a column of tab- or comma-separated values, a key of JSON objects, one a line.

Tables are UTF-8 (a byte order mark is left out) with a head line. All other columns are carried along as they
stand. A row without anything is passed over, but for tables of one column: there it is an empty text.

Quotes: in a `.csv` they are RFC 4180's. Other tables come from spreadsheets, pandas and R, which quote (a
cell with a tab, a line end or a quote in it; R every string), and from people who never quote, and whose
`"` is a letter. Where both readings differ in more than the quotes around a cell, nothing is guessed: a `"`
that begins a cell and does not end it, and lines that would be rows of their own and that a quote makes
one, are errors that name the line and `--quotes`. A quoted cell that goes over lines otherwise is read, and
told of.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from genlm.bytes.cli.scoring.jsontext import members
from genlm.bytes.cli.scoring.source import Source
from genlm.bytes.errors import InvalidValueError, bad_type, bad_value

if TYPE_CHECKING:
    from genlm.bytes.score import TextRecord

__all__ = ["Quotes", "check_column", "json_rows", "plain_rows", "read_table", "table_rows"]

LONGEST_FIELD = 2**31 - 1
"""Bytes; the reader's own limit, 128 kB, is less than a chapter."""
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "a spreadsheet's own format, or a zip"}
REASONS = {
    "unexpected end of data": "a quote opens a cell and is never closed",
    "expected after": "a quoted cell goes on after its closing quote",
}
"""What the reader says, and what that means."""
NONE = "`--quotes none` takes quotes for letters."


class Quotes(StrEnum):
    """What a `"` at the beginning of a cell is."""

    auto = "auto"
    csv = "csv"
    none = "none"


def table_rows(
    source: Source,
    column: str,
    id_column: str | None,
    prefix: str,
    quotes: Quotes = Quotes.auto,
    remark: Callable[[str], None] = lambda _: None,
    context: str | None = None,
    option: str = "column",
    more: Sequence[tuple[str, str]] = (),
) -> Iterator[TextRecord]:
    """The texts of a table's column.

    Args:
        source: comma-separated if its name ends with `.csv`; else tab-separated.
        id_column: the column that names them; None for the number of the row.
        remark: takes what the user should know.
        context: the column of what stands before each text.
        option: what the column is asked for by.
        more: further columns that must be there, with what they are asked for by.

    Raises:
        ValueError: no such column; a row with more or fewer fields than the head line; no UTF-8.
    """
    head, rows = read_table(source, quotes, remark)
    for name, asked_by in ((column, option), (id_column, "id"), (context, "context_column"), *more):
        check_column(name, asked_by, head, source)
    for number, (_, row) in enumerate(rows, 1):
        fields = dict(zip(head, row, strict=True))
        name = f"{prefix}{number}" if id_column is None else fields[id_column]
        before = None if context is None else fields[context]
        yield _record(name, fields[column], fields, (column, id_column, context), before)


def check_column(name: str | None, option: str, head: Sequence[str], source: Source) -> None:
    """That a table has a column, if one is asked for."""
    if name is None or name in head:
        return
    rule = f"is not in the head line of {source.shown}, which has {', '.join(map(repr, head)) or 'nothing'}"
    commas = len(head) == 1 and "," in head[0]
    way = "Tabs part cells there, since its name does not end with .csv." if commas else ""
    raise bad_value(option, name, rule, way)


def read_table(
    source: Source, quotes: Quotes = Quotes.auto, remark: Callable[[str], None] = lambda _: None
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """A table's head line, and its rows with the numbers of their lines."""
    commas = source.name.lower().endswith(".csv")
    separator = "," if commas else "\t"
    if quotes is Quotes.none:
        rows = _unquoted(source, separator)
    else:
        rows = _quoted(source, separator, Quotes.csv if commas else quotes, remark)
    _, head = next((found for found in rows if found[1] != [""]), (0, []))
    return head, _whole_rows(source, head, rows, quotes)


def _whole_rows(
    source: Source, head: list[str], rows: Iterator[tuple[int, list[str]]], quotes: Quotes
) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each as wide as the head line."""
    if len(set(head)) < len(head):
        rule = "has two columns of one name in its head line"
        raise bad_value("file", source.name, rule, "Rename one.")
    for line, row in rows:
        if row == [""] and len(head) > 1:
            continue
        if len(row) != len(head):
            rule = f"has {len(row)} fields in the row of line {line}, and {len(head)} in its head line"
            instead = "Quote fields that hold separators or quotes." if quotes is not Quotes.none else ""
            raise bad_value("file", source.name, rule, instead)
        yield line, row


def json_rows(
    source: Source,
    key: str,
    id_key: str | None,
    prefix: str,
    context: str | None = None,
    option: str = "field",
    more: Sequence[tuple[str, str]] = (),
) -> Iterator[TextRecord]:
    """The texts of JSON objects, one a line; as for `table_rows`, with keys for columns.

    Raises:
        ValueError: a line that is no object, or lacks a key; no UTF-8.
        TypeError: a text that is no string.
    """
    for number, line in _decoded(source):
        if not line.strip():
            continue
        try:
            fields = members(line)
        except TypeError:
            raise bad_value("file", source.name, f"has no JSON object in line {number}") from None
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise bad_value("file", source.name, f"is no JSON in line {number}: {why}") from None
        for name, asked_by in ((key, option), (id_key, "id"), (context, "context_column"), *more):
            if name is not None and name not in fields:
                there = ", ".join(map(repr, fields)) or "nothing"
                rule = f"is no key in line {number} of {source.shown}, which has {there}"
                raise bad_value(asked_by, name, rule)
        text = fields[key]
        if not text.startswith('"'):
            raise bad_type(f"{key} in line {number} of {source.shown}", str(text), "must be a string")
        name = f"{prefix}{number}" if id_key is None else fields[id_key].name()
        before = None if context is None else fields[context].cell()
        yield _record(name, text.cell(), fields, (key, id_key, context), before)


def plain_rows(source: Source) -> Iterator[tuple[int, list[str]]]:
    """The rows of a list of ours, with the number of their line: tabs separate, and quotes are letters."""
    return (found for found in _unquoted(source, "\t") if found[1] != [""])


def _unquoted(source: Source, separator: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in _decoded(source):
        yield number, line.removesuffix("\n").removesuffix("\r").split(separator)


def _quoted(
    source: Source, separator: str, quotes: Quotes, remark: Callable[[str], None]
) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line in which each begins."""
    csv.field_size_limit(LONGEST_FIELD)
    lines: list[str] = []  # of the row that is being read

    def kept() -> Iterator[str]:
        for _, line in _decoded(source):
            lines.append(line)
            yield line

    reader = csv.reader(kept(), delimiter=separator, strict=True)
    begins, width, told = 1, 0, False
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            why = next((why for said, why in REASONS.items() if said in str(error)), str(error))
            rule = f"is no table in the row that begins in line {begins}: {why}"
            doubled = 'A quote inside quotes is written twice (in R: qmethod = "double").'
            raise bad_value("file", source.name, rule, f"{doubled} {NONE}") from None
        if row is None:
            return
        row = row or [""]
        width = width or (0 if row == [""] else len(row))
        if len(lines) > 1 and quotes is Quotes.auto:
            where = f"lines {begins} to {reader.line_num}"
            if width > 1 and all(line.count(separator) == width - 1 for line in lines):
                rule = f"has a quote that makes {where} one row, and each would be one of its own"
                instead = f"{NONE} `--quotes csv` takes them for one row."
                raise bad_value("file", source.name, rule, instead)
            if not told:
                remark(
                    f"{source.shown}: a quoted cell goes over {where}. If that is wrong, give --quotes none."
                )
            told = True
        yield begins, row
        begins = reader.line_num + 1
        lines.clear()


def _decoded(source: Source) -> Iterator[tuple[int, str]]:
    """Lines and their numbers."""
    for number, line in enumerate(source.lines(), 1):
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            rule = f"is no UTF-8 in line {number}, at its byte {error.start}"
            kind = next((kind for mark, kind in MARKS.items() if line.startswith(mark) and number == 1), None)
            instead = "" if kind is None else f"It looks like {kind}: save it as UTF-8 text."
            raise bad_value("file", source.name, rule, instead) from None


def _record(
    name: str, text: str, fields: Mapping[str, Any], used: tuple[str | None, ...], context: str | None
) -> TextRecord:
    from genlm.bytes.score import TextRecord

    try:
        (context or "").encode()
        kept = {k: v for k, v in fields.items() if k not in used}
        return TextRecord(name, text.encode(), kept, context=context)
    except UnicodeEncodeError:
        message = f"text {name!r}: it holds half a character, a lone surrogate. Remove it."
        raise InvalidValueError(message) from None
