"""The symbols and the two readings of a vocabulary that every trie operation refers to."""

from __future__ import annotations

from enum import Enum

__all__ = ["EOS", "EOT", "TrieMode", "TrieOp"]

EOT = 256
"""Index of *end of token* in a distribution over next bytes. Internal: no text contains it."""

EOS = 257
"""Index of *end of sequence* in a distribution over next bytes, and the symbol that reads it."""


class TrieMode(Enum):
    """How the tokens that spell an end-of-sequence string are read."""

    WITHOUT_EOS = "without_eos"
    """As ordinary text: their bytes can be read one by one."""

    WITH_EOS = "with_eos"
    """As the end: their probability belongs to the virtual symbol `EOS` and to no byte."""


class TrieOp(Enum):
    """What a batched request asks of the weights below each node."""

    SUM = "sum"
    MAX = "max"
