"""Reading a prompt's text with a beam: the one place where completion meets `prefill`.

A prompt is read with end-of-sequence strings as text, and what follows with them as ends. So a prompt that
stops *inside* such a string can leave a beam whose hypotheses all stand inside the token that ends the
sequence, and nothing that may follow begins so: the beam is dead, however likely the text. What was meant is
text, which other tokens can spell. So the bytes since the last token's end are read once more, with ends as
ends, which leaves that token out and lets the beam, or healing, find the others.
"""

from __future__ import annotations

import math

from genlm.bytes.byte_lm import ByteBeamState

__all__ = ["read_text"]


async def read_text(start: ByteBeamState, text: bytes, method: str) -> ByteBeamState:
    """The beam after `text`."""
    beam = await start.prefill(text, method=method)
    if beam.logZ > -math.inf:
        return beam
    inside = max((len(state.partial_bytes) for state in beam), default=0)
    again = await start.prefill(text[: len(text) - inside], method=method)
    for byte in text[len(text) - inside :]:
        again = await (again.prune() << byte)
    return again if len(again) else beam
