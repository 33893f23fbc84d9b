"""The bytes of each token, for tokenizers that `genlm-backend` does not read.

`genlm-backend` turns a tokenizer's vocabulary into bytes and checks that by a round trip. The check fails
where a tokenizer writes a space before a text or changes it (lower case, accents), though its tokens spell
bytes all the same; vocabularies with holes and mistral-common's tokenizers it does not know. These are read
here. What is left, and refused, has no bytes: WordPiece, say, whose tokens do not tell whether a space stands
between them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

from genlm.bytes.errors import UnsupportedModelError

__all__ = ["part_types", "token_spellings", "tokens_decoded"]

_logger = logging.getLogger(__name__)
_lock = Lock()
_standing_in: list[
    Callable[..., Any]
] = []  # what stood there as each load began, the first one ours to put back
_MARK = "▁"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@contextmanager
def tokens_decoded() -> Iterator[None]:
    """Meanwhile `genlm-backend` reads vocabularies as we do where it cannot itself.

    Its models read them as they are made, by a function that heeds no setting, so we stand in for it. Models
    may be loaded by several threads at once: the last to finish puts it back.
    """
    from genlm.backend.llm import base

    with _lock:
        _standing_in.append(base.decode_vocab)
        if len(_standing_in) == 1:
            base.decode_vocab = _decoder(base.decode_vocab)
    try:
        yield
    finally:
        with _lock:
            first = _standing_in[0]
            _standing_in.pop()
            if not _standing_in:
                base.decode_vocab = first


def _decoder(original: Callable[..., Any]) -> Callable[..., Any]:
    from genlm.backend.tokenization import Token

    def decode(tokenizer: Any, *args: Any, **options: Any) -> Any:
        try:
            return original(tokenizer, *args, **options)
        except Exception as error:  # a ValueError of its own, and what unexpected tokenizers lead to
            words, names = token_spellings(tokenizer, error)
        return [Token(i, word) for i, word in enumerate(words)], names

    return decode


def token_spellings(tokenizer: Any, error: Exception | None = None) -> tuple[list[bytes], list[str]]:
    """The byte string and the name of each token, by id; empty for ids without a token."""
    instruct = getattr(getattr(tokenizer, "tokenizer", None), "instruct_tokenizer", None)
    if instruct is not None:
        return _of_mistral_common(instruct.tokenizer)
    kinds = _decoders(tokenizer)
    vocab = _vocabulary(tokenizer, error)
    tokens = getattr(tokenizer, "added_tokens_decoder", {})
    added = {str(token.content): int(i) for i, token in tokens.items()}
    spell: Callable[[str], bytes | None]
    if "ByteLevel" in kinds:
        spell = _byte_level()
    elif kinds & {"ByteFallback", "Metaspace"}:
        spell = _sentencepiece
    else:
        raise _refused(tokenizer, kinds, error)
    size = 1 + max([*vocab.values(), *added.values()], default=-1)
    words, names = [b""] * size, [""] * size
    for name, i in (vocab | added).items():
        found = name.replace(_MARK, " ").encode() if name in added else spell(name)
        if found is None:
            raise _refused(tokenizer, kinds, error, f": the token {name!r} is not written in byte letters")
        words[i], names[i] = found, name
    holes = words.count(b"")
    _logger.info("read %d tokens of a %s, %d without a spelling", size, type(tokenizer).__name__, holes)
    return words, names


def _vocabulary(tokenizer: Any, error: Exception | None) -> dict[str, int]:
    try:
        return {str(name): int(i) for name, i in tokenizer.get_vocab().items()}
    except Exception as why:  # anything may be given as a tokenizer
        raise _refused(tokenizer, set(), error or why) from None


def _refused(
    tokenizer: Any, kinds: set[str], error: Exception | None, why: str = ""
) -> UnsupportedModelError:
    kind = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    what = type(tokenizer).__name__ if kind is None else f"{type(kind).__name__} tokenizer"
    said = f"a decoder of the kind {', '.join(sorted(kinds))}" if kinds else "no decoder"
    reason = "" if error is None else f" ({' '.join(str(error).split())[:200]})"
    return UnsupportedModelError(
        f"the model's tokenizer, a {what} with {said}, does not say which bytes its tokens spell"
        f"{why}{reason}. Use a model with a byte-level or SentencePiece tokenizer; or give `AsyncByteLM` a "
        "model of your own whose `byte_vocab` lists the bytes of each token."
    )


def _decoders(tokenizer: Any) -> set[str]:
    """The types of all parts of a tokenizer's decoder, and of its pre-tokenizer where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    description = {} if backend is None else json.loads(backend.to_str())
    return part_types(description.get("decoder") or description.get("pre_tokenizer"))


def part_types(part: Any) -> set[str]:
    """The types of a part of a tokenizer's description, and of all the parts inside it."""
    if isinstance(part, list):
        return set().union(*map(part_types, part))
    if not isinstance(part, Mapping):
        return set()
    own = {part["type"]} if isinstance(part.get("type"), str) else set()
    return own.union(*map(part_types, part.values()))


def _byte_level() -> Callable[[str], bytes | None]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}

    def spell(name: str) -> bytes | None:
        return bytes(byte_of[c] for c in name) if byte_of.keys() >= set(name) else None

    return spell


def _sentencepiece(name: str) -> bytes:
    byte = _BYTE.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace(_MARK, " ").encode()


def _of_mistral_common(inner: Any) -> tuple[list[bytes], list[str]]:
    """The tokens of mistral-common's tekken and SentencePiece tokenizers."""
    names = [str(inner.id_to_piece(i)) for i in range(inner.n_words)]
    if hasattr(inner, "id_to_byte_piece"):
        special = [inner.is_special(i) for i in range(len(names))]
        words = [n.encode() if special[i] else bytes(inner.id_to_byte_piece(i)) for i, n in enumerate(names)]
        return words, names
    return [_sentencepiece(name) for name in names], names
