"""The paragraphs that accuracy is measured on: `texts/paragraphs/`, written for this."""

from __future__ import annotations

import json
from typing import Any

from peers import HERE

__all__ = ["HARD", "PARAGRAPHS", "paragraph"]

FOLDER = HERE / "texts" / "paragraphs"
PARAGRAPHS = {
    "english": "English prose",
    "python": "Python",
    "chinese": "Chinese",
    "japanese": "Japanese",
    "german": "German compounds",
    "urls": "URLs and numbers",
    "chat": "chat with special tokens",
    "letter": "a letter of names and codes",
}
HARD = ("letter",)
"""Paragraphs chosen because they are hard; the targets are stated for the others."""


def paragraph(name: str, llm: Any) -> bytes:
    """A paragraph's bytes, to be read after the model's beginning-of-sequence token.

    The chat is what the model's own template makes of the messages, its default system message included,
    without that first token.
    """
    if name != "chat":
        return (FOLDER / f"{name}.txt").read_bytes()
    messages = json.loads((FOLDER / "chat.json").read_text(encoding="utf-8"))
    text: str = llm.tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.startswith(llm.tokenizer.bos_token), "the template does not begin with the BOS token"
    return text.removeprefix(llm.tokenizer.bos_token).encode()
