"""Texts in which some strings do not occur: those of added tokens, which are cut out before anything else."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

from genlm.bytes.canonical.automaton import Automaton, ByteRules
from genlm.bytes.canonical.cutter import Gap

__all__ = ["Spelled", "without"]


@lru_cache(16)
def without(strings: tuple[bytes, ...]) -> Automaton:
    """The automaton for some strings; kept, since all tries of a vocabulary share theirs."""
    return Automaton(Spelled(strings))


class Spelled(ByteRules):
    """Texts in which none of some strings occurs: an added token's text is never left to other tokens.

    The automaton of Aho and Corasick (1975). States are the longest ends of the text read so far that
    begin one of the strings.

    Args:
        strings: the strings, none inside another.
    """

    def __init__(self, strings: Sequence[bytes]) -> None:
        self._strings = frozenset(strings)
        self._prefixes = {s[:i] for s in strings for i in range(len(s) + 1)} | {b""}
        self.start = b""

    def read(self, state: Hashable, gap: Gap) -> Sequence[Hashable | None]:
        assert isinstance(state, bytes)
        return [self._longest(state + bytes([b])) for b in range(256)]

    def _longest(self, text: bytes) -> bytes | None:
        while text not in self._prefixes:
            text = text[1:]
        return None if text in self._strings else text

    def ends(self, state: Hashable) -> bool:
        return True
