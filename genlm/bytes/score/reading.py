"""Reading a text and noting what each byte costs: the measure that all scores are made of.

The log-probability of a byte, given all before it, is the log prefix probability (`logZ`) of the beam that
has read it less that of the *pruned* beam that read it: what pruning drops is left out of both. So the sum
over a text is the log-probability of the text among the tokenizations that were kept, and exact while none
is dropped. What is found late is booked where it belongs (`hindsight.py`). No distribution over next bytes is
needed, so reading costs what `prefill` costs: a few forwards.

Texts are read with end-of-sequence strings as ends (`TrieMode.WITH_EOS`): what is scored is what the model
writes. The context before it is read as text.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.byte_lm.symbols import check_readable, offsets, split_symbols
from genlm.bytes.errors import EmptyBeamError, ImpossibleByteError, bad_value
from genlm.bytes.score.ends import end_probability, ends_tree
from genlm.bytes.score.hindsight import Hindsight
from genlm.bytes.score.window import Window, Windows, read_sliding
from genlm.bytes.trie import TrieMode
from genlm.bytes.util.gather import gather

__all__ = ["Reading", "check_policy", "distributions", "end_logprob", "read"]


@dataclass(frozen=True)
class Reading:
    """A text that has been read.

    Attributes:
        logprobs: of each byte, `[n]`; see `Score`.
        beams: pruned beams before the bytes that were asked for, with hindsight; at the length of the text,
            after it.
        last: the beam after the text; None if it is impossible.
        unfound: see `Score`; None where nothing is known of it.
    """

    logprobs: Float64[np.ndarray, " n"]
    beams: dict[int, Any]
    last: Any
    unfound: Float64[np.ndarray, " places"] | None = None


async def read(
    start: Any,
    text: bytes,
    window: Window | Windows | None,
    wanted: Collection[int] = (),
    on_impossible: str = "error",
    places: Collection[int] | None = None,
) -> Reading:
    """Read a text.

    Args:
        wanted: byte offsets before which the beam is kept.
        places: byte offsets between which sums of log-probabilities are wanted, those of `wanted` among them;
            None for all. Where only canonical tokenizations count, what cannot become one by the next of
            these is left out of the bytes before it.
    """
    if not isinstance(start, ByteBeamState):
        windows = window if isinstance(window, Windows) else None
        return await _read_by_distributions(start, text, windows, frozenset(wanted), on_impossible)
    assert not isinstance(window, Windows)
    symbols = split_symbols(text, start.trie)
    if on_impossible == "error":
        check_readable(symbols, start.trie, TrieMode.WITH_EOS, "text")
    offset = offsets(symbols)
    place_of = {place: at for at, place in enumerate(offset)}
    hindsight = Hindsight(start, len(symbols), {place_of[place] for place in wanted if place in place_of})
    reached: list[Any] = [0, start.with_mode(TrieMode.WITH_EOS)]

    def note(at: int, before: Any, after: Any) -> None:
        hindsight.hear(at, before, after)
        reached[:] = at + 1, after

    last: Any = None
    try:
        at_places = None if places is None else {place_of[at] for at in places if at in place_of}
        last = await read_sliding(start, symbols, window, TrieMode.WITH_EOS, note, at_places)
    except ImpossibleByteError as error:
        place = offset[reached[0]]
        if on_impossible != "inf":
            raise ImpossibleByteError(
                _renamed(str(error), error.offset, place),
                byte=error.byte,
                offset=place,
                producible=error.producible,
            ) from None
    # An atomic unit's whole log-probability stands at its first byte.
    at, after = reached
    found, starts = np.zeros(len(text)), offset[:-1]
    found[starts[:at]] = hindsight.logprobs()
    unfound = np.full(len(text) + 1, np.nan)
    unfound[offset[: at + 1]] = hindsight.unfound()
    beams = {offset[at]: beam for at, beam in hindsight.beams().items()}
    if last is None:
        found[offset[at]], found[offset[at] + 1 :] = -np.inf, np.nan
    if offset[at] in wanted:
        beams[offset[at]] = (after if last is None else last).prune()
    return Reading(found, beams, last, unfound)


async def _read_by_distributions(
    start: Any, text: bytes, windows: Windows | None, wanted: frozenset[int], on_impossible: str
) -> Reading:
    """Read a text with a model that is no beam, an ensemble: each byte costs what its distribution says."""
    places = await start.trace(text, read=windows and windows.read)
    found = np.full(len(text), np.nan)
    rows = await gather(_possible(place) for place in places[:-1])
    for at, (byte, row) in enumerate(zip(text, rows, strict=True)):
        found[at] = row[byte]
        if found[at] == -np.inf:
            break
    else:
        from genlm.bytes.ensemble.unfound import unfound

        beams = {at: places[at] for at in wanted}
        return Reading(found, beams, places[-1], await unfound(places, text))
    if on_impossible == "error":
        message = f"`text` has the byte {text[at : at + 1]!r} at offset {at}, impossible to the ensemble."
        raise ImpossibleByteError(message, byte=text[at], offset=at, producible=True)
    return Reading(found, {place: places[place] for place in wanted if place <= at}, None)


async def _possible(state: Any) -> Float64[np.ndarray, " 258"]:
    try:
        return np.asarray((await state.peek()).ps, np.float64)
    except EmptyBeamError:
        return np.full(258, -np.inf)


def _renamed(message: str, said: int, offset: int) -> str:
    """The message of `prefill`, with the argument's name here, and the offset in the whole text."""
    return message.replace("`bs`", "`text`", 1).replace(f"offset {said}", f"offset {offset}", 1)


async def end_logprob(reading: Reading) -> float:
    """Natural log-probability that the text ends where it does."""
    if reading.last is None:
        return float("nan")
    if not reading.last.params.eos_byte_strings:
        raise bad_value("end", True, "no token ends a sequence of this model", "Give the model's `eos`.")
    last = reading.last.prune()
    p = (await end_probability(last, ends_tree((), last.trie))).p
    return math.log(min(p, 1.0)) if p > 0.0 else -math.inf


def check_policy(on_impossible: str) -> None:
    """That `on_impossible` is one of those there are."""
    if on_impossible not in ("error", "inf"):
        raise bad_value("on_impossible", on_impossible, "must be 'error' or 'inf'")


async def distributions(beams: Collection[Any]) -> list[Float64[np.ndarray, " 258"]]:
    """What comes next after each of some beams, asked for together."""
    return [found.ps for found in await asyncio.gather(*(beam.peek() for beam in beams))]
