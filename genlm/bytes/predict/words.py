"""The likeliest next words, each with its end, and the probability of everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any, overload

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.predict.budget import Budget
from genlm.bytes.predict.search import WordSearch
from genlm.bytes.predict.word_rules import WordRule, begun_word
from genlm.bytes.util import utf8

_Bytes = bytes  # the field `bytes` hides the type inside the class

__all__ = ["WordPrediction", "WordPredictions", "check_boundary", "check_min_prob", "predict_words", "stands"]


@dataclass(frozen=True)
class WordPrediction:
    """A word that may come next.

    Attributes:
        word: the whole word, with the letters that stand there already.
        text: what is to be added to the context: the rest of the word, with a space before it where one is
            missing. A character that the context ends inside is given whole; `bytes` has its rest.
        logprob: natural log of the probability of that and an end of the word, given the context.
        most: natural log of what it can be at most: ends that have not been looked at included.
        bytes: `text` without what the context has of it already, where that ends inside a character.
    """

    word: str
    text: str
    logprob: float
    most: float
    bytes: _Bytes

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)


@dataclass(frozen=True)
class WordPredictions(Sequence[WordPrediction]):
    """The likeliest next words, likeliest first. With `remainder` they sum to 1.

    Attributes:
        words: the words.
        prefix: the beginning of the word that the context stops in; empty if it stops in none.
        other_words: the probability of words that were found and are not listed.
        no_word: the probability that no word comes next: a digit, a mark, a second space, the end.
        unknown: the probability of what has not been looked at. A word that is neither listed nor among
            `other_words` has at most that.
        complete: whether these are certainly the likeliest, as far as words of less than `min_prob` are not
            asked for; False where the budget came first.
        contexts: how many contexts of the model were looked at.
    """

    words: tuple[WordPrediction, ...]
    prefix: str
    other_words: float
    no_word: float
    unknown: float
    complete: bool
    contexts: int

    @property
    def remainder(self) -> float:
        """The probability of everything that is not listed."""
        return math.fsum([self.other_words, self.no_word, self.unknown])

    def __len__(self) -> int:
        return len(self.words)

    @overload
    def __getitem__(self, at: int) -> WordPrediction: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[WordPrediction, ...]: ...
    def __getitem__(self, at: int | slice) -> WordPrediction | tuple[WordPrediction, ...]:
        return self.words[at]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        words = [
            {"word": w.word, "text": w.text, "logprob": w.logprob, "probability": w.probability}
            for w in self.words
        ]
        return {
            "prefix": self.prefix,
            "words": words,
            "remainder": self.remainder,
            "other_words": self.other_words,
            "no_word": self.no_word,
            "unknown": self.unknown,
            "complete": self.complete,
            "contexts": self.contexts,
        }

    def __repr__(self) -> str:
        shown = [f"{word.word!r} {word.probability:.4f}" for word in self.words]
        return f"WordPredictions({', '.join([*shown, f'remainder {self.remainder:.4f}'])})"


async def predict_words(
    beam: Any, text: bytes, n: int, prefix: str | None, rule: WordRule, min_prob: float, budget: Budget
) -> WordPredictions:
    """The `n` likeliest words.

    Args:
        beam: the beam after the context, or an ensemble.
        text: the context.
        prefix: see `stands`.
    """
    begun, spaced = stands(rule, text, prefix)
    unfinished = utf8.unfinished(text)
    search = WordSearch(beam.prune(), rule, begun, unfinished, spaced, budget=budget)
    complete = await search.likeliest(n, min_prob)
    likely = (item for item in search.found.items() if item[1] >= min_prob)
    best = nlargest(n, likely, key=lambda item: item[1])
    gains = search.gains()
    there = len(unfinished)
    words = tuple(_prediction(word, p, p + gains.get(word, 0.0), begun, spaced, there) for word, p in best)
    others = math.fsum(search.found.values()) - math.fsum(p for _, p in best)
    unknown = search.unknown
    return WordPredictions(words, begun, max(others, 0.0), search.no_word, unknown, complete, budget.contexts)


def _prediction(text: str, p: float, most: float, begun: str, spaced: bool, there: int) -> WordPrediction:
    word, rest = text[1:] if spaced and text.startswith(" ") else text, text[len(begun) :]
    bound = math.log(min(max(most, p), max(p, 1.0)))
    return WordPrediction(word, rest, math.log(p), bound, rest.encode()[there:])


def stands(rule: WordRule, text: bytes, prefix: str | None) -> tuple[str, bool]:
    """The beginning of the word that a context stops in; and whether a space may stand before the next.

    Args:
        text: the context.
        prefix: that beginning, if the caller knows better; "" for none.

    Raises:
        ValueError: a prefix that the context does not end with, or in which no word goes on.
        TypeError: one that is no string.
    """
    read = text[: len(text) - len(utf8.unfinished(text))].decode(errors="replace")
    if prefix is None:
        prefix = begun_word(rule, read)
    elif not isinstance(prefix, str):
        raise bad_type("prefix", prefix, "must be a string, or None to find it")
    elif not read.endswith(prefix):
        rule_said = "must be how the context ends: the first letters of the word that it stops in"
        raise bad_value("prefix", prefix, rule_said, "Add it to the context.")
    elif prefix and rule.end(prefix) is not None:
        raise bad_value("prefix", prefix, "is not the beginning of a word", "Say what a word is by `word`.")
    spaced = (
        rule.spaced and not prefix and not utf8.unfinished(text) and bool(read) and not read[-1].isspace()
    )
    return prefix, spaced


def check_boundary(boundary: Any) -> None:
    """That words are asked for with their ends: without, they would not be disjoint, nor sum to 1."""
    if boundary != "trailing":
        rule = 'must be "trailing": words that may come next are told apart by their ends'
        raise bad_value("boundary", boundary, rule, "See `expand` for what may come without an end.")


def check_min_prob(min_prob: Any) -> float:
    """That a least probability is one."""
    if isinstance(min_prob, bool) or not isinstance(min_prob, int | float):
        raise bad_type("min_prob", min_prob, "must be a number from 0 to 1")
    if not 0.0 <= min_prob <= 1.0:
        raise bad_value("min_prob", min_prob, "must be from 0 to 1", "Pass e.g. 0.001.")
    return float(min_prob)
