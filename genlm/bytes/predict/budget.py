"""How much a search may cost: contexts of the model, or time."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any, Self

from genlm.bytes.errors import bad_value
from genlm.bytes.util.numbers import real_number, whole_number

__all__ = ["CONTEXTS", "Budget", "contexts_of"]

CONTEXTS = 256
"""Contexts that `predict_words` looks at unless it is told otherwise. A probe of prose typed letter by letter
saw 3 to 25 a keystroke."""


class Budget:
    """Counts the contexts that are looked at, each once, whether the model has seen them before or not.

    What is looked at must not hang on that either, nor on which forward ends first. So a search goes by
    rounds: there is `room` for some places, all of them are looked at, and only then each is counted.

    Args:
        contexts: how many; None for no limit.
        milliseconds: or how long, from now; a forward that is under way then is waited for.
    """

    def __init__(self, contexts: int | None = None, milliseconds: float | None = None) -> None:
        self._most = math.inf if contexts is None else contexts
        self._until = math.inf if milliseconds is None else monotonic() + milliseconds / 1000
        self._seen = set[Any]()

    @classmethod
    def of(cls, contexts: Any, milliseconds: Any) -> Self:
        """A budget as a caller names it.

        Raises:
            ValueError: below 1 context, or not above 0 ms.
            TypeError: no numbers.
        """
        most = whole_number("budget", contexts, 1)
        if milliseconds is not None:
            milliseconds = real_number("milliseconds", milliseconds)
            if milliseconds <= 0.0:
                raise bad_value("milliseconds", milliseconds, "must be above 0")
        return cls(most, milliseconds)

    @property
    def contexts(self) -> int:
        """How many have been looked at."""
        return len(self._seen)

    @property
    def spent(self) -> bool:
        return not self.room(1)

    def room(self, count: int) -> int:
        """Of so many places to look at, how many may be: each takes a context or none, and some take more."""
        left = self._most - len(self._seen) if monotonic() < self._until else 0
        return int(max(min(count, left), 0))

    def count(self, beam: Any) -> None:
        """A beam, or ensemble, has been looked at."""
        self._seen |= contexts_of(beam)


def contexts_of(beam: Any) -> set[Any]:
    """The contexts that a beam, or an ensemble, has had evaluated as far as it is known."""
    found = set[Any]()
    for part in getattr(beam, "members", [beam]):
        data = getattr(part, "data", None)
        if data is not None:
            states = data.hypotheses if data.expansion is None else data.expansion.hypotheses
            found.update(getattr(s.lm_state, "node", s.lm_state) for s in states if s.materialized)
    return found
