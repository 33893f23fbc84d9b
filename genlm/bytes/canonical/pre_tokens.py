"""Pre-tokenizers as an automaton over bytes: where pieces end, and where tokens may not lie across that."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

from genlm.bytes.canonical.automaton import Automaton, ByteRules
from genlm.bytes.canonical.characters import Characters, characters
from genlm.bytes.canonical.cutter import Chain, Cutter, Gap
from genlm.bytes.canonical.pattern import parse

__all__ = ["PreTokens", "pre_tokens"]


@lru_cache(16)
def pre_tokens(patterns: tuple[str, ...]) -> Automaton:
    """The automaton of some expressions, the first one outermost; kept, since tokenizers share theirs."""
    parsed = [parse(pattern) for pattern in patterns]
    sets = list(dict.fromkeys(s for p in parsed for s in p.sets))
    classes = characters(tuple(sets))
    cutters = [Cutter(p, classes, [sets.index(s) for s in p.sets]) for p in parsed]
    return Automaton(PreTokens(cutters, classes))


class _Position(NamedTuple):
    """Between two bytes: the open cuts of each pre-tokenizer, and inside a character, how far and how."""

    chains: tuple[Chain, ...]
    partial: int = 0
    gap: Gap = Gap.OPEN


class PreTokens(ByteRules):
    """Pre-tokenizers, one inside the pieces of the other, over UTF-8.

    All but the last must decide each cut at once; only the last may look ahead.

    Args:
        cutters: the pre-tokenizers, the first one outermost.
        characters: the classes they share.
    """

    def __init__(self, cutters: Sequence[Cutter], characters: Characters) -> None:
        for cutter in cutters[:-1]:
            cutter.check_decides_at_once()
        self._cutters = tuple(cutters)
        self._characters = characters
        self._known: dict[tuple[tuple[Chain, ...], int, Gap], _Position | None] = {}
        self.start = _Position(tuple(cutter.start for cutter in cutters))

    def read(self, state: Hashable, gap: Gap) -> Sequence[Hashable | None]:
        assert isinstance(state, _Position)
        if state.partial and gap is Gap.CONFLICT:
            return [None] * 256  # no cut inside a character
        before = state.gap if state.partial else gap
        targets = self._characters.utf8[state.partial]
        after: dict[int, Hashable | None] = {-1: None}
        for target in set(targets) - {-1}:
            if target >= self._characters.count:
                partial = target - self._characters.count
                # Refused at its first byte if no character that begins so can stand here.
                alive = any(
                    self._character(state.chains, c, before) for c in self._characters.completions(partial)
                )
                after[target] = _Position(state.chains, partial, before) if alive else None
            else:
                after[target] = self._character(state.chains, target, before)
        return [after[target] for target in targets]

    def _character(self, chains: tuple[Chain, ...], c: int, gap: Gap) -> _Position | None:
        """The position after a character of class `c`, or None if no canonical text goes on so."""
        key = (chains, c, gap)
        if key not in self._known:
            self._known[key] = self._after(chains, c, gap)
        return self._known[key]

    def _after(self, chains: tuple[Chain, ...], c: int, gap: Gap) -> _Position | None:
        after: list[Chain] = []
        cut = False
        for i, (cutter, chain) in enumerate(zip(self._cutters, chains, strict=True)):
            inner = i + 1 == len(chains)
            if cut:
                if inner and not cutter.ends(chain):
                    return None
                chain = cutter.start
            elif not inner:
                cut = cutter.cuts(chain, c)
                if cut and gap is Gap.INSIDE:
                    return None
            # A cut from outside settles the gap.
            read = cutter.read(chain, c, gap if inner and not cut else Gap.OPEN)
            if read is None:
                return None
            after.append(read)
        return _Position(tuple(after))

    def ends(self, state: Hashable) -> bool:
        assert isinstance(state, _Position)
        return not state.partial and self._cutters[-1].ends(state.chains[-1])
