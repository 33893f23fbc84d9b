"""What `next` gives back: a distribution over bytes that can also be asked for characters."""

from __future__ import annotations

from typing import Any

from genlm.bytes.generate.characters import next_characters
from genlm.bytes.util import Chart, LazyByteProbs
from genlm.bytes.util.numbers import whole_number

__all__ = ["AsyncNextBytes"]


class AsyncNextBytes(LazyByteProbs):
    """Natural log-probabilities of the next byte, of the end, and on demand of the next character.

    Attributes:
        beam: the beam after the context.
        slack: how far off they may be in total variation, as expected and at most; see `LazyByteProbs`.
    """

    def __init__(self, logp: LazyByteProbs, beam: Any, text: bytes) -> None:
        super().__init__(logp.ps, logp.log_space, units=logp.units, slack=logp.slack)
        self.beam = beam
        self._text = text

    async def chars(self, top: int | None = 20) -> Chart:
        """Natural log-probabilities of the next whole character, likeliest first; `"EOS"` is the end.

        Args:
            top: how many; None for all. Characters of several bytes cost a step of the beam for each of
                their beginnings that is looked at.
        """
        return await next_characters(self.beam, self, self._text, whole_number("top", top, 1))
