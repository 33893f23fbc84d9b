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
from itertools import accumulate, chain
from typing import NamedTuple

from genlm.bytes.errors import UnsupportedModelError

__all__ = ["END", "MATCH", "Pattern", "parse"]

END = -1
"""In place of the next character's class: the text ends here."""


class Char(NamedTuple):
    """Read one character of a set."""

    set: int


class Split(NamedTuple):
    """Try each address, the preferred one first. While programs are put together these are distances."""

    to: tuple[int, ...]


class Look(NamedTuple):
    """Go on only if the next character is in the set (or, negated, is not, or there is none)."""

    set: int
    negated: bool


MATCH = "match"
Step = Char | Split | Look | str
_Steps = list[Step]


class Pattern(NamedTuple):
    """A compiled expression: `sets` are expressions for one character each."""

    source: str
    sets: tuple[str, ...]
    program: tuple[Step, ...]


def _any_of(parts: list[_Steps]) -> _Steps:
    ends = list(accumulate(len(part) + 1 for part in parts))  # where the jump behind each part stands
    steps: _Steps = [Split((1, *(end + 1 for end in ends[:-1])))]
    for part, end in zip(parts, ends, strict=True):
        steps += [*part, Split((ends[-1] + 1 - end,))]
    return steps


def _repeated(part: _Steps, least: int, most: int | None, lazy: bool) -> _Steps:
    length = len(part) + 1
    if most is None:
        return [*part * least, _choice(1, length + 1, lazy), *part, Split((-length,))]
    more = [[_choice(1, left * length, lazy), *part] for left in range(most - least, 0, -1)]
    return [*part * least, *chain.from_iterable(more)]


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
        steps = self.alternatives()
        if self.at != len(self.source):
            raise self.refused()
        program = (
            Split(tuple(at + distance for distance in step.to)) if isinstance(step, Split) else step
            for at, step in enumerate(steps)
        )
        return Pattern(self.source, tuple(self.sets), (*program, MATCH))

    def refused(self) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"the pre-tokenizer's expression {self.source!r} uses syntax that is not understood at "
            f"{self.source[self.at :][:20]!r}, so that it cannot be said which tokens its tokenizer produces"
        )

    def takes(self, text: str) -> bool:
        found = self.source.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def alternatives(self) -> _Steps:
        parts = [self.sequence()]
        while self.takes("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else _any_of(parts)

    def sequence(self) -> _Steps:
        steps: _Steps = []
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            steps += self.quantified(self.atom())
        return steps

    def atom(self) -> _Steps:
        if look := _LOOK.match(self.source, self.at):
            self.at = look.end()
            if _COUNT.match(self.source, self.at):
                raise self.refused()
            return [Look(self.number(look[2]), look[1] == "!")]
        before = self.fold
        for opening in ("(?i:", "(?:", "("):
            if self.takes(opening):
                if self.source.startswith("?", self.at):
                    raise self.refused()
                self.fold |= opening == "(?i:"
                steps = self.alternatives()
                self.fold = before
                if not self.takes(")"):
                    raise self.refused()
                return steps
        found = _SET.match(self.source, self.at)
        if not found or "&&" in found[0]:
            raise self.refused()
        self.at = found.end()
        return [Char(self.number(found[0]))]

    def quantified(self, steps: _Steps) -> _Steps:
        count = _COUNT.match(self.source, self.at)
        if not count:
            return steps
        self.at = count.end()
        least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(count[0], (0, 0))
        if count[0].startswith("{"):
            least = int(count[1])
            most = int(count[3]) if count[3] else (None if count[2] else least)
        lazy = self.takes("?")
        if self.source[self.at : self.at + 1] in {"+", "*", "?", "{"}:
            raise self.refused()
        return _repeated(steps, least, most, lazy)

    def number(self, text: str) -> int:
        text = f"(?i:{text})" if self.fold else text
        if text not in self.sets:
            self.sets.append(text)
        return self.sets.index(text)
