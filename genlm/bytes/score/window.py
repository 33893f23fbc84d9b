"""Reading texts longer than the model's context: a window of tokens that slides and keeps the beam.

When the window is full, every hypothesis forgets all but the tokens the text began after (the beginning of
the sequence, a chat's header) and its latest `overlap` tokens. Its weight and the bytes of its unfinished
token stay, and, where only canonical tokenizations count, what its tokens may be followed by. So the beam
goes on as the same mixture of tokenizations, and no boundary is put into the text. What is lost is what the
model would have made of the older tokens, and what is deferred (`deferred.py`).

A byte is read with at least `overlap` tokens before it, and, as the window fills, up to `most`.

Two hypotheses of which one has cut some word in more tokens would keep contexts that begin at different
places, and so share none. So, as far as an eighth more than `overlap` allows, all begin at one place of the
text: then those that differ in a few boundaries share most contexts, and the overlap is read about once
rather than once a hypothesis (28 of them in Python: 2,325 tokens at a slide of 256).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from genlm.bytes.byte_lm import ByteBeamState, LazyTrieState, StatefulTokenizedLM
from genlm.bytes.byte_lm.context_limits import depth, longest_context
from genlm.bytes.byte_lm.prefill import Listener, read_context
from genlm.bytes.byte_lm.symbols import spelled, split_symbols
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.errors import bad_value
from genlm.bytes.trie import TrieMode
from genlm.bytes.util.numbers import whole_number

__all__ = ["Window", "Windows", "fits", "read_sliding", "slide"]

LEAST = 8
LONG_TOKEN = 16
"""Bytes a token, at most, that are tokenized to see how many fit; where tokens are longer, fewer are read."""


@dataclass(frozen=True)
class Window:
    """How much of a long text the model sees.

    Attributes:
        most: tokens that a context may have.
        overlap: of these, the latest that are kept when it slides.
    """

    most: int
    overlap: int

    @classmethod
    def of(cls, beam: ByteBeamState, most: Any, overlap: Any) -> Window | None:
        """The window asked for; by default the model's whole context, of which half is kept.

        Args:
            beam: any beam of the model.
            most: tokens; None for what the model says it reads; None is returned if it says nothing, or
                has a `max_context_length`.
            overlap: tokens; None for half of `most`.

        Raises:
            ValueError: less than 8 tokens, more than the model reads, an overlap above half of it.
        """
        longest = longest_context(beam.states[0].lm_state)
        given, most = most, whole_number("window", most, LEAST)
        if most is not None and longest is not None and most > longest:
            raise bad_value("window", given, f"this model reads at most {longest} tokens")
        most = longest if most is None else most
        kept = whole_number("overlap", overlap, 1)
        if most is None:
            return None
        if kept is not None and kept > most // 2:
            raise bad_value("overlap", overlap, f"must be at most half the window, {most // 2} tokens")
        return cls(most, most // 2 if kept is None else kept)


class Windows(NamedTuple):
    """Of several models that read one text: each through a window of its own, of the tokens asked for."""

    most: int | None
    overlap: int | None

    def fit(self, beams: Sequence[Any], text: bytes) -> bool:
        """Whether each can read a text without sliding."""
        found = [beam for beam in beams if isinstance(beam, ByteBeamState)]
        return all(fits(beam, split_symbols(text, beam.trie), Window.of(beam, *self)) for beam in found)

    async def read(self, beam: Any, symbols: Any, mode: TrieMode, listener: Listener | None = None) -> Any:
        """One of them after a text; see `read_sliding`."""
        return await read_sliding(beam, list(symbols), Window.of(beam, *self), mode, listener)


def fits(beam: ByteBeamState, symbols: list[int | bytes], window: Window | None) -> bool:
    """Whether a text can be read without sliding, however it is cut into tokens."""
    begun = any(state.partial_bytes for state in beam)  # a token that is not yet counted
    if window is None or _deepest(beam) + begun + len(symbols) <= window.most:
        return True
    # Half of the room: some hypotheses cut into more tokens than the tokenizer does.
    text = spelled(symbols)
    room = window.most - _deepest(beam)
    if len(text) > LONG_TOKEN * room:
        return False
    ids, spelling = _guess(beam, text), beam.states[0].trie.trie.spelling_of_id
    unspelled = len(beam.states[0].partial) + len(text) - sum(len(spelling[i]) for i in ids)
    return 2 * (len(ids) + unspelled) <= room  # what the guess does not reach may be a token a byte


async def read_sliding(
    beam: ByteBeamState,
    symbols: list[int | bytes],
    window: Window | None,
    mode: TrieMode,
    listener: Listener | None = None,
    wanted: Collection[int] | None = None,
) -> ByteBeamState:
    """The beam after a text of any length. `listener` and `wanted`: see `read_context`.

    Raises:
        ImpossibleByteError: a byte that no hypothesis can read.
        ValueError: the tokens that the text begins after leave no room in the window.
    """
    at = 0
    while at < len(symbols):
        count = len(symbols) - at
        if window is not None and not fits(beam, symbols[at:], window):
            if window.most - _deepest(beam) < window.most // 4:
                beam = await slide(beam.prune(), window)
            count = _room(beam, symbols[at:], window)
        here = None if wanted is None else {place - at for place in wanted if at <= place < at + count}
        hear = _later(listener, at) if listener else None
        beam = await read_context(beam, symbols[at : at + count], mode=mode, listener=hear, wanted=here)
        at += count
    return beam


def _later(listener: Listener, start: int) -> Listener:
    return lambda at, before, after: listener(start + at, before, after)


async def slide(beam: ByteBeamState, window: Window) -> ByteBeamState:
    """The beam with older tokens forgotten; its hypotheses' committed weights and partial tokens kept."""
    begun = beam.begun
    if begun + window.overlap > window.most - window.most // 4:
        rule = f"{begun} tokens precede the text, and with the overlap leave too little of the window"
        raise bad_value("window", window.most, rule, "Give a larger `window` or a smaller `overlap`.")
    counts = _kept(beam, window)
    moved = await asyncio.gather(*(_forget(state, begun, n) for state, n in zip(beam, counts, strict=True)))
    return beam.rebased([state for state in moved if state is not None])


def _kept(beam: ByteBeamState, window: Window) -> list[int]:
    """How many of its latest tokens each hypothesis keeps: all from one place of the text on if it can be."""
    least, begun = window.overlap, beam.begun
    most = min(least + least // 8, window.most - window.most // 4 - begun)
    lengths = [_lengths_back(state, begun)[: most + 1] for state in beam]
    places = sorted({back[min(least, len(back) - 1)] for back in lengths})
    # The farthest that is not too far for the heaviest hypothesis; its own place never is.
    place = max(p for p in places if bisect_left(lengths[0], p) <= most)
    counts = [bisect_left(back, place) for back in lengths]
    return [n if least <= n <= most else least for n in counts]


def _lengths_back(state: LazyTrieState, begun: int) -> list[int]:
    """How far back in the text a hypothesis's latest 0, 1, 2, ... tokens begin, in bytes."""
    spelling = state.trie.trie.spelling_of_id
    lengths = (len(spelling[token]) for token in reversed(state.lm_state.context[begun:]))
    return list(accumulate(lengths, initial=len(state.partial_bytes)))


async def _forget(state: LazyTrieState, begun: int, count: int) -> LazyTrieState | None:
    old = state.lm_state
    ids = old.context
    kept = ids if len(ids) <= begun + count else [*ids[:begun], *ids[-count:]]
    lm_state = StatefulTokenizedLM(
        old.model, kept, old.n_calls, None, old.lora_name, check_model=old.check_model
    )
    # Which tokens may follow is a matter of the whole text, and not of what the model sees of it.
    start = LazyTrieState.at_boundary(lm_state, state.trie, state.committed, state.read_in, state.canonical)
    after: LazyTrieState | None = await start.materialize()
    for symbol in state.symbols:
        after = None if after is None else after << symbol
    return None if after is None else after.with_mode(state.mode)


def _deepest(beam: ByteBeamState) -> int:
    return max(depth(state.lm_state) for state in beam)


def _guess(beam: ByteBeamState, text: bytes) -> list[int]:
    state = beam.states[0]
    return draft_tokens(state.lm_state.model, state.trie.trie, state.partial_bytes + text)


def _room(beam: ByteBeamState, symbols: list[int | bytes], window: Window) -> int:
    """How many symbols to read before looking again: half as many tokens as there is room for."""
    room = max(1, (window.most - _deepest(beam)) // 2)
    ids = _guess(beam, spelled(symbols[: LONG_TOKEN * room]))[:room]
    spelling = beam.states[0].trie.trie.spelling_of_id
    length = sum(len(spelling[i]) for i in ids) - len(beam.states[0].partial_bytes)
    return max(1, min(length, len(symbols)))
