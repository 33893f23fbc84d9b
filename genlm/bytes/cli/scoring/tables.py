"""Texts in tables: a column of tab- or comma-separated values, a key of JSON objects, one a line.

Tables are UTF-8 (a byte order mark is left out), with a head line, and with fields in double quotes where
they hold separators, quotes or line ends, as spreadsheets write them. All other columns are carried along.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from genlm.bytes.cli.scoring.source import Source
from genlm.bytes.errors import GenlmBytesError, InvalidValueError, bad_type, bad_value

if TYPE_CHECKING:
    from genlm.bytes.score import TextRecord

__all__ = ["json_rows", "rows_of", "table_rows"]

LONGEST_FIELD = 2**31 - 1
"""Bytes; the reader's own limit, 128 kB, is less than a chapter."""


def table_rows(source: Source, column: str, id_column: str | None, prefix: str) -> Iterator[TextRecord]:
    """The texts of a table's column.

    Args:
        source: comma-separated if its name ends with `.csv`; else tab-separated.
        column: the column.
        id_column: the column that names them; None for the number of the row.
        prefix: goes before the number.

    Raises:
        ValueError: no such column; a row with more or fewer fields than the head line; no UTF-8.
    """
    from genlm.bytes.score import TextRecord

    rows = rows_of(source, "," if source.name.lower().endswith(".csv") else "\t")
    _, head = next(rows, (0, []))
    names = [column] if id_column is None else [column, id_column]
    for name, option in zip(names, ("column", "id"), strict=False):
        if name not in head:
            there = ", ".join(map(repr, head)) or "nothing"
            rule = f"is not in the head line of {source.name}, which has {there}"
            raise bad_value(option, name, rule)
    if len(set(head)) < len(head):
        rule = "has two columns of one name in its head line"
        raise bad_value("file", source.name, rule, "Rename one.")
    for number, (line, row) in enumerate(rows, 1):
        if len(row) != len(head):
            rule = (
                f"has {len(row)} fields in the row that ends in line {line}, and {len(head)} in its head line"
            )
            raise bad_value("file", source.name, rule, "Quote fields that hold separators or quotes.")
        fields = dict(zip(head, row, strict=True))
        yield _record(TextRecord, fields, column, id_column, f"{prefix}{number}")


def json_rows(source: Source, key: str, id_key: str | None, prefix: str) -> Iterator[TextRecord]:
    """The texts of JSON objects, one a line.

    Args:
        source: the lines.
        key: the texts' key.
        id_key: the key of what names them; None for the number of the line.
        prefix: goes before the number.

    Raises:
        ValueError: a line that is no object, or lacks a key; no UTF-8.
        TypeError: a text that is no string.
    """
    from genlm.bytes.score import TextRecord

    for number, text in enumerate(_decoded(source), 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise bad_value("file", source.name, f"is no JSON in line {number}: {error}") from None
        if not isinstance(fields, dict):
            raise bad_value("file", source.name, f"has no JSON object in line {number}")
        for name, option in ((key, "field"), (id_key, "id")):
            if name is not None and name not in fields:
                raise bad_value(option, name, f"is no key in line {number} of {source.name}")
        if not isinstance(fields[key], str):
            raise bad_type(f"{key} in line {number} of {source.name}", fields[key], "must be a string")
        yield _record(TextRecord, fields, key, id_key, f"{prefix}{number}")


def rows_of(source: Source, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table with the number of the line in which each ends; empty lines are passed over.

    Raises:
        ValueError: no UTF-8, or quotes that do not close.
    """
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(_decoded(source), delimiter=separator, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise bad_value("file", source.name, f"is no table in line {reader.line_num}: {error}") from None


def _decoded(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines(), 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            rule = f"is no UTF-8 in line {number}, at its byte {error.start}"
            raise bad_value("file", source.name, rule) from None


def _record(
    kind: type[TextRecord], fields: Mapping[str, Any], key: str, id_key: str | None, number: str
) -> TextRecord:
    name = number if id_key is None else str(fields[id_key])
    others = {k: v for k, v in fields.items() if k not in (key, id_key)}
    try:
        text = fields[key].encode()
    except UnicodeEncodeError:
        raise _half_a_character(name) from None
    return kind(name, text, others)


def _half_a_character(name: str) -> GenlmBytesError:
    return InvalidValueError(f"text {name!r}: it holds half a character, a lone surrogate. Remove it.")
