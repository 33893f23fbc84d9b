"""A beam on its way through a text, seen at every byte."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.ensemble import EnsembleState
from genlm.bytes.errors import EmptyBeamError, bad_value
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.viz.together import EnsembleView, view_ensemble
from genlm.bytes.viz.view import BeamView, view_beam

__all__ = ["walk"]


async def walk(
    beam: ByteBeamState | EnsembleState,
    text: bytes,
    *,
    most: int = 10,
    top: int = 5,
    names: Sequence[str] = (),
) -> AsyncIterator[BeamView | EnsembleView]:
    """The beam before a text and after each of its bytes, pruned, with the likeliest next bytes.

    The text is read as `prefill` reads one: strings that end a sequence are text in it. Of an ensemble it is
    shown what each member says; what it has read before is not shown.

    Args:
        beam: the beam, or the ensemble's state.
        text: the text.
        most: hypotheses to show, of each beam.
        top: next bytes to show.
        names: of an ensemble's members.

    Raises:
        ValueError: no hypothesis can read a byte.
    """
    if isinstance(beam, EnsembleState):
        async for view in _walk_together(beam, text, most, top, names):
            yield view
        return
    reading = beam.with_mode(TrieMode.WITHOUT_EOS)
    await reading.materialize()
    yield await _look(reading, most, top)
    for offset, byte in enumerate(text):
        after = await (reading.prune() << byte)
        if not len(after):
            rule = f"no hypothesis of the beam can read byte 0x{byte:02x} at offset {offset}"
            way = "Keep more hypotheses (a larger K, a smaller threshold or tolerance), or remove the byte."
            raise bad_value("text", text, rule, way)
        reading = after
        yield await _look(reading.prune(), most, top)


async def _walk_together(
    start: EnsembleState, text: bytes, most: int, top: int, names: Sequence[str]
) -> AsyncIterator[EnsembleView]:
    logp = 0.0
    for at, place in enumerate(await start.trace(text)):
        state, says = place.prune(), None
        with suppress(EmptyBeamError):  # they have nothing in common, or have ended
            says = await state.logp_next()
        yield view_ensemble(state, most, top=top, text=text[:at], logp=logp, names=names)
        if at == len(text):
            return
        gain = -math.inf if says is None else says[text[at]]
        if gain == -math.inf:
            rule = f"the byte 0x{text[at]:02x} at offset {at} is impossible to the ensemble"
            raise bad_value("text", text, rule, "Give another `op` or a `floor`, or remove the byte.")
        logp += gain


async def _look(beam: ByteBeamState, most: int, top: int) -> BeamView:
    if not top:
        return view_beam(beam, most)
    # What comes next may be the end, which reading a text does not consider.
    return view_beam(beam, most, logp_next=await beam.with_mode(TrieMode.WITH_EOS).logp_next(), top=top)
