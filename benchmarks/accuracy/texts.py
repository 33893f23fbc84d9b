"""The paragraphs that accuracy is measured on: `texts/paragraphs/` and `texts/heldout/`, written for this."""

from __future__ import annotations

import json
from typing import Any

from common.peers import HERE

__all__ = ["HARD", "HELD_OUT", "PARAGRAPHS", "TEXTS", "paragraph"]

FOLDER = HERE / "texts"
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
HELD_OUT = {
    "spanish": "a recipe in Spanish",
    "korean": "Korean",
    "sql": "SQL",
    "table": "a table in Markdown",
    "shell": "a shell session",
    "typos": "a chat message with typing mistakes",
    "clinic": "a clinical note",
    "verse": "verse",
}
"""Short texts that no constant of the library was chosen on. Measured at the default tolerance only."""
TEXTS = PARAGRAPHS | HELD_OUT


def paragraph(name: str, llm: Any) -> bytes:
    """A paragraph's bytes, to be read after the model's beginning-of-sequence token.

    The chat is what the model's own template makes of the messages, its default system message included,
    without that first token.
    """
    if name != "chat":
        return (FOLDER / ("heldout" if name in HELD_OUT else "paragraphs") / f"{name}.txt").read_bytes()
    messages = json.loads((FOLDER / "paragraphs" / "chat.json").read_text(encoding="utf-8"))
    text: str = llm.tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.startswith(llm.tokenizer.bos_token), "the template does not begin with the BOS token"
    return text.removeprefix(llm.tokenizer.bos_token).encode()
