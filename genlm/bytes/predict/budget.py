"""How much a search may cost: contexts of the model, or time."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any, Self

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.util.numbers import whole_number

__all__ = ["CONTEXTS", "Budget"]

CONTEXTS = 256
"""Contexts that `predict_words` looks at unless it is told otherwise. A probe of prose typed letter by letter
saw 3 to 25 a keystroke."""


class Budget:
    """Counts the contexts that are looked at, each once, whether the model has seen them before or not.

    Args:
        contexts: how many; None for no limit.
        milliseconds: or how long, from now; a forward that is under way then is waited for.
    """

    def __init__(self, contexts: int | None = None, milliseconds: float | None = None) -> None:
        self._most = math.inf if contexts is None else contexts
        self._until = math.inf if milliseconds is None else monotonic() + milliseconds / 1000
        self._seen = set[Any]()
        self._begun = 0

    @classmethod
    def of(cls, contexts: Any, milliseconds: Any) -> Self:
        """A budget as a caller names it.

        Raises:
            ValueError: below 1 context, or not above 0 ms.
            TypeError: no numbers.
        """
        most = whole_number("budget", contexts, 1)
        if milliseconds is not None:
            if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
                raise bad_type("milliseconds", milliseconds, "must be a number")
            if not milliseconds > 0:
                raise bad_value("milliseconds", milliseconds, "must be above 0")
        return cls(most, milliseconds)

    @property
    def contexts(self) -> int:
        """How many have been looked at."""
        return len(self._seen)

    @property
    def spent(self) -> bool:
        return len(self._seen) >= self._most or monotonic() >= self._until

    def take(self) -> bool:
        """Whether there is room to look at one more beam; `count` says what it came to."""
        room = len(self._seen) + self._begun < self._most and monotonic() < self._until
        self._begun += room
        return room

    def count(self, beam: Any) -> None:
        """A beam, or ensemble, for which there was room has been looked at."""
        self._begun -= 1
        for part in getattr(beam, "members", [beam]):
            data = getattr(part, "data", None)
            if data is not None:
                states = data.hypotheses if data.expansion is None else data.expansion.hypotheses
                self._seen.update(getattr(s.lm_state, "node", s.lm_state) for s in states if s.materialized)
