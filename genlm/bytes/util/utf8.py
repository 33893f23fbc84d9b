"""Which bytes can continue a text so that it stays UTF-8.

The automaton of the Unicode standard (table 3-7, well-formed byte sequences): eight states, named by what
may come next. Overlong forms, surrogates and numbers above U+10FFFF have no path.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Bool, Int8

__all__ = ["BROKEN", "START", "advance", "allowed", "state_after", "transitions", "unfinished"]

START = 0
"""Between characters. States 1, 2 and 3 expect that many continuation bytes; 4 to 7 follow E0, ED, F0, F4."""
BROKEN = -1


@cache
def transitions() -> Int8[np.ndarray, "states bytes"]:
    """The state after each byte, `BROKEN` where the byte cannot come."""
    table = np.full((8, 256), BROKEN, np.int8)
    table[0, :0x80] = 0
    table[0, 0xC2:0xE0] = 1
    table[0, 0xE0:0xF0] = 2
    table[0, 0xF0:0xF5] = 3
    table[0, [0xE0, 0xED, 0xF0, 0xF4]] = [4, 5, 6, 7]
    one, two, three = (0x80, 0xBF, 0), (0x80, 0xBF, 1), (0x80, 0xBF, 2)
    narrow = (0xA0, 0xBF, 1), (0x80, 0x9F, 1), (0x90, 0xBF, 2), (0x80, 0x8F, 2)
    for state, (low, high, after) in enumerate([one, two, three, *narrow], start=1):
        table[state, low : high + 1] = after
    return table


def advance(state: int, text: bytes) -> int:
    """The state after more bytes, or `BROKEN`.

    Examples:
        >>> advance(START, "né".encode()), advance(START, b"n\\xc3"), advance(START, b"\\xa9")
        (0, 1, -1)
    """
    table = transitions()
    for byte in text:
        state = int(table[state, byte])
        if state == BROKEN:
            return BROKEN
    return state


def allowed(state: int) -> Bool[np.ndarray, " bytes"]:
    """Which of the 256 bytes can come next."""
    return np.asarray(transitions()[state] != BROKEN)


def state_after(text: bytes) -> int:
    """The state at the end of any bytes: that of the unfinished character they end in, else `START`.

    Examples:
        >>> state_after(b"\\xff caf\\xc3"), state_after(b"\\xff")
        (1, 0)
    """
    return advance(START, unfinished(text))


def unfinished(text: bytes) -> bytes:
    """The bytes of the unfinished character that a text ends in; empty if it ends in none.

    Examples:
        >>> unfinished(b"caf\\xc3")
        b'\\xc3'
    """
    for length in (1, 2, 3):
        if length <= len(text) and text[-length] >= 0xC0:
            return text[-length:] if advance(START, text[-length:]) > START else b""
    return b""
