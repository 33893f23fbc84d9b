"""Drafts: the contexts that reading a known text will probably need, evaluated together ahead of time.

The bytes are known, so where tokens end can be guessed: first on the path that the tokenizer itself would
take; then by reading on with stand-ins for what is not known (`stand_ins.py`), which shows what the beam will
ask for, and how many guesses each of these contexts rests on. One is drafted where it is worth its price:
`r p s > 1 - p` (`contexts/cost.py`), with `r` the measured price of a forward in contexts, `p` the acceptance
rate of such drafts in this text, and `s` the probability that it spares a forward. A draft decides which
contexts are computed early and never what comes out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from contextlib import AbstractContextManager, nullcontext, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.stand_ins import StandIns
from genlm.bytes.byte_lm.symbols import offsets, spelled
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.cost import is_worth
from genlm.bytes.contexts.tree import ContextNode

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState
    from genlm.bytes.canonical import CanonicalContext
    from genlm.bytes.contexts.cached_lm import CachedLM

__all__ = ["Drafter", "MissingContext"]

NEEDED = 2 / 3
"""The probability that a context is needed which reading on with stand-ins asks for, before it has been
seen how many are (ten texts to choose on, default settings: 0.74 of those after a known context, 0.63 of
those four guesses on, 0.40 of those eight or more)."""

PRIOR_WEIGHT = 20
"""Drafts that this counts as. Learning spares 2 to 4 % of the cost of those texts; by how many guesses a
draft rests on or by its share of the beam besides, nothing."""

REJECTED_AFTER = 16
"""Symbols after the one where it was expected to be needed, after which a draft counts as rejected."""

SURE = 14
"""Where a draft rests on `n` guesses and `w` are needed at one symbol, it spares a forward with probability
`SURE / (n² w)`: along a text of `m` tokens, drafts of `n` take `m / n` forwards, so the n-th spares `m / n²`.
At 2, 14 and 60 contexts a forward, 28 takes 1 to 5 % more than 14, and 56 up to 8 % (in their price)."""

MOST = 60
"""Lacking contexts that the passes of all texts read at once look for together, times the square root of how
many a forward is worth. Of one text, half as many take a quarter more forwards and 4 % fewer contexts, twice
as many about as many, and more of the beam's own time. Of 32 texts at once (a hundred
English sentences), as many for each take 4 % more contexts, a quarter more forwards and half as much again of
the beam's own time."""

LARGEST = 1024.0
"""The ratio beyond which drafts grow no more: rows take memory, however fast they come. What is measured ends
at 256 (`contexts/cost.py`), so this is for backends that state a cost."""


class MissingContext(NamedTuple):
    """A candidate whose context has not been evaluated.

    Attributes:
        state: the candidate.
        needed: the index of the symbol it was needed at.
        guessed: whether something was lacking, or another stood in for it, when it was found to be needed.
    """

    state: LazyTrieState
    needed: int
    guessed: bool


class _Place(NamedTuple):
    """Where a token of the tokenizer's path begins: the offset in bytes, and what precedes it."""

    offset: int
    lm_state: StatefulTokenizedLM
    canonical: CanonicalContext | None


class Drafter:
    """Contexts that reading some symbols will probably need.

    Attributes:
        useful: whether the model is one for which drafts pay.
        stand_ins: what is known of places of these symbols.
        lacking: what the present pass has found lacking, in the order of the text.
    """

    def __init__(self, beam: ByteBeamState, symbols: list[int | bytes]) -> None:
        self._mode = beam.mode
        self.useful = any(state.batches for state in beam.states[:1])
        self._trie = beam.trie.trie
        self._text = spelled(symbols)
        self._offset = offsets(symbols)
        self._model: CachedLM[Any] | None = beam.states[0].lm_state.model_cache if self.useful else None
        self._path: list[_Place] = []  # the tokenizer's own, by where each of its tokens begins
        self._room = 1  # contexts of it that are evaluated ahead: what half of the memory for rows holds
        self.stand_ins = StandIns()
        self.lacking: list[MissingContext] = []
        self._undecided: dict[ContextNode, int] = {}  # drafts, and when they will count as rejected
        self._accepted, self._made = PRIOR_WEIGHT * NEEDED, float(PRIOR_WEIGHT)

    @property
    def _ratio(self) -> float:
        """How many contexts a forward is worth to this text: texts that are read at once share them."""
        model = self._model
        return 0.0 if model is None else min(model.cost.ratio / self._readers, LARGEST)

    @property
    def _readers(self) -> int:
        """How many texts are being read at once."""
        return 1 if self._model is None else max(1, self._model.readers)

    def reading(self) -> AbstractContextManager[None]:
        """Within it, the text is being read."""
        return nullcontext() if self._model is None else self._model.reading()

    def offset(self, index: int) -> int:
        """Where the symbol of an index begins, in bytes."""
        return self._offset[index]

    async def whole_path(self, state: LazyTrieState) -> None:
        """The contexts along one tokenization of the whole text."""
        partial = state.partial_bytes
        tokens = draft_tokens(state.lm_state.model, self._trie, partial + self._text)
        place = _Place(-len(partial), state.lm_state, state.canonical)
        for token in tokens:
            self._path.append(place)
            canonical = place.canonical and place.canonical.after(token)
            at = place.offset + len(self._trie.spelling_of_id[token])
            rejected = place.canonical is not None and canonical is None
            place = _Place(at, place.lm_state << token, canonical)
            if rejected:
                break  # no candidate gets further on this path
        for one in self._path:
            if 0 <= one.offset < len(self._text) and self._begins_symbol(one.offset):
                self.stand_ins.add(bisect_left(self._offset, one.offset), one.lm_state)
        places = dict.fromkeys([*self._path, place])  # the last is there already where the path broke off
        self._room = max(1, state.lm_state.model_cache.rows_that_fit // 2)
        await _evaluate([place.lm_state for place in places][: self._room])

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

    @property
    def most(self) -> float:
        """How many lacking contexts a pass looks for, as far as memory has room."""
        return max(1.0, min(MOST * math.sqrt(self._ratio / self._readers), self._room))

    @property
    def has_enough(self) -> bool:
        """Whether the pass has found so many."""
        return len(self.lacking) >= self.most

    def known(self, state: LazyTrieState, place: int, needed: bool) -> None:
        """A candidate's context is known, which ends before the symbol of an index; whether it was needed."""
        self.stand_ins.add(place, state.lm_state)
        if needed and self._undecided.pop(state.lm_state.node, None) is not None:
            self._accepted, self._made = self._accepted + 1, self._made + 1

    async def evaluate_lacking(self) -> None:
        """Evaluate what the pass has found lacking, as far as it is worth it."""
        lacking, self.lacking = self.lacking, []
        if not lacking:
            return
        first = lacking[0].needed
        for node in [node for node, until in self._undecided.items() if until < first]:
            del self._undecided[node]
            self._made += 1
        rate = self._accepted / self._made
        contexts = {one.state.lm_state.node: one for one in reversed(lacking)}  # where first needed
        crowd = Counter(one.needed for one in contexts.values())
        drafts = list[StatefulTokenizedLM]()
        for node, (state, needed, guessed) in reversed(contexts.items()):
            spares = min(1.0, SURE / (_guesses(node) ** 2 * crowd[needed]))
            if guessed and not is_worth(rate, self._ratio, spares):
                continue
            if guessed:
                self._undecided.setdefault(node, needed + REJECTED_AFTER)
            drafts.append(state.lm_state)
        await _evaluate([*drafts, *self._path_ahead(first)])

    def _path_ahead(self, index: int) -> list[StatefulTokenizedLM]:
        """The path from a place on, as far as there is room: what of it is given up, or was not begun with.

        Rows that are there count as used: they are needed sooner than those that were used last.
        """
        cache = self._path[0].lm_state.model_cache if self._path else None
        if cache is None or not cache.crowded:
            return []
        at = self._place(self.offset(index))
        ahead = [place.lm_state for place in self._path[at : at + self._room]]
        return [lm_state for lm_state in ahead if cache.known(lm_state.node) is None]

    def _begins_symbol(self, offset: int) -> bool:
        return self._offset[bisect_left(self._offset, offset)] == offset

    def _place(self, offset: int) -> int:
        """The first place of the tokenizer's path at or after an offset."""
        return bisect_left(self._path, offset, key=attrgetter("offset"))


def _guesses(node: ContextNode) -> int:
    """How many contexts are not known from this one back to the last that is: itself at least."""
    n, before = 1, node.parent
    while before is not None and before.parent is not None and before.logps is None:
        n, before = n + 1, before.parent
    return n


async def _evaluate(contexts: list[StatefulTokenizedLM]) -> None:
    """A draft that fails (longer than the model can read, say) costs nothing: who needs it asks again."""
    nodes = list(dict.fromkeys(context.node for context in contexts if not context.known))
    if nodes:
        with suppress(Exception):
            await contexts[0].model_cache.outcomes(nodes)
