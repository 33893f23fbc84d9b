"""One step of a beam, as a generator that says which contexts it needs and lets its caller get them.

A step needs model calls in its middle. Reading byte by byte waits for them; reading a known text
(`prefill`) goes on with what is known already and collects the rest over many bytes. So a step is written
once, as a generator: it yields an `Ask`, is sent back those candidates that have been materialized, and
returns its result. Candidates that are not sent back are left out, as if they had no weight; the result
is then a guess, good for finding out which contexts later bytes will need.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.byte_lm.waiting import HEAVY, WaitingRoom
from genlm.bytes.util import logsumexp

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState

__all__ = ["Ask", "Opened", "Step", "drive", "open_beam", "read_symbol", "wake"]

PATIENCE = math.log(30.0)
"""How much heavier than the tolerance an extension must be that ends inside a token of the others, to be
evaluated before that token ends, while nobody looks. Most of these die within a few bytes: a known text that
is read on will tell (median e^-7, see `waiting.py`)."""
AT_ONCE = 8
"""Candidates woken first where nothing else is left; then twice as many, and so on: the number of forwards
grows with the logarithm of how many wait."""
FEW, NEAR = 4, math.log(3.0)
"""Where extensions are evaluated anyway, up to `FEW` go out together, those less than `NEAR` under the bar
included: one more context costs a twelfth of a forward (`benchmarks/RESULTS.md`). Over six of the paragraphs
in `benchmarks/texts` that is 0.3 contexts a token more, a twentieth of the forwards fewer, and a tenth of the
error less."""
SURPRISE, PER_LOOK = math.log(0.03), 7.6
"""Where a byte is less likely than `SURPRISE` to the beam, some of those who rejoined it of late are looked
at, however little is expected of them: as many as its surprise times the tolerance, both as natural logs,
holds `PER_LOOK`. That is one for each nat at the default, and more where the tolerance is finer and more are
of like weight. Older boundaries are taken to matter no more, and where they do a surprise is what shows it.
("Photo|s" waits beside "Photos" at e^-8; the "y" that follows, e^-7 to the beam, makes it the heavier.) What
was measured is in `docs/exactness.md`."""

_Result = TypeVar("_Result")


class Ask(NamedTuple):
    """What a step needs.

    Attributes:
        states: candidates to materialize.
        places: how many symbols had been read where each of them begins; None: the present place.
    """

    states: Sequence[LazyTrieState]
    places: Sequence[int] | None = None


Step = Generator[Ask, Sequence[LazyTrieState], _Result]


async def drive(step: Step[_Result]) -> _Result:
    """Run a step, getting all it asks for."""
    try:
        ask = next(step)
        while True:
            await asyncio.gather(*(s.materialize() for s in ask.states if not s.materialized))
            ask = step.send(ask.states)
    except StopIteration as stop:
        result: _Result = stop.value
        return result


@dataclass(frozen=True)
class Opened:
    """A beam with a tolerance, ready to say what comes next.

    Attributes:
        states: its candidates, and the extensions that matter.
        room: who waits, the other extensions among them.
        absent: log factor by which the beam is heavier than what it knows; 0 unless contexts were lacking.
    """

    states: list[LazyTrieState]
    room: WaitingRoom
    absent: float


def open_beam(beam: ByteBeamState, symbol: int | bytes | None) -> Step[Opened]:
    """Extend the candidates at a token's end: the extensions above the tolerance, the others wait.

    Args:
        beam: the beam.
        symbol: what will be read next: those who end inside a token of the others can wait longer, and
            what the rules of canonical tokenizations do not let read it, and so has probability 0, is
            left out. None: somebody wants to know what comes next, and all that matters is evaluated.
    """
    tolerance = beam.params.log_tolerance
    patience = 0.0 if symbol is None else PATIENCE
    states, room = list(beam.states), beam.waiting
    if symbol is None:
        states, room = yield from wake(beam, states, room, beam.absent, patience)
    total = logsumexp([state.weight for state in states]) + beam.absent
    extensions = [extension for state in states for extension in state.extend_all()]
    if symbol is not None:
        extensions = [extension for extension in extensions if extension.may_read([symbol])]
    extensions.sort(key=lambda extension: -extension.weight)
    weights = [extension.weight for extension in extensions]
    meets = bool(weights) and weights[0] - total > math.log(HEAVY)
    bar = total + tolerance + (0.0 if meets else patience)
    n = sum(weight > bar for weight in weights)
    if n:
        n = max(n, sum(weight > bar - NEAR for weight in weights[:FEW]))
    due, room = extensions[:n], room.admit(extensions[n:], meets)
    if not due:
        return Opened(states, room, beam.absent)
    got = yield Ask(due)
    missing = logsumexp([extension.weight for extension in due if extension not in got]) - total
    # What is missing is taken to do as well as the rest.
    absent = beam.absent - math.log1p(-math.exp(min(missing, -1e-3)))
    return Opened([*states, *got], room, absent)


def read_symbol(
    opened: Opened, beam: ByteBeamState, symbol: int | bytes
) -> Step[tuple[list[LazyTrieState], WaitingRoom]]:
    """Read a symbol: by the candidates, and by those who waited and matter now.

    Args:
        opened: the beam, opened.
        beam: the beam.
        symbol: what to read.

    Returns:
        The candidates, and who still waits. Where there is no candidate, those are the ones that nobody has
        looked at within `max_late_contexts`.
    """
    before, mode = beam.logZ + beam.absent, beam.mode
    read = [after for state in opened.states if (after := state << symbol) is not None]
    logp = _log_ratio(read, opened.absent, before)
    room = opened.room.read(symbol, mode, logp)
    surprised = -math.inf < logp < SURPRISE
    looks = int(logp * beam.params.log_tolerance / PER_LOOK) if surprised else 0
    read, room = yield from wake(beam, read, room, opened.absent, PATIENCE, looks)
    logp = _log_ratio(read, opened.absent, before)
    # Nobody began to wait at the present place yet: those who were replayed did at places before it.
    return read, replace(room, trail=opened.room.read(symbol, mode, logp).trail)


def wake(
    beam: ByteBeamState,
    states: list[LazyTrieState],
    room: WaitingRoom,
    absent: float,
    patience: float,
    looks: int = 0,
) -> Step[tuple[list[LazyTrieState], WaitingRoom]]:
    """Evaluate those who waited and matter now, until nobody is left who does, or `max_late_contexts`.

    Each that is evaluated lets more wait, where tokens end on its way, and where no candidate is left to
    measure them by, all matter: without that bound every way to cut the text would be tried.

    Args:
        beam: the settings, and the mode that candidates go on in.
        states: the candidates so far.
        room: who waits.
        absent: see `Opened`.
        patience: see `WaitingRoom.due`.
        looks: how many to look at, however little is expected of them.
    """
    at_once, left = AT_ONCE, beam.params.max_late_contexts
    while True:
        total = logsumexp([state.weight for state in states]) + absent
        # Where nobody could read the symbol, those who wait are all there is: a few at a time.
        most = left if total > -math.inf else min(left, at_once)
        due, room = room.due(total + beam.params.log_tolerance, patience, most)
        looked_at, room = room.look(looks)
        due += looked_at
        at_once, looks = 2 * at_once, 0
        if not due:
            return states, room
        due = [w for w in due if w.state.may_read([link.symbol for link in room.trail.since(w.trail)])]
        if not due:  # all have probability 0: they are gone without having been evaluated
            continue
        left = max(0, left - len(due))
        ask = Ask([w.state for w in due], [w.trail.at for w in due])
        got = {id(state) for state in (yield ask)}
        for waiting in due:
            if id(waiting.state) in got:
                after, found = waiting.replay(room.trail)
                room = room.admit_late(found)
                if after is not None:
                    states = [*states, after.with_mode(beam.mode)]


def _log_ratio(read: Sequence[LazyTrieState], absent: float, before: float) -> float:
    return logsumexp([state.weight for state in read]) + absent - before
