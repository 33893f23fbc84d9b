"""Characters as classes that a set of expressions cannot tell apart, and UTF-8 as an automaton over them.

Which characters an expression matches is asked of the `tokenizers` library, whose Unicode tables are the
ones that count. Planes 4 to 13 hold no characters, 15 and 16 are for private use: one character stands
for each of the two.

The automaton is the least one: two incomplete characters are one state if the same endings lead to the
same classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Int, UInt8
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

__all__ = ["Characters", "characters"]

_ASKED = 0x40000  # planes 0 to 3
_PLANES = 0x11_0000
_INVALID = -1
_NO_PLANE, _PRIVATE = 0x4_0000, 0xF_0000
_EVERY = [*range(0xD800), *range(0xE000, _ASKED), _NO_PLANE, *range(0xE_0000, 0xE_1000), _PRIVATE]


class Characters:
    """The classes of all characters under some sets, each an expression for one character.

    Attributes:
        member: whether each set has the characters of each class; `member[set][class]`.
        of: the class of each code point; -1 for surrogates.
    """

    def __init__(self, sets: Sequence[str]) -> None:
        bits = _membership(sets)
        code = np.zeros(_PLANES, np.int64)
        for i in range(0, len(bits), 48):  # renumbered in between, so that any number of sets fits
            for j, row in enumerate(bits[i : i + 48]):
                code += row.astype(np.int64) << (j + 15)
            code = np.unique(code, return_inverse=True)[1].reshape(-1)
        _, first = np.unique(code, return_index=True)
        self.member: list[list[bool]] = bits[:, first].tolist()
        self.of: Int[np.ndarray, " code_points"] = code.astype(np.int32)
        self.of[0xD800:0xE000] = _INVALID
        self.count = len(first)
        self._completions: dict[int, frozenset[int]] = {}

    @cached_property
    def utf8(self) -> list[list[int]]:
        """The automaton: `utf8[state][byte]` is a class, `count + state` of more bytes, or -1.

        State 0 is between characters.
        """
        blocks = self.of.reshape(-1, 64)
        rows: list[Int[np.ndarray, " bytes"]] = [np.full(256, _INVALID, np.int64)]

        def add(tails: Int[np.ndarray, "blocks 64"]) -> Int[np.ndarray, " blocks"]:
            """States that read one continuation byte each, to what the rows of `tails` say."""
            unique, inverse = np.unique(tails, axis=0, return_inverse=True)
            numbers = np.full(len(unique), _INVALID, np.int64)
            for i, tail in enumerate(unique):
                if (tail != _INVALID).any():
                    row = np.full(256, _INVALID, np.int64)
                    row[0x80:0xC0] = tail
                    numbers[i] = self.count + len(rows)
                    rows.append(row)
            return numbers[inverse.reshape(-1)]

        last = add(blocks)  # one byte missing; by the code point's bits above the last 6
        rows[0][:0x80] = self.of[:0x80]
        rows[0][0xC2:0xE0] = last[0x02:0x20]
        # A character that fits in fewer bytes is not spelled with more.
        three = last[: 0x10000 // 64].copy()
        three[: 0x800 // 64] = _INVALID
        middle = add(three.reshape(-1, 64))
        rows[0][0xE0:0xF0] = middle
        four = last.copy()
        four[: 0x10000 // 64] = _INVALID
        lead = add(_padded(add(four.reshape(-1, 64))))
        rows[0][0xF0:0xF5] = lead
        return [row.tolist() for row in rows]

    def completions(self, state: int) -> frozenset[int]:
        """The classes of the characters that can be completed from a state of `utf8`."""
        found = self._completions.get(state)
        if found is None:
            targets = set(self.utf8[state]) - {_INVALID}
            whole = {t for t in targets if t < self.count}
            parts = [self.completions(t - self.count) for t in targets - whole]
            found = self._completions[state] = frozenset(whole.union(*parts))
        return found


@lru_cache(8)
def characters(sets: tuple[str, ...]) -> Characters:
    """`Characters(sets)`, kept: making it takes seconds, and many tokenizers share their expressions."""
    return Characters(sets)


def _padded(states: Int[np.ndarray, " states"]) -> Int[np.ndarray, "blocks 64"]:
    """To whole blocks of 64: the last lead byte has only 16 valid second bytes."""
    whole = np.full(-(-len(states) // 64) * 64, _INVALID, np.int64)
    whole[: len(states)] = states
    return whole.reshape(-1, 64)


def _membership(sets: Sequence[str]) -> Bool[np.ndarray, "sets code_points"]:
    """Which code points each set has.

    Characters of either case are few: all that any such set has are found at once, then told apart.
    """
    folded = [s for s in sets if s.startswith("(?i:")]
    either = _members("|".join(folded)) if folded else np.zeros(_PLANES, bool)
    few = np.flatnonzero(either[:_ASKED]).tolist()
    bits = [_matched(s, few, "".join(map(chr, few))) if s in folded else _members(s) for s in sets]
    return np.stack(bits) if bits else np.zeros((1, _PLANES), bool)


def _members(expression: str) -> Bool[np.ndarray, " code_points"]:
    """Which code points an expression for one character matches."""
    return np.unpackbits(_packed(expression), count=_PLANES).view(bool)


@lru_cache(64)
def _packed(expression: str) -> UInt8[np.ndarray, " packed"]:
    """`_members`, kept: it takes a tenth of a second, and most tokenizers ask for letters, digits, space."""
    found = np.zeros(_PLANES, bool)
    if len(expression) == 1:
        found[ord(expression)] = True
        return np.packbits(found)
    found = _matched(expression, _EVERY, _every_character())
    empty = found[_NO_PLANE]
    found[_NO_PLANE:0xE_0000] = found[0xE_1000:_PRIVATE] = empty
    found[0xD800:0xE000] = empty  # surrogates, which no text has: any class that exists will do
    found[_PRIVATE:] = found[_PRIVATE]
    return np.packbits(found)


@cache
def _every_character() -> str:
    return "".join(map(chr, _EVERY))


def _matched(expression: str, asked: Sequence[int], text: str) -> Bool[np.ndarray, " code_points"]:
    """Which of the code points `asked`, which `text` spells, an expression for one character matches."""
    kept = np.ones(len(asked), bool)
    for _, (start, stop) in Split(Regex(expression), "removed").pre_tokenize_str(text):
        kept[start:stop] = False
    found = np.zeros(_PLANES, bool)
    found[asked] = kept
    return found
