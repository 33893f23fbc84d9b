"""Cousins of deferred hypotheses: evaluated ones that committed the same token at the same place.

**Problem.** What symbols count for a hypothesis that ended inside a token of the others is guessed from the
vocabulary (`deferred.py`), and the guess can be far off: where the others' token turns out to be the unlikely
one, the beam goes on from that very place, and those that had committed the same token after older cuts wait
below the tolerance for good.

**Idea.** One of the same token and place has been evaluated. It weighed `w` there, and what has come of it
weighs `W` now: `W / w` is what the symbols since have given to that token. They differ in older cuts only, as
aligned hypotheses do.

**Cost.** A walk over the last tokens of each hypothesis, where there is a cousin and no common boundary
since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.util import logsumexp

__all__ = ["WINDOW", "Cousins", "Cut"]

WINDOW = 64
"""How many symbols ago cousins are remembered."""


class Cut(NamedTuple):
    """A token, and the place where it ends: how many symbols of the history had been read."""

    place: int
    token_id: int

    @classmethod
    def of(cls, state: LazyTrieState, place: int) -> Cut | None:
        """That of a hypothesis at a token's end; None of a model of a client's own."""
        token_id = state.last_token
        return None if token_id is None else cls(place, token_id)


@dataclass(frozen=True)
class Cousins:
    """Hypotheses that were evaluated where they had committed a token. A value.

    Attributes:
        weights: by their contexts, where each committed its last token, and its natural log weight there.
    """

    weights: Mapping[ContextNode, tuple[Cut, float]] = field(default_factory=dict)

    def after(self, evaluated: Iterable[LazyTrieState], place: int) -> Cousins:
        """With more, at one place; without those of long ago."""
        found = {node: known for node, known in self.weights.items() if known[0].place > place - WINDOW}
        for state in evaluated:
            node = _node(state)
            if node is not None:
                found[node] = Cut(place, node.token), state.weight
        return Cousins(found)

    def gains(self, hypotheses: Sequence[LazyTrieState], wanted: set[Cut]) -> dict[Cut, float]:
        """Natural log of `W / w` of some cuts, of those of which something is left."""
        known = {node: (cut, weight) for node, (cut, weight) in self.weights.items() if cut in wanted}
        if not known:
            return {}
        least = min(node.depth for node in known)
        now = dict[Cut, list[float]]()
        for state in hypotheses:
            node = _node(state)
            while node is not None and node.depth >= least:
                if node in known:
                    now.setdefault(known[node][0], []).append(state.weight)
                node = node.parent
        then = dict[Cut, list[float]]()
        for cut, weight in known.values():
            then.setdefault(cut, []).append(weight)
        return {cut: logsumexp(weights) - logsumexp(then[cut]) for cut, weights in now.items()}


def _node(state: LazyTrieState) -> ContextNode | None:
    return state.lm_state.node if isinstance(state.lm_state, StatefulTokenizedLM) else None
