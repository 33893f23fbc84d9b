"""Symbols: what a beam reads one at a time. A byte value, the end of the sequence (`EOS`), or an atomic
unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from genlm.bytes.errors import ImpossibleByteError, bad_type, bad_value
from genlm.bytes.trie.modes import EOS, TrieMode
from genlm.bytes.trie.service import AsyncTokenByteTrie

__all__ = [
    "Context",
    "check_readable",
    "check_symbol",
    "described",
    "length",
    "offsets",
    "readable_count",
    "spelled",
    "split_symbols",
]

Context = bytes | Sequence[int | bytes]
"""A text: bytes, or a sequence of byte values and multi-byte atomic units."""


def spelled(symbols: Iterable[int | bytes]) -> bytes:
    """The bytes of some symbols."""
    return b"".join(s if isinstance(s, bytes) else bytes([s]) for s in symbols)


def check_symbol(symbol: Any, trie: AsyncTokenByteTrie) -> int | bytes:
    """A symbol that can be read: a byte 0..255, EOS, or an atomic unit of the trie.

    Raises:
        ValueError: an integer outside that range, or a byte string that is no atomic unit.
        TypeError: something else.
    """
    units = trie.trie.arrays.unit_node
    if isinstance(symbol, bytes):
        if bytes(symbol) in units:
            return bytes(symbol)
        known = f"the units are {sorted(units)}" if units else "this trie has none"
        raise bad_value(
            "b", symbol, f"a byte string must be an atomic unit, and {known}", "Read its bytes one by one."
        )
    try:
        value = int(symbol.__index__())
    except (AttributeError, TypeError):  # a class and an array have the method too
        raise bad_type("b", symbol, "must be a byte as an integer 0..255, or 257 for the end") from None
    if not (0 <= value <= 255 or value == EOS):
        raise bad_value("b", symbol, "must be a byte 0..255, or 257 for the end of the sequence")
    return value


def offsets(symbols: list[int | bytes]) -> list[int]:
    """Where each symbol begins, in bytes."""
    return list(accumulate((len(s) if isinstance(s, bytes) else 1 for s in symbols), initial=0))


def length(symbols: list[int | bytes]) -> int:
    """How many bytes some symbols are."""
    return offsets(symbols)[-1]


def split_symbols(bs: Context, trie: AsyncTokenByteTrie) -> list[int | bytes]:
    """A context as symbols: byte values, and atomic units where `bytes` spell one, the longest first."""
    if isinstance(bs, str):
        raise bad_type("bs", bs, "must be bytes", f"Encode text first: {bs[:20]!r}.encode().")
    units = trie.trie.arrays.units
    if isinstance(bs, bytes | bytearray | memoryview):
        text = bytes(bs)
        if not units:
            return list(text)
        pattern = b"|".join(re.escape(unit) for unit in sorted(units, key=len, reverse=True))
        known = frozenset(units)
        parts = re.split(b"(" + pattern + b")", text)
        return [s for part in parts for s in ([part] if part in known else part)]
    if not isinstance(bs, Iterable):
        raise bad_type("bs", bs, "must be bytes, or a sequence of byte values and atomic units")
    symbols = [check_symbol(symbol, trie) for symbol in bs]
    if EOS in symbols:
        raise bad_type("bs", EOS, "a context holds bytes; the end of the sequence cannot be followed")
    return symbols


def readable_count(symbols: Sequence[int | bytes], trie: AsyncTokenByteTrie, mode: TrieMode) -> int:
    """How many symbols there are before the first that no token of the vocabulary is read by."""
    may = trie.trie.may_read
    return next((at for at, symbol in enumerate(symbols) if not may(symbol, mode)), len(symbols))


def check_readable(
    symbols: list[int | bytes], trie: AsyncTokenByteTrie, mode: TrieMode, name: str = "bs"
) -> None:
    """Refuse a text with a symbol that no token of the vocabulary is read by: no model is needed for that.

    Args:
        symbols: the text.
        trie: the trie of the vocabulary.
        mode: how end-of-sequence strings are read.
        name: the argument that the text is.

    Raises:
        ImpossibleByteError: such a symbol, with its offset.
    """
    at = readable_count(symbols, trie, mode)
    if at == len(symbols):
        return
    symbol = symbols[at]
    why = "no token of this model contains that byte. Remove it, or use a model with byte fallback."
    producible = isinstance(symbol, bytes) or symbol in trie.trie.producible
    if producible:
        why = (
            "only tokens that end a sequence and atomic units contain it, and none is read byte by byte. "
            "Read an atomic unit whole; where an end may be text, read it with `prefill`."
        )
    where = described(symbol, symbols, offsets(symbols)[at], name)
    raise ImpossibleByteError(
        f"{where}: {why}", byte=symbol, offset=offsets(symbols)[at], producible=producible
    )


def described(symbol: int | bytes, symbols: list[int | bytes], offset: int, name: str = "bs") -> str:
    """A symbol that cannot be read, and where it stands in a text, for an error."""
    shown = repr(symbol) if isinstance(symbol, bytes) else f"0x{symbol:02x} ({bytes([symbol])!r})"
    before = spelled(symbols)[max(0, offset - 20) : offset]
    return f"`{name}` has byte {shown} at offset {offset}, after {before!r}"
