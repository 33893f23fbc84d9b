"""What generation gives back: completions, the pieces of a stream, usage figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Chunk", "Completion", "FinishReason", "Usage"]

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


@dataclass(frozen=True)
class Completion:
    """New text after a prompt.

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
    """

    text: str
    bytes: _Bytes
    logprob: float
    finish_reason: FinishReason
    usage: Usage
    stop: _Bytes | None = None
    log_weight: float | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream; `print(chunk, end="")` prints its text.

    Attributes:
        text: whole characters that are settled: neither the beginning of a stop string nor of a character.
        bytes: the new bytes since the last chunk, held back likewise where they may begin a stop string.
        finish_reason: None until the last chunk.
    """

    text: str
    bytes: _Bytes
    finish_reason: FinishReason | None = None

    def __str__(self) -> str:
        return self.text
