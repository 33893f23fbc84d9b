"""Reading a known context, byte by byte, and saying clearly where that is impossible."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from genlm.bytes.byte_lm.lm_state import Context
from genlm.bytes.byte_lm.trie_state import check_symbol
from genlm.bytes.errors import EmptyBeamError, ImpossibleByteError, bad_type
from genlm.bytes.trie.modes import EOS, TrieMode
from genlm.bytes.trie.service import AsyncTokenByteTrie
from genlm.bytes.vocab import producible_bytes

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState

__all__ = ["read_context"]

_Beam = TypeVar("_Beam", bound="ByteBeamState")


async def read_context(beam: _Beam, bs: Context) -> _Beam:
    """`ByteBeamState.prefill`."""
    if not len(beam):
        raise EmptyBeamError("the beam is empty: it cannot read a context. Start with ByteBeamState.initial.")
    symbols = split_symbols(bs, beam.states[0].trie)
    if not symbols:
        return beam
    reading = beam.with_mode(TrieMode.WITHOUT_EOS)
    offset = 0
    for symbol in symbols:
        after = await (reading.prune() << symbol)
        if not len(after):
            raise _impossible(reading, symbol, symbols, offset)
        reading = after
        offset += len(symbol) if isinstance(symbol, bytes) else 1
    return reading.with_mode(TrieMode.WITH_EOS)


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


def _impossible(
    beam: ByteBeamState, symbol: int | bytes, symbols: list[int | bytes], offset: int
) -> ImpossibleByteError:
    """Why `beam` could not read `symbol`: the vocabulary, or what the beam was allowed to keep."""
    trie = beam.states[0].trie.trie
    producible = isinstance(symbol, bytes) or symbol in producible_bytes(trie.decode)
    text = b"".join(s if isinstance(s, bytes) else bytes([s]) for s in symbols)
    shown = repr(symbol) if isinstance(symbol, bytes) else f"0x{symbol:02x} ({bytes([symbol])!r})"
    where = f"`bs` has byte {shown} at offset {offset}, after {text[max(0, offset - 20) : offset]!r}"
    if not producible:
        why = "no token of this model contains that byte. Remove it, or use a model with byte fallback."
    else:
        why = "no kept tokenization of the bytes before it can go on with it. "
        way = "Allow healing (heal=True, larger heal_max_backoff and heal_max_splits), a larger K, or a "
        why += way + "smaller prune_threshold."
    return ImpossibleByteError(f"{where}: {why}", byte=symbol, offset=offset, producible=producible)
