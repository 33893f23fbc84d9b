"""A distribution over next bytes: 258 numbers, one a byte, one for the end of the token, one for the end of
the sequence.

They stay the array that they were computed in; the dictionary of 258 entries, a `Chart`, is made for those
who ask. A search asks for single bytes only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genlm.bytes.errors import bad_asserted, bad_type, bad_value
from genlm.bytes.util.chart import Chart
from genlm.bytes.util.maths import as_array
from genlm.bytes.util.symbols import EOS, EOT

__all__ = ["LazyByteProbs"]

_SIZE = 258
_INTEGERS = (int, np.integer)

_BYTE_KEYS = (*range(256), None, EOS)
_PRETTY_KEYS = (*(bytes([b]) for b in range(256)), "EOT", "EOS")


class LazyByteProbs:
    """A distribution over next bytes, by byte. The dictionary of all of them is made on demand.

    Indexed by a byte 0..255, by None for the end of the token (256 is the same), by 257 for the end of
    the sequence, and by the `bytes` of an atomic unit.

    Args:
        ps: 258 numbers: an array, sequence or tensor.
        log_space: whether they are natural logarithms of probabilities.
        units: the probabilities (or their logarithms, like `ps`) of the units that are read in one step
            although they are several bytes.
        slack: how far off the distribution may be in total variation: as expected, and at most.

    Attributes:
        ps: the numbers as they were given: a list stays that list.
        log_space: as given.
        units: as given, or an empty dictionary.
        slack: as given (a beam gives a `Slack`), or None where nothing is known of it.

    Raises:
        ValueError: the number of numbers is not 258 (an `AssertionError`, too); an empty unit.
        TypeError: something other than numbers; a unit that is not `bytes`.

    Examples:
        >>> ps = LazyByteProbs([0.75 if b == ord("a") else 0.0 for b in range(257)] + [0.25], log_space=False)
        >>> ps
        <LazyByteProbs p: b'a' 0.75, EOS 0.25>
        >>> ps[97], ps[None], ps[257]
        (0.75, 0.0, 0.25)
        >>> ps.pretty().top(2)
        {b'a': 0.75, 'EOS': 0.25}
    """

    def __init__(
        self,
        ps: np.ndarray | Sequence[float] | Any,
        log_space: bool = True,
        *,
        units: Mapping[bytes, float] | None = None,
        slack: tuple[float, float] | None = None,
    ) -> None:
        self.slack = slack
        self.ps: Any = ps
        self._array = as_array("ps", ps)
        if self._array.shape != (_SIZE,):
            rule = f"must be ({_SIZE},): 256 bytes, the end of the token, the end of the sequence"
            raise bad_asserted("ps.shape", self._array.shape, rule)
        self.log_space = log_space
        self.units: dict[bytes, float] = _checked(units) if units else {}

    def __getitem__(self, b: int | bytes | None) -> float:
        if b is None:
            return float(self._array[EOT])
        if isinstance(b, _INTEGERS) and not isinstance(b, bool) and 0 <= b < _SIZE:
            return float(self._array[b])
        if isinstance(b, bytes) and b in self.units:
            return self.units[b]
        if isinstance(b, bytes):
            known = f"an atomic unit, one of {sorted(self.units)}" if self.units else "an integer"
            raise bad_value("b", b, f"must be {known}", "Ask for a single byte by its number: p[97].")
        raise bad_value("b", b, "must be a byte 0..255, None or 256 (end of token) or 257 (end of sequence)")

    def materialize(self) -> Chart:
        """All of them: keys 0..255, None (end of token), 257 (end of sequence), then the atomic units.

        A key that is missing has probability 0: `-inf` in log space.
        """
        chart = Chart(self._zero, zip(_BYTE_KEYS, self._array.tolist(), strict=True))
        chart.update(self.units)
        return chart

    def pretty(self) -> Chart:
        """All of them under keys for people: `b'a'`, `'EOT'`, `'EOS'`, then the atomic units.

        An atomic unit of a single byte has the key `"unit b'a'"`, since `b'a'` is the byte's.
        """
        chart = Chart(self._zero, zip(_PRETTY_KEYS, self._array.tolist(), strict=True))
        chart.update((u if len(u) > 1 else f"unit {u!r}", p) for u, p in self.units.items())
        return chart

    @property
    def _zero(self) -> float:
        return -math.inf if self.log_space else 0

    def __repr__(self) -> str:
        top = self.pretty().trim().top(5).items()
        shown = ", ".join(f"{k if isinstance(k, str) else repr(k)} {p:.4g}" for k, p in top)
        return f"<LazyByteProbs {'logp' if self.log_space else 'p'}: {shown or 'nothing possible'}>"


def _checked(units: Mapping[bytes, float]) -> dict[bytes, float]:
    if not isinstance(units, Mapping):
        raise bad_type("units", units, "must be a mapping from bytes to numbers")
    for unit in units:
        if not isinstance(unit, bytes):
            raise bad_type("units", unit, "the key of a unit must be bytes")
        if not unit:
            raise bad_value("units", units, "a unit must not be empty")
    return {unit: float(p) for unit, p in units.items()}
