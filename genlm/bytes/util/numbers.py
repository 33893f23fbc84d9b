"""Numbers as users give them."""

from __future__ import annotations

from typing import Any

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["whole_number"]


def whole_number(name: str, value: Any, least: int) -> int | None:
    """An integer of at least `least`, or None. A float that is one is taken, since R has no other."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise bad_type(name, value, "must be an integer")
    if value < least:
        raise bad_value(name, value, f"must be at least {least}")
    return int(value.__index__())
