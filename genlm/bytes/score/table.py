"""Figures as tables: records, a pandas DataFrame, tab-separated values. Those of words."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from genlm.bytes.errors import bad_type, bad_value, optional
from genlm.bytes.resumable import write_whole
from genlm.bytes.score.byte_scores import Score, equal_fields
from genlm.bytes.score.plot import plot_bars, plot_heat

__all__ = ["COLUMNS", "Records", "WordSurprisal", "WordSurprisals"]


class Records:
    """A table: records with the same columns."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        raise NotImplementedError

    def records(self) -> list[dict[str, Any]]:
        """One dictionary a row."""
        raise NotImplementedError

    def to_dataframe(self) -> Any:
        """A pandas DataFrame.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = optional("pandas", "`to_dataframe`, other than `records`,", "'genlm-bytes[pandas]'")
        return pandas.DataFrame(self.records(), columns=list(self.columns))

    def to_tsv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Tab-separated values with a head line; fields with tabs, quotes or line ends are quoted.

        Args:
            path: a file to write too; it appears when it is complete.
        """
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, dialect="excel-tab", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records())
        if path is not None:
            write_whole(path, out.getvalue().encode())
        return out.getvalue()


@dataclass(frozen=True)
class WordSurprisal:
    """What one region costs.

    Attributes:
        text: which of the texts, from 0.
        index: which of its regions, from 0.
        kind: `"word"`, `"punctuation"` or `"span"`.
        word: the region.
        start: where it begins, in characters.
        end: where it ends, in characters.
        surprisal: minus the log-probability, to the base asked for.
        naive: the same by summing the tokenizer's own tokens; nan where none is the region's own.
        difference: `naive - surprisal`.
        above_one: how many of the figures summed here, of bytes and of the word's end, are above probability
            1, since mass was found late; see `Score.above_one`. The surprisal may then be too low, even below
            0.
        error: by how much the surprisal may be off, to the same base; nan where it is not known, for an
            ensemble that is no mean. Expected from what still waits at the word's two ends; nothing is
            certified.
        entropy: of the next byte or character where the region begins, to the same base; None if it was not
            asked for.
        word_entropy: the least that the entropy of the next word can be.
        word_entropy_most: the most that it can be, if no more than a million words may come next.
        rank: the least that the region's rank among the words that may come next can be; 1 is the likeliest.
        rank_most: the most that it can be.
    """

    text: int
    index: int
    kind: str
    word: str
    start: int
    end: int
    surprisal: float
    naive: float
    difference: float
    above_one: int = 0
    error: float = math.nan
    entropy: float | None = None
    word_entropy: float | None = None
    word_entropy_most: float | None = None
    rank: float | None = None
    rank_most: float | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordSurprisal) and equal_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.text, self.index, self.word))

    @property
    def shown(self) -> str:
        """The surprisal for people, with a word where it is that of no probability."""
        return f"{self.surprisal:.3f}{' (above probability 1)' if self.surprisal < 0.0 else ''}"


COLUMNS = tuple(field.name for field in dataclasses.fields(WordSurprisal) if field.default is not None)
"""Those that every row has."""


class WordSurprisals(Records, Sequence[WordSurprisal]):
    """The surprisals of the regions of some texts, in order.

    Args:
        rows: the records.
        scores: of the bytes of the texts, by `WordSurprisal.text`; from the same reading.
        asked: the names of the columns that were asked for beside the usual ones.
        base: of the logarithm.
    """

    def __init__(
        self,
        rows: Iterable[WordSurprisal],
        scores: Iterable[Score] = (),
        asked: Iterable[str] = (),
        base: float = 2.0,
    ) -> None:
        self._rows = tuple(rows)
        self.scores = tuple(scores)
        self._asked = tuple(asked)
        self.base = base

    @property
    def columns(self) -> tuple[str, ...]:
        return (*COLUMNS, *self._asked)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> WordSurprisal: ...
    @overload
    def __getitem__(self, at: slice) -> WordSurprisals: ...
    def __getitem__(self, at: int | slice) -> WordSurprisal | WordSurprisals:
        if not isinstance(at, slice):
            return self._rows[at]
        return WordSurprisals(self._rows[at], self.scores, self._asked, self.base)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordSurprisals) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    def records(self) -> list[dict[str, Any]]:
        """One dictionary a region."""
        return [{name: getattr(row, name) for name in self.columns} for row in self._rows]

    def plot(self, text: int = 0, ax: Any = None) -> Any:
        """A bar for each region of a text, with matplotlib.

        Args:
            text: which text.
            ax: the matplotlib axes to draw on; None makes a figure.

        Returns:
            The axes; `surprisals.plot().figure.savefig("words.pdf")` writes them.

        Raises:
            ValueError: a text that is not there.
            MissingDependencyError: matplotlib is not installed.
        """
        self._check_text(text)
        unit = {2.0: "bits", math.e: "nats"}.get(self.base, f"base {self.base:g}")
        return plot_bars([row for row in self._rows if row.text == text], unit, ax)

    def heat(self, path: str | os.PathLike[str] | None = None, text: int = 0, width: int = 72) -> Any:
        """A text on ground as warm as its regions are surprising, with matplotlib.

        Args:
            path: a file to write: PNG, SVG or PDF by its name.
            text: which text.
            width: characters a line.

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: a width below 1; a text that is not there.
            MissingDependencyError: matplotlib is not installed.
        """
        if path is not None and not isinstance(path, str | os.PathLike):
            raise bad_type("path", path, "must be a path", "Which text it is, is `text`.")
        self._check_text(text)
        rows = [row for row in self._rows if row.text == text]
        return plot_heat(self.scores[text].chars.text, rows, self.base, path, width)

    def _check_text(self, text: int) -> None:
        if isinstance(text, bool) or not isinstance(text, int):
            raise bad_type("text", text, "must be an integer: which of the texts, from 0")
        if not 0 <= text < len(self.scores):
            raise bad_value("text", text, f"must be from 0, one of {len(self.scores)} texts")

    def __repr__(self) -> str:
        head = [f"{row.word!r} {row.shown}" for row in self._rows[:8]]
        return f"WordSurprisals({', '.join(head)}{', …' if len(self) > 8 else ''})"
