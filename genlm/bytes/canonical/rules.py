"""Canonical tokenizations: those that a model's own tokenizer produces.

**Definition.** A sequence of tokens is *canonical* if it is what the tokenizer makes of some text, and so of
the text it spells: `encode(decode(tokens)) == tokens`. It is *open* if some canonical sequence begins
with it, as far as pre-tokenizers and merges can tell. Added tokens (BOS, EOS, chat markers) divide a text
into stretches that are tokenized apart.

**Why open, and not canonical so far.** `\\s+(?!\\S)` leaves the last of several spaces to the next word, so
`two spaces · space` can be canonical before a word, and is not at the end of a text. A beam that kept
canonical sequences only would lose the first.

**Pairs do not quite suffice.** Inside a pre-token they do (`merges.py`). But where a pre-token ends may
depend on more than two tokens: `'` and `s` may follow each other after `!`, and not after a letter. So
what a token may follow is a *state*: the last token, how the pre-tokenizer stands, and what else the
text that follows must not complete. States are small values; most tokens lead to one of few.

**What is exact.** Every open sequence is allowed, and an added token (so the end of the text) is allowed
after canonical stretches only. A sequence that is allowed may turn out to have no continuation in one
case: if every way to go on needs bytes that the vocabulary cannot spell next to its last token.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genlm.bytes.canonical.automaton import DEAD
from genlm.bytes.canonical.composed import composed
from genlm.bytes.canonical.merges import MergeTable
from genlm.bytes.canonical.reading import describe, read_tokenizer, refuse
from genlm.bytes.canonical.scanner import Scanner
from genlm.bytes.canonical.spelled import without
from genlm.bytes.errors import bad_value
from genlm.bytes.trie.arrays import TrieArrays
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["CanonicalRules", "CanonicalState", "canonical_rules"]

_kept: weakref.WeakKeyDictionary[TrieArrays, _Kept] = weakref.WeakKeyDictionary()
_PAIR_ROWS_KEPT = 4096  # packed bits: 6 kB each for 49,152 tokens
_MASK_BYTES = 64 << 20  # a byte for each token; texts are read over the same places several times
_STEPS_KEPT = 1 << 16
_NONE = -1


class _Kept(NamedTuple):
    tokenizer: Callable[[], Any]
    token_ids: Int[np.ndarray, " tokens"]
    rules: CanonicalRules


class CanonicalState(NamedTuple):
    """What decides which tokens may come next. Only `CanonicalRules` makes and reads these.

    Attributes:
        previous: the last token, by its place in the trie's order; -1 at the start of a stretch.
        cuts: where the pre-tokenizer stands.
        texts: what else restricts the text: what of an added token has been spelled; what a combining
            character would be composed with.
    """

    previous: int
    cuts: int
    texts: tuple[int, ...]


def canonical_rules(llm: Any, trie: TokenByteTrie) -> CanonicalRules:
    """The rules of a model's tokenizer over a trie's tokens, made once for all tries of a vocabulary.

    Args:
        llm: the model; its `tokenizer` must be one of the `tokenizers` library, or wrap one.

    Raises:
        UnsupportedModelError: what the tokenizer does cannot be followed; the message says why.

    Examples:
        >>> from types import SimpleNamespace
        >>> from genlm.backend.tokenization import Token
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        >>> trie = TokenByteTrie([Token(0, b"a"), Token(1, b"b"), Token(2, b"ab")], device="cpu")
        >>> rules = canonical_rules(SimpleNamespace(tokenizer=tokenizer), trie)
        >>> trie.token_ids.tolist()
        [0, 2, 1]
        >>> rules.allowed(rules.read([0]))  # `a` may be followed by `a` or `ab`, not by `b`
        array([ True,  True, False])
    """
    tokenizer = getattr(llm, "tokenizer", None)
    known = _kept.get(trie.arrays)  # which tries of the same spellings share
    if (
        known is None
        or known.tokenizer() is not tokenizer
        or not np.array_equal(known.token_ids, trie.token_ids)
    ):
        known = _Kept(_reference(tokenizer), trie.token_ids, CanonicalRules(llm, trie))
        _kept[trie.arrays] = known
    return known.rules


def _reference(tokenizer: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(tokenizer)
    except TypeError:
        return lambda: tokenizer


class CanonicalRules:
    """Which tokens may follow which in a canonical tokenization. See `canonical_rules`.

    Attributes:
        start: the state before any text.
    """

    def __init__(self, llm: Any, trie: TokenByteTrie) -> None:
        spellings = [bytes(trie.decode[i]) for i in trie.arrays.order.tolist()]
        ids = trie.token_ids.tolist()
        reading = read_tokenizer(describe(llm), ids, spellings)
        self._place = {token_id: place for place, token_id in enumerate(ids)}
        self._pairs = MergeTable(reading.symbols, reading.own, reading.merges)
        if self._pairs.falling:
            shown = spellings[self._pairs.falling[0]]
            refuse(f"its merges are out of order: making {shown!r} takes a merge after one of higher rank")
        self._cuts = Scanner(reading.rules, reading.scanned)
        texts = [without(tuple(sorted(set(reading.added.values()))))]
        if reading.composed:
            texts.append(composed())
        self._texts = [Scanner(rules, spellings, gaps=False) for rules in texts]
        self._added = np.zeros(len(ids), bool)
        self._added[list(reading.added)] = True
        self._packed = lru_cache(_PAIR_ROWS_KEPT)(self._pack)
        self._masks = lru_cache(_MASK_BYTES // len(ids))(self._mask)
        self._steps = lru_cache(_STEPS_KEPT)(self._step)
        self._bos = getattr(getattr(llm, "tokenizer", None), "bos_token_id", None)
        self.start = CanonicalState(_NONE, reading.rules.start, tuple(text.start for text in texts))
        self._later = self.start._replace(cuts=reading.later)

    def allowed(self, state: CanonicalState) -> Bool[np.ndarray, " tokens"]:
        """The tokens that leave the sequence open, in the trie's order (that of `trie.token_ids`).

        Added tokens are allowed where the text may end. The array is shared, and cannot be written to.
        """
        return self._masks(state)

    def _mask(self, state: CanonicalState) -> Bool[np.ndarray, " tokens"]:
        cuts = self._cuts.rows(state.cuts)
        mask = self._may_touch(state.previous)
        mask &= cuts.may_open
        if state.previous != _NONE:
            mask |= cuts.may_conflict & self._pairs.reachable
        for text, at in zip(self._texts, state.texts, strict=True):
            mask &= text.rows(at).may_open
        mask[self._added] = self._cuts.automaton.ends(state.cuts)
        mask.flags.writeable = False
        return mask

    def after(self, state: CanonicalState, token_id: int) -> CanonicalState | None:
        """The state after one more token, or None if the sequence is no longer open.

        Raises:
            ValueError: the token is not in the vocabulary.
        """
        return self._steps(state, token_id)

    def _step(self, state: CanonicalState, token_id: int) -> CanonicalState | None:
        place = self._place.get(token_id)
        if place is None:
            raise bad_value("token_id", token_id, "must be a token of the trie")
        if self._added[place]:
            if not self._cuts.automaton.ends(state.cuts):
                return None
            return state if state == self.start and token_id == self._bos else self._later
        if not self._pairs.reachable[place]:
            return None
        rows = self._cuts.rows(state.cuts)
        row = rows.open if self._touches(state.previous, place) else rows.conflict
        cuts = int(row[place])
        texts = tuple(
            int(text.rows(at).open[place]) for text, at in zip(self._texts, state.texts, strict=True)
        )
        return None if DEAD in (cuts, *texts) else CanonicalState(place, cuts, texts)

    def read(self, token_ids: Iterable[int], state: CanonicalState | None = None) -> CanonicalState | None:
        """The state after some tokens, from the start or another state, or None if they are not open."""
        state = self.start if state is None else state
        for token_id in token_ids:
            if state is None:
                return None
            state = self.after(state, token_id)
        return state

    def read_closed(self, token_ids: Sequence[int]) -> CanonicalState | None:
        """The state after a context of tokens that were chosen already, or None if they are not open.

        No token reaches over an added one, so what stands before the last of them need not be cut as a
        tokenizer would cut it: a message that spells special tokens out is cut otherwise, on purpose.
        """
        state = self.read(token_ids)
        places = [self._place.get(token_id, _NONE) for token_id in token_ids]
        last = max(
            (n for n, place in enumerate(places) if place != _NONE and self._added[place]), default=_NONE
        )
        if state is not None or last == _NONE:
            return state
        return self.read(token_ids[last + 1 :], self._later)

    def complete(self, state: CanonicalState) -> bool:
        """Whether the tokens read are canonical as they stand, if the text ends here."""
        return self._cuts.automaton.ends(state.cuts)

    def _touches(self, previous: int, place: int) -> bool:
        """Whether merging leaves the border between two tokens alone."""
        if previous == _NONE:
            return True
        return bool(self._packed(previous)[place >> 3] >> (7 - (place & 7)) & 1)

    def _may_touch(self, previous: int) -> Bool[np.ndarray, " tokens"]:
        if previous == _NONE:
            return self._pairs.reachable.copy()
        return np.unpackbits(self._packed(previous), count=len(self._added)).view(bool)

    def _pack(self, previous: int) -> UInt8[np.ndarray, " packed"]:
        return np.packbits(self._pairs.follow(previous))
