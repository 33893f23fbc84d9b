"""What is written of a scored text: rows of a table, or one JSON document.

Log-probabilities and surprisals are to the base asked for; bits are bits. Columns that were carried along
keep their values as they were written, and their names; one that has the name of a figure gets `_input` after
it, and so does one that has such a name with `_input` after it already: no two get the same, whatever else is
there, and results can be scored again and again.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.cli.output import number
from genlm.bytes.cli.scoring.jsontext import JsonText, dumps
from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.errors import InvalidValueError
from genlm.bytes.score import ScoredText, TextRecord

__all__ = [
    "Asked",
    "cell",
    "char_surprisals",
    "check_fields",
    "document",
    "figures",
    "line",
    "rows",
    "tsv",
    "visible",
]

FIGURES = {
    Unit.text: ("bytes", "chars", "logprob", "bits_per_byte", "bits_per_char", "slack", "above_one", "error"),
    Unit.region: (
        "index",
        "kind",
        "word",
        "start",
        "end",
        "surprisal",
        "naive",
        "difference",
        "above_one",
        "error",
    ),
    Unit.char: ("index", "char", "offset", "surprisal", "above_one"),
    Unit.byte: ("offset", "byte", "surprisal", "above_one"),
}
JSON = (*FIGURES[Unit.text], "end", "text", "bytes_base64", "surprisals", "regions", "event")


@dataclass(frozen=True)
class Asked:
    """What decides the form of results."""

    unit: Unit
    fields: tuple[str, ...] = ()
    base: float = math.e
    end: bool = False
    columns: tuple[str, ...] = ()

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of a row's figures."""
        own = (*FIGURES[self.unit], *self.columns)
        return (*own, "end") if self.end and self.unit is Unit.text else own

    @property
    def head(self) -> list[str]:
        """The head line: id, carried columns, figures."""
        return ["id", *(_carried(name, self.figures) for name in self.fields), *self.figures]


def rows(result: ScoredText, asked: Asked) -> list[list[Any]]:
    """The rows of a text."""
    check_fields(result.record, asked.fields)
    given = result.record.fields
    front = [result.record.id, *(cell(given.get(name)) for name in asked.fields)]
    return [[*front, *row] for row in _ROWS[asked.unit](result, asked)]


def check_fields(record: TextRecord, fields: Sequence[str]) -> None:
    """That there is a column for all that a text carries along."""
    if unknown := [name for name in record.fields if name not in fields]:
        message = f"text {record.id!r}: the first text has no {unknown[0]!r}: there is no such column."
        raise InvalidValueError(f"{message} Write .jsonl instead.")


def tsv(lines: Iterable[Sequence[Any]], dialect: str = "excel-tab") -> bytes:
    """Rows as tab-separated values, or in another dialect; fields with separators or quotes are quoted."""
    found = []
    for cells in lines:
        out = io.StringIO()
        # With this line end a lone \r is quoted by every version of Python.
        csv.writer(out, dialect, lineterminator="\r\n").writerow(map(_shown, cells))
        found.append(out.getvalue().removesuffix("\r\n") + "\n")
    return "".join(found).encode()


def document(result: ScoredText, asked: Asked) -> dict[str, Any]:
    """A text as one document: its figures, its text, and the surprisal of each part, or else byte."""
    record, score = result.record, result.score
    text = record.text.decode(errors="replace")
    found: dict[str, Any] = {"id": visible(record.id)}
    found |= {_carried(name, JSON): value for name, value in record.fields.items()}
    found |= _named(FIGURES[Unit.text], figures(result, asked))
    if score.end is not None:
        found["end"] = number(score.end / math.log(asked.base))
    found["text"] = text
    if text.encode() != record.text:
        found["bytes_base64"] = base64.b64encode(record.text).decode()
    if result.regions is not None:
        found["regions"] = [_named(asked.figures, row) for row in _region_rows(result, asked)]
    else:
        parts = char_surprisals if asked.unit is Unit.char else _surprisals
        found["surprisals"] = [number(x) for x in parts(result, asked).tolist()]
    return found


def line(found: dict[str, Any]) -> bytes:
    """A document as a line."""
    return dumps(found).encode(errors="backslashreplace") + b"\n"


def figures(result: ScoredText, asked: Asked) -> list[Any]:
    """The figures of a whole text, without its end."""
    score = result.score
    scale = math.log(asked.base)
    per = [score.bits_per_byte, score.bits_per_char, score.slack, score.above_one, score.error / scale]
    return [len(score.text), len(score.chars), score.logprob / scale, *per]


def char_surprisals(result: ScoredText, asked: Asked) -> Float64[np.ndarray, " chars"]:
    """The surprisal of each character, `[chars]`."""
    return -result.score.chars.logprobs / math.log(asked.base) + 0.0


def visible(text: str) -> str:
    r"""Text that can be encoded: bytes that were no UTF-8 as `\xff`, lone surrogates as `\ud800`."""
    return re.sub("[\ud800-\udfff]", _half, text)


def cell(value: Any) -> str:
    """A value that was carried along, in a table."""
    if value is None:
        return ""
    if isinstance(value, JsonText):
        return value.cell()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _half(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _shown(x: Any) -> Any:
    """A cell. Eight digits of a figure are more than a model's own rounding leaves."""
    return visible(x) if isinstance(x, str) else f"{x:.8g}" if isinstance(x, float) else x


def _named(names: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    """Figures by their names, as JSON has them."""
    shown = (number(x) if isinstance(x, float) else visible(x) if isinstance(x, str) else x for x in values)
    return dict(zip(names, shown, strict=True))


def _carried(name: str, own: Sequence[str]) -> str:
    known = name
    while known != "id" and known not in own and known.endswith("_input"):
        known = known.removesuffix("_input")
    return f"{name}_input" if known == "id" or known in own else name


def _surprisals(result: ScoredText, asked: Asked) -> Float64[np.ndarray, " bytes"]:
    return -result.score.logprobs / math.log(asked.base) + 0.0


def _text_rows(result: ScoredText, asked: Asked) -> list[list[Any]]:
    end = [(result.score.end or 0.0) / math.log(asked.base)] if asked.end else []
    return [[*figures(result, asked), *end]]


def _region_rows(result: ScoredText, asked: Asked) -> list[list[Any]]:
    return [[getattr(row, name) for name in asked.figures] for row in result.regions or ()]


def _char_rows(result: ScoredText, asked: Asked) -> list[list[Any]]:
    text, offsets = result.score.chars.text, result.score.chars.offsets
    costs = char_surprisals(result, asked).tolist()
    above = [int((result.score.logprobs[i:j] > 0.0).sum()) for i, j in itertools.pairwise(offsets)]
    return [[*row] for row in zip(itertools.count(), text, offsets, costs, above, strict=False)]


def _byte_rows(result: ScoredText, asked: Asked) -> list[list[Any]]:
    costs = zip(result.score.text, _surprisals(result, asked).tolist(), strict=True)
    return [[i, f"{byte:02x}", cost, int(cost < 0.0)] for i, (byte, cost) in enumerate(costs)]


_ROWS = {Unit.text: _text_rows, Unit.region: _region_rows, Unit.char: _char_rows, Unit.byte: _byte_rows}
