"""How uncertain a place is: the entropy of the next byte or character, bounds on that of the next word, and
the rank of the word that stands there.

**Words.** A search that stops leaves places that it has not looked at; which words lie there is not known,
but which cannot. Each such place, and each word that it may still turn out to be, is put into one cell: cells
have no word in common, so their entropy is at most that of the words. From above: the words of all those
places together, `m` of the probability, are taken to be `lexicon` different ones, evenly. No certain bound
does without such a number, since words have no greatest length. "No word" is one outcome more.

**Rank.** A word is outranked by those found to be likelier; and a place of `m` may hold at most `m / p` words
of more than `p`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from genlm.bytes.predict.budget import Budget
from genlm.bytes.predict.places import Place, look
from genlm.bytes.predict.search import NOTHING, STEP, WordSearch
from genlm.bytes.predict.word_rules import WordRule
from genlm.bytes.util import utf8
from genlm.bytes.util.gather import gather

__all__ = ["LEXICON", "Uncertainty", "next_entropy", "word_uncertainty"]

LEXICON = 1_000_000
"""How many different words may come next, where it has to be supposed: a large dictionary, all forms."""

LIGHT = 1e-6
"""Beginnings of characters that are lighter are not looked at for the entropy of the next character: each of
them may hold some 11 bits, so that a hundredth of a thousandth of a bit is missing."""

FIRST = 0.02
"""The bar above which places are looked at first; as `WordSearch.likeliest` has it for some 25 words."""


@dataclass(frozen=True)
class Uncertainty:
    """Of the next word. Entropies are in nats.

    Attributes:
        low: the least that its entropy can be.
        high: the most that it can be, with at most so many words as `word_uncertainty` is told.
        rank: the least that the rank of the given word can be; 1 is the likeliest.
        rank_most: the most that it can be.
    """

    low: float
    high: float
    rank: int
    rank_most: float


async def next_entropy(beam: Any, unit: str, begun: bytes = b"") -> float:
    """The entropy of the next byte or character, the end of the text among them, in nats.

    Args:
        beam: a pruned beam, or an ensemble.
        unit: `"byte"` or `"char"`.
        begun: the bytes of a character that the text stops in.
    """

    async def below(place: Place) -> float:
        """The entropy of what follows, and, of what is no character yet, of what follows that."""
        here = await place.reached()
        probs = await look(here)
        if probs is None:
            return 0.0
        found = entropy(probs)
        if unit == "char":
            after = utf8.transitions()[utf8.advance(utf8.START, place.begun)]
            open_bytes = [
                byte
                for byte in probs[:256].nonzero()[0].tolist()
                if after[byte] not in (utf8.START, utf8.BROKEN) and place.mass * probs[byte] > LIGHT
            ]
            places = [
                Place(place.mass * float(probs[b]), "", place.begun + bytes([b]), here, b) for b in open_bytes
            ]
            rests = await gather(map(below, places))
            found += sum(float(probs[b]) * rest for b, rest in zip(open_bytes, rests, strict=True))
        return found

    return await below(Place(1.0, "", begun, beam))


async def word_uncertainty(
    beam: Any,
    rule: WordRule,
    p: float,
    budget: Budget,
    lexicon: int = LEXICON,
    enough: float = 0.0,
    word: str | None = None,
) -> Uncertainty:
    """How uncertain the next word is at its beginning, and the rank of one.

    Args:
        beam: a pruned beam where words begin, or an ensemble.
        p: the probability of the word whose rank is wanted; 0 if none is.
        budget: what it may cost.
        lexicon: how many different words may come next.
        enough: places of less need not be looked at: for the rank alone, those of `p`.
        word: the one whose rank is wanted; it is not ahead of itself where `p`, from the reading of a whole
            text, is not quite what is found here.
    """
    search = WordSearch(beam, rule, budget=budget)
    bar = max(FIRST, enough)
    while True:
        await search.down_to(bar)
        if search.unknown <= NOTHING or budget.spent or bar <= enough:
            break
        bar = max(bar / STEP, enough)
    low, high = entropy_bounds(search, lexicon)
    gains = search.gains()
    others = {name: q for name, q in search.found.items() if name != word}
    likelier = sum(q > p * (1 + 1e-9) for q in others.values())
    most: float = math.inf
    if p > 0.0:
        maybe = sum(q <= p < q + gains.get(name, 0.0) for name, q in others.items())
        most = likelier + maybe + sum(math.floor(place.mass / p) for place in search.places)
    return Uncertainty(low, high, likelier + 1, max(most, likelier) + 1)


def entropy_bounds(search: WordSearch, lexicon: int) -> tuple[float, float]:
    """Between which the entropy of the next word lies, in nats."""
    sure = [search.no_word, *search.found.values()]
    unknown = search.unknown
    rest = -unknown * math.log(unknown / lexicon) if unknown > 0.0 else 0.0
    return entropy(search.cells()), entropy(sure) + rest


def entropy(probs: Iterable[float]) -> float:
    """Of a distribution, or a part of one, in nats."""
    p = np.asarray(probs if isinstance(probs, np.ndarray) else list(probs), np.float64)
    p = p[p > 0.0]
    return max(float(-(p * np.log(p)).sum()), 0.0)
