"""The tokenizations behind a probability, for those who audit them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.byte_lm.token_path import own_tokens
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.util import logsumexp

__all__ = ["Tokenization", "tokenizations_of"]


@dataclass(frozen=True)
class Tokenization:
    """One candidate of a beam: a way to cut the bytes read so far.

    Attributes:
        token_ids: the tokens committed, without those of the initial context.
        byte_strings: what each of them spells.
        partial: the bytes read of the next token.
        posterior: its share of the beam; the candidates' shares sum to 1.
        canonical: whether the model's own tokenizer cuts these bytes so: its tokens begin with `token_ids`
            and go on with `partial`. None for a model without a tokenizer.
    """

    token_ids: tuple[int, ...]
    byte_strings: tuple[bytes, ...]
    partial: bytes
    posterior: float
    canonical: bool | None


def tokenizations_of(
    states: Sequence[LazyTrieState], begun: int, most: int | None = None
) -> list[Tokenization]:
    """The candidates as tokenizations, the likeliest first.

    Args:
        states: the candidates, in descending order of weight.
        begun: tokens of the initial context.
        most: how many of them; None for all. Posteriors are shares of all.
    """
    total = logsumexp([state.weight for state in states])
    found = []
    for state in states[:most]:
        trie = state.trie.trie
        ids = tuple(getattr(state.lm_state, "context", ())[begun:])  # of one's own making, it may not say
        strings = tuple(trie.spelling_of_id.get(i, b"?") for i in ids)
        partial = state.partial_bytes
        posterior = math.exp(state.weight - total) if total > -math.inf else 0.0
        canonical = _is_canonical(state, ids, b"".join(strings) + partial, partial)
        found.append(Tokenization(ids, strings, partial, posterior, canonical))
    return found


def _is_canonical(state: LazyTrieState, ids: tuple[int, ...], text: bytes, partial: bytes) -> bool | None:
    model, trie = getattr(state.lm_state, "model", None), state.trie.trie
    if not text_encoder(model, trie).exists:
        return None
    tokens = own_tokens(model, trie, text)
    if tokens is None:
        return False
    rest = b"".join(trie.spelling_of_id[token] for token in tokens[len(ids) :])
    return tuple(tokens[: len(ids)]) == ids and rest == partial
