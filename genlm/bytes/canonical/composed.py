"""Texts in Unicode's normal form C, for tokenizers that bring every text into it first (Qwen).

Such a tokenizer makes `é` of `e` and a combining accent, so tokens that spell the two characters are
canonical nowhere. A text is in the form if each of its *runs* is: a run starts at a character that joins
nothing before it (no mark, and never the second half of a composed character) and goes up to the next
(Unicode Standard Annex #15, on concatenation); and every part of a text in the form is in it, too, so the
first run that is not settles the matter. The state is the run so far, or nothing after a character that
no mark changes; most are.

The Unicode tables are Python's. They differ from the tokenizer's, if at all, in characters that were added
to Unicode between their versions.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Hashable, Sequence
from functools import cache
from typing import NamedTuple

from genlm.bytes.canonical.automaton import Automaton, ByteRules
from genlm.bytes.canonical.cutter import Gap
from genlm.bytes.util import utf8

__all__ = ["Composed", "composed"]

_HANGUL = range(0xAC00, 0xD7A4)


class _Run(NamedTuple):
    text: str = ""
    partial: bytes = b""


class Composed(ByteRules):
    """The automaton. Its states are the run so far and the bytes of an unfinished character."""

    start: Hashable = _Run()

    def read(self, state: Hashable, gap: Gap) -> Sequence[Hashable | None]:
        assert isinstance(state, _Run)
        after: list[Hashable | None] = []
        for c, joins, fresh in _readings(state.partial):
            if joins:
                run = state.text + c
                after.append(_Run(run) if unicodedata.is_normalized("NFC", run) else None)
            elif fresh is not None and fresh.partial:
                after.append(_Run(state.text, fresh.partial))
            else:
                after.append(fresh)
        return after

    def ends(self, state: Hashable) -> bool:
        assert isinstance(state, _Run)
        return not state.partial


@cache
def composed() -> Automaton:
    """The automaton, which is the same for all vocabularies."""
    return Automaton(Composed())


@cache
def _readings(partial: bytes) -> list[tuple[str, bool, _Run | None]]:
    """What each byte after `partial` completes: a character, whether it joins the run before it, and the
    run that it starts if not; or a longer unfinished character; or None, nothing valid."""
    return [_reading(partial + bytes([b])) for b in range(256)]


def _reading(spelled: bytes) -> tuple[str, bool, _Run | None]:
    at = utf8.advance(utf8.START, spelled)
    if at != utf8.START:
        return "", False, _Run("", spelled) if at != utf8.BROKEN else None
    c = spelled.decode()
    firsts, seconds = _halves()
    if unicodedata.combining(c) or c in seconds:
        return c, True, None
    if not unicodedata.is_normalized("NFC", c):
        return c, False, None
    changes = c in firsts or ord(c) in _HANGUL or not unicodedata.is_normalized("NFD", c)
    return c, False, _Run(c if changes else "")


@cache
def _halves() -> tuple[frozenset[str], frozenset[str]]:
    """The characters that can begin, and those that can end, a pair that is composed into one."""
    firsts = {chr(c) for c in range(0x1100, 0x1113)}  # leading consonants of Hangul syllables
    seconds = {chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}  # vowels and trailing ones
    for c in map(chr, range(sys.maxunicode + 1)):
        pair = unicodedata.decomposition(c)
        if pair and not pair.startswith("<") and " " in pair and unicodedata.is_normalized("NFC", c):
            first, second = (chr(int(code, 16)) for code in pair.split())
            firsts.add(first)
            seconds.add(second)
    return frozenset(firsts), frozenset(seconds)
