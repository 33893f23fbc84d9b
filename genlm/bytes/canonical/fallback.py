"""Pieces and bytes of a SentencePiece vocabulary: where each may stand.

There is no pre-tokenizer: a text is one string of characters, a space being written `▁`, and a mark `▁`
may be put before it. A character that is a piece is that piece at first, and any other is the bytes of its
UTF-8, one token each. So byte tokens come in whole characters, and of no character that is a piece.

Tokens are read as the bytes they stand for if they are byte tokens, and else as one of two bytes that
UTF-8 has no use for: `MARKED` if the piece begins with `▁`, `PIECE` if not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from genlm.bytes.canonical.automaton import ByteRules
from genlm.bytes.canonical.cutter import Gap
from genlm.bytes.util import utf8

__all__ = ["MARKED", "PIECE", "PiecesAndBytes"]

PIECE, MARKED = 0xFE, 0xFF
_START = "start"


class PiecesAndBytes(ByteRules):
    """The automaton. Its states are the start and the bytes of an unfinished character.

    Args:
        pieces: the characters that are pieces; a space counts as one.
        marked: whether a text begins with a mark.
    """

    def __init__(self, pieces: Iterable[str], marked: bool) -> None:
        self._pieces = frozenset(pieces)
        self.start: Hashable = _START if marked else b""

    def read(self, state: Hashable, gap: Gap) -> Sequence[Hashable | None]:
        after: list[Hashable | None] = [None] * 256
        if gap is Gap.CONFLICT:  # nothing ever cuts here
            return after
        if state == _START:
            after[MARKED] = b""
            return after
        assert isinstance(state, bytes)
        if not state:
            after[PIECE] = after[MARKED] = b""
        for b in range(0xFE):
            spelled = state + bytes([b])
            at = utf8.advance(utf8.START, spelled)
            if at == utf8.START:
                after[b] = None if spelled.decode() in self._pieces else b""
            elif at != utf8.BROKEN:
                after[b] = spelled
        return after

    def ends(self, state: Hashable) -> bool:
        return state in (_START, b"")
