"""Contexts: text, bytes, parts with special tokens, chat messages. From any of them to one form.

A context ends in text that is open at its end: the beam reads that, over all tokenizations. What stands
before a special token is closed: no token reaches across, and in training the tokenizer cut it there. So
everything up to the last special token becomes token ids, the text in it by the model's own tokenizer, and
the beam starts after them. Nothing that the beam does can then reach back over a special token.

Text is text: special tokens that it spells out do not become special tokens (`encoder.py`). Who wants them
gives their ids, or has a text parsed for them (`special_tokens.py`). The open text may still be spelled by
any tokens, special ones too, each with the probability that the model gives it: that is what a beam is.

Where does a context begin? Text alone after the usual beginning of a sequence (`start_context`), or the token
that was chosen (`start.py`). A context that begins with a token id is taken as it stands. Text that itself
begins with the beginning-of-sequence token's spelling does not get a second one. Where the tokenizer writes a
space before a text, the beginning is after that space: the beam reads it first, and it is part of no result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlm.bytes.byte_lm.encoder import TextEncoder, text_encoder
from genlm.bytes.byte_lm.token_path import longest_tokens
from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.trie import TokenByteTrie
from genlm.bytes.util.numbers import as_index
from genlm.bytes.vocab import byte_vocab, check_token_ids, logits_count, start_context

__all__ = [
    "Prompt",
    "as_bytes",
    "begun_after",
    "is_batch",
    "parse_context",
    "special_token",
    "tokenize",
]


@dataclass(frozen=True)
class Prompt:
    """A context in one form.

    Attributes:
        ids: token ids that precede the open text; None for the usual beginning of a sequence.
        text: the open text, which the beam reads.
        before: the bytes that the ids stand for, the beginning of the sequence left out.
        stops: what ends a completion besides the user's stop strings.
        lead: what the beam reads between the ids and the text, since the tokenizer writes it there: a
            space, or nothing.
    """

    ids: tuple[int, ...] | None
    text: bytes
    before: bytes = b""
    stops: tuple[bytes, ...] = ()
    lead: bytes = b""

    @property
    def spelled(self) -> bytes:
        """All of it as bytes."""
        return self.before + self.text

    def closed(self, llm: Any, trie: TokenByteTrie, start: Sequence[int] | None = None) -> Prompt:
        """The same with its end taken for the end of a token: nothing is left for the beam to read."""
        start = begun_after(llm, start) if self.ids is None else self.ids
        return Prompt((*start, *tokenize(llm, trie, self.text, self.lead)), b"", self.spelled, self.stops)


def is_batch(context: Any) -> bool:
    """Whether a list is several contexts: one that holds neither a token id nor a chat message.

    Examples:
        >>> is_batch(["one", "two"]), is_batch(["<text>", 5]), is_batch([{"role": "user", "content": "hi"}])
        (True, False, False)
    """
    return isinstance(context, list) and not any(isinstance(p, Mapping) or _is_id(p) for p in context)


def begun_after(llm: Any, start: Sequence[int] | None) -> list[int]:
    """The ids that a sequence begins with: those chosen, or else the usual ones."""
    return start_context(llm) if start is None else list(start)


def parse_context(llm: Any, trie: TokenByteTrie, context: Any, start: Sequence[int] | None = None) -> Prompt:
    """A context of the user's in one form.

    Args:
        context: str; bytes; a tuple or list of text and special tokens' ids; a list of chat messages.
        start: ids that a sequence begins with, where these are not the usual ones; the reader of a prompt
            without ids has to know them too.

    Raises:
        TypeError: something else.
        ValueError: text with lone surrogates, an id that no token has, messages without a template.
    """
    if isinstance(context, Prompt):
        return context
    if isinstance(context, str | bytes | bytearray | memoryview):
        return _parts(llm, trie, [context], begun_after(llm, start))
    if isinstance(context, Mapping):
        context = [context]
    if isinstance(context, list | tuple):
        if any(isinstance(part, Mapping) for part in context):
            from genlm.bytes.prompt.chat import parse_messages

            return parse_messages(llm, context, trie, start)
        return _parts(llm, trie, context, begun_after(llm, start))
    raise bad_type("prompt", context, "must be str, bytes, chat messages, or parts: text and token ids")


def _parts(llm: Any, trie: TokenByteTrie, parts: Sequence[Any], start: list[int]) -> Prompt:
    known, encoder = trie.spelling_of_id, text_encoder(llm, trie)
    closed: list[int] = [] if parts and _is_id(parts[0]) else list(start)
    begun = list(closed)
    text, before = b"", b""
    for i, part in enumerate(parts):
        if not _is_id(part):
            text += as_bytes(f"prompt[{i}]" if len(parts) > 1 else "prompt", part)
            continue
        token = _known_id(llm, known, f"prompt[{i}]", part)
        text = _without_start(text, begun, known) if not before else text
        closed += [*tokenize(llm, trie, text, _lead(encoder, closed, start, text)), token]
        before, text = before + text + known[token], b""
    if closed == begun and not before:
        text = _without_start(text, begun, known)
        return Prompt(None, text, lead=encoder.begins(text))
    return Prompt(tuple(closed), text, before, lead=_lead(encoder, closed, start, text))


def _known_id(llm: Any, known: Mapping[int, bytes], name: str, part: Any) -> int:
    (token,) = check_token_ids(name, [part])
    if token not in known:
        raise bad_value(name, token, "no token of this model has this id")
    count = logits_count(llm)
    if count is not None and token >= count:
        rule = f"the tokenizer has this token, but the model was built for {count} tokens"
        raise bad_value(name, token, rule, "Resize the model's embeddings, or leave the token out.")
    return int(token)


def _lead(encoder: TextEncoder, closed: list[int], start: list[int], text: bytes) -> bytes:
    """What the tokenizer writes between these ids and a text."""
    return encoder.begins(text) if closed == start or not closed else encoder.lead_after(closed[-1])


def _without_start(text: bytes, start: list[int], known: Mapping[int, bytes]) -> bytes:
    """The text without the spelling of the token that it is put after anyway."""
    spelling = known.get(start[-1], b"") if start else b""
    return text.removeprefix(spelling) if spelling else text


def tokenize(
    llm: Any, trie: TokenByteTrie, text: bytes, lead: bytes = b"", also: frozenset[int] = frozenset()
) -> list[int]:
    """Token ids of a closed text: the tokenizer's, or, where it has none, the longest matches.

    Args:
        lead: what the tokenizer writes before it there.
        also: further ids that do not come out.

    Raises:
        ValueError: no tokens spell it.
    """
    if not text:
        return []
    encoder = text_encoder(llm, trie)
    ids = encoder.closed(text, lead, also)
    if ids is not None:
        return ids
    ids = list(longest_tokens(trie, text, encoder.avoided | also, encoder.byte_ids))
    length = sum(len(trie.spelling_of_id[i]) for i in ids)
    if length < len(text):
        rule = f"no tokens of this model spell what stands at offset {length}, {text[length : length + 10]!r}"
        raise bad_value("prompt", text, rule, "A special token is given by its id, as a part of its own.")
    return ids


def special_token(llm: Any, name: str | int) -> int | None:
    """The id of a token by its name in the tokenizer, or by its spelling; None if there is none.

    An id is returned as it is.
    """
    if _is_id(name):
        return int(name)
    if not isinstance(name, str):
        raise bad_type("name", name, "must be a token's name, or its id")
    vocab: dict[Any, Any] = getattr(getattr(llm, "tokenizer", None), "get_vocab", dict)() or {}
    found = vocab.get(name)
    if found is None:
        spelling = as_bytes("name", name)
        found = next((token.token_id for token in byte_vocab(llm) if bytes(token) == spelling), None)
    return None if found is None else int(found)


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
    raise bad_type(name, text, "must be str or bytes, or in a list of parts a token's id")


def _is_id(part: Any) -> bool:
    return as_index(part) is not None
