"""Foresight: what need not be evaluated of a text that is known, where only canonical tokenizations count.

A text that is scored is known to its end, and its figures are wanted at some places only: where words begin
and end, say. A hypothesis that no canonical tokenization reads on to the next such place has probability 0
there. Most of those that are open inside a word are of this kind: of 40 English sentences' words, a sixth of
the contexts.

What the others weigh does not change. Whoever reads byte by byte (`<<`) knows nothing of this, nor does
`prefill`, which gives the same beam.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from typing import TYPE_CHECKING, TypeVar

from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM
from genlm.bytes.byte_lm.symbols import offsets, spelled
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.tree import ContextNode

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState

__all__ = ["Foresight"]

_Beam = TypeVar("_Beam", bound="ByteBeamState")


class Foresight:
    """What is known of a text that a beam reads.

    Args:
        beam: the beam before it, of canonical tokenizations.
        symbols: the text.
        wanted: the indices of symbols before which the beam's weight is wanted.
    """

    def __init__(self, beam: ByteBeamState, symbols: list[int | bytes], wanted: Collection[int]) -> None:
        self._symbols, self._offsets, self._wanted = symbols, offsets(symbols), sorted(wanted)
        self._path = self._tokenizers_path(beam.states[0])

    def _tokenizers_path(self, state: LazyTrieState) -> dict[ContextNode, int]:
        """The contexts of the tokenizer's own tokenization, and where the token after each ends, in bytes.

        None of them if it is not canonical, or does not spell the text: then nothing may be.
        """
        found, lm_state, canonical = dict[ContextNode, int](), state.lm_state, state.canonical
        end, trie = -len(state.partial_bytes), state.trie.trie
        if not isinstance(lm_state, StatefulTokenizedLM):
            return found  # a client's own
        for token in draft_tokens(lm_state.model, trie, state.partial_bytes + spelled(self._symbols)):
            end += len(trie.spelling_of_id[token])
            found[lm_state.node] = end
            canonical = canonical and canonical.after(token)
            lm_state = lm_state << token
        found[lm_state.node] = end + 1
        return found if canonical and end == self._offsets[-1] else {}

    def before(self, beam: _Beam, index: int) -> _Beam:
        """The beam before the symbol of an index, with the symbols up to the next wanted place.

        Only while a hypothesis follows the tokenizer's path: so some can read them.
        """
        offset = self._offsets[index]
        if not any(self._path.get(state.lm_state.node, -1) > offset for state in beam.states):
            return beam
        at = bisect_right(self._wanted, index)
        end = self._wanted[at] if at < len(self._wanted) else len(self._symbols)
        return beam.with_coming(tuple(self._symbols[index:end]))
