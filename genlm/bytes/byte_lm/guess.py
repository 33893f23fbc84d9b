"""Guessing the tokens of known bytes, to have their contexts evaluated together.

A guess decides how fast a context is read and never what comes out, so any answer will do: the model's
own tokenizer where the bytes are text and its tokens spell them, the longest matching tokens otherwise
(invalid UTF-8, tokenizers that normalise, models without a tokenizer).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["guess_tokens", "longest_tokens"]


def guess_tokens(llm: Any, trie: TokenByteTrie, text: bytes) -> list[int]:
    """Token ids that spell `text`, or its beginning if no token goes on from there.

    Args:
        llm: the model; its `tokenizer` is asked if it has one.
        trie: the trie of its vocabulary.
        text: any bytes.
    """
    whole = len(text)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        whole = error.start
    ids = _by_tokenizer(getattr(llm, "tokenizer", None), text[:whole])
    spelled = trie.spelling_of_id
    if ids is None or b"".join(spelled.get(i, b"") for i in ids) != text[:whole]:
        return list(longest_tokens(trie, text))
    return [*ids, *longest_tokens(trie, text[whole:])]


def _by_tokenizer(tokenizer: Any, text: bytes) -> list[int] | None:
    encode = getattr(tokenizer, "encode", None)
    return None if encode is None else list(encode(text.decode(), add_special_tokens=False))


def longest_tokens(trie: TokenByteTrie, text: bytes) -> Iterator[int]:
    """The longest token that the text begins with, and so on with the rest, as far as that leads."""
    arrays, start = trie.arrays, 0
    while start < len(text):
        node, best, at = ROOT, None, start
        while at < len(text):
            node = arrays.child(node, text[at])
            if node < 0:
                break
            at += 1
            if arrays.ends[node]:
                best = (at, int(trie.token_ids[arrays.lo[node]]))
        if best is None:
            return
        start, token = best
        yield token
