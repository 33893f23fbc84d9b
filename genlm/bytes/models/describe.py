"""What there is to know about a model before it is asked anything: its tokens, and where it begins and ends.

Most surprises of a vocabulary are visible in these figures: bytes that no token contains (no text with them
can be read), bytes without a token of their own (they exist only inside longer tokens), spellings that
several tokens share (each counts), tokens that spell nothing (they are never taken).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from genlm.bytes.models.spellings import part_types
from genlm.bytes.util.context_length import context_length
from genlm.bytes.vocab import byte_vocab, end_strings, start_context, text_config

__all__ = ["ModelFacts", "describe_model"]


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model; None where it does not say.

    Attributes:
        architecture: the class of the model.
        parameters: how many numbers it has.
        device: where they are.
        dtype: how they are stored.
        context_length: the most tokens it reads.
        logits: how many logits it gives a token.
        tokenizer: the class of its tokenizer.
        family: how the tokenizer cuts, in words.
        tokens: how many entries the vocabulary has.
        longest: the length in bytes of its longest token that is not special.
        without_token: bytes that have no token of their own.
        absent: bytes that no token contains.
        duplicates: spellings that several tokens share, with the tokens' ids.
        empty: ids of tokens that spell nothing.
        special: names and ids of special tokens.
        start: ids that a text starts after.
        ends: spellings of the tokens that end a sequence.
        chat_template: whether the tokenizer has one.
    """

    architecture: str
    parameters: int | None
    device: str | None
    dtype: str | None
    context_length: int | None
    logits: int | None
    tokenizer: str
    family: str
    tokens: int
    longest: int
    without_token: bytes
    absent: bytes
    duplicates: tuple[tuple[bytes, tuple[int, ...]], ...]
    empty: tuple[int, ...]
    special: tuple[tuple[str, int], ...]
    start: tuple[int, ...]
    ends: tuple[bytes, ...]
    chat_template: bool


def describe_model(llm: Any) -> ModelFacts:
    """The facts about a model.

    Args:
        llm: a `genlm.backend` `AsyncLM`, or anything with its interface.

    Raises:
        TypeError: `llm` has no vocabulary of bytes.
    """
    vocab = byte_vocab(llm)
    model: Any = getattr(llm, "model", None)
    tokenizer = getattr(llm, "tokenizer", None)
    config = text_config(llm)
    special = _special(tokenizer)
    ids = {token_id for _, token_id in special}
    by_spelling = defaultdict[bytes, list[int]](list)
    for token in vocab:
        by_spelling[bytes(token)].append(token.token_id)
    empty = tuple(by_spelling.pop(b"", ()))
    contained = set(b"".join(by_spelling))
    every = range(256)
    return ModelFacts(
        architecture=getattr(model, "architecture", None) or type(llm if model is None else model).__name__,
        parameters=int(model.num_parameters()) if hasattr(model, "num_parameters") else None,
        device=_said(getattr(model, "device", None)),
        dtype=_said(getattr(model, "dtype", None)),
        context_length=context_length(config),
        logits=getattr(config, "vocab_size", None),
        tokenizer=type(tokenizer).__name__,
        family=tokenizer_family(tokenizer),
        tokens=len(vocab),
        longest=max((len(s) for s, of in by_spelling.items() if not ids.issuperset(of)), default=0),
        without_token=bytes(b for b in every if bytes([b]) not in by_spelling),
        absent=bytes(b for b in every if b not in contained),
        duplicates=tuple((s, tuple(of)) for s, of in sorted(by_spelling.items()) if len(of) > 1),
        empty=empty,
        special=special,
        start=tuple(start_context(llm)),
        ends=tuple(sorted(end_strings(llm))),
        chat_template=getattr(tokenizer, "chat_template", None) is not None,
    )


def tokenizer_family(tokenizer: Any) -> str:
    """How a tokenizer cuts text, in words: from the description that fast tokenizers keep of themselves."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:  # it may say so itself
        return str(getattr(tokenizer, "family", type(tokenizer).__name__))
    parts = json.loads(fast.to_str())
    model = parts.get("model") or {}
    kinds = part_types([parts.get("pre_tokenizer"), parts.get("decoder")])
    kind = model.get("type") or type(fast.model).__name__
    if "ByteLevel" in kinds:
        return f"byte-level {kind}"
    fallback = " with byte fallback" if model.get("byte_fallback") or "ByteFallback" in kinds else ""
    marked = "Metaspace" in kinds or "▁" in json.dumps(parts.get("decoder"), ensure_ascii=False)
    return f"SentencePiece {kind}{fallback}" if marked or fallback else str(kind)


def _special(tokenizer: Any) -> tuple[tuple[str, int], ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = {token.content: int(i) for i, token in added.items() if token.special}
    vocab: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
    found |= {
        name: int(vocab[name]) for name in getattr(tokenizer, "all_special_tokens", ()) if name in vocab
    }
    return tuple(sorted(found.items(), key=lambda pair: pair[1]))


def _said(value: Any) -> str | None:
    return None if value is None else str(value).removeprefix("torch.")
