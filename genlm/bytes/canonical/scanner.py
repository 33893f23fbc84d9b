"""Reading tokens, byte by byte, through an automaton: which tokens may come next, and in what state then.

For each state a `Scanner` keeps two rows over the vocabulary: the state after each token if merging leaves
the border before it alone (`Gap.OPEN`), and if it does not (`Gap.CONFLICT`); `DEAD` where no canonical text
goes on so. Rows are worked for all tokens together, one byte position at a time, and the least recently
used are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from genlm.bytes.canonical.automaton import DEAD, Automaton
from genlm.bytes.canonical.cutter import Gap

__all__ = ["Rows", "Scanner"]

_ROWS_KEPT = 128  # 0.5 MB each for 49,152 tokens


class Rows(NamedTuple):
    """Where each token leads from one state."""

    open: Int[np.ndarray, " tokens"]
    conflict: Int[np.ndarray, " tokens"]
    may_open: Bool[np.ndarray, " tokens"]
    may_conflict: Bool[np.ndarray, " tokens"]


class Scanner:
    """The rows of a vocabulary.

    Args:
        spellings: the vocabulary. Empty tokens are dead.
        gaps: whether the rules care about the gap before a token.
    """

    def __init__(self, automaton: Automaton, spellings: Sequence[bytes], gaps: bool = True) -> None:
        self.automaton = automaton
        self._gaps = gaps
        length = np.fromiter(map(len, spellings), np.int64, len(spellings))
        self._begin = np.cumsum(length) - length
        self._bytes = np.frombuffer(b"".join(spellings), np.uint8)
        self._by_length = np.argsort(-length, kind="stable")
        # How many tokens are longer than 0, 1, 2 … bytes.
        self._longer = np.searchsorted(-length[self._by_length], -np.arange(length.max(initial=0)), "left")
        self.rows = lru_cache(_ROWS_KEPT)(self._rows)

    def _rows(self, state: int) -> Rows:
        """Where each token leads from `state`."""
        opened = self._walk(state, Gap.OPEN)
        conflict = self._walk(state, Gap.CONFLICT) if self._gaps else opened
        return Rows(opened, conflict, opened != DEAD, conflict != DEAD)

    def _walk(self, state: int, gap: Gap) -> Int[np.ndarray, " tokens"]:
        """The state after each token, all tokens together, one byte position at a time."""
        at = np.full(len(self._begin), state, np.int32)
        at[self._by_length[self._longer[0] if len(self._longer) else 0 :]] = DEAD
        for position, longer in enumerate(self._longer):
            tokens = self._by_length[:longer]
            tokens = tokens[at[tokens] != DEAD]
            step = gap if position == 0 and self._gaps else Gap.INSIDE
            read = self._bytes[self._begin[tokens] + position]
            at[tokens] = self.automaton.read(at[tokens], read, step)
        return at
