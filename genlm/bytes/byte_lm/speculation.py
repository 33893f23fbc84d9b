"""Speculation while bytes are written: contexts that will probably be needed ride in a forward that goes out.

Written one byte at a time, with a look at each, a text needs a forward where a token ends, one more at each
byte where a shorter token ends that is not too light, and one where a deferred hypothesis wakes. But what
hypotheses go on with is known as soon as their rows are. So whenever a forward goes out, two kinds of
contexts may ride in it:

- Some bytes `s` come next with probability `p(s)`, the mixture of all hypotheses; then a token that is
  spelled so is needed after each hypothesis of which it is not too light a share of `p(s)`. They are needed
  at one moment, so they are worth it together.
- A deferred hypothesis whose estimated share is `e` becomes heavier than the tolerance `t` with probability
  `e / t` at most (Ville's inequality: where the model draws the text, a share is a martingale).

Both are taken where they are worth their price (`contexts/cost.py`). None is evaluated by itself, and what
comes out is the same: rows are only known earlier (cf. speculative decoding, Leviathan et al.,
arXiv 2211.17192).

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
from typing import NamedTuple

from genlm.bytes.byte_lm.deferred import DeferredQueue
from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.cost import is_worth
from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.util import logsumexp

__all__ = ["offer_next", "side_by_side"]

MOST = 64
"""Byte strings that are looked at."""

SPARES = 0.5
"""The probability that what was offered and is needed spares a forward: that nothing else is missing then. By
forwards and contexts at 14 to 1, over five texts and one model: a third to a half make no difference."""

_TEXTS: ContextVar[int] = ContextVar("texts written side by side", default=1)


class _Standing(NamedTuple):
    """A hypothesis that has gone on to a node of the trie, and the share of the beam that goes there."""

    state: LazyTrieState
    node: int
    share: float

    @property
    def mass(self) -> float:
        """The mass of the tokens below the node, as the hypothesis has it."""
        state, node = self.state, self.node
        return state.mass_here if node == state.node else state.masses.node(node, state.mode, state.mode)


@contextmanager
def side_by_side(count: int) -> Iterator[None]:
    """Within it, in this task and those that it begins, so many times more texts are written side by side."""
    token = _TEXTS.set(_TEXTS.get() * max(1, count))
    try:
        yield
    finally:
        _TEXTS.reset(token)


def offer_next(hypotheses: Sequence[LazyTrieState], deferred: DeferredQueue, least: float) -> None:
    """Offer what a beam will probably need next.

    Args:
        hypotheses: the beam's, all evaluated, after all that has been read.
        deferred: what is deferred there.
        least: the share of the beam from which a token that ends is evaluated.
    """
    able = [s for s in hypotheses if isinstance(s.lm_state, StatefulTokenizedLM) and not s.terminated]
    if able and able[0].batches:
        ratio = able[0].lm_state.model_cache.cost.ratio / _TEXTS.get()
        log_total = logsumexp([state.weight for state in able])
        _offer_tokens(able, log_total, least, ratio)
        if least > 0.0 and log_total > -math.inf:
            _offer_deferred(deferred, log_total + math.log(least), ratio)


def _offer_deferred(deferred: DeferredQueue, log_bar: float, ratio: float) -> None:
    farthest = math.log1p(ratio * SPARES)
    for state, estimate in deferred.near(log_bar - farthest):
        chance = math.exp(min(estimate - log_bar, 0.0))
        if is_worth(chance, ratio, SPARES):
            state.lm_state.offer(chance)


def _offer_tokens(hypotheses: Sequence[LazyTrieState], log_total: float, least: float, ratio: float) -> None:
    """Offer tokens that end with the likeliest byte strings, likelier strings first."""
    begun = [_Standing(s, s.node, math.exp(s.weight - log_total)) for s in hypotheses]
    made, ahead = 0, [(-1.0, 0, begun)]
    for _ in range(MOST):
        if not ahead:
            break
        chance, _, here = heappop(ahead)
        ended, lacking = _ended(here, log_total, least * -chance)
        if lacking and is_worth(-chance, ratio / len(lacking), SPARES):
            for state in lacking:
                state.lm_state.offer(-chance)
        for after in _read_on([*here, *ended]).values():
            chance = min(sum(one.share for one in after), 1.0)
            if is_worth(chance, ratio, SPARES):
                made += 1
                heappush(ahead, (-chance, made, after))


def _ended(
    here: list[_Standing], log_total: float, least: float
) -> tuple[list[_Standing], list[LazyTrieState]]:
    """The tokens that end at some nodes with at least a share: where they lead, if that has been evaluated;
    and those that have not been."""
    known, lacking = list[_Standing](), list[LazyTrieState]()
    for state, node, share in here:
        if share > least and state.trie.trie.arrays.ends[node]:
            for after in state.commit(node):
                its = math.exp(after.weight - log_total)
                if its > least and after.materialize_if_known():
                    known.append(_Standing(after, ROOT, its))
                elif its > least:
                    lacking.append(after)
    return known, lacking


def _read_on(here: list[_Standing]) -> dict[int, list[_Standing]]:
    """Where each next byte leads."""
    found = defaultdict[int, list[_Standing]](list)
    for one in here:
        state, node, share = one
        labels, masses = state.masses.children(node, state.mode)
        nodes, whole = state.trie.trie.arrays.byte_children(node)[1], one.mass
        for label, child, mass in zip(labels, nodes, masses, strict=True):
            if share * mass > 0.0 and whole > 0.0:
                found[int(label)].append(_Standing(state, int(child), float(share * mass / whole)))
    return found
