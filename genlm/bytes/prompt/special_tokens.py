"""Special tokens spelled out in a text: where they are, and what they take from the text around them.

A template writes `<|user|>`, and means a token. This finds such tokens in strings that their author vouches
for (a chat template's own, a prompt format written by hand), as the tokenizer would: the longest first, and
with the white space that some of them take from what follows (`rstrip`, as in Phi-3) or precedes (`lstrip`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.trie import TokenByteTrie
from genlm.bytes.vocab import byte_vocab

__all__ = ["SpecialToken", "added_tokens", "parse_special", "special_tokens", "split_special"]


@dataclass(frozen=True)
class SpecialToken:
    """A token that is written out in full, wherever it stands.

    Attributes:
        lstrip: whether it takes the white space before it.
        rstrip: whether it takes the white space after it.
        single_word: whether it counts only where no letter or digit touches it.
    """

    name: str
    token_id: int
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


def added_tokens(llm: Any) -> list[SpecialToken]:
    """The tokens that the model's tokenizer cuts out of a text before anything else."""
    added = getattr(getattr(llm, "tokenizer", None), "added_tokens_decoder", None)
    flags = ("lstrip", "rstrip", "single_word")
    return [
        SpecialToken(str(token.content), int(i), *(bool(getattr(token, flag, False)) for flag in flags))
        for i, token in (added.items() if isinstance(added, dict) else ())
        if getattr(token, "content", "")
    ]


def special_tokens(llm: Any, trie: TokenByteTrie) -> list[SpecialToken]:
    """The tokens that no text becomes; see `TextEncoder.special`."""
    special = text_encoder(llm, trie).special
    found = {token.token_id: token for token in added_tokens(llm) if token.token_id in special}
    rest = special - found.keys()
    names = {token.token_id: bytes(token) for token in byte_vocab(llm) if token.token_id in rest}
    spelled = {i: name.decode("utf-8", "replace") for i, name in names.items() if name}
    return [*found.values(), *(SpecialToken(name, i) for i, name in spelled.items())]


def split_special(text: str, tokens: Iterable[SpecialToken]) -> tuple[list[tuple[str, SpecialToken]], str]:
    """A text taken apart: each token with the text before it, and the text after the last.

    White space that a token takes is left out, as the model never sees it.

    Examples:
        >>> user = SpecialToken("<|user|>", 7, rstrip=True)
        >>> found, rest = split_special("a <|user|>\\n b", [user])
        >>> [(before, token.token_id) for before, token in found], rest
        ([('a ', 7)], 'b')
    """
    known = {token.name: token for token in tokens}
    found, at = [], 0
    for match in _pattern(known).finditer(text):
        token = known[match.group()]
        before = text[at : match.start()]
        found.append((before.rstrip() if token.lstrip else before, token))
        at = match.end()
        if token.rstrip:
            at += len(text[at:]) - len(text[at:].lstrip())
    return found, text[at:]


def _pattern(known: dict[str, SpecialToken]) -> re.Pattern[str]:
    """Matches any of the tokens, the longest where several begin."""
    parts = [
        rf"(?<!\w){re.escape(name)}(?!\w)" if known[name].single_word else re.escape(name)
        for name in sorted(known, key=len, reverse=True)
    ]
    return re.compile("|".join(parts) or r"(?!)")


def parse_special(llm: Any, trie: TokenByteTrie, text: str) -> tuple[str | int, ...]:
    """A text with special tokens spelled out, meant as such, as parts: text, and their ids."""
    found, rest = split_special(text, special_tokens(llm, trie))
    parts = [part for before, token in found for part in (before, token.token_id)]
    return tuple(part for part in (*parts, rest) if part != "") or ("",)
