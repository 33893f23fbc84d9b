"""Speculation while bytes are written: contexts that will probably be needed ride in a forward that goes out.

Written one byte at a time, with a look at each, a text needs a forward where a token ends, and one more at
each byte where a shorter token ends that is not too light. But what hypotheses go on with is known as soon as
their rows are. Some bytes `s` come next with probability `p(s)`, the mixture of all; then a token that is
spelled so is needed after each hypothesis of which it is not too light a share of `p(s)`. So whoever looks at
a beam offers such contexts, where `p(s)` is worth their price (`contexts/cost.py`), and the next forward
takes the best of them along. None is evaluated by itself, and what comes out is the same: rows are only
known earlier (cf. speculative decoding, Leviathan et al., arXiv 2211.17192).

Where several texts are written side by side, the forward that an offer might save goes out all the same, for
another of them. So each offer is worth that many times less (`side_by_side`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush

from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.cost import is_worth

__all__ = ["offer_next", "side_by_side"]

MOST = 64
"""Byte strings that are looked at."""

_TEXTS: ContextVar[int] = ContextVar("texts written side by side", default=1)

_Standing = tuple[LazyTrieState, int, float]
"""A hypothesis, a node of the trie below it, and the share of the beam that goes there."""


@contextmanager
def side_by_side(count: int) -> Iterator[None]:
    """Within it, in this task and those that it begins, so many times more texts are written side by side."""
    token = _TEXTS.set(_TEXTS.get() * max(1, count))
    try:
        yield
    finally:
        _TEXTS.reset(token)


def offer_next(hypotheses: Sequence[LazyTrieState], log_total: float, least: float) -> None:
    """Offer what some hypotheses, all evaluated, will probably need next.

    Args:
        hypotheses: those of a beam that is looked at.
        log_total: natural log of what they weigh together.
        least: the share of the beam that a token which ends must have to be evaluated.
    """
    able = [s for s in hypotheses if isinstance(s.lm_state, StatefulTokenizedLM) and not s.terminated]
    if not able or not able[0].batches:
        return
    ratio, made = able[0].lm_state.cost_ratio / _TEXTS.get(), 0
    standing = [(s, s.node, math.exp(min(s.weight - log_total, 0.0))) for s in able]
    ahead = [(-1.0, made, [one for one in standing if one[2] > least])]
    for _ in range(MOST):
        if not ahead:
            break
        _, _, here = heappop(ahead)
        for after in _read_on(here).values():
            chance = sum(share for _, _, share in after)
            if is_worth(min(chance, 1.0), ratio):
                _offer(after, chance, least * chance)
                heappush(ahead, (-chance, made := made + 1, after))


def _read_on(here: list[_Standing]) -> dict[int, list[_Standing]]:
    """Where each next byte leads."""
    found = defaultdict[int, list[_Standing]](list)
    for state, node, share in here:
        labels, masses = state.masses.children(node, state.mode)
        nodes = state.trie.trie.arrays.byte_children(node)[1]
        whole = state.mass_here if node == state.node else state.masses.node(node, state.mode, state.mode)
        for label, child, mass in zip(labels, nodes, masses, strict=True):
            if share * mass > 0.0 and whole > 0.0:
                found[int(label)].append((state, int(child), float(share * mass / whole)))
    return found


def _offer(standing: list[_Standing], chance: float, least: float) -> None:
    for state, node, share in standing:
        if state.trie.trie.arrays.ends[node] and share > least:
            whole = state.masses.node(node, state.mode, state.mode)
            if share * state.masses.ending(node, state.mode) > least * whole:
                for _, token in state.trie.trie.tokens_ending_at(node):
                    state.lm_state.offer(token, min(chance, 1.0))
