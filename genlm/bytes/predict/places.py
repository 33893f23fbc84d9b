"""Where a text may have come to: a beam that is read on only when it is looked at."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.errors import EmptyBeamError

__all__ = ["Place", "look"]

COARSEST = 0.1
"""The most that a tolerance becomes, however light a place is."""


@dataclass(slots=True)
class Place:
    """Some bytes that may come next, not looked at yet.

    Attributes:
        mass: their probability.
        text: the whole characters.
        begun: the bytes of the character that they stop in.
        beam: the beam after them; or, with `byte`, before the last of them.
        byte: the last byte, not read yet.
        tolerance: the share of all that may come next from which a context is evaluated; None: as the beam
            has it, a share of each place.
        words: the words that it may turn out to be, once somebody has asked.
    """

    mass: float
    text: str
    begun: bytes
    beam: Any
    byte: int | None = None
    tolerance: float | None = None
    words: list[str] | None = None

    async def reached(self) -> Any:
        """The beam after these bytes, pruned."""
        if self.byte is not None:
            beam = _coarser(self.beam, self.tolerance, self.mass)
            self.beam, self.byte = (await beam.advance(self.byte)).prune(), None
        return self.beam


async def look(beam: Any) -> Float64[np.ndarray, " 258"] | None:
    """Probabilities of the next byte and, last, of the end; None where nothing can follow.

    They sum to 1 but for atomic units. Nothing is offered to the model ahead of time: whoever searches knows
    better what is needed.
    """
    try:
        found = await beam.peek()
    except EmptyBeamError:
        return None
    probs = np.exp(np.asarray(found.ps, np.float64))
    probs[256] = 0.0
    return probs


def _coarser(beam: Any, tolerance: float | None, mass: float) -> Any:
    """A beam with the tolerance that a place of such a probability deserves: what is not worth a context
    there, being a small share of a small share, is deferred."""
    if tolerance is None or not isinstance(beam, ByteBeamState):
        return beam
    other = copy(beam)
    other.params = replace(beam.params, tolerance=max(tolerance, min(tolerance / mass, COARSEST)))
    return other
