"""Byte-level language models from token-level ones."""

from typing import TYPE_CHECKING

from genlm.bytes.on_demand import on_demand

if TYPE_CHECKING:
    from genlm.bytes.api import AsyncByteLM, ByteLM
    from genlm.bytes.byte_lm import BeamParams, ByteBeamState, LazyTrieState, StatefulTokenizedLM
    from genlm.bytes.trie import AsyncTokenByteTrie, TokenByteTrie
    from genlm.bytes.util import Chart

__all__ = [
    "AsyncByteLM",
    "AsyncTokenByteTrie",
    "BeamParams",
    "ByteBeamState",
    "ByteLM",
    "Chart",
    "LazyTrieState",
    "StatefulTokenizedLM",
    "TokenByteTrie",
]

__getattr__, __dir__ = on_demand(
    __name__,
    {
        "AsyncByteLM": "genlm.bytes.api",
        "AsyncTokenByteTrie": "genlm.bytes.trie",
        "BeamParams": "genlm.bytes.byte_lm",
        "ByteBeamState": "genlm.bytes.byte_lm",
        "ByteLM": "genlm.bytes.api",
        "Chart": "genlm.bytes.util",
        "LazyTrieState": "genlm.bytes.byte_lm",
        "StatefulTokenizedLM": "genlm.bytes.byte_lm",
        "TokenByteTrie": "genlm.bytes.trie",
    },
)
