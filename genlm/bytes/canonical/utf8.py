"""Bytes that are a character, or the beginning of one."""

from __future__ import annotations

from functools import cache

__all__ = ["begins_character", "character"]


def character(spelled: bytes) -> str | None:
    """The character that these bytes spell, or None if they spell none, or not one alone."""
    try:
        text = spelled.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) == 1 else None


@cache
def begins_character(spelled: bytes) -> bool:
    """Whether these bytes are a proper beginning of a character."""
    # Of the continuations that may follow, the least or the greatest always can.
    tails = (tail * n for tail in (b"\x80", b"\xbf") for n in (1, 2, 3))
    return any(character(spelled + tail) is not None for tail in tails)
