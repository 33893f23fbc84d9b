"""What a beam leaves out, and how far off that may put its answers.

The probability of the bytes read is a sum over all ways to cover them with tokens. A beam holds some of these
ways; the rest were dropped, or are deferred. Of each the weight at that moment is known, and only goes down
as further bytes are read: so the weights of all that was left out bound from above what is missing, however
long ago that was. That bound is *certified* and, as the beam's own weight falls with every byte, soon loose.
What is *expected* to be missing takes those left out to have done as well since as those that were kept.

Over a long text what is expected to be missing adds up, in nats: a thousandth at each of a thousand steps is
one nat of the text's log-probability, and a share of 0.63. That is true of the text's probability, and says
little of what comes next: whatever was dropped long ago would by now differ from what was kept in old
boundaries only, and says much the same. So a distribution's share counts a dropping less the longer ago it
was (`AGE`). No such reason holds for a bound: the certified one is near 1 for any text of some hundred bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

from genlm.bytes.byte_lm.deferred import DeferredQueue
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.util import logsumexp

__all__ = ["NOTHING_DROPPED", "Bounds", "DroppedMass", "Slack", "weight_upper_bound"]

AGE = 64
"""Bytes after which what was dropped counts 1/e as much for the next byte. Measured: n nats dropped move the
next 160 bytes by 5 to 8 n in all; this makes it 59 n, which is on the safe side (`docs/exactness.md`)."""


class Bounds(NamedTuple):
    """Natural logs between which the log prefix probability lies."""

    lower: float
    upper: float


class Slack(NamedTuple):
    """The share of the whole that an answer leaves out, between 0 and 1.

    Attributes:
        expected: taking those left out to have done as well as those kept.
        bound: certified. No evaluation of those left out moves a distribution over next bytes further than
            this in total variation, nor takes a larger share of the prefix probability.
    """

    expected: float
    bound: float

    @classmethod
    def of(cls, kept: float, deferred: DeferredQueue, dropped: DroppedMass, *, of_next: bool = False) -> Self:
        """The slack of an answer from hypotheses of log weight `kept`.

        Args:
            kept: natural log weight of the hypotheses.
            deferred: what is deferred.
            dropped: what was given up.
            of_next: the answer is what comes next, for which what was dropped long ago counts little.
        """
        most = logsumexp([*deferred.weights, dropped.weight])
        deferred_share, bound = _share(deferred.expected(), kept), _share(most, kept)
        left = math.exp(-(dropped.recent if of_next else dropped.nats))
        return cls(min(deferred_share + (1.0 - deferred_share) * (1.0 - left), bound), bound)

    @property
    def nats(self) -> float:
        """By how much the log prefix probability is expected to be higher: `expected` as a length.

        Divide it by the number of bytes to compare texts of different lengths.
        """
        return -math.log1p(-self.expected) if self.expected < 1.0 else math.inf


def _share(part: float, rest: float) -> float:
    """`exp(part) / (exp(part) + exp(rest))`."""
    if part == -math.inf:
        return 0.0
    return 1.0 / (1.0 + math.exp(min(rest - part, 700.0)))


class DroppedMass(NamedTuple):
    """The mass of what was dropped.

    Attributes:
        weight: natural log of the weights that hypotheses had when they were dropped.
        nats: natural log of the factor by which the whole is expected to be more than what was kept.
        recent: the same of what was dropped of late (`AGE`).
    """

    weight: float = -math.inf
    nats: float = 0.0
    recent: float = 0.0

    def more(self, weights: Iterable[float], kept: float, expected: float | None = None) -> Self:
        """The mass after more has been dropped.

        Args:
            weights: natural log weights of the hypotheses dropped.
            kept: natural log weight of those that were not.
            expected: natural log of what those dropped were expected to contribute; None: their weights.
        """
        gone = logsumexp(list(weights))
        if gone == -math.inf:
            return self
        missing = gone if expected is None else expected
        nats = math.log1p(math.exp(min(missing - kept, 700.0))) if kept > -math.inf else math.inf
        return type(self)(logsumexp([self.weight, gone]), self.nats + nats, self.recent + nats)

    def aged(self) -> Self:
        """The mass one byte later."""
        return self._replace(recent=self.recent * (1.0 - 1.0 / AGE))


NOTHING_DROPPED = DroppedMass()


def weight_upper_bound(state: LazyTrieState) -> float:
    """The most that a hypothesis can contribute, whatever mode the text goes on in."""
    if state.mode is TrieMode.WITHOUT_EOS or not state.materialized:
        return state.weight
    return max(state.weight, state.with_mode(TrieMode.WITHOUT_EOS).weight)
