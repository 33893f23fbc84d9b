"""Which words may come next: a search of the tree of bytes, heaviest places first, that can stop anywhere.

A place is some bytes that may come next, with their probability. Looked at, it gives that probability to what
may follow: to places one byte further, to the word that has ended, or to what is no word. So at every moment

    words found + no word + places not looked at = 1,

and no word that has not been found is likelier than the heaviest such place.

What costs is the model: a forward for each place where a token ends. Places above a bar are looked at in
rounds: in each all that are reached, and what follows them without a context, so that all that is known to be
needed goes out in one forward. Then the bar is lowered. So the number of forwards is about that of the tokens
in a word for each bar, however many words there are; and which places are looked at hangs on the bars and the
budget alone, not on which forward ends first, or what the model has seen before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.predict.budget import Budget, contexts_of
from genlm.bytes.predict.places import Place, look
from genlm.bytes.predict.word_rules import WordRule
from genlm.bytes.util import utf8
from genlm.bytes.util.gather import gather
from genlm.bytes.util.symbols import EOS

__all__ = ["WordSearch"]

STEP = 3.0
"""By what the bar is divided while there are too few words. Larger: fewer forwards, more contexts."""

NOTHING = 1e-12
"""What all places together may weigh and be nothing: round-off."""


@dataclass(slots=True)
class _Looked:
    """What looking at a place has shown.

    Attributes:
        beam: the beam there.
        ended: words that have ended and their probabilities; "" is no word.
        places: where it leads to.
        free: whether no context had to be evaluated.
    """

    beam: Any
    ended: list[tuple[str, float]]
    places: list[Place]
    free: bool


class WordSearch:
    """A search of what may come next.

    Args:
        beam: the beam after the context, pruned; or an ensemble.
        rule: what a word is.
        text: the beginning of the word that the context stops in.
        begun: the bytes of the character that it stops in.
        spaced: whether a space may stand before the word.
        budget: what it may cost.

    Attributes:
        found: the probability of each word that has been found to end, so far; with the space before it.
        no_word: the probability that no word comes next.
        places: those not looked at yet.
    """

    def __init__(
        self,
        beam: Any,
        rule: WordRule,
        text: str = "",
        begun: bytes = b"",
        spaced: bool = False,
        *,
        budget: Budget,
    ) -> None:
        self.rule, self.budget = rule, budget
        self.found: defaultdict[str, float] = defaultdict(float)
        self.no_word = 0.0
        self.places = [Place(1.0, text, begun, beam)]
        self._spaced = spaced
        self._tolerance = beam.params.tolerance if isinstance(beam, ByteBeamState) else None

    async def down_to(self, least: float) -> None:
        """Look at all places of at least such a probability, and what they lead to."""
        heavy = [place for place in self.places if place.mass >= least]
        self.places = [place for place in self.places if place.mass < least]
        while heavy:
            heavy.sort(key=lambda place: -place.mass)
            room = self.budget.room(len(heavy))
            self.places += heavy[room:]
            runs = await gather(self._follow(place, least) for place in heavy[:room])
            heavy = []
            for looked, after in runs:
                heavy += after
                self._book(looked, least)

    async def likeliest(self, n: int, min_prob: float = 0.0) -> bool:
        """Search until the `n` likeliest words are certain, as far as they have `min_prob`, or until the
        budget is spent; whether they are."""
        bar = max(0.5 / n, min_prob)
        while True:
            await self.down_to(bar)
            best = nlargest(n, self.found.values())
            least = max(best[-1] if len(best) == n else 0.0, min_prob)
            if self.unknown <= NOTHING or (least and least >= self._most_elsewhere(n)):
                return True
            if self.budget.spent:
                return False
            bar = max(least, bar / STEP) if least < bar else bar / STEP

    @property
    def unknown(self) -> float:
        """The probability of all that has not been looked at."""
        return math.fsum(place.mass for place in self.places)

    def gains(self) -> dict[str, float]:
        """What each word may still gain from places that have not been looked at."""
        found: defaultdict[str, float] = defaultdict(float)
        for place in self.places:
            for word in place.words if place.words is not None else self._may_be(place):
                found[word] += place.mass
        return found

    def cells(self) -> list[float]:
        """The probabilities of a coarser partition: no word that may come next lies in two of its cells.

        A place where a word stands that may have ended, because what comes next has not been read to its last
        byte, is in one cell with that word.
        """
        cell = dict[str, str]()  # of each word that several may be; "" is none
        held: defaultdict[str, float] = defaultdict(float)
        alone = list[float]()
        for place in self.places:
            words = self._may_be(place)
            if not words:
                alone.append(place.mass)
                continue
            cells = {cell.setdefault(word, word) for word in words}
            first = cells.pop()
            held[first] += place.mass
            for other in cells:
                held[first] += held.pop(other, 0.0)
                cell |= {word: first for word, where in cell.items() if where == other}
        for word, p in [("", self.no_word), *self.found.items()]:
            held[cell.get(word, word)] += p
        return [*held.values(), *alone]

    def _may_be(self, place: Place) -> list[str]:
        """The words that end where a place is, or before it, and that it may turn out to be; "" is none."""
        if place.words is None:  # there are some hundred places for each that is looked at
            lead = self._lead(place.text)
            body = place.text[lead:]
            least = self.rule.least(body) if body else 0
            lengths = range(least, len(body) + 1) if place.begun or least < len(body) else ()
            place.words = [place.text[: lead + length] if length else "" for length in lengths]
        return place.words

    def _most_elsewhere(self, n: int) -> float:
        """The most that any word can have that is not among the `n` likeliest."""
        listed, gains = set(nlargest(n, self.found, key=self.found.__getitem__)), self.gains()
        others = (p + gains.get(word, 0.0) for word, p in self.found.items() if word not in listed)
        return max(max((place.mass for place in self.places), default=0.0), max(others, default=0.0))

    # -- looking --------------------------------------------------------------------------------------

    async def _follow(self, place: Place, least: float) -> tuple[list[_Looked], list[Place]]:
        """Look at a place, and on where no context had to be evaluated.

        Returns:
            What was seen, and the heavy places that come after what had to.
        """
        looked = await self._look(place)
        heavy = sorted((after for after in looked.places if after.mass >= least), key=lambda p: -p.mass)
        if not looked.free:
            return [looked], heavy
        further = await gather(self._follow(after, least) for after in heavy)
        return [looked, *(one for seen, _ in further for one in seen)], [p for _, ps in further for p in ps]

    def _book(self, looked: Sequence[_Looked], least: float) -> None:
        for one in looked:
            self.budget.count(one.beam)
            self.places += (place for place in one.places if place.mass < least)
            for word, mass in one.ended:
                if word:
                    self.found[word] += mass
                else:
                    self.no_word += mass

    async def _look(self, place: Place) -> _Looked:
        """Share out the probability of a place."""
        known = contexts_of(place.beam)
        beam = await place.reached()
        probs = await look(beam)
        found = _Looked(beam, [], [], contexts_of(beam) <= known)
        if probs is None:
            found.ended.append(("", place.mass))
            return found
        masses = place.mass * probs
        so_far = place.text + _characters(place.begun)
        if masses[EOS] > 0.0:
            found.ended.append((so_far[: self._close(so_far)], float(masses[EOS])))
        after = utf8.transitions()[utf8.advance(utf8.START, place.begun)].tolist()
        afresh = utf8.transitions()[utf8.START].tolist()
        for byte in masses[:256].nonzero()[0].tolist():
            text, begun, state = place.text, place.begun + bytes([byte]), after[byte]
            if state == utf8.BROKEN:  # the bytes before it are no character
                text, begun, state = so_far, bytes([byte]), afresh[byte]
            if state in (utf8.START, utf8.BROKEN):
                text, begun = text + _characters(begun), b""
            end = self._ended(text) if text != place.text else None
            if end is None:
                found.places.append(Place(float(masses[byte]), text, begun, beam, byte, self._tolerance))
            else:
                found.ended.append((text[:end], float(masses[byte])))
        found.ended.append(("", max(place.mass - float(masses.sum()), 0.0)))  # atomic units
        return found

    def _lead(self, text: str) -> int:
        return int(self._spaced and text.startswith(" "))

    def _ended(self, text: str) -> int | None:
        lead = self._lead(text)
        if len(text) == lead:
            return None
        end = self.rule.end(text[lead:])
        return end and end + lead

    def _close(self, text: str) -> int:
        lead = self._lead(text)
        end = self.rule.close(text[lead:]) if len(text) > lead else 0
        return end and end + lead


def _characters(bs: bytes) -> str:
    """Bytes as characters; those that are none as surrogates, which belong to no word."""
    return bs.decode(errors="surrogateescape")
