"""One member of an ensemble: what it says, and how it reads a text.

A member that cannot have written what was read is dead, and stands as None.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

from genlm.bytes.byte_lm.beam import ByteBeamState
from genlm.bytes.byte_lm.lm_state import StatefulByteLM
from genlm.bytes.byte_lm.prefill import Listener, read_context
from genlm.bytes.errors import EmptyBeamError, ImpossibleByteError
from genlm.bytes.trie.modes import TrieMode
from genlm.bytes.util import LazyByteProbs

__all__ = ["Member", "Reader", "distribution", "trace"]

Member = StatefulByteLM | None

Reader = Callable[[Any, list[int], TrieMode, Listener], Awaitable[Any]]
"""How a beam reads: beam, symbols, how ends are read, who hears of each symbol; the beam after them."""


async def distribution(member: Member, ahead: bool = True) -> LazyByteProbs | None:
    """What a member says comes next; None if nothing can.

    Args:
        ahead: somebody may read on from here; see `StatefulByteLM.peek`.
    """
    if member is None:
        return None
    try:
        return await (member.logp_next() if ahead else member.peek())
    except EmptyBeamError:
        return None


async def _whole(beam: Any, symbols: list[int], mode: TrieMode, listener: Listener) -> Any:
    return await read_context(beam, symbols, mode=mode, listener=listener)


async def trace(
    member: Member, text: bytes, mode: TrieMode, read: Reader | None = None
) -> list[tuple[Member, float]]:
    """A member before each byte of a text and after the last, with its log-probability of the bytes so far.

    It ends where the member cannot go on.
    """
    if member is None:
        return []
    found = list[tuple[Member, float]]()
    total = 0.0
    if isinstance(member, ByteBeamState):

        def note(at: int, before: Any, after: Any) -> None:
            nonlocal total
            found.append((before, total))
            total += after.logZ - before.logZ

        try:
            last: Any = await (read or _whole)(member, list(text), mode, note)
        except ImpossibleByteError:
            return found or [(member, 0.0)]
        return [*found, (last, total)]
    state: Any = member
    for byte in text:
        state = state.prune()
        found.append((state, total))
        row = await distribution(state, ahead=False)
        if row is None or row[byte] == -math.inf:
            return found
        total += row[byte]
        state = await (state << byte)
    return [*found, (state, total)]
