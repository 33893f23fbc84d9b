"""What a word's beginning is like: entropies of what comes next, and the rank of the word that stands there.

A word is here what it is for its surprisal: anything up to an end of it (`ends.py`). So the surprisal is that
of one of the words whose entropy is bounded, and its rank is among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.predict.budget import Budget
from genlm.bytes.predict.entropy import next_entropy, word_uncertainty
from genlm.bytes.predict.word_rules import Delimited
from genlm.bytes.util.numbers import whole_number

__all__ = ["ENTROPY", "RANK", "Uncertain", "uncertainty_columns"]

ENTROPY = ("entropy", "word_entropy", "word_entropy_most")
RANK = ("rank", "rank_most")


@dataclass(frozen=True)
class Uncertain:
    """What is asked about words' beginnings.

    Attributes:
        unit: whose entropy: `"byte"`, `"char"`, or None for none.
        rank: whether the word's rank is asked for.
        words: whether words have ends here, without which neither entropy nor rank of words means anything.
        budget: contexts of the model for each word.
        base: of the logarithm.
    """

    unit: str | None
    rank: bool
    words: bool
    budget: int | None
    base: float

    @classmethod
    def of(cls, entropy: Any, rank: Any, budget: Any, trailing: bool, base: float) -> Uncertain | None:
        """What arguments ask for; None for nothing.

        Raises:
            ValueError: an entropy of something else; a rank of words without ends.
            TypeError: an argument of the wrong type.
        """
        if entropy not in (True, False, "byte", "char"):
            raise bad_value("entropy", entropy, "must be True, False, 'byte' or 'char'")
        if not isinstance(rank, bool):
            raise bad_type("rank", rank, "must be True or False")
        most = whole_number("budget", budget, 1)
        if rank and not trailing:
            rule = "words without their ends have no rank: each is the beginning of others"
            raise bad_value("rank", rank, rule, 'Use boundary="trailing".')
        if not entropy and not rank:
            return None
        unit = entropy if isinstance(entropy, str) else "byte" if entropy else None
        return cls(unit, rank, trailing, most, base)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what `measure` gives."""
        return uncertainty_columns(self.unit, self.rank, self.words)

    async def measure(self, beam: Any, ends: Sequence[str] | None, logp: float, word: str) -> dict[str, Any]:
        """The columns of a region.

        Args:
            beam: the beam before it; None inside an atomic unit.
            ends: what ends the word; None where it is none, as a mark.
            logp: natural log of its probability.
            word: the word.
        """
        found: dict[str, Any] = dict.fromkeys(self.columns, math.nan)
        if beam is None:
            return found
        scale = math.log(self.base)
        if self.unit is not None:
            found["entropy"] = await next_entropy(beam, self.unit) / scale
        if ends is not None and self.words:
            p = math.exp(logp) if self.rank else 0.0
            enough = p if self.unit is None else 0.0
            budget = Budget(self.budget)
            words = await word_uncertainty(beam, Delimited(ends), p, budget, enough=enough, word=word)
            if self.unit is not None:
                found["word_entropy"], found["word_entropy_most"] = words.low / scale, words.high / scale
            if self.rank:
                found["rank"], found["rank_most"] = words.rank, words.rank_most
        return found


def uncertainty_columns(entropy: Any, rank: bool, words: bool = True) -> tuple[str, ...]:
    """The names of the columns that are asked for; of words without ends, their beginnings' entropy alone."""
    of_words = ENTROPY if words else ENTROPY[:1]
    return (*(of_words if entropy else ()), *(RANK if rank else ()))
