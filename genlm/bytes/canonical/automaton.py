"""Automata over bytes and the gaps before them: the rules as their authors write them, and their states by
number.

Rules are written with states of any kind and worked out one state at a time; each transition is worked out
once, when it is first needed. What is known of an expression's automaton is shared by all vocabularies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from genlm.bytes.canonical.cutter import Gap
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["DEAD", "Automaton", "ByteRules"]

DEAD = -1
_UNKNOWN = -2
_MOST_STATES = 1 << 15


class ByteRules(ABC):
    """An automaton over bytes and the gaps before them. States are any hashable values."""

    start: Hashable

    @abstractmethod
    def read(self, state: Hashable, gap: Gap) -> Sequence[Hashable | None]:
        """The state after each of the 256 bytes, with `gap` before it; None where there is none."""

    @abstractmethod
    def ends(self, state: Hashable) -> bool:
        """Whether the text may end here."""


class Automaton:
    """The states of some rules, numbered as they are met."""

    def __init__(self, rules: ByteRules) -> None:
        self._rules = rules
        self._states: list[Hashable] = []
        self._numbers: dict[Hashable, int] = {}
        self._after = {gap: np.full((64, 256), _UNKNOWN, np.int32) for gap in Gap}
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

    def read(
        self, states: Int[np.ndarray, " n"], symbols: UInt8[np.ndarray, " n"], gap: Gap
    ) -> Int[np.ndarray, " n"]:
        """The state after each pair of a state and a byte, with `gap` before the byte; or `DEAD`."""
        for state in np.unique(states).tolist():
            if state >= len(self._after[gap]) or self._after[gap][state, 0] == _UNKNOWN:
                self._learn(state, gap)
        after: Int[np.ndarray, " n"] = self._after[gap][states, symbols]
        return after

    def _learn(self, state: int, gap: Gap) -> None:
        read = self._rules.read(self._states[state], gap)
        numbers = {s: DEAD if s is None else self.number(s) for s in dict.fromkeys(read)}
        while len(self._after[gap]) < len(self._states):
            more = np.full_like(self._after[gap], _UNKNOWN)
            self._after[gap] = np.concatenate([self._after[gap], more])
        self._after[gap][state] = [numbers[s] for s in read]
