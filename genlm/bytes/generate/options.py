"""What can be asked of a completion, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from genlm.bytes.byte_lm.tokenized_prefill import METHODS
from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.generate.truncate import Truncation
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.util.numbers import whole_number

__all__ = ["DEFAULT_MAX_BYTES", "Options"]

DEFAULT_MAX_BYTES = 256


@dataclass(frozen=True)
class Options:
    """Options of `complete` and `stream`; each is documented at `ByteLM.complete`.

    Raises:
        ValueError: a value out of range, an empty stop string, two options that exclude each other.
        TypeError: a value of the wrong type.
    """

    max_bytes: int | None = None
    max_tokens: int | None = None
    stop: str | bytes | Sequence[str | bytes] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    unit: Literal["token", "byte"] | None = None
    valid_utf8: bool = True
    mask: Any = None
    token_healing: bool = True
    method: str = "tokenize"
    echo: bool = False
    suffix: str | bytes | None = None
    fim: Sequence[str | int | None] | None = None
    several: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("max_bytes", "max_tokens", "top_k"):
            put(self, name, whole_number(name, getattr(self, name), 1))
        put(self, "seed", whole_number("seed", self.seed, 0))
        if self.max_bytes is None and self.max_tokens is None:
            put(self, "max_bytes", DEFAULT_MAX_BYTES)
        put(self, "stop", _stop_strings(self.stop))
        for name, low_open in (("temperature", False), ("top_p", True), ("min_p", False)):
            put(self, name, _number(name, getattr(self, name), low_open, name != "temperature"))
        if self.method not in METHODS:
            raise bad_value("method", self.method, f"must be one of {', '.join(map(repr, METHODS))}")
        if self.unit not in (None, "token", "byte"):
            raise bad_value("unit", self.unit, "must be 'token' or 'byte', or None to choose")
        if self.unit == "token" and self.mask is not None:
            raise bad_value("unit", self.unit, "a mask works byte by byte", "Leave `unit` out.")
        if self.by_byte and self.max_tokens is not None:
            rule = "there are no tokens to count where bytes are drawn one by one"
            raise bad_value("max_tokens", self.max_tokens, rule, "Give `max_bytes`.")

    @classmethod
    def for_complete(cls, n: Any, best_of: Any, **options: Any) -> tuple[Options, int, int | None]:
        """The options, and how many completions to give and to draw."""
        count = whole_number("n", n, 1)
        if count is None:
            raise bad_type("n", n, "must be an integer")
        best_of = whole_number("best_of", best_of, 1)
        if best_of is not None and best_of < count:
            raise bad_value("best_of", best_of, f"must be at least `n`, which is {count}")
        return cls(several=max(count, best_of or 1) > 1, **options), count, best_of

    @property
    def reading(self) -> dict[str, Any]:
        """How the prompt is read."""
        names = {"method": self.method, "healing": self.token_healing, "suffix": self.suffix, "fim": self.fim}
        return dict(names)

    @property
    def by_byte(self) -> bool:
        """Whether bytes, not tokens, are drawn."""
        return self.unit == "byte" or (self.unit is None and self.mask is not None)

    @property
    def stops(self) -> tuple[bytes, ...]:
        """The stop strings as bytes."""
        return self.stop  # type: ignore[return-value]

    @property
    def truncation(self) -> Truncation:
        """Temperature and truncation; temperature 0 unless something is asked that only drawing has."""
        temperature = self.temperature
        if temperature is None:
            asked = (self.seed, self.top_k, self.top_p, self.min_p)
            temperature = 1.0 if self.several or any(x is not None for x in asked) else 0.0
        return Truncation(temperature, self.top_k, self.top_p, self.min_p)


def _number(name: str, value: Any, low_open: bool, is_share: bool) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise bad_type(name, value, "must be a number") from None
    fits = number > 0.0 if low_open else number >= 0.0
    if not fits or math.isinf(number) or (is_share and number > 1.0):
        most = " and at most 1" if is_share else ""
        raise bad_value(name, value, f"must be {'above' if low_open else 'at least'} 0{most}, not NaN")
    return number


def _stop_strings(stop: Any) -> tuple[bytes, ...]:
    if stop is None:
        return ()
    found = []
    strings = stop if isinstance(stop, Iterable) and not isinstance(stop, str | bytes) else [stop]
    for string in strings:
        if not isinstance(string, str | bytes):
            raise bad_type("stop", string, "a stop string must be str or bytes")
        if not string:
            raise bad_value("stop", string, "a stop string must not be empty", "Leave `stop` out.")
        found.append(as_bytes("stop", string))
    return tuple(found)
