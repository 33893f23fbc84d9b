"""A search rule: which hypotheses of a beam are evaluated, which are kept, and what is missing.

A token model is asked for what follows one context at a time; a byte string is covered by exponentially many.
A rule decides which of them are worth a context. It works on immutable data (`BeamData`), and whatever it
needs evaluated it asks for: reading byte by byte waits for the model each time; reading a known text
(`prefill.py`) goes on with what is known already and collects the rest over many bytes (speculation). So a
step is written once, as a generator that yields an `Evaluate`, is sent back as many hypotheses, evaluated,
and returns its result. None in place of one: it is left out, as if it had no weight. Another in its place has
the distribution of a like context (`stand_ins.py`). Either way the result is a draft, good for finding out
which contexts later bytes will need.

Two rules are here: `ThresholdRule` (`threshold.py`), beam search with a width and a threshold, and
`ToleranceRule` (`tolerance.py`), which defers what is light. Another is a class with these methods, given as
`BeamParams(rule=...)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from genlm.bytes.byte_lm.data import BeamData
from genlm.bytes.byte_lm.deferred import DeferredQueue
from genlm.bytes.byte_lm.error_bounds import Slack
from genlm.bytes.byte_lm.speculation import offer_next
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import TrieMode

__all__ = ["Evaluate", "SearchRule", "SearchStep", "run"]

T = TypeVar("T")

NOTHING_DEFERRED = DeferredQueue()


class Evaluate(NamedTuple):
    """What a step needs.

    Attributes:
        hypotheses: those to evaluate, each at a token's end.
        places: how many symbols of the history had been read where each begins; None: all.
        beside: evaluated hypotheses after all symbols read: what they go on with is needed next.
        deferred: and what is deferred there: what comes near to being evaluated may be needed soon.
    """

    hypotheses: Sequence[LazyTrieState]
    places: Sequence[int] | None = None
    beside: Sequence[LazyTrieState] = ()
    deferred: DeferredQueue = NOTHING_DEFERRED


SearchStep = Generator[Evaluate, Sequence[LazyTrieState | None], T]


@runtime_checkable
class SearchRule(Protocol):
    """What a beam asks of a rule. A rule is immutable, and serves any number of beams.

    All hypotheses of the data it is given have been evaluated. What it must hold to, so that the weights of
    `BeamData` are what they are said to be:

    - A hypothesis read on is `state << symbol`, and its extensions are `state.extend_all()`: no other
      weights.
    - Of the ways to cover the symbols read, each that is no hypothesis is deferred or is counted as dropped;
      but those that cannot read `BeamData.coming` may be left out.
    - `read` evaluates what it likes; `prune` and `missing` evaluate nothing.
    - Steps may be abandoned at any `yield`, and the data they were given be used again.
    """

    def begin(self, hypotheses: Sequence[LazyTrieState], mode: TrieMode) -> BeamData:
        """The data of a beam that begins with these hypotheses."""
        return BeamData(list(hypotheses), mode, DeferredQueue())

    def expand(self, data: BeamData, symbol: int | bytes | None) -> SearchStep[BeamData]:
        """The same data with an `expansion`: token ends committed, so that what comes next can be told.

        Args:
            data: the beam.
            symbol: what will be read next; None: somebody looks at the distribution of what comes next.
        """
        ...

    def read(self, data: BeamData, symbol: int | bytes, *, pruned: bool = False) -> SearchStep[BeamData]:
        """The data after one more symbol. No hypotheses: none could read it.

        Args:
            data: the beam, expanded or not.
            symbol: a byte, the end of the sequence, or an atomic unit.
            pruned: `prune` comes next: what it is bound to discard need not be evaluated.
        """
        ...

    def recover(self, data: BeamData) -> SearchStep[BeamData]:
        """The data with deferred hypotheses evaluated, where no hypothesis has any probability left.

        So it is where all stand inside an end-of-sequence string that was read as text and that nothing else
        goes on with: in the other mode they are no text.
        """
        return data
        yield

    def prune(self, data: BeamData) -> BeamData:
        """The data with light hypotheses dropped."""
        ...

    def missing(self, data: BeamData) -> Slack:
        """The share of the prefix probability that is deferred or was dropped: as expected, and at most."""
        return Slack.of(data.log_weight, data.deferred, data.dropped)


async def run(step: SearchStep[T], least: float | None = None) -> T:
    """Run a step, with all that it asks for evaluated.

    Args:
        step: the step.
        least: the share of the beam that a token which ends must have to be evaluated. Then a forward that
            goes out takes along what will probably be needed next (`speculation.py`). None: it does not.
    """
    try:
        asked = next(step)
        while True:
            missing = [state for state in asked.hypotheses if not state.materialize_if_known()]
            if missing and least is not None:
                offer_next(asked.beside, asked.deferred, least)
            await asyncio.gather(*(state.materialize() for state in missing))
            asked = step.send(asked.hypotheses)
    except StopIteration as stop:
        result: T = stop.value
        return result
