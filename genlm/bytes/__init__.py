"""Byte-level language models from token-level ones."""

from genlm.bytes.byte_lm import BeamParams, ByteBeamState, LazyTrieState, StatefulTokenizedLM
from genlm.bytes.front import AsyncByteLM, ByteLM
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
