"""Masks from regular expressions, JSON schemas and grammars, through `llguidance`.

`llguidance` computes which tokens a grammar allows. Given a vocabulary of the 256 bytes and an end, it
computes which bytes: what a mask is. So no vocabulary of a model is involved, and a grammar can begin in the
middle of a token. `pip install "genlm-bytes[grammar]"`.

    lm.complete("Born in ", mask=regex(r"(19|20)[0-9]{2}"))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import numpy as np
from jaxtyping import Bool

from genlm.bytes.errors import bad_type, bad_value, optional
from genlm.bytes.util.symbols import EOS

__all__ = ["Grammar", "json_schema", "lark", "regex"]

PACKAGE = ("llguidance", "A mask from a grammar", "'genlm-bytes[grammar]'")
_END = 256


class Grammar:
    """A place in a grammar: which bytes may come next, and the place after one. A value.

    Args:
        matcher: an `llguidance.LLMatcher` over the vocabulary of bytes.
    """

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self) -> Bool[np.ndarray, " symbols"]:
        """Which bytes may come next, and whether the text may end, `[258]`."""
        found = np.zeros(258, np.bool_)
        if self._matcher.is_stopped():
            found[EOS] = True
        else:
            words = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            bits = np.unpackbits(words, bitorder="little").astype(np.bool_)
            found[:256], found[EOS] = bits[:256], bits[_END]
        return found

    def advance(self, symbol: int, /) -> Self:
        """The place after one more byte."""
        after = self._matcher.deep_copy()
        after.consume_token(symbol)
        return type(self)(after)


def regex(pattern: str) -> Grammar:
    """The whole completion matches a regular expression, in the syntax of Rust's `regex`; `\\d` is any digit.

    Raises:
        ValueError: the pattern is none.
        MissingDependencyError: `llguidance` is not installed.

    Examples:
        >>> bytes(regex("[ab]c").allowed().nonzero()[0].tolist())
        b'ab'
    """
    return _grammar("pattern", pattern, "regex", pattern)


def json_schema(schema: str | Mapping[str, Any], white_space: bool = False) -> Grammar:
    """The whole completion is JSON that fits a schema.

    Args:
        schema: the schema, as JSON or as what JSON is made from.
        white_space: allow any amount of it between tokens of JSON. Small models do not stop then.

    Raises:
        ValueError: the schema is none, or uses what `llguidance` does not know.
        MissingDependencyError: `llguidance` is not installed.
    """
    text = json.dumps(schema) if isinstance(schema, Mapping) else schema
    options = {"whitespace_flexible": white_space}
    return _grammar("schema", schema, "json_schema", text, options)


def lark(grammar: str) -> Grammar:
    """The whole completion is derived by a context-free grammar, in `llguidance`'s form of Lark's syntax.

    Raises:
        ValueError: the grammar is none.
        MissingDependencyError: `llguidance` is not installed.
    """
    return _grammar("grammar", grammar, "lark", grammar)


def _grammar(argument: str, given: Any, kind: str, *source: Any) -> Grammar:
    if not isinstance(source[0], str):
        raise bad_type(argument, given, "must be a str")
    kinds = optional(*PACKAGE).LLMatcher
    try:
        matcher = kinds(_tokenizer(), getattr(kinds, f"grammar_from_{kind}")(*source), log_level=0)
        why = matcher.get_error()
    except ValueError as error:
        why = str(error)
    if why:
        raise bad_value(argument, given, f"llguidance cannot use it ({' '.join(why.split())})")
    return Grammar(matcher)


class _Bytes:
    """A vocabulary of bytes, as `llguidance` takes one."""

    tokens = (*(bytes([b]) for b in range(256)), b"<|end|>")
    eos_token_id = _END
    bos_token_id = None
    special_token_ids = (_END,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _tokenizer() -> Any:
    llguidance = optional(*PACKAGE)
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()))
