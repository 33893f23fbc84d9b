"""Typing on: the context that was read last, with a few bytes more.

At each keystroke a keyboard asks about a context that is the last one and a letter. Reading it anew costs a
forward, along the whole of it; the beam that has read it reads one byte on for next to nothing. So the last
beam is kept, with what it has read, as long as the model remembers what it has computed
(`CachedLM.clear_cache`). After `MOST` bytes the context is read anew: byte by byte a beam takes more and more
along.
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
    """The context read last."""

    def __init__(self) -> None:
        self._last: tuple[bytes, bytes, str, Read, list[tuple[Any, Any]]] | None = None

    async def read(self, read: Callable[..., Awaitable[Read]], context: Any, method: str) -> Read:
        """A context, read on from the last one where it goes on from it."""
        if not isinstance(context, TEXT):
            return await read(context, method=method)
        text = as_bytes("context", context)
        begun, last = text, self._last
        if last is not None and last[2] == method and all(model.rows is rows for model, rows in last[4]):
            more = text[len(last[1]) :]
            if text.startswith(last[1]) and len(text) - len(last[0]) <= MOST:
                begun, found = last[0], last[3]
                try:
                    if more:
                        found = replace(found, beam=await found.beam.prefill(more), text=found.text + more)
                    return self._keep(begun, text, method, found)
                except ImpossibleByteError:
                    begun = text  # read anew it may be possible; else the error says where in the context
        return self._keep(begun, text, method, await read(text, method=method))

    def _keep(self, begun: bytes, text: bytes, method: str, found: Read) -> Read:
        models = {getattr(state.lm_state, "_cached", None) for state in found.beam.states}
        remembered = [(model, model.rows) for model in models if model is not None]
        self._last = (begun, text, method, found, remembered) if remembered else None
        return found
