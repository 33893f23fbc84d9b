"""Prompts as clients give them, as contexts of the library.

Text is text: special tokens that it spells are read as the letters they are. A prompt of token ids is what
clients send who tokenize for themselves. Special tokens among them are taken as such; the others are read as
the text that they spell, so that a prompt that ends inside a word is healed whoever has tokenized it, and
figures do not hang on whose tokenizer it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genlm.bytes.api import AsyncByteLM
from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.errors import InvalidValueError, bad_value
from genlm.bytes.prompt import parse_context
from genlm.bytes.prompt.prompt import as_bytes, tokenize
from genlm.bytes.serve.failures import invalid, too_long
from genlm.bytes.vocab import check_token_ids

__all__ = ["Given", "given_prompts", "has_tokens", "pieces_of", "spellings"]


@dataclass(frozen=True)
class Given:
    """A prompt.

    Attributes:
        context: as the library takes it.
        spelled: its bytes.
        ids: the tokens, where it was given as such.
    """

    context: Any
    spelled: bytes
    ids: tuple[int, ...] | None = None


def has_tokens(lm: AsyncByteLM) -> bool:
    """Whether it has tokens of its own: an ensemble has none."""
    return not isinstance(lm.llm, tuple)


def given_prompts(lm: AsyncByteLM, prompt: Any, most: int, name: str = "prompt") -> list[Given]:
    """The prompts of a request: a text, token ids, or a list of either.

    Raises:
        Refusal: something else, or too long.
    """
    if isinstance(prompt, str) or _is_ids(prompt):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise invalid(name, f"`{name}` must be a text, a list of token ids, or a list of these.")
    return [_given(lm, one, most, name) for one in prompt]


def _given(lm: AsyncByteLM, prompt: Any, most: int, name: str) -> Given:
    if isinstance(prompt, str):
        text = as_bytes(name, prompt)
        if len(text) > most:
            raise too_long(name, len(text), most)
        return Given(text, text)
    if not _is_ids(prompt):
        raise invalid(name, f"`{name}` must be a text, a list of token ids, or a list of these.")
    if not has_tokens(lm):
        raise invalid(name, f"`{name}`: several models as one have no tokens in common. Give text.")
    spelling, special = _tokens(lm)
    ids = tuple(check_token_ids(name, prompt))
    unknown = next((i for i in ids if i not in spelling), None)
    if unknown is not None:
        raise bad_value(name, unknown, "no token of this model has this id")
    parts: list[int | bytes] = []
    for token in ids:
        if token in special:
            parts.append(token)
        elif parts and isinstance(parts[-1], bytes):
            parts[-1] += spelling[token]
        else:
            parts.append(bytes(spelling[token]))
    spelled = b"".join(spelling[token] for token in ids)
    if len(spelled) > most:
        raise too_long(name, len(spelled), most)
    return Given(tuple(parts), spelled, ids)


def pieces_of(lm: AsyncByteLM, given: Given, text: bytes) -> list[bytes] | None:
    """The bytes of each token of a prompt that was read as `text`: of the client's own, or the tokenizer's.

    None where they do not spell the text, or there are no tokens.
    """
    if not has_tokens(lm):
        return None
    spelling, _ = _tokens(lm)
    if given.ids is not None:
        pieces = [bytes(spelling[token]) for token in given.ids]
    else:
        trie = lm._open_trie()
        prompt = parse_context(lm.llm, trie, given.context)
        if prompt.ids is not None:
            return None
        try:
            ids = tokenize(lm.llm, trie, text, prompt.lead)
        except InvalidValueError:
            return None
        pieces = [bytes(spelling[token]) for token in ids]
        if pieces and prompt.lead:
            pieces[0] = pieces[0].removeprefix(prompt.lead)
    return pieces if b"".join(pieces) == text else None


def spellings(lm: AsyncByteLM) -> Any:
    """The bytes of each token by its id."""
    return lm._open_trie().spelling_of_id


def _tokens(lm: AsyncByteLM) -> tuple[Any, Any]:
    trie = lm._open_trie()
    return spellings(lm), text_encoder(lm.llm, trie).special


def _is_ids(prompt: Any) -> bool:
    return (
        isinstance(prompt, Sequence)
        and not isinstance(prompt, str)
        and bool(prompt)
        and all(isinstance(part, int) and not isinstance(part, bool) for part in prompt)
    )
