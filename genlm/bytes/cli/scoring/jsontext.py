"""JSON values as they were written: `0.10` stays `0.10`, `NaN` stays `NaN`, and 20 digits stay 20.

A line's object is taken apart into its keys and the pieces of text that stand for their values; only what is
needed (the text, the id) is made a value of Python's.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["JsonText", "dumps", "members"]

# Numbers are not looked into: Python refuses whole ones of more than 4,300 digits.
DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
KEY = re.compile(r'[\s,{]*("(?:[^"\\]|\\.)*")\s*:\s*')


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
    if not isinstance(DECODER.decode(line), dict):
        raise TypeError("no object")
    found: dict[str, JsonText] = {}
    at = 0
    while match := KEY.match(line, at):
        key = json.loads(match[1])
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        _, at = DECODER.raw_decode(line, match.end())
        found[key] = JsonText(line[match.end() : at])
    return found


def dumps(document: dict[str, Any]) -> str:
    """A document as a line; pieces of JSON in it stay as they are."""
    return "{" + ", ".join(f"{_dumped(key)}: {_dumped(value)}" for key, value in document.items()) + "}"


def _dumped(value: Any) -> str:
    written = isinstance(value, JsonText)
    return str(value) if written else json.dumps(value, ensure_ascii=False, allow_nan=False)
