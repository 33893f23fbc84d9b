"""Tables with a row for each word, as corpora of reading times have them: to texts and regions, and back.

Rows of a text are ordered by their position, where there is one; rows that agree in text and position (a word
that many people read) are one word. The text is what its owner gives, with which the words are aligned
(`align.py`), or else the words joined. Figures go back to the rows that they came from: nothing is dropped,
added or reordered.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genlm.bytes.errors import InvalidValueError, bad_type, bad_value
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.score.align import PENN, Unmatched, align, alignments
from genlm.bytes.score.boundaries import continues
from genlm.bytes.score.corpus import TextRecord
from genlm.bytes.score.readers import check_one_reader
from genlm.bytes.score.regions import Region
from genlm.bytes.score.table import COLUMNS, WordSurprisal

__all__ = ["Columns", "WordRows", "added_names", "figure_names"]

SHOWN = 10
CLITIC = re.compile(r"n['’]t|['’](s|re|ve|ll|d|m)|['’]", re.IGNORECASE)
CLOSING, OPENING = set(",.;:!?%)]}”’"), set("([{“‘$")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called.

    Attributes:
        word: has the words.
        text_id: says of which text; None where all rows are of one.
        position: a number by which the rows of a text are ordered; None for their order in the table.
        context: has what stands before the text.
        whole: has the whole text.
    """

    word: str = "word"
    text_id: str | None = None
    position: str | None = None
    context: str | None = None
    whole: str | None = None

    def check(self, there: Sequence[str]) -> None:
        """That a table has them.

        Raises:
            ValueError: it lacks one.
        """
        for f in dataclasses.fields(self):
            name = getattr(self, f.name)
            said = {"context": "context_column", "whole": "texts"}.get(f.name, f.name)
            if name is None and f.name == "word":
                raise bad_type(said, name, "must be the name of a column")
            if name is not None and name not in there:
                known = ", ".join(map(repr, there)) or "nothing"
                raise bad_value(said, name, f"is no column of the table, which has {known}")

    def others(self, there: Iterable[str]) -> list[str]:
        """The columns that have no name here."""
        named = {getattr(self, f.name) for f in dataclasses.fields(self)}
        return [name for name in there if name not in named]


@dataclass
class WordRows:
    """The texts of a table.

    Attributes:
        records: the texts with their regions.
        places: for each row its text and region, by number; None where the word is not in the text.
        unmatched: the words that are not.
    """

    records: list[TextRecord] = field(default_factory=list)
    places: list[tuple[int, int] | None] = field(default_factory=list)
    unmatched: list[Unmatched] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        columns: Columns,
        texts: Mapping[Any, str] | None = None,
        how: Any = "exact",
        on_missing: str = "error",
        on_unmatched: str = "error",
        sep: str | None = " ",
    ) -> WordRows:
        """The texts of some rows.

        Args:
            texts: whole texts by their ids; None to take them from a column, or to join the words.
            how: see `alignments`.
            on_missing: `"error"` or `"ignore"`, where words are joined and positions have gaps.
            on_unmatched: `"error"`, or `"missing"` to leave a word without figures.
            sep: what stands between words.

        Raises:
            ValueError: words that are not in their text, with their places; rows that contradict each other.
        """
        for name, value, allowed in (
            ("on_missing", on_missing, ("error", "ignore")),
            ("on_unmatched", on_unmatched, ("error", "missing")),
        ):
            if value not in allowed:
                raise bad_value(name, value, f"must be {allowed[0]!r} or {allowed[1]!r}")
        names = alignments(how)
        if texts is not None and not isinstance(texts, Mapping):
            raise bad_type("texts", texts, "must be a column, or texts by their ids")
        given = None if texts is None else {_named(key): text for key, text in texts.items()}
        found = cls(places=[None] * len(rows))
        members = dict[str, list[int]]()
        for i, row in enumerate(rows):
            members.setdefault("1" if columns.text_id is None else _named(row[columns.text_id]), []).append(i)
        for name, ours in members.items():
            words = _words(name, rows, ours, columns)
            whole = _whole(name, rows, ours, columns, given)
            if whole is None:
                if columns.position is None:
                    check_one_reader(name, rows, ours, columns.word, columns.others(rows[ours[0]]))
                elif on_missing == "error":
                    _no_gaps(name, [words[i].position for i in range(len(words))])
                whole, regions = _joined([w.word for w in words], sep, "penn" in names)
                placed: list[Region | None] = list(regions)
            else:
                placed, looked = align(whole, [w.word for w in words], names, sep)
                lost = [w for w, region in zip(words, placed, strict=True) if region is None]
                if lost and columns.position is None:
                    check_one_reader(name, rows, ours, columns.word, columns.others(rows[ours[0]]))
                for w, at in zip(lost, looked, strict=True):
                    around = whole[max(0, at - 10) : at + 30]
                    found.unmatched.append(Unmatched(name, w.rows[0], w.position, w.word, at, around))
            context = _same("context", columns.context, name, rows, ours)
            kept = tuple(region for region in placed if region is not None)
            matched = [w for w, region in zip(words, placed, strict=True) if region is not None]
            for number, w in enumerate(matched):
                for i in w.rows:
                    found.places[i] = len(found.records), number
            record = TextRecord(name, as_bytes("texts", whole), spans=kept, context=context)
            found.records.append(record)
        if found.unmatched and on_unmatched == "error":
            raise InvalidValueError(_said(found.unmatched, names))
        return found

    @property
    def lacking(self) -> str:
        """How many words are not in their texts, for people."""
        return _lacking(self.unmatched)

    @staticmethod
    def figures(row: WordSurprisal, names: Sequence[str]) -> dict[str, Any]:
        """What a region's rows of the table get, in columns of these names (`figure_names`)."""
        return {name: row.word if name == "matched" else getattr(row, name) for name in names}

    @staticmethod
    def head(columns: Sequence[str], figures: Sequence[str]) -> list[str]:
        """The columns of what comes out: its own, renamed where figures have their names, and figures."""
        return [*added_names(columns, figures).values(), *figures]


def _named(text_id: Any) -> str:
    """An id as text: 3.0, which pandas makes of 3 where a column has gaps, is 3."""
    return str(int(text_id) if isinstance(text_id, float) and text_id.is_integer() else text_id)


@dataclass
class _Word:
    word: str
    position: float | None
    rows: list[int]


def _words(name: str, rows: Sequence[Mapping[str, Any]], ours: list[int], columns: Columns) -> list[_Word]:
    """The words of a text, in order."""
    found = list[_Word]()
    known = dict[float, _Word]()
    for i in ours:
        word = rows[i][columns.word]
        if not isinstance(word, str):
            rule = f"is no string in row {i + 1}, of text {name!r}"
            way = f"Numbers are words as text only: dtype={{{columns.word!r}: str}} of pandas' read_csv."
            if word is None or word != word:
                way = "A word like NA is read as missing by pandas: give keep_default_na=False to read_csv."
            raise bad_type(f"column {columns.word!r}", word, rule, way)
        if not word:
            rule = f"is empty in row {i + 1}, of text {name!r}"
            raise bad_value(
                f"column {columns.word!r}", word, rule, "Leave the row out, or say what the word is."
            )
        if columns.position is None:
            found.append(_Word(word, None, [i]))
            continue
        try:
            position = float(rows[i][columns.position])
        except (TypeError, ValueError):
            position = float("nan")
        if position != position:
            rule = f"is no number in row {i + 1}, of text {name!r}"
            raise bad_value(f"column {columns.position!r}", rows[i][columns.position], rule)
        if position not in known:
            known[position] = _Word(word, position, [i])
            found.append(known[position])
            continue
        if known[position].word != word:
            other = known[position].rows[0] + 1
            rule = (
                f"is also {known[position].word!r} at position {position:g} of text {name!r}, in row {other}"
            )
            raise bad_value(f"column {columns.word!r}", word, f"{rule}, and this is row {i + 1}")
        known[position].rows.append(i)
    return sorted(found, key=lambda w: w.position or 0.0) if columns.position is not None else found


def _whole(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    ours: list[int],
    columns: Columns,
    texts: Mapping[str, str] | None,
) -> str | None:
    if texts is None:
        return _same("texts", columns.whole, name, rows, ours)
    if name not in texts:
        raise bad_value("texts", sorted(texts), f"has no text {name!r}, which the table has rows of")
    return texts[name]


def _same(
    argument: str, column: str | None, name: str, rows: Sequence[Mapping[str, Any]], ours: list[int]
) -> str | None:
    """What a column has in all rows of a text."""
    if column is None:
        return None
    found = rows[ours[0]][column]
    if not isinstance(found, str):
        raise bad_type(argument, found, f"is no string in column {column!r} of text {name!r}")
    other = next((i for i in ours if rows[i][column] != found), None)
    if other is not None:
        rule = f"is {rows[other][column]!r} in row {other + 1}: it must be the same in all rows of text "
        raise bad_value(argument, found, f"{rule}{name!r}")
    return found


def _no_gaps(name: str, positions: Sequence[float | None]) -> None:
    known = [int(p) for p in positions if p is not None and p == int(p)]
    if len(known) < len(positions):
        return
    expected = known[0] if known[0] in (0, 1) else 1
    for position in known:
        if position != expected:
            rule = f"lacks position {expected} of text {name!r}: without that word the text is another"
            way = 'Give the whole texts; or on_missing="ignore" where positions merely have gaps.'
            raise bad_value("table", f"… position {position} …", rule, way)
        expected = position + 1


def _joined(words: Sequence[str], sep: str | None, penn: bool) -> tuple[str, list[Region]]:
    """The text that words make, and where each is in it."""
    between = " " if sep is None else sep
    text, spans, open_quote = "", list[tuple[int, int]](), False
    glue = True
    for word in words:
        shown, after = word, False
        if penn:
            shown = PENN.get(word, word)
            closes = shown == '"' and (word == "''" or (word == '"' and open_quote))
            glue = glue or bool(CLITIC.fullmatch(word)) or set(shown) <= CLOSING or closes
            after = shown in OPENING or (shown == '"' and not closes)
            open_quote = open_quote != (shown == '"')
        text += "" if glue else between
        spans.append((len(text), len(text) + len(shown)))
        text += shown
        glue = after
    follows = [*(start for start, _ in spans[1:]), -1]
    regions = []
    for (start, end), then, word in zip(spans, follows, [*words[1:], ""], strict=True):
        inside = continues(text[end : end + 1] or " ") or (then == end and bool(CLITIC.fullmatch(word)))
        regions.append(Region(start, end, "part" if inside and sep != "" else "word"))
    return text, regions


def _said(unmatched: list[Unmatched], names: frozenset[str]) -> str:
    """What was not found, for people."""
    lines = [
        f"text {u.text!r}, row {u.row + 1}"
        + ("" if u.position is None else f", position {u.position:g}")
        + f": {u.word!r} is not at or after character {u.start}, {u.around!r}"
        for u in unmatched[:SHOWN]
    ]
    more = f"; and {len(unmatched) - SHOWN} more" if len(unmatched) > SHOWN else ""
    loose = "" if names else 'align="loose" lets quotes, dashes, spaces and case differ; '
    way = f'{loose}on_unmatched="missing" leaves such words without figures.'
    return f"{_lacking(unmatched)}: {'; '.join(lines)}{more}. {way}"


def _lacking(unmatched: Sequence[Unmatched]) -> str:
    if len(unmatched) == 1:
        return "1 word of the table is not in its text"
    return f"{len(unmatched)} words of the table are not in their texts"


def figure_names(asked: Iterable[str] = ()) -> tuple[str, ...]:
    """The columns that a table gets, with those asked for beside the usual ones; `matched` is the word as it
    stands in the text."""
    return ("matched", *(name for name in COLUMNS if name not in ("text", "index", "word")), *asked)


def added_names(columns: Sequence[str], figures: Sequence[str]) -> dict[str, str]:
    """Names for a table's own columns, where a figure has theirs: `surprisal` becomes `surprisal_input`."""
    found, taken = dict[str, str](), {*columns, *figures}
    for name in columns:
        new = name
        while new in figures or (new != name and new in taken):
            new += "_input"
        taken.add(new)
        found[name] = new
    return found
