"""What the next byte of a completion may be: what its mask, and UTF-8, permit. A value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Bool

from genlm.bytes.generate.constraint import Constraint, as_constraint
from genlm.bytes.options import Options
from genlm.bytes.util import utf8
from genlm.bytes.util.symbols import EOS

__all__ = ["Permitted"]


class Permitted:
    """What a completion's next byte may be.

    Args:
        constraint: the user's mask after the new bytes, if there is one.
        utf8_state: of the decoder after all bytes; None where characters need not be whole.
    """

    def __init__(self, constraint: Constraint | None, utf8_state: int | None) -> None:
        self.constraint = constraint
        self._utf8 = utf8_state

    @classmethod
    def of(cls, options: Options, prompt: bytes) -> Self:
        """At the beginning of a completion.

        Args:
            options: what was asked.
            prompt: the bytes before: an unfinished character there decides how the next byte may go on.
        """
        state = utf8.state_after(prompt) if options.valid_utf8 else None
        return cls(as_constraint(options.mask), state)

    def symbols(self, units: Sequence[bytes] = ()) -> Bool[np.ndarray, " symbols"]:
        """Which symbols may come next: 258, then multi-byte atomic units."""
        permitted = np.ones(258 + len(units), np.bool_)
        permitted[256] = False
        if self._utf8 is not None:
            permitted[:256] &= utf8.allowed(self._utf8)
            permitted[EOS] = self._utf8 == utf8.START
        if self.constraint is not None:
            permitted[:258] &= self.constraint.allowed()
        for i, unit in enumerate(units, start=258):
            permitted[i] = self._permits(unit)
        return permitted

    def only_the_end(self, permitted: Bool[np.ndarray, " symbols"]) -> bool:
        """Whether the mask lets the text end here, and nothing else."""
        return self.constraint is not None and bool(permitted[EOS] and permitted.sum() == 1)

    def after(self, text: bytes) -> Permitted:
        """The same after some more bytes."""
        constraint = self.constraint
        for byte in text:
            constraint = constraint and constraint.advance(byte)
        return Permitted(constraint, None if self._utf8 is None else utf8.advance(self._utf8, text))

    def _permits(self, unit: bytes) -> bool:
        if self._utf8 is not None and utf8.advance(self._utf8, unit) == utf8.BROKEN:
            return False
        constraint = self.constraint
        for byte in unit:
            if constraint is None:
                return True
            if not constraint.allowed()[byte]:
                return False
            constraint = constraint.advance(byte)
        return True
