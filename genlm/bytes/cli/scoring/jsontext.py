"""JSON values as they were written: `0.10` stays `0.10`, `NaN` stays `NaN`, and 20 digits stay 20.

A line's object is taken apart into its keys and the pieces of text that stand for their values; only what is
needed (the text, the id) is made a value of Python's.
"""

from __future__ import annotations

import json
import re
from json.decoder import JSONDecoder, scanstring  # type: ignore[attr-defined]
from typing import Any

__all__ = ["JsonText", "dumps", "members"]

SPACE = re.compile(r"[ \t\n\r]*")
# Numbers are not looked into: Python refuses whole ones of more than 4,300 digits.
DECODER = JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


class JsonText(str):
    """A piece of JSON: one value, as it was written."""

    __slots__ = ()

    def cell(self) -> str:
        """The value in a cell of a table: what is in a string, nothing for null, else the JSON itself."""
        if self.startswith('"'):
            return str(json.loads(self))
        return "" if self == "null" else str(self)

    def name(self) -> str:
        """The value as a text's name: as in a cell, but null has one."""
        return self.cell() or str(self)


def members(line: str) -> dict[str, JsonText]:
    """An object's keys and the text of their values.

    Raises:
        ValueError: no JSON; or a key that is there twice.
        TypeError: JSON, and no object.
    """
    at = _skip(line, 0)
    if line[at : at + 1] != "{":
        DECODER.decode(line)
        raise TypeError("no object")
    found: dict[str, JsonText] = {}
    at = _skip(line, at + 1)
    ended = line[at : at + 1] == "}"
    while not ended:
        if line[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", line, at)
        key, at = scanstring(line, at + 1, True)
        at = _skip(line, at)
        if line[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", line, at)
        start = _skip(line, at + 1)
        _, end = DECODER.raw_decode(line, start)
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = JsonText(line[start:end])
        at = _skip(line, end)
        ended = line[at : at + 1] == "}"
        if not ended:
            if line[at : at + 1] != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", line, at)
            at = _skip(line, at + 1)
    if _skip(line, at + 1) < len(line):
        raise json.JSONDecodeError("Extra data", line, at + 1)
    return found


def dumps(document: dict[str, Any]) -> str:
    """A document as a line; pieces of JSON in it stay as they are.

    Raises:
        ValueError: a number of ours that JSON has no word for.
    """
    pairs = (f"{json.dumps(key, ensure_ascii=False)}: {_dumped(value)}" for key, value in document.items())
    return f"{{{', '.join(pairs)}}}"


def _dumped(value: Any) -> str:
    return (
        str(value) if isinstance(value, JsonText) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    )


def _skip(line: str, at: int) -> int:
    match = SPACE.match(line, at)
    assert match is not None
    return match.end()
