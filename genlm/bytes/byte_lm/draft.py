"""Drafts: the contexts that reading a known text will probably need, evaluated together ahead of time.

The bytes are known, so where tokens end can be guessed: on the path that the tokenizer itself would take, and
after each context that was lacking, a few tokens further. A draft decides which contexts are computed early
and never what comes out (cf. speculative decoding, Leviathan et al., arXiv 2211.17192).
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.symbols import offsets, spelled
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.trie_state import LazyTrieState

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState
    from genlm.bytes.canonical import CanonicalContext

__all__ = ["FAR", "NEAR", "Drafter", "MissingContext", "is_crowd"]

LOOKAHEAD = 3
"""Tokens drafted after a context that was lacking and ends where a token of the tokenizer's path ends. One
that outlives its draft gets twice as many the next time, so that a candidate which lives on beside that
path for n tokens costs log n passes, and at most as many wasted contexts as it used. One that ends inside
a token of that path mostly dies within a byte or two: nothing is drafted for it. (1,000 bytes of prose, K=5,
threshold 0.05, 575 contexts needed: drafting 3 for all ran 1,300 contexts in 12 forwards, this 670 in 13.)"""

NEAR, FAR = 64, 4
"""How many bytes beyond the first lacking context are looked at: so many times the bytes that the pass before
gained, and at least so many. Where drafts fail at every byte, looking to the end each time would cost the
square of the length."""

FAINT, CLOSE = math.log(1e-4), 16
"""A lacking candidate of a smaller share of the beam is asked for only if it is needed within so many bytes
of the first that is lacking: further on, others that are lacking too will mostly have pushed it out. (300
bytes of prose, K=5, threshold 0: of the fainter ones further on one in six was needed in the end, of the
others six in seven; 3,236 contexts became 1,550, for 966 that reading byte by byte needs.)"""

CROWD = 32
"""The most deferred candidates to be asked for at one byte. More, and the beam there is a wrong draft that
cannot read the text, to which all deferred ones look heavy (5,000 of them, at one byte in 1,500). Where it is
none the full step that follows asks for them."""


def is_crowd(count: int) -> bool:
    """Whether so many deferred candidates, needed at one byte, are too many to ask for (`CROWD`)."""
    return count > CROWD


class MissingContext(NamedTuple):
    """A candidate whose context has not been evaluated.

    Attributes:
        state: the candidate.
        place: the index of the symbol it reads next; below 0 for one deferred before this text.
        needed: the one it was needed at: later than `place` for a deferred one.
        share: natural log of its share of the beam.
    """

    state: LazyTrieState
    place: int
    needed: int
    share: float


class _Place(NamedTuple):
    """Where a token of the tokenizer's path begins: the offset in bytes, and what precedes it."""

    offset: int
    lm_state: StatefulTokenizedLM
    canonical: CanonicalContext | None


class Drafter:
    """Contexts that reading some symbols will probably need."""

    def __init__(self, beam: ByteBeamState, symbols: list[int | bytes]) -> None:
        self._mode = beam.mode
        self.useful = any(state.batches for state in beam.states[:1])
        self._trie = beam.trie.trie
        self._history = beam.data.history  # what was read before
        self._text = spelled(symbols)
        self._offset = offsets(symbols)
        self.horizon = len(symbols)
        self._tokens: list[int] = []  # the tokenizer's own path …
        self._path: list[_Place] = []  # … and where each of its tokens begins
        self._reach: dict[Any, int] = {}

    def offset(self, index: int) -> int:
        """Where the symbol of an index begins, in bytes; below 0 before this text."""
        return self._offset[index] if index >= 0 else -len(self._before(-index))

    def _before(self, count: int) -> bytes:
        """The bytes of so many symbols, the last that were read before this text."""
        return spelled(link.symbol for link in self._history.latest(count))

    async def whole_path(self, state: LazyTrieState) -> None:
        """The contexts along one tokenization of the whole text."""
        partial = state.partial_bytes
        tokens = draft_tokens(state.lm_state.model, self._trie, partial + self._text)
        place = _Place(-len(partial), state.lm_state, state.canonical)
        for n, token in enumerate(tokens):
            self._path.append(place)
            canonical = place.canonical and place.canonical.after(token)
            if place.canonical is not None and canonical is None:
                tokens = tokens[: n + 1]  # no candidate gets further on this path
                break
            at = place.offset + len(self._trie.spelling_of_id[token])
            place = _Place(at, place.lm_state << token, canonical)
        self._tokens = tokens
        places = dict.fromkeys([*self._path, place])  # the last is there already where the path broke off
        await _evaluate([place.lm_state for place in places])

    async def resume(self, index: int, model: LazyTrieState) -> tuple[LazyTrieState, int] | None:
        """A candidate on the tokenizer's path where its next token begins, and that symbol's index.

        Its weight means nothing: it only serves to see which contexts may be needed from there on.
        """
        i = self._place(self._offset[index])
        while i < len(self._path) and not self._begins_symbol(self._path[i].offset):
            i += 1  # a token of the path begins inside an atomic unit, where no symbol does
        if i == len(self._path) or not self._path[i].lm_state.known:
            return None
        offset, lm_state, canonical = self._path[i]
        state = LazyTrieState.at_boundary(lm_state, model.trie, 0.0, self._mode, canonical)
        return await state.materialize(), bisect_left(self._offset, offset)

    async def after_missing(self, lacking: list[MissingContext]) -> None:
        """The contexts of some candidates at a token's end, each with a few tokens more."""
        contexts, soon = [], lacking[0].needed + CLOSE
        late = Counter(needed for _, place, needed, _ in lacking if place < needed)
        for state, place, needed, share in lacking:
            if (share < FAINT and needed >= soon) or (place < needed and is_crowd(late[needed])):
                continue
            offset = self.offset(place)
            more = 2 * self._reach.pop(state.lm_state.parent_node, 0)
            more = more or (LOOKAHEAD if self._at_boundary(offset) else 0)
            path = _path(state.lm_state, self._draft(state, place, more))
            self._reach[path[-1].node] = more
            contexts += path
        await _evaluate(contexts)

    def _draft(self, state: LazyTrieState, place: int, length: int) -> list[int]:
        """The next tokens from a place on."""
        offset = self.offset(place)
        if self._at_boundary(offset):
            i = self._place(offset)
            return self._tokens[i : i + length]
        # Not a boundary of the tokenizer's path: tokenize afresh.
        before = self._before(-place) if place < 0 else b""
        ahead = (before + self._text[max(offset, 0) : max(offset + 16 * length, 0)])[: 16 * length]
        return draft_tokens(state.lm_state.model, self._trie, ahead)[:length]

    def _begins_symbol(self, offset: int) -> bool:
        return self._offset[bisect_left(self._offset, offset)] == offset

    def _at_boundary(self, offset: int) -> bool:
        i = self._place(offset)
        return i < len(self._path) and self._path[i].offset == offset

    def _place(self, offset: int) -> int:
        """The first place of the tokenizer's path at or after an offset."""
        return bisect_left(self._path, offset, key=attrgetter("offset"))


def _path(start: StatefulTokenizedLM, tokens: list[int]) -> list[StatefulTokenizedLM]:
    path = [start]
    for token in tokens:
        path.append(path[-1] << token)
    return path


async def _evaluate(contexts: list[StatefulTokenizedLM]) -> None:
    """A draft that fails (longer than the model can read, say) costs nothing: who needs it asks again."""
    asked = (context.logp_next() for context in contexts if not context.known)
    await asyncio.gather(*asked, return_exceptions=True)
