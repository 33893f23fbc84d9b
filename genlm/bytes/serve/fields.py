"""What a request may ask of a completion, in the names that clients use; and what the library makes of it.

The shape of OpenAI's API, with the names that vLLM, llama.cpp and their clients have added to it. A field
that is not known is an error, as it is there: an option that does nothing unnoticed is worse. What is known
and asks for nothing (`presence_penalty: 0`, `user`) is taken.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

from genlm.bytes.generate import grammar
from genlm.bytes.serve.failures import invalid, too_long

__all__ = [
    "SHAPE",
    "Body",
    "Count",
    "ListOf",
    "Sampling",
    "StreamOptions",
    "Whole",
    "made",
    "mask_of",
    "options_of",
    "seed_of",
]

BYTES_A_TOKEN = 4
"""Where bytes are drawn, `max_tokens` is so many bytes each: about what a token of English has."""

MOST = 2**31 - 1
"""The largest count. Of what is counted there is never as much, but sums of it stay numbers that all read."""

MOST_GRAMMAR = 1 << 15
"""Bytes of a pattern, schema or grammar. A schema of so many takes a second to be read, and one of twice as
many four."""

SHAPE = ConfigDict(strict=True, allow_inf_nan=False)
"""A field is of its type: no `true` where a number belongs, no text, and no NaN, which JSON has not."""

T = TypeVar("T")


class _First(FailFast):
    __hash__ = object.__hash__  # a union asks for it, in Python 3.11


def _whole(given: Any) -> Any:
    """A float that is an integer is taken for one, since R has no other."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, BeforeValidator(_whole), Field(le=MOST)]
ListOf = Annotated[list[T], _First()]
"""A list of which the first wrong entry is told of, and not all of a million."""


class Body(BaseModel):
    """A request's body: a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid", **SHAPE)
    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """One error for all fields that are not known."""
        unknown = (name for name in given if name not in cls.model_fields) if isinstance(given, dict) else ()
        for name in unknown:
            raise invalid(name, f"`{name[:80]}` is no field of this request.", "unknown_field")
        return given


class StreamOptions(Body):
    """`stream_options`."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False


class Sampling(Body):
    """Fields of completions and chats alike."""

    max_tokens: Count | None = Field(None, ge=0)
    max_bytes: Count | None = Field(None, ge=1)
    stop: str | ListOf[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Count | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: Whole | None = Field(None, ge=-(2**63), lt=2**64)
    n: Count = Field(1, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    unit: Literal["token", "byte"] | None = None
    method: Literal["tokenize", "beam", "heal"] = "tokenize"
    token_healing: bool = True
    valid_utf8: bool = True
    guided_regex: str | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_grammar: str | None = None
    response_format: dict[str, Any] | None = None
    # What cannot be honoured, and what asks for nothing.
    logit_bias: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def options_of(body: Sampling, default_tokens: int, by_byte: bool) -> dict[str, Any]:
    """Options of `AsyncByteLM.complete`.

    Args:
        default_tokens: the most new tokens where the request says nothing.
        by_byte: whether the model can be drawn from byte by byte only.

    Raises:
        Refusal: a field that cannot be honoured.
    """
    _check_unsupported(body)
    mask = mask_of(body)
    found: dict[str, Any] = {
        "stop": None if body.stop == [] else body.stop,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": None if body.top_p == 1.0 else body.top_p,
        "top_k": None if body.top_k in (0, -1) else body.top_k,
        "min_p": body.min_p or None,
        "repetition_penalty": body.repetition_penalty,
        "seed": seed_of(body.seed),
        "unit": body.unit,
        "method": body.method,
        "token_healing": body.token_healing,
        "valid_utf8": body.valid_utf8,
        "mask": mask,
        "max_bytes": body.max_bytes,
    }
    tokens = body.max_tokens
    if tokens is None and body.max_bytes is None:
        tokens = default_tokens
    if tokens is not None:
        tokens = max(1, tokens)
        if by_byte or body.unit == "byte" or mask is not None:
            found["max_bytes"] = body.max_bytes or BYTES_A_TOKEN * tokens
        else:
            found["max_tokens"] = tokens
    return found


def seed_of(seed: int | None) -> int | None:
    """A seed as the library takes it. -1 is none, as for llama.cpp."""
    return None if seed is None or seed == -1 else seed % 2**64


S = TypeVar("S", bound=Sampling)
A = TypeVar("A")


async def made(asked: Callable[[Any, S], A], server: Any, body: S) -> A:
    """A request, checked: in a thread, where there is a grammar, so that nobody else waits for it."""
    names = ("guided_regex", "guided_json", "guided_grammar", "response_format")
    if any(getattr(body, name) is not None for name in names):
        return await asyncio.to_thread(asked, server, body)
    return asked(server, body)


def _check_unsupported(body: Sampling) -> None:
    if body.logit_bias:
        why = "a completion here may begin inside a token, where a bias on tokens has no meaning"
        raise invalid("logit_bias", f"`logit_bias` is not supported: {why}. Use `guided_regex` or `stop`.")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(body, name):
            raise invalid(name, f"`{name}` is not supported. Use `repetition_penalty`, or leave it out.")
    if body.store:
        raise invalid("store", "`store` is not supported: nothing is kept here. Leave it out.")
    if body.stream_options is not None and body.stream_options.continuous_usage_stats:
        raise invalid("stream_options", "`continuous_usage_stats` is not supported. Use `include_usage`.")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "`stream_options` goes with `stream: true` only.")


def mask_of(body: Sampling) -> Any:
    """What the completion must match; None for anything.

    Raises:
        Refusal: two of these at once, a format that is not known.
        ValueError: a pattern, schema or grammar that is none.
    """
    named = {
        "guided_regex": (grammar.regex, body.guided_regex),
        "guided_json": (grammar.json_schema, body.guided_json),
        "guided_grammar": (grammar.lark, body.guided_grammar),
        "response_format": (grammar.json_schema, _schema(body.response_format)),
    }
    given = {name: pair for name, pair in named.items() if pair[1] is not None}
    if len(given) > 1:
        raise invalid(list(given)[1], f"give one of {', '.join(f'`{name}`' for name in given)}.")
    for name, (make, value) in given.items():
        size = len(value if isinstance(value, str) else json.dumps(value))
        if size > MOST_GRAMMAR:
            raise too_long(name, size, MOST_GRAMMAR)
        try:
            return make(value)  # type: ignore[operator]
        except ValueError as error:
            _, _, why = str(error).partition(": ")
            raise invalid(name, f"`{name}` cannot be used: {why}") from None
    return None


def _schema(wanted: Mapping[str, Any] | None) -> Any:
    """The JSON schema of a `response_format`."""
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    if wanted.get("type") == "json_schema":
        given = wanted.get("json_schema")
        schema = given.get("schema") if isinstance(given, Mapping) else None
        if isinstance(schema, Mapping):
            return dict(schema)
        raise invalid("response_format", "`response_format.json_schema` must have a `schema`, an object.")
    raise invalid("response_format", "`response_format.type` must be `text`, `json_object` or `json_schema`.")
