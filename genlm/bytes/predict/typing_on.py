"""Typing on: a context that was read a moment ago, with a few bytes more or fewer.

At each keystroke a keyboard asks about a context that is the last one and a letter, or without one. Reading
it anew costs a forward, along the whole of it; the beam that has read it reads one byte on for next to
nothing. So the beams since a context was last read anew are kept, with what they have read, as long as the
model remembers what it has computed (`CachedLM.clear_cache`). After `MOST` bytes the context is read anew:
byte by byte a beam takes more and more along.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from genlm.bytes.errors import ImpossibleByteError
from genlm.bytes.generate.run import Read
from genlm.bytes.prompt.prompt import as_bytes

__all__ = ["Recent"]

MOST = 32
"""Bytes that are read on before a context is read anew: some six words."""

TEXT = str | bytes | bytearray | memoryview


class Recent:
    """The context read anew last, and those since that went on from it."""

    def __init__(self) -> None:
        self._begun, self._method = b"", ""
        self._kept: dict[bytes, tuple[Read, list[tuple[Any, Any]]]] = {}

    async def read(self, read: Callable[..., Awaitable[Read]], context: Any, method: str) -> Read:
        """A context, read on from the longest beginning of it that is known."""
        if not isinstance(context, TEXT):
            return await read(context, method=method)
        text = as_bytes("context", context)
        kept, known = self._kept, self._known(text, method)
        if known is not None:
            found, more = kept[known][0], text[len(known) :]
            try:
                if more:
                    found = replace(found, beam=await found.beam.prefill(more), text=found.text + more)
                return _keep(kept, text, found)
            except ImpossibleByteError:
                pass  # read anew it may be possible; else the error says where in the context
        found, kept = await read(text, method=method), {}
        self._begun, self._method, self._kept = text, method, kept
        return _keep(kept, text, found)

    def _known(self, text: bytes, method: str) -> bytes | None:
        """The longest beginning of a text whose beam may be gone on with."""
        least = len(self._begun)
        if method != self._method or not text.startswith(self._begun) or len(text) - least > MOST:
            return None
        known = next((text[:n] for n in range(len(text), least - 1, -1) if text[:n] in self._kept), None)
        current = known is not None and all(model.rows is rows for model, rows in self._kept[known][1])
        return known if current else None


def _keep(kept: dict[bytes, tuple[Read, list[tuple[Any, Any]]]], text: bytes, found: Read) -> Read:
    models = {getattr(state.lm_state, "_cached", None) for state in found.beam.states}
    remembered = [(model, model.rows) for model in models if model is not None]
    if remembered:
        kept[text] = found, remembered
        if len(kept) > 2 * MOST:
            del kept[next(iter(kept))]
    return found
