"""What bytes that are drawn one by one cost, and the likeliest alternatives to something drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from genlm.bytes.generate.completion import Alternative, Drawn
from genlm.bytes.options import Options
from genlm.bytes.util.symbols import EOS, EOT

__all__ = ["ByteRecord", "alternatives", "likeliest"]


class ByteRecord:
    """The new bytes of one completion: the log-probability of each and, if asked for, alternatives."""

    def __init__(self, options: Options) -> None:
        self._asked = options.by_byte_logprobs
        self._count = options.top_logprobs
        self._logps: list[float] = [0.0]  # of the first 0, 1, 2 … new bytes
        self._top: list[tuple[Alternative, ...]] = []
        self._end: float | None = None

    def add(self, logps: Float[np.ndarray, " symbols"], units: Sequence[bytes], index: int) -> bytes | None:
        """Note a draw, and what it adds; None for the end.

        Args:
            logps: natural log-probabilities: of bytes, end of token, end; of multi-byte atomic units.
            units: those.
            index: what was drawn.
        """
        logp = self._logps[-1] + float(logps[index])
        if index == EOS:
            self._end = float(logps[index])
            return None
        text = units[index - 258] if index > EOS else bytes([index])
        # A unit's bytes come together: whoever keeps some of them has drawn all.
        self._logps += [logp] * len(text)
        if self._count is not None:
            self._top += [alternatives(logps, self._count, units), *[()] * (len(text) - 1)]
        return text

    def logprob(self, length: int) -> float:
        """Natural log-probability of the first `length` bytes; of all, with the end's."""
        whole = length == len(self._logps) - 1
        return self._logps[length] + (self._end or 0.0 if whole else 0.0)

    @property
    def end_logprob(self) -> float | None:
        """Natural log-probability of the end, where it was drawn and this is asked for."""
        return self._end if self._asked else None

    def drawn(self, begin: int, end: int) -> Drawn:
        """What is known of the new bytes from `begin` to `end`."""
        if not self._asked:
            return Drawn()
        top = None if self._count is None else tuple(self._top[begin:end])
        return Drawn(logprobs=np.diff(self._logps[begin : end + 1]), top=top)

    def copy(self) -> ByteRecord:
        """Another that goes on from here."""
        other = ByteRecord.__new__(ByteRecord)
        vars(other).update(vars(self) | {"_logps": self._logps[:], "_top": self._top[:]})
        return other


def likeliest(logps: Float[np.ndarray, " n"], count: int) -> list[int]:
    """Where the `count` greatest stand, in descending order, of equals the first; none of minus infinity."""
    few = np.arange(len(logps))
    if count < len(logps):
        few = np.flatnonzero(logps >= np.partition(logps, -count)[-count])
    ordered = few[np.argsort(-logps[few], kind="stable")][:count]
    return [i for i in ordered.tolist() if logps[i] > -np.inf]


def alternatives(
    logps: Float[np.ndarray, " symbols"], count: int, units: Sequence[bytes] = ()
) -> tuple[Alternative, ...]:
    """The likeliest symbols of a distribution over bytes, end of token, end, and atomic units.

    Examples:
        >>> row = np.full(258, -np.inf)
        >>> row[[97, 98, 257]] = np.log([0.25, 0.25, 0.5])
        >>> [(found.bytes, round(float(np.exp(found.logprob)), 3)) for found in alternatives(row, 2)]
        [(b'', 0.5), (b'a', 0.25)]
    """
    logps = np.array(logps, np.float64)
    logps[EOT] = -np.inf

    def text(index: int) -> bytes:
        return units[index - 258] if index > EOS else b"" if index == EOS else bytes([index])

    return tuple(Alternative(text(i), float(logps[i])) for i in likeliest(logps, count))
