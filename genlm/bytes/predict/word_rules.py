"""What a word is: where the first word of some text ends, as far as the text tells.

Text is looked at as it grows by a character. At each of its beginnings a rule says whether the first word is
still going on, has ended, or never began. Each way that a text can go on then belongs to one first word or to
none: the words that may come next are disjoint events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol, Self, runtime_checkable

import regex

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["WORD", "Delimited", "Pattern", "Predicate", "Segments", "WordRule", "word_rule"]

WORD = r"\p{L}[\p{L}\p{M}\p{Join_Control}'’ʼ]*+"
"""A letter; then letters, marks on them, the joiners of Persian and Indic scripts, and apostrophes."""

REMEMBERED = 1 << 15
"""Texts about which a regular expression has been asked: some megabytes."""

LONGEST = 64
"""Characters back in which the beginning of an unfinished word is looked for."""


@runtime_checkable
class WordRule(Protocol):
    """What is asked of a rule. `text` is never empty."""

    spaced: bool
    """Whether a space may stand before a word, where a context ends with neither word nor space."""

    def end(self, text: str) -> int | None:
        """How many characters the first word has; 0 if none begins here; None if it may still go on."""

    def close(self, text: str) -> int:
        """The same where the text ends here."""

    def least(self, text: str) -> int:
        """Of a text whose word may still go on: how many characters that has at least. 0: it may be none."""


class Pattern(WordRule):
    """A word is the longest match of a regular expression, as the module `regex` has it."""

    spaced = True

    def __init__(self, pattern: regex.Pattern[str]) -> None:
        self.pattern = pattern
        # A keystroke asks this of ten thousand texts, and the next one of nearly the same.
        self._may_go_on = lru_cache(REMEMBERED)(lambda text: bool(pattern.fullmatch(text, partial=True)))
        self._is_word = lru_cache(REMEMBERED)(lambda text: bool(pattern.fullmatch(text)))

    @classmethod
    @lru_cache(16)
    def of(cls, pattern: str, flags: int = 0) -> Self:
        """The rule of an expression."""
        return cls(regex.compile(pattern, flags))

    def end(self, text: str) -> int | None:
        return None if self._may_go_on(text) else self.close(text)

    def close(self, text: str) -> int:
        return next((n for n in range(len(text), 0, -1) if self._is_word(text[:n])), 0)

    least = close


class Predicate(WordRule):
    """A word is what a function says of each of its beginnings: `str.isalpha`."""

    spaced = True

    def __init__(self, begins: Callable[[str], Any]) -> None:
        self.begins = begins

    def end(self, text: str) -> int | None:
        return None if self.begins(text) else self.close(text)

    def close(self, text: str) -> int:
        return next((n for n in range(len(text), 0, -1) if self.begins(text[:n])), 0)

    least = close


class Segments(WordRule):
    """A word is what a segmenter cuts off first, once it cuts. For scripts without spaces.

    A segment without letter or digit is no word.
    """

    spaced = False

    def __init__(self, segmenter: Callable[[str], Iterable[str]]) -> None:
        self.segmenter = segmenter

    def end(self, text: str) -> int | None:
        first = self._first(text)
        return None if first == text and _is_word(first) else _is_word(first) * len(first)

    def close(self, text: str) -> int:
        first = self._first(text)
        return _is_word(first) * len(first)

    def least(self, text: str) -> int:
        return 0

    def _first(self, text: str) -> str:
        parts = self.segmenter(text)
        if isinstance(parts, str) or not isinstance(parts, Iterable):
            raise bad_type(
                "segmenter", self.segmenter, f"gave {parts!r} for {text!r}, and should give its parts"
            )
        first = next((part for part in parts if part), "")
        if not isinstance(first, str) or not first or not text.startswith(first):
            raise bad_value("segmenter", self.segmenter, f"gave {first!r} as the first part of {text!r}")
        return first


class Delimited(WordRule):
    """A word is anything up to the first of some strings, as `word_surprisal` has it."""

    spaced = False

    def __init__(self, ends: Sequence[str]) -> None:
        self._ends = regex.compile("|".join(regex.escape(end) for end in ends) or r"(?!)")
        self._widest = max(map(len, ends), default=1)

    def end(self, text: str) -> int | None:
        found = self._ends.search(text)
        return found.start() if found else None

    def close(self, text: str) -> int:
        return len(text)

    def least(self, text: str) -> int:
        return max(len(text) - self._widest + 1, 0)


def word_rule(word: Any = None, segmenter: Any = None) -> WordRule:
    """The rule that arguments ask for; `WORD` by default.

    Raises:
        ValueError: no regular expression, or both are given.
        TypeError: something else.
    """
    if segmenter is not None:
        if word is not None:
            raise bad_value("word", word, "must not be given together with `segmenter`", "Give one.")
        if not callable(segmenter):
            raise bad_type("segmenter", segmenter, "must be a function from a text to its words")
        return Segments(segmenter)
    if word is None or isinstance(word, str):
        try:
            return Pattern.of(WORD if word is None else word)
        except regex.error as error:
            raise bad_value("word", word, f"is no regular expression: {error}") from None
    if isinstance(pattern := getattr(word, "pattern", None), str):  # compiled, by `re` or `regex`
        return Pattern.of(pattern, getattr(word, "flags", 0) & ~regex.DEBUG)
    if callable(word):
        return Predicate(word)
    raise bad_type("word", word, "must be a regular expression, or a function of a word's beginning")


def begun_word(rule: WordRule, text: str) -> str:
    """The word that a text stops in: its longest end in which a word may still go on; "" if there is none."""
    if isinstance(rule, Segments):
        return ""  # every end of such a text might be one
    starts: Sequence[int] = range(max(0, len(text) - LONGEST), len(text))
    return next((text[at:] for at in starts if rule.end(text[at:]) is None), "")


def _is_word(segment: str) -> bool:
    return any(char.isalnum() for char in segment)
