"""Regular expressions of pre-tokenizers as programs over sets of characters.

A pre-tokenizer's expression is matched again and again, each match starting where the last one ended, by
backtracking: the first alternative that fits wins, and quantifiers take what they can. The same matches
come out of running all attempts at once, in order of preference (Pike's virtual machine; see Cox,
"Regular Expression Matching: the Virtual Machine Approach", 2009), one character at a time. That is what
makes it possible to say, after some tokens, where a text can still be cut.

Of the syntax, what pre-tokenizers use is understood: alternatives, groups, `(?i:…)`, sets, the
quantifiers `? * + {m,n}` and their lazy forms, and a look-ahead at one character, as in `\\s+(?!\\S)`. All
else (look-behind, anchors, possessive quantifiers, back references) is refused.

Which characters a set has is asked of the `tokenizers` library itself, not worked out here.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from genlm.bytes.errors import UnsupportedModelError

__all__ = ["END", "MATCH", "Pattern", "parse"]

END = -1
"""In place of the next character's class: the text ends here."""


class Char(NamedTuple):
    """Read one character of a set."""

    set: int


class Split(NamedTuple):
    """Try each address, the preferred one first."""

    to: tuple[int, ...]


class Look(NamedTuple):
    """Go on only if the next character is in the set (or, negated, is not, or there is none)."""

    set: int
    negated: bool


MATCH = "match"
Step = Char | Split | Look | str
_Tree = tuple[object, ...]


class Pattern:
    """A compiled expression."""

    def __init__(self, source: str, tree: _Tree, sets: list[str]) -> None:
        self.source = source
        self.sets = tuple(sets)
        self.program: list[Step] = []
        self._emit(tree)
        self.program.append(MATCH)

    def _emit(self, tree: _Tree) -> None:
        kind, *rest = tree
        program = self.program
        if kind == "set":
            program.append(Char(rest[0]))  # type: ignore[arg-type]
        elif kind == "look":
            program.append(Look(rest[0], rest[1]))  # type: ignore[arg-type]
        elif kind == "seq":
            for part in rest:
                self._emit(part)  # type: ignore[arg-type]
        elif kind == "alt":
            self._alternatives(rest)  # type: ignore[arg-type]
        else:
            self._repeat(*rest)  # type: ignore[arg-type]

    def _alternatives(self, parts: list[_Tree]) -> None:
        program = self.program
        at, jumps, starts = len(program), [], []
        program.append(MATCH)  # overwritten below, when the addresses are known
        for part in parts:
            starts.append(len(program))
            self._emit(part)
            jumps.append(len(program))
            program.append(MATCH)
        program[at] = Split(tuple(starts))
        for jump in jumps:
            program[jump] = Split((len(program),))

    def _repeat(self, tree: _Tree, least: int, most: int | None, lazy: bool) -> None:
        program = self.program
        for _ in range(least):
            self._emit(tree)
        if most is None:
            at = len(program)
            program.append(MATCH)
            self._emit(tree)
            program.append(Split((at,)))
            program[at] = _choice(at + 1, len(program), lazy)
            return
        holes = []
        for _ in range(most - least):
            holes.append(len(program))
            program.append(MATCH)
            self._emit(tree)
        for at in holes:
            program[at] = _choice(at + 1, len(program), lazy)


def _choice(inside: int, outside: int, lazy: bool) -> Split:
    return Split((outside, inside) if lazy else (inside, outside))


@cache
def parse(source: str) -> Pattern:
    """Compile an expression."""
    return _Parser(source).parse()


_SET = re.compile(
    r"\\[pP]\{[^}]*\}|\\[sSdDwW]|\[(?:\\.|[^\]\[\\])+\]|\\[rntfv]|\\[^a-zA-Z0-9]|[^\\\[\](){}|?*+.^$]"
)
_LOOK = re.compile(rf"\(\?([!=])({_SET.pattern})\)")
_COUNT = re.compile(r"\{(\d+)(,?)(\d*)\}|[?*+]")


class _Parser:
    """Recursive descent; `(?i:…)` only changes how the sets inside are written."""

    def __init__(self, source: str) -> None:
        self.source, self.at, self.sets = source, 0, list[str]()
        self.fold = False

    def parse(self) -> Pattern:
        tree = self.alternatives()
        if self.at != len(self.source):
            raise self.refused()
        return Pattern(self.source, tree, self.sets)

    def refused(self) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"the pre-tokenizer's expression {self.source!r} uses syntax that is not understood at "
            f"{self.source[self.at :][:20]!r}, so that it cannot be said which tokens its tokenizer produces"
        )

    def takes(self, text: str) -> bool:
        found = self.source.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def alternatives(self) -> _Tree:
        parts = [self.sequence()]
        while self.takes("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else ("alt", *parts)

    def sequence(self) -> _Tree:
        parts = []
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            parts.append(self.quantified(self.atom()))
        return ("seq", *parts)

    def atom(self) -> _Tree:
        if look := _LOOK.match(self.source, self.at):
            self.at = look.end()
            return ("look", self.number(look[2]), look[1] == "!")
        before = self.fold
        for opening in ("(?i:", "(?:", "("):
            if self.takes(opening):
                if self.source.startswith("?", self.at):
                    raise self.refused()
                self.fold |= opening == "(?i:"
                tree = self.alternatives()
                self.fold = before
                if not self.takes(")"):
                    raise self.refused()
                return tree
        found = _SET.match(self.source, self.at)
        if not found or "&&" in found[0]:
            raise self.refused()
        self.at = found.end()
        return ("set", self.number(found[0]))

    def quantified(self, tree: _Tree) -> _Tree:
        count = _COUNT.match(self.source, self.at)
        if not count:
            return tree
        if tree[0] == "look":
            raise self.refused()
        self.at = count.end()
        least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(count[0], (0, 0))
        if count[0].startswith("{"):
            least = int(count[1])
            most = int(count[3]) if count[3] else (None if count[2] else least)
        lazy = self.takes("?")
        if self.source[self.at : self.at + 1] in {"+", "*", "?", "{"}:
            raise self.refused()
        return ("repeat", tree, least, most, lazy)

    def number(self, text: str) -> int:
        text = f"(?i:{text})" if self.fold else text
        if text not in self.sets:
            self.sets.append(text)
        return self.sets.index(text)
