"""A beam on its way through a text, seen at every byte."""

from __future__ import annotations

from collections.abc import AsyncIterator

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.errors import bad_value
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.viz.view import BeamView, view_beam

__all__ = ["walk"]


async def walk(beam: ByteBeamState, text: bytes, *, most: int = 10, top: int = 5) -> AsyncIterator[BeamView]:
    """The beam before a text and after each of its bytes, pruned, with the likeliest next bytes.

    The text is read as `prefill` reads one: strings that end a sequence are text in it.

    Raises:
        ValueError: no hypothesis can read a byte.
    """
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


async def _look(beam: ByteBeamState, most: int, top: int) -> BeamView:
    if not top:
        return view_beam(beam, most)
    # What comes next may be the end, which reading a text does not consider.
    return view_beam(beam, most, logp_next=await beam.with_mode(TrieMode.WITH_EOS).logp_next(), top=top)
