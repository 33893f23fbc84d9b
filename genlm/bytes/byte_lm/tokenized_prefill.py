"""Reading a context along one tokenization, where the whole beam is not worth its price.

Far from the end of a long context, other tokenizations than the tokenizer's own hardly change what comes
next; near the end they decide it. So all but the end can be read along one path, in one forward. What is
given up is the weight of all other tokenizations of that part: `logZ` is lower by their share, and the beam's
account of what was dropped (`bounds`, `slack`) includes it.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeVar

from genlm.bytes.byte_lm.lm_state import next_row
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie.modes import TrieMode

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState

__all__ = ["KEPT_OPEN", "METHODS", "read_path"]

METHODS = ("beam", "tokenize", "heal")

KEPT_OPEN = 3
"""Tokens at the end that `"tokenize"` leaves to the beam, and more back to the start of a word: later bytes
change how a tokenizer cuts the word they belong to, and no word before it."""

_Beam = TypeVar("_Beam", bound="ByteBeamState")


async def read_path(beam: _Beam, text: bytes, method: str) -> tuple[_Beam, int]:
    """Read the beginning of a text along the tokenizer's path.

    Args:
        beam: its heaviest candidate is the one to go on; the others are dropped.
        text: the bytes.
        method: `"tokenize"` stops before the last word, `"heal"` inside the last token.

    Returns:
        A beam of one candidate, and the number of bytes of `text` it has read. The beam as it is and 0
        where no such path exists, the model gives it no probability, it takes bytes for an atomic unit that
        are none or for an end that were read as part of none, or it is not canonical though only canonical
        tokenizations count.
    """
    state = beam.states[0]
    trie = state.trie.trie
    units = trie.arrays.unit_node
    if state.symbols and isinstance(state.symbols[0], bytes):  # a unit is a token: go on from its end
        state = next(iter(state.extend_all()), state)
    partial = state.partial_bytes
    tokens = draft_tokens(getattr(state.lm_state, "model", None), trie, partial + text)
    spelled = [trie.spelling_of_id[token] for token in tokens]
    if b"".join(spelled) != partial + text or not tokens:
        return beam, 0
    kept = len(tokens) - 1 if method == "heal" else _last_word(spelled)
    read = sum(map(len, spelled[:kept])) - len(partial)
    if kept == 0 or read < 0 or not units.keys().isdisjoint(spelled[:kept]):
        return beam, 0
    if state.read_in is TrieMode.WITH_EOS and partial and not trie.eos_token_id_set.isdisjoint(tokens[:kept]):
        return beam, 0  # bytes that were read as no part of an end
    canonical = state.canonical
    if canonical is not None and (canonical := canonical.after_all(tokens[:kept])) is None:
        return beam, 0
    path = [state.lm_state]
    for token in tokens:
        path.append(path[-1] << token)
    first = await next_row(path[0])
    # Ids that the model was not built for have probability zero, and it must not be asked what follows them.
    known = next((i for i, token in enumerate(tokens) if token >= len(first)), len(tokens))
    if known < kept:
        return beam, 0
    # To the end, if only those contexts are kept: the beam that reads the rest will need them next. Of
    # those on the way there, one number each is needed.
    ahead = path[kept : known + 1] if state.batches else path[kept : kept + 1]
    scores = [path[i].logp_of(tokens[i]) for i in range(kept)]
    found = await asyncio.gather(*scores, *map(next_row, ahead))
    weight = state.committed + sum(float(score) for score in found[:kept])
    if weight == -math.inf:
        return beam, 0
    end: LazyTrieState | None
    end = LazyTrieState.at_boundary(path[kept], state.trie, weight, state.mode, canonical)
    await end.materialize()
    if method == "heal":
        read = len(text)
        for byte in spelled[-1]:
            end = end << byte if end is not None else None
        if end is None:
            return beam, 0
    # All that the beam held before bounds what the other tokenizations can contribute.
    others = [state.weight for state in beam.states] + beam.deferred.weights
    dropped = beam.dropped.more(others, weight, expected=-math.inf)
    return beam.restarted(end, beam.data.history.length + read, dropped), read


LONGEST_WORD = 32
"""Tokens: where no word begins within so many of the end (Chinese, a number of a thousand digits), the last
`KEPT_OPEN` alone are left to the beam."""


def _last_word(spelled: list[bytes]) -> int:
    """The number of tokens before the last word: `KEPT_OPEN` from the end, and back to a space."""
    last = max(0, len(spelled) - KEPT_OPEN)
    starts = range(last, max(0, last - LONGEST_WORD), -1)
    return next((at for at in starts if spelled[at][:1].isspace()), last if last > LONGEST_WORD else 0)
