"""What ends a word, and how probable it is that one of these comes next.

An end is the end of the text, or a string: a separator, a mark. All of them count wherever a word stands,
so that its probability does not hang on what happens to follow. Strings of one byte are entries of the next
byte's distribution. Those of several (", ", U+3000) are read byte by byte, by the chain rule, ends that begin
alike together: a tree of symbols, whose leaves are ends. No end begins another, so no continuation counts
twice.

A branch that is light beside the ends found already is not read: what the beam itself would not follow.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.byte_lm.params import BeamParams
from genlm.bytes.byte_lm.symbols import split_symbols
from genlm.bytes.errors import EmptyBeamError
from genlm.bytes.trie import EOS
from genlm.bytes.trie.service import AsyncTokenByteTrie

__all__ = ["SPACES", "EndProbability", "Ends", "end_probability", "ends_tree"]

SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
SPACES += "\u2028\u2029\u202f\u205f\u3000"
"""All white space: what `str.isspace` and the `\\s` of regular expressions say it is."""

LIGHT = 1e-3
"""The share of the ends found already up to which a branch is not read, at most; less where the beam's own
threshold or tolerance is less, and 0 where it keeps everything."""

Ends: TypeAlias = dict[int | bytes, Any]
"""Ends by their first symbol: None where that is all, else such a dictionary of what is to follow."""


def ends_tree(strings: Iterable[str], trie: AsyncTokenByteTrie) -> Ends:
    """Strings, none empty, and the end of the text, as a tree; one that begins another stands for both."""
    tree: Ends = {EOS: None}
    for string in strings:
        *before, last = split_symbols(string.encode(), trie)
        node: Ends | None = tree
        for symbol in before:
            node = None if node is None else node.setdefault(symbol, {})
        if node is not None:
            node[last] = None
    return tree


class EndProbability(NamedTuple):
    """The probability that an end comes next.

    Attributes:
        p: the probability; above 1 where what was read is.
        off: by how much it is expected to be off, at most: of the distributions that it is made of, what is
            left out of each (`LazyByteProbs.slack`); nan where it is not known.
    """

    p: float
    off: float = 0.0

    @property
    def error(self) -> float:
        """The same of its natural log."""
        return self.off / self.p if self.p > 0.0 else 0.0


async def end_probability(beam: Any, ends: Ends, read: float = 0.0) -> EndProbability:
    """The probability that an end comes next.

    Args:
        read: the probability of the end that stands there, where the text goes on and it has been read. What
            pruning has left of the beam may show none, though reading, which heals, has found one.
    """
    mass, off = await _mass(beam, ends, 0.0, _light(beam.params))
    p = max(min(mass, 1.0), read)  # of 1, by rounding, more
    if p > 0.0 or not isinstance(beam, ByteBeamState):
        return EndProbability(p, off)
    return EndProbability(await _read(beam, ends))


def _light(params: BeamParams) -> float:
    own = 0.0 if params.exact else params.prune_threshold if params.tolerance is None else params.tolerance
    return min(own, LIGHT)


async def _mass(beam: Any, ends: Ends, least: float, light: float) -> EndProbability:
    """By distributions: what hypotheses that can end here give.

    Args:
        least: a probability so small that nothing of less is read.
    """
    try:
        found = await beam.peek()
    except EmptyBeamError:
        return EndProbability(0.0)
    off = math.nan if found.slack is None else found.slack.expected
    p = {symbol: math.exp(found[symbol]) for symbol in ends}
    total = sum(p[symbol] for symbol, rest in ends.items() if rest is None)
    least = max(least, light * total)

    async def follow(symbol: int | bytes, rest: Ends) -> EndProbability:
        after = (await beam.advance(symbol)).prune()
        then = await _mass(after, rest, least / p[symbol], light)
        return EndProbability(p[symbol] * then.p, p[symbol] * then.off)

    heavy = [(symbol, rest) for symbol, rest in ends.items() if rest is not None and p[symbol] > least]
    further = await asyncio.gather(*(follow(symbol, rest) for symbol, rest in heavy))
    return EndProbability(total + sum(one.p for one in further), off + sum(one.off for one in further))


async def _read(beam: ByteBeamState, ends: Ends) -> float:
    """By reading each end, which heals: for a beam in which no hypothesis can end the word."""
    total = 0.0
    for end in _strings(ends):
        after = beam
        for symbol in end:
            after = (await after.advance(symbol)).prune() if len(after) else after
        total += math.exp(after.logZ - beam.logZ)
    return total


def _strings(ends: Ends) -> Iterator[list[int | bytes]]:
    for symbol, rest in ends.items():
        if rest is None:
            yield [symbol]
        else:
            yield from ([symbol, *string] for string in _strings(rest))
