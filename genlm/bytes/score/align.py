"""Where a corpus's words are in its texts, though both were not typed alike.

A table has a row for each word, with punctuation or without, some rows are missing, and its quotes, dashes,
spaces or capitals are not those of the text. Words and text are first *folded*: what may differ becomes the
same, and every folded character knows where it stood. Then the words are laid along the text at the least
cost (Dijkstra's search over pairs of a word and a place):

- a word that begins where the one before it ended, separators and signs passed over, costs nothing;
- a word further on costs `JUMP` and a little for the distance: what lies between has no row;
- a word left out costs `LOST`.

A word begins and ends where words do (`boundaries.py`); rows that stand right one after another may make up
one ("do", "n't"). Time is linear in the words where they match, and bounded by `STEPS` where they do not.
"""

from __future__ import annotations

import heapq
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import regex

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.score.boundaries import Boundary, continues, loose_boundaries, word_boundaries
from genlm.bytes.score.regions import Region

__all__ = ["ALIGNMENTS", "PENN", "Unmatched", "align", "alignments"]

ALIGNMENTS = ("quotes", "dashes", "spaces", "case", "forms", "penn")
"""What may differ. `forms`: letters' forms, as in "ﬁ", "…" and composed accents (NFKC); `penn`: the escapes
of the Penn Treebank."""
PENN = {
    "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}", "``": '"', "''": '"',
}  # fmt: skip
QUOTES = {**dict.fromkeys("‘’‚‛`´ʼ′", "'"), **dict.fromkeys("“”„‟«»″", '"')}
DASHES = dict.fromkeys("‐‑‒–—―−﹣－", "-")
INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
CLUSTERS = regex.compile(r"\X")

Place = tuple[int, int, bool]
"""Where a word is, in folded characters, and whether the next row goes on in it."""
LOST, JUMP = 8.0, 1.0
STEPS = 10_000


class Unmatched(NamedTuple):
    """A word that is not in its text.

    Attributes:
        text: the text's id.
        row: of the table, from 0; messages count from 1.
        position: what the table says of its place; None if nothing.
        word: as the table has it.
        start: where it was looked for, in characters.
        around: what stands there.
    """

    text: str
    row: int
    position: Any
    word: str
    start: int
    around: str


def alignments(align: Any) -> frozenset[str]:
    """What may differ: `"exact"`, `"loose"` for everything, names of `ALIGNMENTS`, one or several."""
    if align in ("exact", "loose"):
        return frozenset(ALIGNMENTS) if align == "loose" else frozenset()
    names = align.split(",") if isinstance(align, str) else align
    if not isinstance(names, Sequence | set | frozenset):
        raise bad_type("align", align, "must be a string, or a list of strings")
    for name in names:
        if name not in ALIGNMENTS:
            there = ", ".join(map(repr, ("exact", "loose", *ALIGNMENTS)))
            raise bad_value("align", name, f"is none of {there}")
    return frozenset(names)


@dataclass(frozen=True)
class _Folded:
    """A folded text, and where each of its characters stood, begin and end."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]


def _fold(text: str, how: frozenset[str]) -> _Folded:
    found, starts, ends = list[str](), list[int](), list[int]()
    for match in CLUSTERS.finditer(text):
        for char, start, end in _characters(match[0], match.start(), how):
            for part in _one(char, how):
                found.append(part)
                starts.append(start)
                ends.append(end)
    folded = _Folded("".join(found), tuple(starts), tuple(ends))
    if "dashes" in how and "--" in folded.text:  # "--" and "---" are dashes too
        keep = [i for i, c in enumerate(folded.text) if c != "-" or folded.text[i - 1 : i] != "-"]
        runs = [*keep[1:], len(folded.text)]
        last = tuple(folded.ends[j - 1] for j in runs)
        folded = _Folded("".join(folded.text[i] for i in keep), tuple(starts[i] for i in keep), last)
    return folded


def _characters(cluster: str, at: int, how: frozenset[str]) -> list[tuple[str, int, int]]:
    if "forms" in how:
        return [(unicodedata.normalize("NFKC", cluster), at, at + len(cluster))]
    return [(char, i, i + 1) for i, char in enumerate(cluster, at)]


def _one(char: str, how: frozenset[str]) -> str:
    if "spaces" in how:
        char = "".join(c for c in char if not c.isspace() and c not in INVISIBLE)
    if "quotes" in how:
        char = "".join(QUOTES.get(c, c) for c in char)
    if "dashes" in how:
        char = "".join(DASHES.get(c, c) for c in char)
    return char.casefold() if "case" in how else char


def _within(text: str, edge: Boundary) -> Boundary:
    return lambda at: not 0 < at < len(text) or edge(at)


class _Search:
    """The words of one text, laid along it."""

    def __init__(self, text: str, words: Sequence[str], how: frozenset[str], sep: str | None) -> None:
        self._folded = _fold(text, how)
        escapes = PENN if "penn" in how else {}
        self._words = [_fold(escapes.get(word, word), how).text for word in words]
        self._text, self._sep = text, sep
        self._strict = word_boundaries(text, sep, "")
        self._loose = self._strict if sep == "" else _within(text, loose_boundaries(text, sep, ""))

    def path(self) -> dict[int, Place]:
        """The place of each word that has one, in folded characters."""
        count = itertools.count()  # of equal costs the one that is further
        best = dict[tuple[int, int], float]()
        came = dict[tuple[int, int], tuple[tuple[int, int], dict[int, Place]]]()
        waiting: list[Any] = [(0.0, 0, next(count), (0, 0), None, {})]
        furthest = (0, 0)
        for _ in range(STEPS):
            if not waiting:
                break
            cost, _, _, state, before, placed = heapq.heappop(waiting)
            if state in best:
                continue
            best[state] = cost
            if before is not None:
                came[state] = before, placed
            word, at = state
            furthest = max(furthest, state)
            if word == len(self._words):
                furthest = state
                break
            for more, state_after, places in self._steps(word, at):
                if state_after not in best:
                    entry = (cost + more, -state_after[0], next(count), state_after, state, places)
                    heapq.heappush(waiting, entry)
        found: dict[int, Place] = {}
        while furthest in came:
            furthest, placed = came[furthest]
            found |= placed
        return found

    def _steps(self, word: int, at: int) -> list[tuple[float, tuple[int, int], dict[int, Place]]]:
        """What may be done next: its cost, the word and place after it, the places that it gives."""
        placed = dict[int, Place]()
        while word < len(self._words) and (run := self._next(word, at)):
            for i, place in enumerate(run, word):
                placed[i] = place
            word, at = word + len(run), run[-1][1]
        if placed:
            return [(0.0, (word, at), placed)]
        steps: list[tuple[float, tuple[int, int], dict[int, Place]]]
        steps = [(LOST, (word + 1, at), {})]
        start = at
        for _ in range(8):  # nearer ones first; the right one may lie behind
            start = self._folded.text.find(self._words[word], start) if self._words[word] else -1
            if start < 0:
                break
            if run := self._run(word, start):
                far = start - at
                places = dict(enumerate(run, word))
                steps.append((JUMP + 2.0 * far / (far + 500.0), (word + len(run), run[-1][1]), places))
            start += 1
        return steps

    def _next(self, word: int, at: int) -> list[Place]:
        """The word at a place, or after separators and signs that have no row."""
        text = self._folded.text
        while at < len(text):
            if run := self._run(word, at):
                return run
            if continues(text[at]):
                return []
            at += 1
        return []

    def _run(self, word: int, start: int) -> list[Place]:
        """The words from here on that make up a whole one together; none if there is no whole word."""
        if not (self._ends_at(start, self._strict) or self._ends_at(start, self._loose)):
            return []
        for edge in (self._strict, self._loose):  # "dog" and "'s" make up a word, "dog" alone if need be
            found, end = list[Place](), start
            for own in self._words[word:]:
                if not own or not self._folded.text.startswith(own, end):
                    break
                found.append((end, end + len(own), True))
                end += len(own)
                if self._ends_at(end, edge):
                    return [*found[:-1], (*found[-1][:2], False)]
        return []

    def _ends_at(self, at: int, edge: Boundary) -> bool:
        """Whether words begin or end at a place of the folded text: on one of its sides in the text."""
        folded = self._folded
        left = folded.ends[at - 1] if at else 0
        right = folded.starts[at] if at < len(folded.starts) else len(self._text)
        if left > right:  # inside what was one character
            return False
        return edge(left) or (right != left and edge(right))

    def region(self, place: Place) -> Region:
        """A place as a region of the text; `"part"` if the word goes on after it."""
        start, end = self._folded.starts[place[0]], self._folded.ends[place[1] - 1]
        inside = self._sep != "" and continues(self._text[end : end + 1] or " ")
        inside = inside and not (self._sep and self._text.startswith(self._sep, end))
        return Region(start, end, "part" if inside or place[2] else "word")


def align(
    text: str, words: Sequence[str], how: frozenset[str], sep: str | None = " "
) -> tuple[list[Region | None], list[int]]:
    """The region of each word, None for one that is not there; and where each of these was looked for.

    Args:
        words: in the order of the text.
        how: see `alignments`.
        sep: what stands between words; None for any white space, "" for nothing.
    """
    search = _Search(text, words, how, sep)
    places = search.path()
    regions = [search.region(places[i]) if i in places else None for i in range(len(words))]
    looked, at = list[int](), 0
    for region in regions:
        if region is None:
            looked.append(at)
        else:
            at = region.end
    return regions, looked
