"""What drawing tokens needs to know of a vocabulary: spellings, and which tokens keep a text UTF-8."""

from __future__ import annotations

import weakref

import numpy as np
from jaxtyping import Bool, Int, Int8

from genlm.bytes.trie import TokenByteTrie
from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.util import utf8

__all__ = ["TokenTable", "token_table"]

_tables: weakref.WeakKeyDictionary[TokenByteTrie, TokenTable] = weakref.WeakKeyDictionary()


class TokenTable:
    """A vocabulary by token id."""

    def __init__(self, trie: TokenByteTrie) -> None:
        self._arrays = trie.arrays
        self._token_ids = trie.token_ids
        self.spelling = trie.spelling_of_id
        self.ends = trie.eos_token_id_set
        self._after: dict[int, Int8[np.ndarray, " ids"]] = {}
        self._allowed: dict[tuple[int | None, int], Bool[np.ndarray, " logits"]] = {}

    def allowed(self, state: int | None, logits: int) -> Bool[np.ndarray, " logits"]:
        """Which ids can be drawn, `[logits]`: those that spell something, and keep the text UTF-8.

        Args:
            state: where in a character the text is (`utf8`); None allows every spelling.
            logits: how many logits the model has; ids without a token are not allowed.
        """
        found = self._allowed.get((state, logits))
        if found is None:
            found = np.zeros(logits, np.bool_)
            for token_id, spelling in self.spelling.items():
                if token_id < logits and spelling:
                    found[token_id] = state is None or self.fits(token_id, state)
            self._allowed[state, logits] = found
        return found

    def fits(self, token_id: int, state: int, skip: int = 0) -> bool:
        """Whether a token's bytes, the first `skip` left out, can follow; an end only between characters."""
        if token_id in self.ends:
            return state == utf8.START
        spelling = self.spelling[token_id]
        if state == utf8.START and spelling.isascii():
            return True
        return utf8.advance(state, spelling[skip:]) != utf8.BROKEN

    def beginning_with(self, prefix: bytes) -> Int[np.ndarray, " tokens"]:
        """The ids of the tokens that begin with some bytes; of all that spell something, for none."""
        node = ROOT
        for byte in prefix:
            node = self._arrays.child(node, byte)
            if node < 0:
                return self._token_ids[:0]
        return self.below(node)

    def below(self, node: int) -> Int[np.ndarray, " tokens"]:
        """The ids of the tokens whose path in the trie leads through a node; empty ones left out."""
        ids = self._token_ids[self._arrays.lo[node] : self._arrays.hi[node]]
        if node == ROOT:
            ids = np.array([i for i in ids.tolist() if self.spelling[i]], np.int64)
        return ids


def token_table(trie: TokenByteTrie) -> TokenTable:
    """The table of a trie's vocabulary, made once."""
    table = _tables.get(trie)
    if table is None:
        table = _tables[trie] = TokenTable(trie)
    return table
