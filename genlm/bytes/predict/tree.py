"""The tree of what may come next, with extents: for keyboards like Dasher, where each way on has an area.

A node has a part of the unit interval as wide as its probability, and its children part it among them in the
order of their symbols, so that a symbol stays where it is while others grow. What is too light to be a node
is the rest of its parent, at the upper end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.predict.budget import Budget
from genlm.bytes.predict.places import Place, look
from genlm.bytes.util import utf8
from genlm.bytes.util.gather import gather
from genlm.bytes.util.numbers import whole_number
from genlm.bytes.util.symbols import EOS

__all__ = ["Expansion", "check_expansion", "expand"]


@dataclass(frozen=True)
class Expansion:
    """A node: the bytes that may come next, and what may follow them.

    Attributes:
        symbol: the last byte or character, as bytes; empty at the root and at the end of the text.
        low: where its extent begins, in the unit interval of the root.
        probability: of all bytes from the root to here; the width of the extent.
        children: by their symbols in order, the end of the text last; empty where nothing was looked at.
        rest: the probability of what may follow and is no child, at the upper end of the extent.
        end: whether the text ends here.
    """

    symbol: bytes
    low: float
    probability: float
    children: tuple[Expansion, ...] = ()
    rest: float = 0.0
    end: bool = False

    @property
    def high(self) -> float:
        """Where the extent ends."""
        return self.low + self.probability

    @property
    def logprob(self) -> float:
        """Natural log of `probability`."""
        return math.log(self.probability) if self.probability > 0.0 else -math.inf

    def leaves(self) -> list[Expansion]:
        """The nodes without children, in order."""
        return [leaf for child in self.children for leaf in child.leaves()] if self.children else [self]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it; a symbol that is no text by itself as U+FFFD, beside its byte values."""
        found: dict[str, Any] = {
            "text": self.symbol.decode(errors="replace"),
            "bytes": list(self.symbol),
            "low": self.low,
            "high": self.high,
            "probability": self.probability,
        }
        if self.end:
            found["end"] = True
        if self.children:
            found["rest"] = self.rest
            found["children"] = [child.to_dict() for child in self.children]
        return found


def check_expansion(min_prob: Any, depth: Any, unit: Any) -> int:
    """That arguments mean something; the depth.

    Raises:
        ValueError: out of range.
        TypeError: of another type.
    """
    if isinstance(min_prob, bool) or not isinstance(min_prob, int | float):
        raise bad_type("min_prob", min_prob, "must be a number above 0 and at most 1")
    if not 0.0 < min_prob <= 1.0:
        raise bad_value("min_prob", min_prob, "must be above 0 and at most 1", "Pass e.g. 0.01.")
    if unit not in ("byte", "char"):
        raise bad_value("unit", unit, "must be 'byte' or 'char'")
    found = whole_number("depth", depth, 1)
    if found is None:
        raise bad_type("depth", depth, "must be an integer of at least 1")
    return found


async def expand(beam: Any, text: bytes, min_prob: float, depth: int, unit: str, budget: Budget) -> Expansion:
    """The tree below a context.

    Args:
        beam: the beam after it, or an ensemble.
        text: the context; of a character that it stops in, the rest is the first symbol.
        min_prob: the least probability of a node; what is below a node of less is not looked at.
        depth: the most symbols from the root.
        budget: where it is spent, what is not known is the rest.
    """
    grown = _Tree(min_prob, unit == "char", budget)
    begun = utf8.unfinished(text) if grown.chars else b""
    children, _ = await grown.below(Place(1.0, "", begun, beam.prune()), depth)
    return _placed(b"", 1.0, children, 0.0)


_Grown = tuple[bytes, float, list[Any], bool]
"""A symbol, its probability, what follows it likewise, and whether it is the end."""


class _Tree:
    def __init__(self, least: float, chars: bool, budget: Budget) -> None:
        self.least, self.chars, self.budget = least, chars, budget

    async def below(self, place: Place, depth: int) -> tuple[list[_Grown], float]:
        """The symbols that may follow; and the probability of those that may not be told apart."""
        if not depth or not self.budget.take():
            return [], place.mass
        beam = await place.reached()
        probs = await look(beam)
        self.budget.count(beam)
        if probs is None:
            return [], place.mass
        masses = place.mass * probs
        heavy = [byte for byte in (masses[:256] >= self.least).nonzero()[0].tolist()]
        found = await gather(
            self._after(Place(float(masses[byte]), "", place.begun + bytes([byte]), beam, byte), depth)
            for byte in heavy
        )
        grown = [one for some in found for one in some]
        if masses[EOS] >= self.least and not place.begun:
            grown.append((b"", float(masses[EOS]), [], True))
        return grown, 0.0

    async def _after(self, place: Place, depth: int) -> list[_Grown]:
        """One more byte: a symbol, or the beginning of several; none where it begins no character."""
        state = utf8.advance(utf8.START, place.begun) if self.chars else utf8.START
        if state == utf8.BROKEN:
            return []
        if state != utf8.START:
            return (await self.below(place, depth))[0]
        symbol = place.begun
        below, _ = await self.below(Place(place.mass, "", b"", place.beam, place.byte), depth - 1)
        return [(symbol, place.mass, below, False)]


def _placed(symbol: bytes, mass: float, below: list[_Grown], low: float, end: bool = False) -> Expansion:
    children, at = list[Expansion](), low
    for one, p, rest, ended in below:
        children.append(_placed(one, p, rest, at, ended))
        at += p
    left = max(mass - math.fsum(child.probability for child in children), 0.0)
    return Expansion(symbol, low, mass, tuple(children), left if children else mass, end)
