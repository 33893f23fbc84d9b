"""A table of words with their surprisals: the rows that went in, in their order, and columns of figures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from genlm.bytes.errors import bad_type, optional
from genlm.bytes.resumable import write_whole
from genlm.bytes.score.align import Unmatched
from genlm.bytes.score.byte_scores import Score
from genlm.bytes.score.table import COLUMNS, WordSurprisals
from genlm.bytes.score.word_rows import WordRows, added_names, figure_names

__all__ = ["TableSurprisals", "rows_of"]


def rows_of(table: Any) -> tuple[list[Mapping[str, Any]], list[str]]:
    """A table's rows and columns: a DataFrame's, or a sequence of mappings."""
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        return table.to_dict("records"), [str(name) for name in table.columns]
    rows = isinstance(table, Sequence) and not isinstance(table, str | bytes)
    if not rows or not all(isinstance(row, Mapping) for row in table):
        raise bad_type("table", table, "must be a DataFrame, or a list of rows, each a dictionary")
    columns = dict.fromkeys(name for row in table for name in row)
    return [dict.fromkeys(columns) | dict(row) for row in table], list(columns)


class TableSurprisals(Sequence[dict[str, Any]]):
    """The rows of a table with the figures of their words; None where a word was not in its text.

    Args:
        table: what was given.
        aligned: its rows' places.
        found: the figures of these.

    Attributes:
        unmatched: the words that were not in their texts, with their places.
        scores: of the bytes of each text, in the order of the texts' first rows.
    """

    def __init__(self, table: Any, aligned: WordRows, found: WordSurprisals) -> None:
        self._table = table
        self._rows, self.columns = rows_of(table)
        self.unmatched: tuple[Unmatched, ...] = tuple(aligned.unmatched)
        self.scores: tuple[Score, ...] = found.scores
        self._names = figure_names(found.columns[len(COLUMNS) :])
        by_place = {(row.text, row.index): aligned.figures(row, self._names) for row in found}
        nothing = dict.fromkeys(self._names)
        self._figures = [nothing if p is None else by_place[p] for p in aligned.places]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        names = added_names(self.columns, self._names)
        own = self._rows[at]
        return {names[name]: own[name] for name in self.columns} | self._figures[at]

    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return list(self)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame: the one that was given, its index and columns kept, with the figures' columns.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = optional("pandas", "`to_dataframe`, other than `records`,", "'genlm-bytes[pandas]'")
        if not isinstance(self._table, pandas.DataFrame):
            return pandas.DataFrame(self.records())
        own = self._table.rename(columns=added_names(self.columns, self._names))
        added = {name: [row[name] for row in self._figures] for name in self._names}
        return own.assign(**{name: pandas.Series(x, index=own.index) for name, x in added.items()})

    def to_tsv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Tab-separated values with a head line; None is an empty cell.

        Args:
            path: a file to write too; it appears when it is complete.
        """
        out = io.StringIO()
        writer = csv.writer(out, "excel-tab", lineterminator="\n")
        writer.writerow(WordRows.head(self.columns, self._names))
        for own, added in zip(self._rows, self._figures, strict=True):
            writer.writerow([*(own[name] for name in self.columns), *added.values()])
        if path is not None:
            write_whole(path, out.getvalue().encode())
        return out.getvalue()

    def __repr__(self) -> str:
        return f"TableSurprisals({len(self)} rows, {len(self.scores)} texts, {len(self.unmatched)} unmatched)"
