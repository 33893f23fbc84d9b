"""Stand-ins: distributions of contexts that are known, for such as are not.

A known text is read ahead to find out which contexts it will need. Where one of them is not known, what the
model says after a like context stands in for it: of those that end at the same place in the text, the one
that shares most of its last tokens. What it says of the bytes to come is nearly the same, since older
boundaries matter little. So the beam itself is the draft model of speculative decoding (Leviathan et al.,
arXiv 2211.17192), and proposes whole continuations of hypotheses that nobody has evaluated.
"""

from __future__ import annotations

from collections import defaultdict

from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.tree import ContextNode

__all__ = ["StandIns"]

LONGEST = 8
"""Last tokens that are compared."""


class StandIns:
    """Contexts that are known, or will be, by where in the text they end."""

    def __init__(self) -> None:
        self._by_place = defaultdict[int, dict[ContextNode, StatefulTokenizedLM]](dict)

    def add(self, place: int, lm_state: StatefulTokenizedLM) -> None:
        """A context that ends before the symbol of an index."""
        self._by_place[place][lm_state.node] = lm_state

    def for_(self, state: LazyTrieState, place: int) -> LazyTrieState | None:
        """What a candidate whose context ends there is drafted with; None where nothing is known there."""
        node = state.lm_state.node
        others = self._by_place.get(place, {}).values()
        alike = sorted(others, key=lambda other: -_shared(node, other.node))
        found = (state.standing_on(other) for other in alike)
        return next((one for one in found if one is not None), None)


def _shared(one: ContextNode | None, other: ContextNode | None) -> int:
    """How many last tokens two contexts share, up to `LONGEST`."""
    n = 0
    while n < LONGEST and one is not None and other is not None and one.token == other.token:
        one, other, n = one.parent, other.parent, n + 1
    return n
