"""What rows are about: whole texts, words, given words, spans, characters or bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from genlm.bytes.cli.scoring.source import Source, open_sources
from genlm.bytes.cli.scoring.tables import plain_rows
from genlm.bytes.cli.source import argument_text
from genlm.bytes.errors import bad_value, called

if TYPE_CHECKING:
    from genlm.bytes.score import RegionOptions, TextRecord

__all__ = ["Given", "Parts", "Unit"]


class Unit(StrEnum):
    """What a row is about."""

    text = "text"
    region = "region"
    char = "char"
    byte = "byte"


_option = partial(typer.Option, rich_help_panel="Rows")


@dataclass(frozen=True)
class Parts:
    """Which parts of a text get rows."""

    words: Annotated[bool, _option("--words", "-w", help="A row for each word.")] = False
    chars: Annotated[bool, _option("--chars", help="A row for each character.")] = False
    byte_rows: Annotated[bool, _option("--bytes", help="A row for each byte.")] = False
    spans: Annotated[
        Path | None, _option(help="A row for each span of a file: text's id, tab, start, tab, end.")
    ] = None
    word_list: Annotated[
        Path | None, _option(help="A row for each word of a file: text's id, tab, word.")
    ] = None
    word_column: Annotated[
        str | None, _option(help="A row for each row of a table of words: the column's name.")
    ] = None
    sep: Annotated[str, _option(help="What stands between words.", show_default="one space")] = " "
    any_space: Annotated[bool, _option("--any-space", help="Any white space does, line ends too.")] = False
    boundary: Annotated[
        Literal["trailing", "leading", "none"] | None,
        _option(help="Which of a word's ends count; trailing for words, none for spans."),
    ] = None
    punctuation: Annotated[bool, _option("--punctuation", help="Marks have rows of their own.")] = False
    marks: Annotated[str | None, _option(help="So have these characters.", show_default=False)] = None
    entropy: Annotated[
        Literal["byte", "char"] | None,
        _option(help="Entropies where words begin: of the next byte or character, and the word."),
    ] = None
    rank: Annotated[bool, _option("--rank", help="The word's rank among those that may come next.")] = False
    budget: Annotated[
        int, _option(min=1, help="Contexts of the model looked at for each word's entropy and rank.")
    ] = 256

    @property
    def unit(self) -> Unit:
        """What a row is about."""
        files = (self.spans is not None, self.word_list is not None, self.word_column is not None)
        asked = (self.words, self.chars, self.byte_rows, *files)
        names = ("--words", "--chars", "--bytes", "--spans", "--word-list", "--word-column")
        named = [name for name, given in zip(names, asked, strict=True) if given]
        if len(named) > 1:
            raise typer.BadParameter(f"not together with {named[1]}", param_hint=named[0])
        unit = {"--chars": Unit.char, "--bytes": Unit.byte}.get(named[0], Unit.region) if named else Unit.text
        defaults = Parts()
        for name in ("sep", "any_space", "boundary", "punctuation", "marks", "entropy", "rank"):
            if unit is not Unit.region and getattr(self, name) != getattr(defaults, name):
                hint = f"--{name.replace('_', '-')}"
                needs = "needs --words, --word-list, --word-column or --spans"
                raise typer.BadParameter(needs, param_hint=hint)
        return unit

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row has that not every one has."""
        options = self.options()
        return () if options is None else options.columns

    def options(self) -> RegionOptions | None:
        """What `Scoring` is told about regions."""
        from genlm.bytes.score import RegionOptions

        if self.unit is not Unit.region:
            return None
        given = "spans" if self.spans is not None else "words" if self.word_list is not None else None
        boundary: str | None = self.boundary
        sep = None if self.any_space else argument_text("sep", self.sep)
        if given == "spans" and boundary is None:
            boundary = "none"
        if self.word_column is not None:  # its words are found beforehand
            given, boundary = "spans", boundary or ("none" if sep == "" else "trailing")
        marks = self.punctuation if self.marks is None else argument_text("marks", self.marks)
        return RegionOptions(given, sep, boundary, marks, self.entropy or False, self.rank, self.budget)

    def table(self) -> Given | None:
        """The spans or words of `--spans` or `--word-list`, read."""
        path = self.spans if self.spans is not None else self.word_list
        if path is None:
            return None
        kind = "spans" if self.spans is not None else "words"
        with called(file="spans" if kind == "spans" else "word_list"):
            (source,) = open_sources([], [path])
            return Given(source, kind)


class Given:
    """Regions by the texts' ids. They are held in memory; a head line may stand over them."""

    def __init__(self, source: Source, kind: str) -> None:
        self.name, self.kind = source.name, kind
        self._regions: dict[str, list[Any]] = {}
        self._met: set[str] = set()
        fields = ("id", "start", "end") if kind == "spans" else ("id", "word")
        for number, (line, row) in enumerate(plain_rows(source)):
            if len(row) != len(fields):
                rule = f"has {len(row)} fields in line {line}, and should have {len(fields)}: "
                raise self._bad(f"{rule}{', '.join(fields[:-1])} and {fields[-1]}")
            try:
                region = (int(row[1]), int(row[2])) if kind == "spans" else row[1]
            except ValueError:
                if number == 0:  # a head line
                    continue
                raise self._bad(f"has no offsets in characters in line {line}: {row[1]}, {row[2]}") from None
            self._regions.setdefault(row[0], []).append(region)
        if self._regions.get("id") == ["word"]:  # a head line
            del self._regions["id"]

    def attach(self, records: Iterable[TextRecord]) -> Iterator[TextRecord]:
        """The texts with their regions."""
        for record in records:
            self._met.add(record.id)
            given: dict[str, Any] = {self.kind: tuple(self._regions.get(record.id, ()))}
            yield replace(record, **given)

    def check_all_met(self) -> None:
        """That every id was that of a text."""
        missing = [name for name in self._regions if name not in self._met]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise self._bad(f"names texts that are not there: {', '.join(map(repr, missing[:3]))}{more}")

    def _bad(self, rule: str) -> Exception:
        return bad_value("spans" if self.kind == "spans" else "word_list", self.name, rule)
