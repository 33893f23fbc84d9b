"""Log-probabilities in the shapes that clients read: of tokens, or of bytes.

New text that was drawn by token has an entry for each token, with what that token cost; drawn by byte, for
each byte. The entries of a prompt (`echo`) follow the tokens of whoever tokenized it, and say what their
*bytes* cost, summed over all tokenizations. So the entries of a span sum to the log-probability of its text,
wherever it begins and ends, which is what an evaluation asks for.

The alternative to such a token is the likeliest text up to where the token leaves it; of a token that never
does there is none. So an entry is its own best alternative if and only if each of its bytes is the likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from genlm.bytes.generate import Completion
from genlm.bytes.generate.completion import Drawn

__all__ = [
    "Entry",
    "chat_logprobs",
    "drawn_entries",
    "end_entry",
    "prompt_entries",
    "text_logprobs",
    "token_text",
]

IMPOSSIBLE = -9999.0
"""What stands for minus infinity, which JSON has not."""


@dataclass(frozen=True)
class Entry:
    """One token, or byte.

    Attributes:
        text: its bytes.
        logprob: natural; None where it is not known. What is given as minus infinity is `IMPOSSIBLE`, as NaN
            None: clients add these up, and JSON has neither.
        top: the likeliest alternatives.
    """

    text: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "logprob", _finite(self.logprob))


def token_text(token: bytes) -> str:
    r"""The bytes of a token as text; those that are none in the spelling that OpenAI's API has for them.

    Examples:
        >>> token_text("é".encode()), token_text(b"\xe2\x82")
        ('é', 'bytes:\\xe2\\x82')
    """
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def drawn_entries(drawn: Drawn, text: bytes) -> list[Entry]:
    """The entries of new bytes."""
    if drawn.token_bytes is not None and drawn.token_logprobs is not None:
        tops = drawn.token_top or ((),) * len(drawn.token_bytes)
        pieces, logps = drawn.token_bytes, drawn.token_logprobs.tolist()
    elif drawn.logprobs is not None:
        tops = drawn.top or ((),) * len(text)
        pieces, logps = tuple(bytes([b]) for b in text), drawn.logprobs.tolist()
    else:
        return []
    each = zip(pieces, logps, tops, strict=True)
    return [Entry(piece, logp, tuple((a.bytes, a.logprob) for a in top)) for piece, logp, top in each]


def end_entry(completion: Completion) -> Entry:
    """The end as an entry: clients count on one for what ended a completion."""
    return Entry(b"", completion.end_logprob)


def prompt_entries(completion: Completion, length: int, pieces: Sequence[bytes] | None) -> list[Entry]:
    """The entries of an echoed prompt.

    Args:
        length: of the prompt, in bytes.
        pieces: its tokens; None for an entry a byte.
    """
    if completion.logprobs is None:
        return []
    text, logps = completion.bytes[:length], completion.logprobs[:length].tolist()
    tops = completion.top
    pieces = [bytes([b]) for b in text] if pieces is None else pieces
    found = []
    for piece, end in zip(pieces, accumulate(map(len, pieces)), strict=True):
        begin = end - len(piece)
        best = None if tops is None else [top[0] if top else None for top in tops[begin:end]]
        found.append(_summed(piece, logps[begin:end], best))
    return found


def _summed(piece: bytes, logps: list[float], best: list[Any] | None) -> Entry:
    """A token by its bytes. Of an empty one nothing is known."""
    if not logps or any(math.isnan(logp) for logp in logps):
        unknown = any(logp == -math.inf for logp in logps)
        return Entry(piece, IMPOSSIBLE if unknown else None)
    total = IMPOSSIBLE if -math.inf in logps else math.fsum(logps)
    if best is None:
        return Entry(piece, total)
    before = 0.0
    for i, (logp, likeliest) in enumerate(zip(logps, best, strict=True)):
        if likeliest is not None and likeliest.bytes != piece[i : i + 1] and likeliest.logprob > logp:
            other = (piece[:i] + likeliest.bytes, before + likeliest.logprob)
            return Entry(piece, total, (other, (piece, total)))
        before += logp
    return Entry(piece, total, ((piece, total),))


def text_logprobs(entries: Sequence[Entry], top: bool, offset: int = 0) -> dict[str, Any]:
    """The `logprobs` of a completion.

    Args:
        top: whether alternatives were asked for.
        offset: characters before the first.
    """
    offsets = _offsets(entries, offset)
    return {
        "tokens": [token_text(entry.text) for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [_alternatives(entry) for entry in entries] if top else None,
        "text_offset": offsets,
        "bytes": [list(entry.text) for entry in entries],
    }


def chat_logprobs(entries: Iterable[Entry]) -> dict[str, Any]:
    """The `logprobs` of a chat's answer."""
    return {
        "content": [{**_one(e.text, e.logprob), "top_logprobs": [_one(*a) for a in e.top]} for e in entries]
    }


def _one(text: bytes, logprob: float | None) -> dict[str, Any]:
    return {
        "token": token_text(text),
        "logprob": IMPOSSIBLE if logprob is None else logprob,
        "bytes": list(text),
    }


def _alternatives(entry: Entry) -> dict[str, float] | None:
    """By text; of the same text twice (two tokens, or two cuts) the likelier."""
    if entry.logprob is None:
        return None
    found: dict[str, float] = {}
    for text, logprob in entry.top:
        found[token_text(text)] = max(logprob, found.get(token_text(text), -math.inf))
    return found


def _offsets(entries: Sequence[Entry], offset: int) -> list[int]:
    """Where each begins, in characters: that in which its first byte lies."""
    found, seen = [], offset
    for entry in entries:
        found.append(max(offset, seen - 1) if entry.text[:1] and 0x80 <= entry.text[0] < 0xC0 else seen)
        seen += sum(not 0x80 <= byte < 0xC0 for byte in entry.text)
    return found


def _finite(logp: float | None) -> float | None:
    if logp is None or math.isnan(logp):
        return None
    return float(logp) if logp > -math.inf else IMPOSSIBLE
