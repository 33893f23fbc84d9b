"""What generation gives back: completions, the pieces of a stream, usage figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

__all__ = ["Alternative", "Chunk", "Completion", "Drawn", "FinishReason", "Usage"]

FinishReason = Literal["stop", "length", "eos", "dead_end"]
"""Why a completion ended: a stop string, or a mask that allows nothing but the end (`"stop"`); a limit, on
bytes, tokens or the model's context (`"length"`); the model's own end of sequence (`"eos"`); a mask, or the
beam, that allows nothing at all (`"dead_end"`)."""

_Bytes = bytes  # the field `bytes` hides the type inside the classes


@dataclass(frozen=True)
class Usage:
    """What a completion took.

    Attributes:
        prompt_bytes: length of the text that was read.
        prompt_tokens: tokens committed by the likeliest tokenization of the context, special tokens and
            the beginning of the sequence included; the token at the prompt's edge is not.
        completion_bytes: length of the new bytes.
        completion_tokens: tokens that gave new bytes; None where bytes were drawn one by one.
    """

    prompt_bytes: int
    prompt_tokens: int
    completion_bytes: int
    completion_tokens: int | None


class Alternative(NamedTuple):
    """What could have stood in a place.

    Attributes:
        bytes: what it would have added; where bytes are drawn, none for the end.
        logprob: its natural log-probability, under the model as it is.
        token_id: the token's, where tokens are meant.
    """

    bytes: _Bytes
    logprob: float
    token_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What some new bytes cost, and what they were drawn as; the attributes are those of `Completion`."""

    logprobs: Float64[np.ndarray, " bytes"] | None = field(default=None, repr=False, compare=False)
    top: tuple[tuple[Alternative, ...], ...] | None = field(default=None, repr=False, compare=False)
    token_ids: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    token_bytes: tuple[_Bytes, ...] | None = field(default=None, repr=False, compare=False)
    token_logprobs: Float64[np.ndarray, " tokens"] | None = field(default=None, repr=False, compare=False)
    token_top: tuple[tuple[Alternative, ...], ...] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Completion(Drawn):
    """New text after a prompt.

    A log-probability here is a natural one, under the model as it is: before penalty, temperature, truncation
    and masks.

    Attributes:
        text: the new text, without the stop string. Always valid Unicode: a character that the prompt
            began is given whole, one that is cut off at the end is left out, and invalid bytes (only
            with `valid_utf8=False`) appear as U+FFFD. With `echo=True` the prompt stands before it.
        bytes: exactly the new bytes; with `echo=True` after the prompt's.
        logprob: natural log-probability of the new bytes given the prompt, under the model as it is
            (penalty, temperature, truncation and masks left out), and of the end where `finish_reason` is
            `"eos"`. Drawn byte by byte: of the bytes, summed over the beam's tokenizations. Drawn token
            by token: of the bytes by the tokens drawn, a lower bound.
        finish_reason: `"stop"`, `"length"`, `"eos"` or `"dead_end"`.
        usage: lengths in bytes and tokens.
        stop: the stop string that was met, or None.
        log_weight: natural log of its weight among the particles that it was drawn with; else None.
        logprobs: if asked for, of each of `bytes` given those before it, `[bytes]`: what `score` gives,
            summed over the beam's tokenizations, also where tokens were drawn. With `echo=True` the first
            `usage.prompt_bytes` are the prompt's; nan where the prompt was given as tokens: for special ones,
            for what stands before them (a chat's turns), for a text to be filled in. For an atomic unit all
            stands at its first byte.
        end_logprob: likewise of the end, where `finish_reason` is `"eos"`.
        top: if asked for, the likeliest alternatives at each of `bytes`, the likeliest first; none where
            `logprobs` is nan.
        token_ids: the tokens that gave the new bytes, where tokens were drawn. The first may begin in the
            prompt, and the last go on past what a stop string or a limit has left.
        token_bytes: the new bytes that each of them gave; joined they are the new bytes.
        token_logprobs: of each given those before it, `[tokens]`; of the first, together with the cut of the
            prompt into tokens that it goes on from, given the prompt's bytes. With the end's they sum to
            `logprob`, unless the last was cut off.
        token_top: if asked for, the likeliest alternatives of each. Of the first, where it begins in the
            prompt, over all cuts of that: one token may be there several times.
        prompt_token_ids: the tokens before the first of `token_ids`, the beginning of the sequence included:
            with these one sequence, for `transformers.generate` and its like to go on with.
    """

    text: str
    bytes: _Bytes
    logprob: float
    finish_reason: FinishReason
    usage: Usage
    stop: _Bytes | None = None
    log_weight: float | None = None
    end_logprob: float | None = field(default=None, repr=False, compare=False)
    prompt_token_ids: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Chunk(Drawn):
    """A piece of a stream; `print(chunk, end="")` prints its text.

    Attributes:
        text: whole characters that are settled: neither the beginning of a stop string nor of a character.
        bytes: the new bytes since the last chunk, held back likewise where they may begin a stop string.
        finish_reason: None until the last chunk.

    The others are those of `Completion`, for these bytes and the tokens that end with them. Where tokens are
    drawn, only the whole completion has bytes' log-probabilities.
    """

    text: str
    bytes: _Bytes
    finish_reason: FinishReason | None = None

    def __str__(self) -> str:
        return self.text
