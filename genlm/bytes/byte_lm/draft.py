"""Drafts: the contexts that reading a known text will probably need, evaluated together ahead of time.

The bytes are known, so where tokens end can be guessed: on the path that the tokenizer itself would take;
after each context that was lacking, further along that path; and beside it, where others have left it before.
A context is drafted where it is worth its price: `r p s > 1 - p` (`contexts/cost.py`), with `r` the measured
price of a forward in contexts, `p` the probability that it will be needed (`acceptance.py`: by its share of
the beam, by what it is, and by how such drafts have done in this text), and `s` that it spares a forward. A
draft decides which contexts are computed early and never what comes out (cf. speculative decoding, Leviathan
et al., arXiv 2211.17192).
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from genlm.bytes.byte_lm.acceptance import Acceptance
from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM, next_row
from genlm.bytes.byte_lm.symbols import offsets, spelled
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.cost import is_worth, worth_together
from genlm.bytes.contexts.tree import ContextNode

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState
    from genlm.bytes.canonical import CanonicalContext
    from genlm.bytes.contexts.cached_lm import CachedLM

__all__ = ["Drafter", "MissingContext"]

TAIL = 0.5
"""Exponent of how long a candidate lives beside the tokenizer's path: one that has lived for `m` tokens lives
for `j` more with probability `((m + 1) / (m + j + 1)) ** TAIL`. Many die at once, and the others go on and on
(two passages of 1,000 bytes, default settings: 42 % of those that came back to the path read one token more,
29 % two, 25 % six, 21 % thirty-two)."""

ALONE = 2 / 3
"""Where `n` contexts are lacking at once, drafting what follows one of them spares a forward with probability
`n ** -ALONE`: what the others lack mostly asks for one anyway."""

INSIDE = 0.1
"""How much less probable it is that a candidate inside a token of the path is read on until a token ends,
than that one of the same share on that path is (of 1,573 that were needed 128 were; default settings)."""

HORIZON = 4
"""Bytes beyond the first lacking context that are looked at, for each context that a forward is worth; or
`GAIN`, if that is more. Where drafts fail at every byte, looking to the end each time would cost the square
of the length, and passes over the text take time, too: 16 made 271 bytes of notes and verse (default
settings) a third slower, for half of the forwards."""

GAIN = 1.5
"""How many times what the pass before gained. With 4, six texts to choose on took as many contexts, and a
fifth more of the beam's own time."""

MOST = 16
"""Contexts that are drafted at once, for each that a forward is worth, beside those that were lacking."""

LARGEST = 1024.0
"""The ratio beyond which drafts grow no more: rows take memory, however fast they come. What is measured ends
at 256 (`contexts/cost.py`), so this is for backends that state a cost. Where contexts are free, 1,000 bytes
of one text take 7 forwards (256: 11) for a fifth more contexts, and the texts to choose on 61 (256: 66) for
half as many more."""

AFRESH = 64
"""Bytes that are tokenized afresh where a draft begins inside a token of the path."""

EVEN_CHANCE = 9.0
"""Nats below the beam at which a lacking hypothesis is needed as likely as others push it out."""

HIGHEST_BAR = -2.0
"""Natural log of the share of the beam that is at most taken for the least of those that are evaluated."""

REJECTED_AFTER = 16
"""Bytes after the one where it was expected to be needed, after which a draft counts as rejected."""


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
        self._model: CachedLM[Any] | None = beam.states[0].lm_state.model_cache if self.useful else None
        self.acceptance = Acceptance()
        self._bar, self._spares = 2 * HIGHEST_BAR, 1.0
        self._tokens: list[int] = []  # the tokenizer's own path …
        self._path: list[_Place] = []  # … and where each of its tokens begins
        self._room = 1  # contexts of it that are evaluated ahead: what half of the memory for rows holds
        self._places: dict[ContextNode, int] = {}  # … by context
        self._beside: dict[int, dict[tuple[int, ...], float]] = defaultdict(dict)
        self._reach: dict[ContextNode | None, int] = {}

    @property
    def _ratio(self) -> float:
        """How many contexts a forward is worth to this text: texts that are read at once share them."""
        model = self._model
        return 0.0 if model is None else min(model.cost.ratio / max(1, model.readers), LARGEST)

    def reading(self) -> AbstractContextManager[None]:
        """Within it, the text is being read."""
        return nullcontext() if self._model is None else self._model.reading()

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
        self._places = {place.lm_state.node: i for i, place in enumerate(self._path)}
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

    def too_many_deferred(self, count: int) -> bool:
        """Whether so many deferred candidates, needed at one byte, are too many to ask for.

        Then the beam there is mostly a wrong draft that cannot read the text, to which all deferred ones
        look heavy (5,000 of them, at one byte in 1,500). Else the full step that follows asks for them.
        """
        return not is_worth(min(0.9, 8 / count), self._ratio, 0.25)

    def gained(self, symbols: int) -> None:
        """The last pass has read so many."""
        self.horizon = max(round(min(HORIZON * self._ratio, 1e9)), round(GAIN * symbols), 1)

    async def after_missing(self, lacking: list[MissingContext]) -> None:
        """The contexts of some candidates at a token's end that are probably needed, and what follows."""
        first = lacking[0].needed
        late = Counter(needed for _, place, needed, _ in lacking if place < needed)
        self.acceptance.passed(first)
        shares = sorted(one.share for one in lacking if one.place == one.needed)
        if shares:
            self._bar = min(shares[len(shares) // 10], HIGHEST_BAR)
        drafts = dict[ContextNode, StatefulTokenizedLM]()
        asked = [one for one in lacking if one.needed == first and not self._is_left_out(one, late)]
        ahead = defaultdict[int, list[tuple[float, MissingContext]]](list)
        for one in lacking:
            if one.needed > first and not self._is_left_out(one, late):
                ahead[one.needed].append((self._chance(one), one))
        for needed, group in ahead.items():
            group.sort(key=lambda chance_and_one: -chance_and_one[0])
            for _, one in group[: worth_together([chance for chance, _ in group], self._ratio)]:
                kind = _kind(one)
                self.acceptance.drafted(one.state.lm_state.node, kind, one.share, needed + REJECTED_AFTER)
                asked.append(one)
        for one in asked:
            self._note(one)
        self._spares = len(asked) ** -ALONE if asked else 1.0
        for one in asked:
            drafts[one.state.lm_state.node] = one.state.lm_state
        most = len(drafts) + MOST * self._ratio
        for one in sorted(asked, key=lambda one: -one.share):
            for lm_state in self._after(one):
                drafts[lm_state.node] = lm_state
                if len(drafts) >= most:
                    break
        drafts |= {lm_state.node: lm_state for lm_state in self._path_ahead(first)}
        await _evaluate(list(drafts.values()))

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

    def _is_left_out(self, one: MissingContext, late: Mapping[int, int]) -> bool:
        return one.place < one.needed and self.too_many_deferred(late[one.needed])

    def _chance(self, one: MissingContext) -> float:
        """The probability that a context which a draft has found lacking is needed."""
        prior = 1 / (1 + math.exp(-(one.share + EVEN_CHANCE) / 2))
        return self.acceptance.probability(_kind(one), one.share, prior)

    def _note(self, one: MissingContext) -> None:
        """Remember what left the tokenizer's path where, and with what share of the beam."""
        node: ContextNode | None = one.state.lm_state.node
        suffix: tuple[int, ...] = ()
        while node is not None and len(suffix) < 4:
            at = self._places.get(node)
            if at is not None:
                if suffix:
                    share = one.share if one.place == one.needed else self._bar
                    self._beside[at].setdefault(suffix, share)
                return
            suffix, node = (node.token, *suffix), node.parent

    def _after(self, one: MissingContext) -> Iterator[StatefulTokenizedLM]:
        """What is drafted after a candidate."""
        state, place, needed, share = one
        offset = self.offset(place)
        share = share if place == needed else self._bar
        lm_state = state.lm_state
        age = self._reach.pop(lm_state.parent_node, 0)
        i = self._place(offset) if self._at_boundary(offset) else None
        kind, prior = ("inside", INSIDE) if i is None else ("path", 1.0)
        prior = max(prior * _prior(share, self._bar), math.exp(2 * min(share, 0.0)))
        chance = 1.0 if age else self.acceptance.probability(kind, share, prior)
        tokens = self._tokens_from(one, i) if self._is_worth(chance) else []
        for j, token in enumerate(tokens, 1):
            alive = chance * ((age + 1) / (age + j + 1)) ** TAIL
            if not self._is_worth(alive):
                break
            offset += len(self._trie.spelling_of_id[token])
            lm_state <<= token
            if j == 1:
                until = bisect_left(self._offset, offset) + REJECTED_AFTER
                self.acceptance.drafted(lm_state.node, kind, share, until)
            yield lm_state
            self._reach.pop(lm_state.parent_node, None)
            self._reach[lm_state.node] = age + j
            if i is not None:
                yield from self._branches(lm_state, i + j, share, alive)

    def _tokens_from(self, one: MissingContext, place: int | None) -> list[int]:
        """The tokenizer's path from a place on; elsewhere, what it makes of the next bytes."""
        if place is not None:
            return self._tokens[place:]
        offset = self.offset(one.place)
        before = self._before(-one.place) if one.place < 0 else b""
        ahead = (before + self._text[max(offset, 0) : max(offset + AFRESH, 0)])[:AFRESH]
        return draft_tokens(one.state.lm_state.model, self._trie, ahead)

    def _is_worth(self, needed: float) -> bool:
        return is_worth(needed, self._ratio, self._spares)

    def _branches(
        self, lm_state: StatefulTokenizedLM, i: int, share: float, alive: float
    ) -> Iterator[StatefulTokenizedLM]:
        """What left the tokenizer's path at a place will leave another candidate there too."""
        for suffix, other in self._beside.get(i, {}).items():
            expected = share + other
            chance = alive * self.acceptance.probability("beside", expected, _prior(expected, self._bar))
            if self._is_worth(chance):
                beside = lm_state
                for token in suffix:
                    beside <<= token
                until = bisect_left(self._offset, self._path[i].offset) + 2 * REJECTED_AFTER
                self.acceptance.drafted(beside.node, "beside", expected, until)
                yield beside

    def _begins_symbol(self, offset: int) -> bool:
        return self._offset[bisect_left(self._offset, offset)] == offset

    def _at_boundary(self, offset: int) -> bool:
        i = self._place(offset)
        return i < len(self._path) and self._path[i].offset == offset

    def _place(self, offset: int) -> int:
        """The first place of the tokenizer's path at or after an offset."""
        return bisect_left(self._path, offset, key=attrgetter("offset"))


def _kind(one: MissingContext) -> str:
    return "deferred" if one.place < one.needed else "lacking"


def _prior(log_share: float, log_bar: float) -> float:
    """The probability that one of a share is evaluated, where those lacking had mostly more than a bar."""
    return 1 / (1 + math.exp(min(50.0, log_bar - log_share)))


async def _evaluate(contexts: list[StatefulTokenizedLM]) -> None:
    """A draft that fails (longer than the model can read, say) costs nothing: who needs it asks again."""
    asked = (next_row(context) for context in contexts if not context.known)
    await asyncio.gather(*asked, return_exceptions=True)
