"""Fill-in-the-middle: what comes between a prefix and a suffix, for models trained to say so.

Such models read `PREFIX prefix SUFFIX suffix MIDDLE` and go on with what belongs in between, or, where they
have no MIDDLE token, `SUFFIX suffix PREFIX prefix`. In the first order the end of the prefix stands before a
special token, where no token can go on past it. If the prefix stops inside a word, the model would see a
word cut where no text is. So the prefix's last word is taken from there and put after MIDDLE, where the beam
reads it like the end of any prompt: over all tokenizations, the completion going on inside its last token.
(The trouble, and what it costs in code completion: Phan et al., arXiv 2410.09303.)

The suffix's edge cannot be treated so. The suffix is read by the tokenizer from where it begins, and a word
that is cut there stays cut: the model is told of it, but nothing makes the new text and the suffix join into
one token.

Where the tokenizer writes a space before a text, it does so before the prefix, and before nothing else: so
were such models (Code Llama, Codestral) trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from genlm.bytes.byte_lm.encoder import TextEncoder, text_encoder
from genlm.bytes.errors import bad_type, bad_value, called
from genlm.bytes.prompt.prompt import Prompt, as_bytes, special_token, tokenize
from genlm.bytes.trie import TokenByteTrie
from genlm.bytes.vocab import spell

__all__ = ["FAMILIES", "infill"]

FAMILIES: tuple[tuple[tuple[str, str, str | None], tuple[str, ...]], ...] = (
    # Qwen2.5-Coder, CodeGemma
    (
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        ("<|endoftext|>", "<|fim_pad|>", "<|file_sep|>", "<|file_separator|>"),
    ),
    # StarCoder, Granite, StableCode
    (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), ("<|endoftext|>", "<file_sep>", "<fim_pad>")),
    # SantaCoder
    (("<fim-prefix>", "<fim-suffix>", "<fim-middle>"), ("<|endoftext|>",)),
    # Code Llama
    (("▁<PRE>", "▁<SUF>", "▁<MID>"), ("▁<EOT>",)),
    # DeepSeek-Coder
    (("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), ("<｜end▁of▁sentence｜>",)),
    # Codestral: the suffix first, no middle
    (("[PREFIX]", "[SUFFIX]", None), ("</s>",)),
)
"""The names of the three tokens, and of those that end a middle, by family."""

MOST_MOVED = 64
"""Bytes of the prefix that are read after MIDDLE at most: longer words are no words."""


def infill(
    llm: Any,
    trie: TokenByteTrie,
    prefix: str | bytes,
    suffix: str | bytes,
    fim: Sequence[str | int | None] | None = None,
    healing: bool = True,
    begin_after: Sequence[int] | None = None,
) -> Prompt:
    """The context in which a model goes on with what belongs between a prefix and a suffix.

    Args:
        fim: the names or ids of the prefix, suffix and middle tokens; None as the middle for models
            without one; None altogether to look for those of a known family.
        healing: whether the prefix may end inside a token.
        begin_after: ids that the sequence begins with, where they were chosen.
    """
    encoder = text_encoder(llm, trie)
    tokens, stops = _tokens(llm, fim)
    before, after = as_bytes("prompt", prefix), as_bytes("suffix", suffix)
    begin, hole, middle = tokens
    start = _start(llm, encoder) if begin_after is None else list(begin_after)
    lead = encoder.begins(before)
    with called(prompt="suffix"):
        closing = tokenize(llm, trie, after)
    if middle is None:
        ids = [*start, hole, *closing, begin]
        prompt = Prompt(tuple(ids), before, stops=stops, lead=lead)
        return prompt if healing else prompt.closed(llm, trie)
    kept = len(before) - (_last_word(before) if healing else 0)
    first = tokenize(llm, trie, before[:kept], lead)
    ids = [*start, begin, *first, hole, *closing, middle]
    return Prompt(tuple(ids), before[kept:], before[:kept], stops)


def _tokens(
    llm: Any, fim: Sequence[str | int | None] | None
) -> tuple[tuple[int, int, int | None], tuple[bytes, ...]]:
    if fim is not None and (not isinstance(fim, list | tuple) or len(fim) != 3):
        raise bad_type("fim", fim, "must be the names or ids of the prefix, suffix and middle tokens")
    said = getattr(getattr(llm, "tokenizer", None), "fim_token_ids", None) if fim is None else None
    if isinstance(said, list):  # the file says which they are, whatever they are called
        return (said[0], said[1], said[2]), ()
    families = FAMILIES if fim is None else ((tuple(fim), ()),)
    for names, ends in families:
        with called(name="fim"):
            found = [None if name is None else special_token(llm, name) for name in names]
        if found[0] is not None and found[1] is not None and (names[2] is None or found[2] is not None):
            ending = [i for i in (special_token(llm, end) for end in ends) if i is not None]
            return (found[0], found[1], found[2]), tuple(s for s in spell(llm, ending) if s)
    if fim is not None:
        raise bad_value("fim", fim, "this model has no such tokens")
    rule = "this model has no known tokens for filling in the middle"
    raise bad_value("suffix", "…", rule, "Name them by `fim`: prefix, suffix, middle.")


def _start(llm: Any, encoder: TextEncoder) -> list[int]:
    """The beginning-of-sequence token, if the tokenizer puts one before text."""
    bos = getattr(getattr(llm, "tokenizer", None), "bos_token_id", None)
    return [bos] if bos is not None and encoder.begins_with(bos) else []


def _last_word(text: bytes) -> int:
    """The length of the last word and the white space before it; of the white space alone at an end.

    Examples:
        >>> _last_word(b"def  fib"), _last_word(b"return "), _last_word("naïve".encode())
        (5, 1, 6)
    """
    end = text[-MOST_MOVED:]
    if len(end) < len(text):  # a character is not cut in two
        end = end[next((i for i, b in enumerate(end) if b < 0x80 or b >= 0xC0), len(end)) :]
    found = re.search(rb"\s*\S*\Z", end)
    assert found is not None
    return len(found.group())
