"""Drawing bytes one by one from the beam.

Temperature and truncation act on the distribution of the next byte, after what a mask, or UTF-8, forbids
has been taken out. Each byte's distribution is summed over the beam's tokenizations, so nothing is said
about tokens, and no boundary between them matters.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from genlm.bytes.byte_lm.context_limits import context_is_full
from genlm.bytes.errors import EmptyBeamError
from genlm.bytes.generate.completion import Drawn, FinishReason
from genlm.bytes.generate.permitted import Permitted
from genlm.bytes.generate.records import ByteRecord
from genlm.bytes.generate.sampling import process, sample, warpers
from genlm.bytes.options import Options

__all__ = ["ByteDecoder", "Step"]


class Step(NamedTuple):
    """Some new bytes; or none, and the reason why there are no more."""

    text: bytes
    end: FinishReason | None = None


class ByteDecoder:
    """One completion, a byte at a time.

    Args:
        beam: the beam after the prompt, or anything with `logp_next`, `prune` and `<<` like it.
        prompt: the bytes it has read: an unfinished character there decides how the next byte may go on.
    """

    tokens: int | None = None
    prompt_token_ids: tuple[int, ...] | None = None

    def __init__(self, beam: Any, prompt: bytes, options: Options, rng: np.random.Generator) -> None:
        self._beam = beam
        self._unread: int | bytes | None = None
        self._warpers = warpers(options)
        self._permitted = Permitted.of(options, prompt)
        self._rng = None if options.greedy else rng
        self._record = ByteRecord(options)

    async def step(self) -> Step:
        """The next byte, or multi-byte atomic unit."""
        beam = self._beam
        if self._unread is not None:
            beam = self._beam = await (beam.prune() << self._unread)
            self._unread = None
        if context_is_full(beam):
            return Step(b"", "length")
        try:
            found = await beam.logp_next()
        except EmptyBeamError:
            return Step(b"", "dead_end")
        units = list(found.units)
        logps = np.concatenate([found.ps, list(found.units.values())]) if units else found.ps
        permitted = self._permitted.symbols(units)
        if self._permitted.only_the_end(permitted):
            return Step(b"", "stop")
        logps_left = np.where(permitted, logps, -np.inf)
        if not logps_left.max() > -math.inf:
            return Step(b"", "dead_end")
        return self._take(sample(process(self._warpers, logps_left), self._rng), logps, units)

    async def logprob(self, length: int) -> float:
        """Natural log-probability of the first `length` new bytes."""
        return self._record.logprob(length)

    def drawn(self, begin: int, end: int, last: bool) -> Drawn:
        """What is known of the new bytes from `begin` to `end`."""
        return self._record.drawn(begin, end)

    @property
    def end_logprob(self) -> float | None:
        """Natural log-probability of the end, where it was drawn and this is asked for."""
        return self._record.end_logprob

    def _take(self, index: int, logps: Float[np.ndarray, " symbols"], units: list[bytes]) -> Step:
        text = self._record.add(logps, units, index)
        if text is None:
            return Step(b"", "eos")
        self._unread = text if index >= 258 else index
        self._permitted = self._permitted.after(text)
        return Step(text)
