"""Where a pre-tokenizer may cut, while the text is still being read.

**Problem.** Whether a pre-token ends between two characters may depend on characters to come: `\\s+(?!\\S)`
leaves the last space to the word that follows, `'re` is one piece and `'r` two. And on those before:
`'s` is one piece after a letter and two after an exclamation mark.

**Idea.** Keep every hypothesis that is still open, in the matcher's order of preference: *the current
match goes on*; if all attempts to go on fail, *it ended at a place already passed, and the next match has
come so far since*; and so on. The first hypothesis that survives is what the matcher does. Each also says
whether the tokens read so far agree with it: a hypothesis is *broken* if it cuts inside a token, or does
not cut between two tokens that merging would have merged. When only broken ones are left, no continuation
makes the tokens canonical, and when the text ends, the one that wins says whether they are.

So this is exact: a sequence of tokens is refused at the first character after which every way of
matching the rest breaks. (It may still be that every remaining way needs a text that the vocabulary
cannot spell; such a sequence is refused later, or at the end of the text.)

States are few (tens), because hypotheses that can no longer be reached are dropped at once.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from genlm.bytes.canonical.characters import Characters
from genlm.bytes.canonical.pattern import END, Char, Look, Pattern, Split
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["Chain", "Cutter", "Gap", "Hypothesis"]


class Gap(IntEnum):
    """What is between two characters, as far as tokens go."""

    INSIDE = 0  # nothing: both belong to one token
    OPEN = 1  # two tokens that merging leaves alone: a cut or none, both are fine
    CONFLICT = 2  # two tokens that merging would merge or change: there must be a cut


class Hypothesis(NamedTuple):
    """Attempts to go on with the current match, in order of preference; and whether the tokens agree."""

    attempts: tuple[int, ...]
    intact: bool


Chain = tuple[Hypothesis, ...]
"""Open hypotheses, preferred first. What is behind the last intact one is one broken `Hypothesis((), …)`."""

_LOST = Hypothesis((), False)


class Cutter:
    """One expression, matched again and again over a text.

    Args:
        pattern: the expression; it must match any one character, so that no hypothesis is without a rival.
        characters: classes that tell its sets apart.
        sets: the number, in `characters`, of each of the pattern's sets.
    """

    def __init__(self, pattern: Pattern, characters: Characters, sets: list[int]) -> None:
        self._pattern = pattern
        self._member = [characters.member[s] for s in sets]
        self._classes = characters.count
        self._seen: dict[tuple[tuple[int, ...], int | None], tuple[tuple[int, ...], bool]] = {}
        self.start: Chain = (Hypothesis((0,), True),)
        for c in range(characters.count):
            attempts, matched = self._advance((0,), c)
            if matched or not self._certain(attempts):
                raise UnsupportedModelError(
                    f"the pre-tokenizer's expression {pattern.source!r} does not match every "
                    "character, or matches empty text, so that it cannot be followed through a text"
                )

    def read(self, chain: Chain, c: int, gap: Gap) -> Chain | None:
        """The hypotheses after one more character, of class `c`, with `gap` before it.

        Returns:
            None if only broken ones are left.
        """
        after: list[Hypothesis] = []
        for attempts, intact in chain:
            if not attempts:  # _LOST
                after.append(_LOST)
                break
            going_on, matched = self._advance(attempts, c)
            if going_on:
                after.append(Hypothesis(going_on, intact and gap is not Gap.CONFLICT))
                if self._certain(going_on):
                    break
            if matched:
                fresh, _ = self._advance((0,), c)
                after.append(Hypothesis(fresh, intact and gap is not Gap.INSIDE))
                break
        return _trimmed(after)

    def ends(self, chain: Chain) -> bool:
        """Whether the tokens are canonical if the text ends here."""
        if chain == self.start:
            return True
        for attempts, intact in chain:
            if not attempts:
                return False
            if self._advance(attempts, END)[1]:
                return intact
        return False

    def cuts(self, chain: Chain, c: int) -> bool:
        """Whether there is a cut before a character of class `c`; see `check_decides_at_once`."""
        return not self._advance(chain[0].attempts, c)[0]

    def check_decides_at_once(self) -> None:
        """Raise an error if whether there is a cut ever depends on characters to come."""
        known, left = {self.start}, [self.start]
        while left:
            chain = left.pop()
            for c in range(self._classes):
                after = self.read(chain, c, Gap.OPEN)
                self._check_decided(chain, c, after)
                if after is not None and after not in known:
                    known.add(after)
                    left.append(after)

    def _check_decided(self, chain: Chain, c: int, after: Chain | None) -> None:
        going_on, matched = self._advance(chain[0].attempts, c)
        settled = self._certain(going_on) if going_on else matched
        if not settled or after is None or len(after) > 1:
            raise UnsupportedModelError(
                f"the pre-tokenizer's expression {self._pattern.source!r} looks ahead and another one "
                "follows it, so that it cannot be followed through a text"
            )

    def _certain(self, attempts: tuple[int, ...]) -> bool:
        """Whether the current match can end right here, whatever follows."""
        return self._advance(attempts, None)[1]

    def _advance(self, attempts: tuple[int, ...], c: int | None) -> tuple[tuple[int, ...], bool]:
        """The attempts that survive character `c`, and whether the match may end before it instead.

        `c` None means an unknown character: look-aheads fail, and only the second answer counts.
        """
        key = (attempts, c)
        if key not in self._seen:
            self._seen[key] = self._walk(attempts, c)
        return self._seen[key]

    def _walk(self, attempts: tuple[int, ...], c: int | None) -> tuple[tuple[int, ...], bool]:
        going_on: list[int] = []
        passed: set[int] = set()
        stack = list(reversed(attempts))
        while stack:
            at = stack.pop()
            if at in passed:
                continue
            passed.add(at)
            match self._pattern.program[at]:
                case Split(to):
                    stack.extend(reversed(to))
                case Char(number):
                    if c is not None and c != END and self._member[number][c]:
                        going_on.append(at + 1)
                case Look(number, negated):
                    if c is not None and (c != END and self._member[number][c]) is not negated:
                        stack.append(at + 1)
                case _:
                    return tuple(dict.fromkeys(going_on)), True
        return tuple(dict.fromkeys(going_on)), False


def _trimmed(chain: list[Hypothesis]) -> Chain | None:
    """Without the broken hypotheses behind the last intact one; None if there is none."""
    last = max((i for i, h in enumerate(chain) if h.intact), default=-1)
    if last < 0:
        return None
    return (*chain[: last + 1], _LOST) if last + 1 < len(chain) else tuple(chain)
