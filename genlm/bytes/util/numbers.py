"""Numbers as users give them."""

from __future__ import annotations

import operator
from typing import Any

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["as_index", "real_number", "whole_number"]


def as_index(value: Any) -> int | None:
    """The integer that a value is; None of what is none. A class and an array have `__index__` too.

    Examples:
        >>> as_index(3), as_index(True), as_index(int), as_index(2.0)
        (3, None, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real_number(name: str, value: Any) -> float:
    """A number as a float. An integer may be greater than any.

    Raises:
        TypeError: no number.
        ValueError: NaN, or beyond what a float holds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_type(name, value, "must be a number")
    if value != value:
        raise bad_value(name, value, "must be a number, not NaN")
    try:
        return float(value)
    except OverflowError:
        raise bad_value(name, value, "is beyond what a float holds") from None


def whole_number(name: str, value: Any, least: int) -> int | None:
    """An integer of at least `least`, or None. A float that is one is taken, since R has no other."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    index = as_index(value)
    if index is None:
        raise bad_type(name, value, "must be an integer")
    if index < least:
        raise bad_value(name, value, f"must be at least {least}")
    return index
