"""Drafting the tokens of known bytes, to have their contexts evaluated together.

A draft decides how fast a context is read and never what comes out, so any answer will do: the model's own
tokenizer where the bytes are text and its tokens spell them, the longest matching tokens otherwise (invalid
UTF-8, tokenizers that normalise, models without a tokenizer). Only where a context is read along one
tokenization (`tokenized_prefill.py`) is it this one, so it is never one with special tokens in it: see
`encoder.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["draft_tokens", "longest_tokens", "own_tokens"]


def draft_tokens(llm: Any, trie: TokenByteTrie, text: bytes) -> list[int]:
    """Token ids that spell `text`, or its beginning if no token goes on from there. None of them is special.

    Args:
        llm: the model; its `tokenizer` is asked if it has one.
        trie: the trie of its vocabulary.
        text: any bytes. Where the tokenizer writes a space before a text, a beginning has that space.
    """
    encoder = text_encoder(llm, trie)
    ids = own_tokens(llm, trie, text)
    return [*longest_tokens(trie, text, encoder.avoided, encoder.byte_ids)] if ids is None else ids


def own_tokens(llm: Any, trie: TokenByteTrie, text: bytes) -> list[int] | None:
    """The tokens of the model's own tokenizer, if they spell `text`; bytes that are no text excepted.

    Those, from the first on, are spelled by the longest tokens.
    """
    encoder = text_encoder(llm, trie)
    whole = len(text)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        whole = error.start
    ids = encoder.exact(text[:whole])
    if ids is None:
        return None
    return [*ids, *longest_tokens(trie, text[whole:], encoder.avoided, encoder.byte_ids)]


def longest_tokens(
    trie: TokenByteTrie,
    text: bytes,
    avoided: Collection[int] = (),
    later: Collection[int] = (),
) -> Iterator[int]:
    """The longest token that the text begins with, and so on with the rest, as far as that leads.

    Args:
        trie: the trie of the vocabulary.
        text: any bytes.
        avoided: ids that are not taken.
        later: ids that are taken only where no other token is spelled the same.
    """
    arrays, start = trie.arrays, 0
    while start < len(text):
        node, best, at = ROOT, None, start
        while at < len(text):
            node = arrays.child(node, text[at])
            if node < 0:
                break
            at += 1
            if arrays.ends[node]:
                first = int(arrays.lo[node])
                ids = trie.token_ids[first : first + int(arrays.ends[node])].tolist()
                ids = [i for i in ids if i not in avoided]
                if ids:
                    best = (at, next((i for i in ids if i not in later), ids[0]))
        if best is None:
            return
        start, token = best
        yield token
