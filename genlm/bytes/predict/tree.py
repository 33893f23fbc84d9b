"""The tree of what may come next, with extents: for keyboards like Dasher, where each way on has an area.

A node has a part of the unit interval as wide as its probability, and its children part it among them in the
order of their symbols, so that a symbol stays where it is while others grow. What is too light to be a node
is the rest of its parent, at the upper end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.predict.budget import Budget, contexts_of
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
    root = _Grown(b"", 1.0)
    await grown.grow(root, Place(1.0, "", begun, beam.prune()), depth)
    return _placed(root, 0.0)


@dataclass(slots=True)
class _Grown:
    """A node while the tree grows.

    Attributes:
        symbol: what it stands for; nothing at the root and at the end.
        mass: its probability.
        below: what follows it.
        end: whether it is the end.
    """

    symbol: bytes
    mass: float
    below: list[_Grown] = field(default_factory=list)
    end: bool = False


_Step = tuple[_Grown, Place, int]
"""A node, the place from which its symbols are to be found, and how deep it may grow."""


class _Tree:
    def __init__(self, least: float, chars: bool, budget: Budget) -> None:
        self.least, self.chars, self.budget = least, chars, budget

    async def grow(self, root: _Grown, place: Place, depth: int) -> None:
        """Look at all places of the least probability, in rounds as a search of words has them."""
        steps = [(root, place, depth)]
        while steps:
            steps.sort(key=lambda step: -step[1].mass)
            room = self.budget.room(len(steps))
            runs = await gather(self._follow(*step) for step in steps[:room])
            steps = []
            for looked, after in runs:
                steps += after
                for beam in looked:
                    self.budget.count(beam)

    async def _follow(self, node: _Grown, place: Place, depth: int) -> tuple[list[Any], list[_Step]]:
        """What follows a node: the beams looked at, and what comes after those that took a context."""
        known = contexts_of(place.beam)
        beam = await place.reached()
        probs = await look(beam)
        if probs is None:
            return [beam], []
        masses, steps = place.mass * probs, list[_Step]()
        for byte in (masses[:256] >= self.least).nonzero()[0].tolist():
            after = Place(float(masses[byte]), "", place.begun + bytes([byte]), beam, byte)
            steps += self._after(node, after, depth)
        if masses[EOS] >= self.least and not place.begun:
            node.below.append(_Grown(b"", float(masses[EOS]), end=True))
        if not contexts_of(beam) <= known:
            return [beam], steps
        further = await gather(self._follow(*step) for step in steps)
        return [beam, *(b for beams, _ in further for b in beams)], [s for _, ss in further for s in ss]

    def _after(self, node: _Grown, place: Place, depth: int) -> list[_Step]:
        """One more byte: a symbol, or the beginning of several; none where it begins no character."""
        state = utf8.advance(utf8.START, place.begun) if self.chars else utf8.START
        if state == utf8.BROKEN:
            return []
        if state != utf8.START:
            return [(node, place, depth)]
        child = _Grown(place.begun, place.mass)
        node.below.append(child)
        below = Place(place.mass, "", b"", place.beam, place.byte)
        return [(child, below, depth - 1)] if depth > 1 else []


def _placed(node: _Grown, low: float) -> Expansion:
    children, at = list[Expansion](), low
    for below in sorted(node.below, key=lambda one: (one.end, one.symbol)):
        children.append(_placed(below, at))
        at += below.mass
    left = max(node.mass - math.fsum(child.probability for child in children), 0.0)
    rest = left if children else node.mass
    return Expansion(node.symbol, low, node.mass, tuple(children), rest, node.end)
