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
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.cli.output import number
from genlm.bytes.cli.scoring.jsontext import JsonText, dumps
from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.errors import InvalidValueError

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText, TextRecord

__all__ = ["cell", "char_surprisals", "check_fields", "document", "figures", "head", "rows", "tsv", "visible"]

TEXT = ("bytes", "chars", "logprob", "bits_per_byte", "bits_per_char", "slack", "above_one")
REGION = ("index", "kind", "word", "start", "end", "surprisal", "naive", "difference", "above_one")
CHAR = ("index", "char", "offset", "surprisal", "above_one")
BYTE = ("offset", "byte", "surprisal", "above_one")
JSON = (*TEXT, "end", "text", "bytes_base64", "surprisals", "regions", "event")


def head(unit: Unit, fields: Sequence[str], end: bool) -> list[str]:
    """The head line: id, carried columns, figures.

    Args:
        unit: what a row is about.
        fields: the columns carried along.
        end: whether the end of each text counts.
    """
    own = _columns(unit, end)
    return ["id", *(_carried(name, own) for name in fields), *own]


def rows(
    result: ScoredText, unit: Unit, fields: Sequence[str], base: float, end: bool
) -> Iterator[list[Any]]:
    """The rows of a text.

    Args:
        result: the text.
        unit: what a row is about.
        fields: the columns carried along.
        base: of the logarithms.
        end: whether the end of each text counts.

    Raises:
        ValueError: the text has a field that the head line has not.
    """
    check_fields(result.record, fields)
    given = result.record.fields
    front = [result.record.id, *(cell(given.get(name)) for name in fields)]
    for row in _ROWS[unit](result, base, end):
        yield [*front, *row]


def check_fields(record: TextRecord, fields: Sequence[str]) -> None:
    """That there is a column for all that a text carries along.

    Raises:
        ValueError: the text has a field that the head line has not.
    """
    if unknown := [name for name in record.fields if name not in fields]:
        message = f"text {record.id!r}: the first text has no {unknown[0]!r}: there is no such column."
        raise InvalidValueError(f"{message} Write .jsonl instead.")


def tsv(lines: Sequence[Sequence[Any]]) -> bytes:
    """Rows as tab-separated values; fields with tabs, quotes or line ends are quoted."""
    found = []
    for cells in lines:
        out = io.StringIO()
        # With this line end a lone \r is quoted by every version of Python.
        writer = csv.writer(out, "excel-tab", lineterminator="\r\n")
        writer.writerow(map(_shown, cells))
        found.append(out.getvalue().removesuffix("\r\n") + "\n")
    return "".join(found).encode()


def document(result: ScoredText, unit: Unit, base: float) -> dict[str, Any]:
    """A text as one document: its figures, its text, and the surprisal of each part.

    Args:
        result: the text.
        unit: what the parts are; for whole texts bytes.
        base: of the logarithms.
    """
    record, score = result.record, result.score
    text = record.text.decode(errors="replace")
    found: dict[str, Any] = {"id": visible(record.id)}
    found |= {_carried(name, JSON): value for name, value in record.fields.items()}
    found |= {k: _json(v) for k, v in zip(TEXT, figures(result, base), strict=True)}
    if score.end is not None:
        found["end"] = number(_log(score.end, base))
    found["text"] = text
    if text.encode() != record.text:
        found["bytes_base64"] = base64.b64encode(record.text).decode()
    if result.regions is not None:
        found["regions"] = [
            {k: _json(v) for k, v in zip(REGION, row, strict=True)}
            for row in _region_rows(result, base, False)
        ]
    else:
        parts = char_surprisals(result, base) if unit is Unit.char else _surprisals(result, base)
        found["surprisals"] = [number(x) for x in parts.tolist()]
    return found


def figures(result: ScoredText, base: float) -> list[Any]:
    """The figures of a whole text, as `TEXT` names them."""
    score = result.score
    sizes = [len(score.text), len(score.chars)]
    per = [score.bits_per_byte, score.bits_per_char]
    return [*sizes, _log(score.logprob, base), *per, score.slack, score.above_one]


def char_surprisals(result: ScoredText, base: float) -> Float64[np.ndarray, " chars"]:
    """The surprisal of each character, `[chars]`."""
    score = result.score
    if not score.text:
        return np.zeros(0)
    with np.errstate(invalid="ignore"):
        sums = np.add.reduceat(score.logprobs, score.chars.offsets[:-1])
    # A character with an impossible byte is impossible, whatever stands after that byte.
    impossible = np.add.reduceat(np.isneginf(score.logprobs), score.chars.offsets[:-1])
    costs: Float64[np.ndarray, " chars"] = np.where(impossible, np.inf, -sums / math.log(base)) + 0.0
    return costs


def visible(text: str) -> str:
    r"""Text that can be encoded: bytes that were no UTF-8 as `\xff`, lone surrogates as `\ud800`."""
    return re.sub("[\ud800-\udfff]", _half, text)


def _half(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def line(found: dict[str, Any]) -> bytes:
    """A document as a line."""
    return dumps(found).encode(errors="backslashreplace") + b"\n"


def _shown(x: Any) -> Any:
    """A cell. Eight digits of a figure are more than a model's own rounding leaves."""
    return visible(x) if isinstance(x, str) else f"{x:.8g}" if isinstance(x, float) else x


def _log(x: Any, base: float) -> Any:
    return x / math.log(base)


def _json(x: Any) -> Any:
    return number(x) if isinstance(x, float) else visible(x) if isinstance(x, str) else x


def _columns(unit: Unit, end: bool) -> tuple[str, ...]:
    own = {Unit.text: TEXT, Unit.region: REGION, Unit.char: CHAR, Unit.byte: BYTE}[unit]
    return (*own, "end") if end and unit is Unit.text else own


def _carried(name: str, own: Sequence[str]) -> str:
    known = name
    while known != "id" and known not in own and known.endswith("_input"):
        known = known.removesuffix("_input")
    return f"{name}_input" if known == "id" or known in own else name


def cell(value: Any) -> str:
    """A value that was carried along, in a table."""
    if value is None:
        return ""
    if isinstance(value, JsonText):
        return value.cell()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _surprisals(result: ScoredText, base: float) -> Float64[np.ndarray, " bytes"]:
    return -result.score.logprobs / math.log(base) + 0.0


def _text_rows(result: ScoredText, base: float, end: bool) -> Iterator[list[Any]]:
    score = result.score
    yield [*figures(result, base), *([_log(score.end or 0.0, base)] if end else [])]


def _region_rows(result: ScoredText, base: float, end: bool) -> Iterator[list[Any]]:
    for row in result.regions or ():
        yield [getattr(row, name) for name in REGION]


def _char_rows(result: ScoredText, base: float, end: bool) -> Iterator[list[Any]]:
    chars = result.score.chars
    offsets = chars.offsets[:-1]
    costs = char_surprisals(result, base).tolist()
    for i, (char, offset, cost) in enumerate(zip(chars.text, offsets, costs, strict=True)):
        yield [i, char, offset, cost, int((result.score.logprobs[offset : chars.offsets[i + 1]] > 0.0).sum())]


def _byte_rows(result: ScoredText, base: float, end: bool) -> Iterator[list[Any]]:
    for i, (byte, cost) in enumerate(zip(result.score.text, _surprisals(result, base).tolist(), strict=True)):
        yield [i, f"{byte:02x}", cost, int(cost < 0.0)]


_ROWS = {
    Unit.text: _text_rows,
    Unit.region: _region_rows,
    Unit.char: _char_rows,
    Unit.byte: _byte_rows,
}
