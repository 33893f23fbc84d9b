"""Contexts of parts: text, bytes, special tokens by id, chat messages. From any of them to one form.

A context ends in text that is open at its end: that is what the beam reads, over all tokenizations. What
stands before a special token is closed: no token reaches across it, and in training the tokenizer cut it
there. So everything up to the last special token becomes token ids, text by the model's own tokenizer, and
the beam starts after them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["Prompt", "as_bytes", "is_batch", "parse_context"]


@dataclass(frozen=True)
class Prompt:
    """A context in one form.

    Attributes:
        ids: token ids that precede the open text; None for the usual beginning of a sequence.
        text: the open text, which the beam reads.
        spelled: all of it as bytes, the usual beginning left out.
    """

    ids: tuple[int, ...] | None
    text: bytes
    spelled: bytes


def is_batch(context: Any) -> bool:
    """Whether a list is several contexts: one that holds neither a token id nor a chat message.

    Examples:
        >>> is_batch(["one", "two"]), is_batch(["<text>", 5]), is_batch([{"role": "user", "content": "hi"}])
        (True, False, False)
    """
    return isinstance(context, list) and not any(isinstance(p, Mapping) or _is_id(p) for p in context)


def parse_context(llm: Any, context: Any) -> Prompt:
    """A context of the user's in one form.

    Args:
        llm: the model: its tokenizer cuts what is closed.
        context: str; bytes; a tuple or list of text and special tokens' ids; or a list of chat messages.

    Raises:
        TypeError: something else.
        ValueError: text with lone surrogates, or an id that is none.
    """
    if isinstance(context, str | bytes | bytearray | memoryview):
        text = as_bytes("prompt", context)
        return Prompt(None, text, text)
    raise bad_type("prompt", context, "must be str, bytes, chat messages, or parts: text and token ids")


def as_bytes(name: str, text: str | bytes | bytearray | memoryview) -> bytes:
    """Text as bytes, in UTF-8."""
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            rule = f"has a lone surrogate at {error.start}, which UTF-8 cannot express"
            raise bad_value(name, text, rule, "Pass the bytes themselves.") from None
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    raise bad_type(name, text, "must be str or bytes")


def _is_id(part: Any) -> bool:
    return hasattr(part, "__index__") and not isinstance(part, bool)
