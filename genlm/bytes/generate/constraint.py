"""Masks: which bytes may come next, decided by code of the user's.

A mask is either of

- a callable from the new bytes so far to what may come next;
- an object with `allowed()`, what may come next, and `advance(symbol)`, the mask after one more symbol
  (a new object: a mask is a value, as a beam is, since several completions may start from one).

"What may come next" is a collection of byte values 0..255 and 257, the end; or `bytes`, each of whose
bytes may come; or an array of 256 or 258 booleans. 257 says that the text may end here. Where it says
nothing else, the completion ends with `"stop"`; where it is empty, with `"dead_end"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Bool

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.util.symbols import EOS

__all__ = ["Constraint", "Mask", "as_constraint"]

_SYMBOLS = 258


@runtime_checkable
class Mask(Protocol):
    """A mask as an object; see the module."""

    def allowed(self) -> Iterable[int] | bytes | np.ndarray:
        """What may come next."""

    def advance(self, symbol: int, /) -> Self:
        """The mask after one more byte."""


class Constraint:
    """A mask after some bytes, of either kind. A value."""

    def __init__(self, mask: Any, text: bytes = b"") -> None:
        self._mask = mask
        self._text = text

    def allowed(self) -> Bool[np.ndarray, " symbols"]:
        """What may come next, `[258]`; index 256 is never set.

        Raises:
            ValueError: the mask names a symbol that is none, or gives an array of another size.
            TypeError: it gives something else altogether.
        """
        given = self._mask.allowed() if hasattr(self._mask, "advance") else self._mask(self._text)
        return _as_array(given)

    def advance(self, byte: int) -> Constraint:
        """The constraint after one more byte."""
        if not hasattr(self._mask, "advance"):
            return Constraint(self._mask, self._text + bytes([byte]))
        after = self._mask.advance(byte)
        if after is None:
            raise bad_type(
                "mask.advance(…)", after, "must be the mask after the byte", "Return a new object."
            )
        return Constraint(after)


def as_constraint(mask: Callable[[bytes], Any] | Mask | None) -> Constraint | None:
    """A user's mask, checked as far as it can be before it is asked."""
    if mask is None:
        return None
    if not (hasattr(mask, "advance") and hasattr(mask, "allowed")) and not callable(mask):
        raise bad_type("mask", mask, "must be a callable, or have the methods `allowed` and `advance`")
    return Constraint(mask)


def _as_array(given: Any) -> Bool[np.ndarray, " symbols"]:
    found = np.zeros(_SYMBOLS, np.bool_)
    if isinstance(given, np.ndarray) and given.dtype == np.bool_:
        if given.shape not in ((256,), (_SYMBOLS,)):
            raise bad_value("mask", given.shape, "an array of booleans must have 256 or 258 entries")
        found[: len(given)] = given
        found[256] = False
        return found
    try:
        symbols = [int(s.__index__()) for s in given]
    except (TypeError, AttributeError):
        rule = "must allow a collection of bytes 0..255 and 257 for the end"
        raise bad_type("mask", given, rule) from None
    for symbol in symbols:
        if not 0 <= symbol <= EOS or symbol == 256:
            raise bad_value("mask", symbol, "may allow bytes 0..255, and 257 for the end")
    found[symbols] = True
    return found
