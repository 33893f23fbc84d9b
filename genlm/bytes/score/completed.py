"""What each byte of a completion costs: found out by reading it, where drawing it has not told.

A token's draw says what that token cost; what the bytes cost is a sum over all tokenizations, which is what
scoring finds. So the new bytes are read once more, with the beam after the prompt, at the price of scoring
them; and with `echo` the prompt, from where it begins. Where bytes were drawn one by one only the prompt is
left to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.generate import Alternative, Completion, Options, Read
from genlm.bytes.generate.records import alternatives
from genlm.bytes.prompt.prompt import Prompt
from genlm.bytes.score.reading import Reading, distributions, end_logprob, read
from genlm.bytes.score.window import Window, Windows
from genlm.bytes.util.gather import gather

__all__ = ["measured"]

_Top = tuple[tuple[Alternative, ...], ...]


@dataclass(frozen=True)
class _Piece:
    """Some bytes that have been read."""

    logprobs: Float64[np.ndarray, " n"]
    top: _Top | None
    reading: Reading | None = None


async def measured(
    found: list[Completion],
    read: Read,
    options: Options,
    begin: Callable[[], Awaitable[tuple[Prompt, Any]]] | None,
) -> None:
    """Put what was asked for into some completions of one prompt.

    Args:
        found: the completions; each is replaced.
        read: the prompt, as they go on from it.
        options: what was asked.
        begin: the prompt's open text and the beam before it; None where all of it was given as tokens.
    """
    if not options.by_byte_logprobs:
        return
    count = options.top_logprobs
    echoed = await _prompt(read, begin, count) if options.echo else None

    async def one(completion: Completion) -> Completion:
        piece = _Piece(completion.logprobs, completion.top) if completion.logprobs is not None else None
        end = completion.end_logprob
        if piece is None:
            new = completion.bytes[len(read.text) :] if options.echo else completion.bytes
            piece = await _read(read.beam, new, count)
            if completion.finish_reason == "eos" and piece.reading is not None:
                end = await end_logprob(piece.reading)
        logprobs, top = piece.logprobs, piece.top
        if echoed is not None:
            logprobs = np.concatenate([echoed.logprobs, logprobs])
            top = None if top is None else (*(echoed.top or ()), *top)
        return replace(completion, logprobs=logprobs, top=top, end_logprob=end)

    found[:] = await gather(map(one, found))


async def _prompt(read: Read, begin: Any, count: int | None) -> _Piece:
    """The prompt's bytes. Nothing is said of those that were given as tokens."""
    text, start = b"", None
    if begin is not None:
        prompt, start = await begin()
        text = prompt.text
    closed = len(read.text) - len(text)
    nothing = _Piece(np.zeros(0), None if count is None else ())
    piece = await _read(start, text, count) if text else nothing
    top = None if piece.top is None else (*[()] * closed, *piece.top)
    return _Piece(np.concatenate([np.full(closed, np.nan), piece.logprobs]), top)


async def _read(start: Any, text: bytes, count: int | None) -> _Piece:
    window = Window.of(start, None, None) if isinstance(start, ByteBeamState) else Windows(None, None)
    wanted = range(len(text)) if count is not None else ()
    reading = await read(start, text, window, wanted, "inf")
    if count is None:
        return _Piece(reading.logprobs, None, reading)
    top: list[tuple[Alternative, ...]] = [()] * len(text)
    rows = await distributions(reading.beams.values())
    for at, row in zip(reading.beams, rows, strict=True):
        top[at] = alternatives(row, count)
    return _Piece(reading.logprobs, tuple(top), reading)
