"""Where a word begins and ends, for those who name it: so that "he" is not found in "The".

A place lies between words where a separator or a mark touches it, and else where Unicode says so (UAX 29):
not between letters and digits, nor before what belongs to the letter before it, as combining marks and vowel
signs do, nor at the apostrophe of "don't" or the point of "3.5". Where no writer separates words (`sep=""`),
it lies at every character as readers count them (grapheme clusters).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import regex

__all__ = ["Boundary", "continues", "loose_boundaries", "word_boundaries"]

Boundary = Callable[[int], bool]
"""Whether a word may begin or end at a place of the text, in characters."""

WORDS = regex.compile(r"(?w)\b")
CHARACTERS = regex.compile(r"\X")
JOINERS = "\u00ad\u200c\u200d"
"""Invisible, and inside a word: the soft hyphen, the joiners of Persian and Indic scripts."""


def continues(char: str) -> bool:
    """Whether a character after a word belongs to it: a letter, a digit, a mark on the letter before it."""
    return unicodedata.category(char)[0] in "LN" or _attached(char)


def word_boundaries(text: str, sep: str | None, marks: str) -> Boundary:
    """The places between words."""
    if sep == "":
        places = {match.start() for match in CHARACTERS.finditer(text)}
    else:
        places = {match.start() for match in WORDS.finditer(text)}
    return lambda at: at in places or _separated(text, at, sep, marks)


def loose_boundaries(text: str, sep: str | None, marks: str) -> Boundary:
    """The same, and beside every character that is no letter, digit or mark: "left" in "left.Then"."""

    def found(at: int) -> bool:
        if _separated(text, at, sep, marks):
            return True
        return not _attached(text[at]) and not (continues(text[at - 1]) and continues(text[at]))

    return found


def _attached(char: str) -> bool:
    """Whether a character belongs to the one before it, whatever that is."""
    return unicodedata.category(char)[0] == "M" or char in JOINERS


def _separated(text: str, at: int, sep: str | None, marks: str) -> bool:
    if at in (0, len(text)) or text[at - 1] in marks or text[at] in marks:
        return True
    return sep is not None and sep != "" and (text.startswith(sep, at) or text.endswith(sep, 0, at))
