"""Reading tokens, byte by byte, through an automaton: which tokens may come next, and in what state then.

A `Scanner` numbers the states it meets. For each it keeps two rows over the vocabulary: the state after
each token if merging leaves the border before it alone (`Gap.OPEN`), and if it does not
(`Gap.CONFLICT`); `DEAD` where no canonical text goes on so. Rows are worked for all tokens together, one
byte position at a time, and the least recently used are forgotten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from genlm.bytes.byte_lm.canonical.characters import Characters
from genlm.bytes.byte_lm.canonical.cutter import Chain, Cutter, Gap
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["DEAD", "ByteRules", "PreTokens", "Rows", "Scanner", "Spelled"]

DEAD = -1
_UNKNOWN = -2
_MOST_STATES = 1 << 15
_ROWS_KEPT = 128  # 0.5 MB each for 49,152 tokens


class ByteRules(ABC):
    """An automaton over bytes and the gaps before them. States are any hashable values."""

    start: Hashable

    @abstractmethod
    def read(self, state: Hashable, gap: Gap) -> Sequence[Hashable | None]:
        """The state after each of the 256 bytes, with `gap` before it; None where there is none."""

    @abstractmethod
    def ends(self, state: Hashable) -> bool:
        """Whether the text may end here."""


class Rows(NamedTuple):
    """Where each token leads from one state."""

    open: Int[np.ndarray, " tokens"]
    conflict: Int[np.ndarray, " tokens"]
    may_open: Bool[np.ndarray, " tokens"]
    may_conflict: Bool[np.ndarray, " tokens"]


class Scanner:
    """The states of some rules, numbered, and the rows of a vocabulary.

    Args:
        rules: the automaton.
        spellings: the vocabulary. Empty tokens are dead.
        gaps: whether the rules care about the gap before a token.
    """

    def __init__(self, rules: ByteRules, spellings: Sequence[bytes], gaps: bool = True) -> None:
        self._rules = rules
        self._gaps = gaps
        self._states: list[Hashable] = []
        self._numbers: dict[Hashable, int] = {}
        self._after = {gap: np.full((64, 256), _UNKNOWN, np.int32) for gap in Gap}
        length = np.fromiter(map(len, spellings), np.int64, len(spellings))
        self._begin = np.cumsum(length) - length
        self._bytes = np.frombuffer(b"".join(spellings), np.uint8)
        self._by_length = np.argsort(-length, kind="stable")
        # How many tokens are longer than 0, 1, 2 … bytes.
        self._longer = np.searchsorted(-length[self._by_length], -np.arange(length.max(initial=0)), "left")
        self._rows: OrderedDict[int, Rows] = OrderedDict()
        self.start = self.number(rules.start)

    def __len__(self) -> int:
        """How many states have been met."""
        return len(self._states)

    def number(self, state: Hashable) -> int:
        """The number of a state."""
        known = self._numbers.get(state)
        if known is None:
            known = self._numbers[state] = len(self._states)
            self._states.append(state)
            if known >= _MOST_STATES:
                raise UnsupportedModelError(
                    f"the pre-tokenizer leaves more than {_MOST_STATES} ways open at once, so that canonical "
                    "tokenizations cannot be told"
                )
        return known

    def ends(self, state: int) -> bool:
        """Whether the text may end in this state."""
        return self._rules.ends(self._states[state])

    def rows(self, state: int) -> Rows:
        """Where each token leads from `state`."""
        if state in self._rows:
            self._rows.move_to_end(state)
            return self._rows[state]
        opened = self._walk(state, Gap.OPEN)
        conflict = self._walk(state, Gap.CONFLICT) if self._gaps else opened
        rows = self._rows[state] = Rows(opened, conflict, opened != DEAD, conflict != DEAD)
        if len(self._rows) > _ROWS_KEPT:
            self._rows.popitem(last=False)
        return rows

    def _walk(self, state: int, gap: Gap) -> Int[np.ndarray, " tokens"]:
        """The state after each token, all tokens together, one byte position at a time."""
        at = np.full(len(self._begin), state, np.int32)
        at[self._by_length[self._longer[0] if len(self._longer) else 0 :]] = DEAD
        for position, longer in enumerate(self._longer):
            tokens = self._by_length[:longer]
            tokens = tokens[at[tokens] != DEAD]
            here = at[tokens]
            step = gap if position == 0 and self._gaps else Gap.INSIDE
            self._learn(np.unique(here), step)
            at[tokens] = self._after[step][here, self._bytes[self._begin[tokens] + position]]
        return at

    def _learn(self, states: Int[np.ndarray, " states"], gap: Gap) -> None:
        for state in states.tolist():
            if state >= len(self._after[gap]) or self._after[gap][state, 0] == _UNKNOWN:
                read = self._rules.read(self._states[state], gap)
                after = [DEAD if s is None else self.number(s) for s in read]
                while len(self._after[gap]) < len(self._states):
                    more = np.full_like(self._after[gap], _UNKNOWN)
                    self._after[gap] = np.concatenate([self._after[gap], more])
                self._after[gap][state] = after


class _Position(NamedTuple):
    """Between two bytes: the open cuts of each pre-tokenizer, and inside a character, how far and how."""

    chains: tuple[Chain, ...]
    partial: int = 0
    gap: Gap = Gap.OPEN


class PreTokens(ByteRules):
    """Pre-tokenizers, one inside the pieces of the other, over UTF-8.

    All but the last must decide each cut at once; only the last may look ahead.

    Args:
        cutters: the pre-tokenizers, the first one outermost.
        characters: the classes they share.

    Raises:
        UnsupportedModelError: one that is not the last looks ahead.
    """

    def __init__(self, cutters: Sequence[Cutter], characters: Characters) -> None:
        for cutter in cutters[:-1]:
            cutter.check_decides_at_once()
        self._cutters = tuple(cutters)
        self._characters = characters
        self.start = _Position(tuple(cutter.start for cutter in cutters))

    def read(self, state: Hashable, gap: Gap) -> Sequence[Hashable | None]:
        assert isinstance(state, _Position)
        if state.partial and gap is Gap.CONFLICT:
            return [None] * 256  # no cut inside a character
        before = state.gap if state.partial else gap
        targets = self._characters.utf8[state.partial]
        after: dict[int, Hashable | None] = {-1: None}
        for target in set(targets) - {-1}:
            if target >= self._characters.count:
                partial = target - self._characters.count
                # Refused at its first byte if no character that begins so can stand here.
                alive = any(
                    self._character(state.chains, c, before) for c in self._characters.completions(partial)
                )
                after[target] = _Position(state.chains, partial, before) if alive else None
            else:
                after[target] = self._character(state.chains, target, before)
        return [after[target] for target in targets]

    def _character(self, chains: tuple[Chain, ...], c: int, gap: Gap) -> _Position | None:
        """The position after a character of class `c`, or None if no canonical text goes on so."""
        after: list[Chain] = []
        cut = False
        for i, (cutter, chain) in enumerate(zip(self._cutters, chains, strict=True)):
            inner = i + 1 == len(chains)
            if cut:
                if inner and not cutter.ends(chain):
                    return None
                chain = cutter.start
            elif not inner:
                cut = cutter.cuts(chain, c)
                if cut and gap is Gap.INSIDE:
                    return None
            # A cut from outside settles the gap.
            read = cutter.read(chain, c, gap if inner and not cut else Gap.OPEN)
            if read is None:
                return None
            after.append(read)
        return _Position(tuple(after))

    def ends(self, state: Hashable) -> bool:
        assert isinstance(state, _Position)
        return not state.partial and self._cutters[-1].ends(state.chains[-1])


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
