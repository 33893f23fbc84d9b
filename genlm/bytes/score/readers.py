"""Tables of several readers' rows whose words are not numbered: joined, they would be one text, read again
and again.

Two columns tell. One has the same words in the same order for each of its values, as a reader's name does.
One is a number that goes with one word each and comes about as often for each, several times: the number of a
word in the text. A column that is a word's own (its length, frequency, sense) is neither: it has other words
for each value, or comes as often as its word does. A text that does repeat itself is read with a column that
counts its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from genlm.bytes.errors import bad_value

__all__ = ["check_one_reader"]

GROUPS = 8
"""So many of a column's values are compared, those of the most rows: a reader who gave up is none of them."""
WORDS = 300
"""So many words of each."""
ALIKE, OTHER = 0.7, 0.05
"""Two readers who lack a fifth of a text's words each have 0.8 in common, and hardly ever a word in place of
another, as two sentences do."""


def check_one_reader(
    name: str, rows: Sequence[Mapping[str, Any]], ours: Sequence[int], word: str, others: Sequence[str]
) -> None:
    """That the rows of a text, in their order, are its words, each once.

    Args:
        name: the text.
        ours: its rows.
        word: the column of words.
        others: the columns that may be a reader's name, or a word's number.

    Raises:
        ValueError: they are not.
    """
    words = [rows[i][word] for i in ours]
    if sum(n for n in Counter(words).values() if n > 1) < len(words) / 2:
        return
    values = {column: [rows[i].get(column) for i in ours] for column in others}
    number = next((column for column in others if _numbers(values[column], words)), None)
    reader = next((column for column in others if _reads_again(values[column], words)), None)
    if number is None and reader is None:
        return
    rule = f"so the rows of text {name!r} are its words, one after the other, and they repeat: "
    if reader is not None:
        rule += f"for each value of column {reader!r} the same words stand there"
    else:
        rule += f"each number of column {number!r} stands there several times, always with the same word"
    known = "" if number is None else f", as {number!r} does"
    way = f"Give a column that numbers a text's words{known}: rows that agree in it are one word."
    raise bad_value(
        "position", None, rule, f"{way} Where the text does repeat itself, give one that counts rows."
    )


def _numbers(values: Sequence[Any], words: Sequence[str]) -> bool:
    """Whether a column numbers the words of a text that several have read."""
    known = dict[float, str]()
    counts = Counter[float]()
    for value, word in zip(values, words, strict=True):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return False
        if known.setdefault(number, word) != word:
            return False
        counts[number] += 1
    least, most = min(counts.values()), max(counts.values())
    if len(known) < 3 or len(words) < 1.5 * len(known) or 4 * least < most:
        return False
    return least > 1 or len(set(known.values())) < len(known)


def _reads_again(values: Sequence[Any], words: Sequence[str]) -> bool:
    """Whether a column has the words of one text for each of its values."""
    groups = dict[str, list[str]]()
    for value, word in zip(values, words, strict=True):
        groups.setdefault(str(value), []).append(word)
    if not 2 <= len(groups) <= len(words) / 3:
        return False
    first, *rest = (group[:WORDS] for group in sorted(groups.values(), key=len, reverse=True)[:GROUPS])
    return all(_alike(first, other) for other in rest)


def _alike(one: list[str], other: list[str]) -> bool:
    """Whether two readers may have read one text."""
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    if matcher.quick_ratio() < ALIKE or matcher.ratio() < ALIKE:
        return False
    swapped = sum(min(b - a, d - c) for tag, a, b, c, d in matcher.get_opcodes() if tag == "replace")
    return swapped <= OTHER * len(one)
