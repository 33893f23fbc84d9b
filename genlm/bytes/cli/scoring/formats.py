"""The kinds of file that results go to. Each is a head, a piece for every text, a foot: files only grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

from genlm.bytes.cli.scoring import heat, npz, rows
from genlm.bytes.cli.scoring.totals import Totals, unit_name
from genlm.bytes.cli.scoring.word_tables import WordTable
from genlm.bytes.errors import bad_value
from genlm.bytes.resumable import Output
from genlm.bytes.score import ScoredText
from genlm.bytes.viz import heat_foot, heat_head, heat_section, page_opening

__all__ = ["Format", "Html", "format_of"]


class Format(Output):
    """A kind of file."""

    def __init__(self, path: Path, asked: rows.Asked) -> None:
        super().__init__(path)
        self.asked = asked

    def piece(self, result: ScoredText, before: Totals) -> bytes:
        """What a text adds, after others with these sums."""
        raise NotImplementedError

    def foot(self, totals: Totals) -> bytes:
        """What it ends with."""
        return b""


class Tsv(Format):
    """Tab-separated values with a head line."""

    def head(self) -> bytes:
        return rows.tsv([self.asked.head])

    def piece(self, result: ScoredText, before: Totals) -> bytes:
        return rows.tsv(rows.rows(result, self.asked))


class Jsonl(Format):
    """A JSON document a line, one for each text."""

    def piece(self, result: ScoredText, before: Totals) -> bytes:
        return rows.line(rows.document(result, self.asked))


class Npz(Format):
    """Numpy arrays; see `npz.py`."""

    part = ".part"

    def head(self) -> bytes:
        return npz.begun()

    def piece(self, result: ScoredText, before: Totals) -> bytes:
        return npz.spooled(result, before, self.asked.fields, self.asked.columns)

    def made(self, file: BinaryIO) -> None:
        npz.write(self.growing, file)


class Html(Format):
    """A page coloured by surprisal."""

    option = "html"

    def head(self) -> bytes:
        return f"{heat_head('Surprisal', heat.scale_end(self.asked))}\n".encode()

    def opening(self) -> bytes:
        return page_opening().encode()

    def piece(self, result: ScoredText, before: Totals) -> bytes:
        length, chars, logp, per_byte, per_char, *_ = rows.figures(result, self.asked)
        unit = unit_name(self.asked.base)
        said = (
            f"{length:,} bytes, {chars:,} characters, log-probability {logp:.3f} {unit}, "
            f"{per_byte:.4f} bits per byte, {per_char:.4f} per character"
        )
        pieces = list(heat.pieces(result, self.asked))
        return f"{heat_section(rows.visible(result.record.id), said, pieces)}\n".encode()

    def foot(self, totals: Totals) -> bytes:
        return f"{heat_foot(totals.line(self.asked.base))}\n".encode()


class Joined(Format):
    """A table of words, with figures."""

    part = ".part"

    def __init__(self, path: Path, asked: rows.Asked, table: WordTable) -> None:
        super().__init__(path, asked)
        self.table = table

    def head(self) -> bytes:
        return json.dumps(["words of", self.table.head]).encode() + b"\n"

    def piece(self, result: ScoredText, before: Totals) -> bytes:
        return json.dumps(self.table.figures(result)).encode() + b"\n"

    def made(self, file: BinaryIO) -> None:
        with self.growing.open("rb") as grown:
            next(grown)
            dialect = "excel" if self.path.suffix.lower() == ".csv" else "excel-tab"
            file.write(rows.tsv(self.table.lines(map(json.loads, grown)), dialect))


KINDS: dict[str, type[Format]] = {".tsv": Tsv, ".jsonl": Jsonl, ".npz": Npz}


def format_of(path: Path, asked: rows.Asked, table: WordTable | None = None) -> Format:
    """The file of the format that its name asks for."""
    if table is not None and path.suffix.lower() in (".tsv", ".csv"):
        return Joined(path, asked, table)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise bad_value("out", str(path), f"must end with {', '.join(KINDS)}", "The ending says the format.")
    return kind(path, asked)
