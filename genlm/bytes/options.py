"""What can be asked of a completion: each option once, with type, default, rule and documentation.

Whoever takes options takes them from here: the methods of `ByteLM` (`**options: Unpack[GenerationOptions]`,
which `spelled_out` shows as arguments), the commands, whose help is each option's first sentence, and the
evaluation harness. What an option does to logits stands in `generate/sampling.py`. Importing this module
loads nothing heavy.
"""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, TypeVar

from genlm.bytes.errors import InvalidTypeError, bad_type, bad_value, check_names

if TYPE_CHECKING:
    from genlm.bytes.generate.constraint import Mask

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DRAWING",
    "GenerationOptions",
    "Method",
    "Options",
    "Unit",
    "beam_setting",
    "check_model_options",
    "first_sentence",
    "number",
    "spelled_out",
]

DEFAULT_MAX_BYTES = 256

Unit = Literal["token", "byte"]
Method = Literal["tokenize", "beam", "heal"]

DRAWING = ("seed", "top_k", "top_p", "min_p")
"""Options that only drawing has: where one of them is given, the default temperature is 1."""

F = TypeVar("F", bound=Callable[..., Any])


class GenerationOptions(TypedDict, total=False):
    """Options of `complete` and `stream`.

    Attributes:
        max_bytes: the most new bytes; 256 if no limit is given.
        max_tokens: the most new tokens. Not where bytes are drawn.
        stop: a string, or several, before which the completion ends.
        temperature: 0, the default, takes the likeliest. Where anything is asked for that only drawing has
            (`seed`, `top_k`, `top_p`, `min_p`, `n`, `best_of`), the default is 1.
        top_k: draw among the k likeliest.
        top_p: draw among the likeliest that together reach this probability.
        min_p: draw among those at least this many times as likely as the likeliest.
        repetition_penalty: above 1 makes tokens that the text has so far less likely; 1 does nothing. As in
            `transformers.generate`: of each token of the context, the prompt's included, a logit below 0 is
            multiplied by it and one above 0 divided, before temperature and truncation. Where a model gives
            no logits, log-probabilities stand for them. Only where tokens are drawn.
        seed: makes a draw reproducible. It does so whatever else runs.
        unit: what is drawn, and what temperature and truncation act on. `"token"` or `"byte"`; None means
            tokens, and bytes where there is a mask.
        method: how the prompt is read. See `ByteBeamState.prefill`: `"tokenize"` follows the tokenizer up to
            the last word, and considers all tokenizations of the rest: the price of one forward. `"beam"`
            considers all of the whole prompt.
        token_healing: whether the prompt's end may lie inside a token. False takes it for a boundary, as
            `transformers.generate` does.
        valid_utf8: forbid bytes that cannot continue a character.
        mask: what may come next; see `genlm.bytes.generate.constraint`.
        echo: give the prompt back before the new text.
        logprobs: give each byte's log-probability; see `Completion`. With `echo` the prompt's, too.
        top_logprobs: give so many of the likeliest alternatives: of each token, where tokens are drawn; of
            each byte, where bytes are, or with `logprobs`.
        suffix: what stands after the place that is to be filled, for models trained to fill in the middle;
            the prompt is then what stands before, and str or bytes.
        fim: names or ids of the model's prefix, suffix and middle tokens; None looks for those of a known
            family.
    """

    max_bytes: int | None
    max_tokens: int | None
    stop: str | bytes | Sequence[str | bytes] | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    unit: Unit | None
    method: Method
    token_healing: bool
    valid_utf8: bool
    mask: Callable[[bytes], Any] | Mask | None
    echo: bool
    logprobs: bool
    top_logprobs: int | None
    suffix: str | bytes | None
    fim: Sequence[str | int | None] | None


@dataclass(frozen=True)
class Options:
    """Checked options of a completion, and how many are asked for.

    Args:
        n: how many completions of each prompt.
        best_of: draw this many and give the `n` of the highest log-probability a byte.
        particles: draw so many together, by sequential Monte Carlo.
        ess_threshold: the share of `particles` below which their effective number has them resampled.

    The others are `GenerationOptions`.

    Raises:
        ValueError: a value out of range, an empty stop string, two options that exclude each other.
        TypeError: a value of the wrong type.
    """

    max_bytes: int | None = None
    max_tokens: int | None = None
    stop: Any = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    unit: str | None = None
    method: str = "tokenize"
    token_healing: bool = True
    valid_utf8: bool = True
    mask: Any = None
    echo: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    suffix: str | bytes | None = None
    fim: Sequence[str | int | None] | None = None
    n: int = 1
    best_of: int | None = None
    particles: int | None = None
    ess_threshold: float = 0.5

    def __post_init__(self) -> None:
        from genlm.bytes.util.numbers import whole_number

        put = object.__setattr__
        for name in ("max_bytes", "max_tokens", "top_k", "top_logprobs", "n", "best_of", "particles"):
            put(self, name, whole_number(name, getattr(self, name), 1))
        if self.n is None:
            raise bad_type("n", None, "must be an integer")
        if self.best_of is not None and self.best_of < self.n:
            raise bad_value("best_of", self.best_of, f"must be at least `n`, which is {self.n}")
        put(self, "seed", whole_number("seed", self.seed, 0))
        if self.max_bytes is None and self.max_tokens is None:
            put(self, "max_bytes", DEFAULT_MAX_BYTES)
        put(self, "stop", _stop_strings(self.stop))
        put(self, "temperature", number("temperature", self.temperature))
        put(self, "top_p", number("top_p", self.top_p, above=True, most=1.0))
        put(self, "min_p", number("min_p", self.min_p, most=1.0))
        put(self, "repetition_penalty", number("repetition_penalty", self.repetition_penalty, above=True))
        if self.temperature is None:
            drawing = (
                self.count > 1 or self.particles or any(getattr(self, name) is not None for name in DRAWING)
            )
            put(self, "temperature", 1.0 if drawing else 0.0)
        _one_of("method", self.method, Method)
        if self.unit is not None:
            _one_of("unit", self.unit, Unit)
        put(self, "ess_threshold", number("ess_threshold", self.ess_threshold, most=1.0))
        if self.particles is not None:
            self._check_particles()
        if self.unit == "token" and self.mask is not None:
            raise bad_value("unit", self.unit, "a mask works byte by byte", "Leave `unit` out.")
        if self.by_byte and self.max_tokens is not None:
            rule = "there are no tokens to count where bytes are drawn one by one"
            raise bad_value("max_tokens", self.max_tokens, rule, "Give `max_bytes`.")
        if self.by_byte and self.repetition_penalty not in (None, 1.0):
            rule = "it is a penalty on tokens, and there are none where bytes are drawn one by one"
            way = "Leave it out, or leave out `mask` and `unit='byte'`."
            raise bad_value("repetition_penalty", self.repetition_penalty, rule, way)

    def _check_particles(self) -> None:
        """They are drawn from the distribution as it is, a byte at a time."""
        rule = "particles are drawn from the distribution over strings as it is"
        for name, nothing in (("temperature", 1.0), ("top_k", None), ("top_p", None), ("min_p", None)):
            if getattr(self, name) not in (nothing, None):
                raise bad_value(name, getattr(self, name), rule, "Leave it out.")
        if self.count > 1:
            raise bad_value(
                "n", self.n, "`particles` says how many there are", "Leave out `n` and `best_of`."
            )
        if self.unit == "token":
            raise bad_value("unit", self.unit, "particles are drawn byte by byte", "Leave `unit` out.")

    @classmethod
    def of(cls, given: Mapping[str, Any], **counts: Any) -> Self:
        """The options that a caller has given by name.

        Raises:
            ValueError: see the class.
            TypeError: likewise; or there is no option of a name.
        """
        check_names(given, GenerationOptions.__annotations__)
        return cls(**counts, **given)

    @property
    def count(self) -> int:
        """How many completions of a prompt are made."""
        return max(self.n, self.best_of or 1)

    @property
    def reading(self) -> dict[str, Any]:
        """How the prompt is read."""
        names = {"method": self.method, "healing": self.token_healing, "suffix": self.suffix, "fim": self.fim}
        return dict(names)

    @property
    def by_byte(self) -> bool:
        """Whether bytes, not tokens, are drawn."""
        return self.unit == "byte" or (self.unit is None and (self.mask is not None or bool(self.particles)))

    @property
    def by_byte_logprobs(self) -> bool:
        """Whether bytes' log-probabilities are asked for."""
        return bool(self.logprobs) or (self.by_byte and self.top_logprobs is not None)

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0.0 or self.top_k == 1


def beam_setting(name: str) -> str:
    """Where a setting of the beam is given; "" for what is none."""
    from genlm.bytes.byte_lm import BeamParams

    known = {field.name for field in fields(BeamParams)}
    return f"It is a setting of the beam: `params=BeamParams({name}=…)`." if name in known else ""


def check_model_options(given: Iterable[str]) -> None:
    """Refuse settings of the beam among options of a model."""
    for name in given:
        if said := beam_setting(name):
            raise InvalidTypeError(f"`{name}` is no option of a model. {said}")


def first_sentence(option: str) -> str:
    """What the documentation of an option begins with."""
    said = re.search(rf"^    {option}: ([^.]+(?:\.\d[^.]*)*)\.", _documentation(), re.MULTILINE)
    return "" if said is None else " ".join(said[1].split())


def spelled_out(method: F) -> F:
    """Have `help` show a method's `**options: Unpack[GenerationOptions]` as arguments, with what they do."""
    defaults = {f.name: f.default for f in fields(Options)}
    signature = inspect.signature(method)
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=kind.__forward_arg__
        )
        for name, kind in GenerationOptions.__annotations__.items()
    ]
    own = list(signature.parameters.values())[:-1]
    method.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    if method.__doc__ is not None:  # there is none under `python -OO`
        said = textwrap.indent(_documentation(), " " * 8).rstrip()
        method.__doc__ = re.sub(r" +\*\*options: .*", lambda _: said, method.__doc__)
    return method


def _documentation() -> str:
    return (inspect.getdoc(GenerationOptions) or "").partition("Attributes:\n")[2]


def _one_of(name: str, value: Any, kind: Any) -> None:
    if value not in kind.__args__:
        raise bad_value(name, value, f"must be one of {', '.join(map(repr, kind.__args__))}")


def number(name: str, value: Any, above: bool = False, most: float = math.inf) -> float | None:
    """A number of at least 0, or above it; None where none is given."""
    if value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise bad_type(name, value, "must be a number") from None
    if not 0.0 <= found <= most or math.isinf(found) or (above and found == 0.0):
        rule = f"must be {'above' if above else 'at least'} 0" + (
            f" and at most {most:g}" if most < 2 else ""
        )
        raise bad_value(name, value, f"{rule}, not NaN")
    return found


def _stop_strings(stop: Any) -> tuple[bytes, ...]:
    from genlm.bytes.prompt.prompt import as_bytes

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
