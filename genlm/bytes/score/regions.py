"""Which parts of a text are scored: words found by a separator, words that are given, spans of characters.

All are pairs of character offsets, in order and apart. What each boundary means is in `words.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from genlm.bytes.errors import InvalidValueError, bad_type, bad_value
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.score.boundaries import Boundary, loose_boundaries, word_boundaries

__all__ = ["PUNCTUATION", "Region", "find_regions", "punctuation_marks"]

PUNCTUATION = '.,;:!?()[]{}"“”„«»…。，、；：！？（）「」『』'
"""What is a region of its own with `punctuation=True`. Not the apostrophe and the hyphen: words have them."""


class Region(NamedTuple):
    """A part of a text: where it begins and ends, in characters, and what it is: `"word"`, `"punctuation"`,
    `"span"`, or `"part"` of a word that goes on after it."""

    start: int
    end: int
    kind: str


def find_regions(
    text: str,
    words: Sequence[str] | None,
    spans: Sequence[Any] | None,
    sep: str | None,
    marks: str,
) -> list[Region]:
    """The regions of a text.

    Args:
        words: words that occur in it, in order, each whole; or several, one right after another, that make up
            a whole one ("do", "n't", with `boundary="none"`).
        spans: pairs of character offsets, in order; or `Region`s, which keep their kind.
        sep: without either: what stands between words; None for any white space.
        marks: characters that are regions of their own; words are cut at them.

    Raises:
        ValueError: a word that does not occur after those before it, or only inside other words; a span that
            is empty, out of range or overlaps the one before it; no way to find words.
    """
    if words is not None and spans is not None:
        raise bad_value("spans", spans, "must not be given together with `words`", "Give one.")
    if spans is not None:
        return _spans(text, spans)
    if words is not None:
        return _given(text, _checked(words), sep, marks)
    if sep == "":
        rule = "finds no words, and neither `words` nor `spans` are given"
        raise bad_value("sep", sep, rule, 'Give words=["…", "…"], or a separator.')
    gap = r"\s" if sep is None else f"(?:{re.escape(sep)})"
    found = []
    at = 0
    for match in [*re.finditer(f"{gap}+", text), None]:
        end = len(text) if match is None else match.start()
        found += _cut(text, at, end, marks)
        at = len(text) if match is None else match.end()
    return found


def punctuation_marks(punctuation: Any) -> str:
    """The characters that are regions of their own."""
    if isinstance(punctuation, str):
        as_bytes("punctuation", punctuation)
        return punctuation
    if isinstance(punctuation, bool):
        return PUNCTUATION if punctuation else ""
    raise bad_type("punctuation", punctuation, "must be True, False, or a string of characters")


def _cut(text: str, start: int, end: int, marks: str) -> list[Region]:
    """A stretch without separators as words and runs of punctuation."""
    if start == end:
        return []
    if not marks:
        return [Region(start, end, "word")]
    is_mark = f"[{re.escape(marks)}]"
    found = re.compile(f"{is_mark}+|[^{re.escape(marks)}]+", re.DOTALL).finditer(text, start, end)
    return [Region(m.start(), m.end(), "punctuation" if m[0][0] in marks else "word") for m in found]


def _checked(words: Any) -> list[str]:
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise bad_type("words", words, "must be a list of words")
    found = list(words)
    for i, word in enumerate(found):
        if not isinstance(word, str):
            raise bad_type(f"words[{i}]", word, "must be a string")
        if not word:
            raise bad_value(f"words[{i}]", word, "a word must not be empty")
    return found


def _given(text: str, words: list[str], sep: str | None, marks: str) -> list[Region]:
    """Where the words are: all between words as Unicode has them, or else all with looser edges."""
    found = _whole(text, words, word_boundaries(text, sep, marks))
    if len(found) < len(words) and sep != "":
        loose = _whole(text, words, loose_boundaries(text, sep, marks))
        found = max(found, loose, key=len)
    if len(found) < len(words):
        raise _missing(text, words[len(found)], len(found), found[-1].end if found else 0)
    return found


def _whole(text: str, words: list[str], boundary: Boundary) -> list[Region]:
    """The words from the first on, as far as they are found."""
    found, at = list[Region](), 0
    while len(found) < len(words):
        run = _run(text, words[len(found) :], at, boundary)
        if not run:
            break
        found += run
        at = run[-1].end
    return found


def _run(text: str, words: list[str], at: int, boundary: Boundary) -> list[Region]:
    """The first word, and as many as stand right after it before a word ends; nothing if it is not found."""
    while (start := text.find(words[0], at)) >= 0:
        at = start + 1
        if not boundary(start):
            continue
        run, end = list[Region](), start
        for word in words:
            if not text.startswith(word, end):
                break
            run.append(Region(end, end + len(word), "word"))
            end += len(word)
            if boundary(end):
                return run
    return []


def _missing(text: str, word: str, index: int, looked_from: int) -> InvalidValueError:
    """Why a word was not found."""
    where, inside = f"after character {looked_from}", text.find(word, looked_from)
    if inside < 0:
        rule = f"does not occur in the text {where}"
        return bad_value(f"words[{index}]", word, rule, "Give the words as they stand, in order.")
    around = text[max(0, inside - 10) : inside + len(word) + 10]
    rule = f"occurs {where} only inside other words, first at character {inside}, in {around!r}"
    way = 'Give the whole word, or `spans`; or sep="" where nothing stands between words.'
    return bad_value(f"words[{index}]", word, rule, way)


def _spans(text: str, spans: Any) -> list[Region]:
    if isinstance(spans, str) or not isinstance(spans, Iterable):
        raise bad_type("spans", spans, "must be a list of pairs of character offsets")
    found, at = [], 0
    for i, span in enumerate(spans):
        name = f"spans[{i}]"
        try:
            start, end = (int(x.__index__()) for x in (span[:2] if isinstance(span, Region) else span))
        except (TypeError, ValueError, AttributeError):
            raise bad_type(name, span, "must be a pair of character offsets, (start, end)") from None
        if not 0 <= start <= end <= len(text):
            raise bad_value(name, span, f"is out of range: the text has {len(text)} characters")
        if start == end:
            raise bad_value(name, span, "is empty", "A span is (start, end), the end not included.")
        if start < at:
            raise bad_value(name, span, f"overlaps the one before, which ends at {at}, or is out of order")
        at = end
        found.append(span if isinstance(span, Region) else Region(start, end, "span"))
    return found
