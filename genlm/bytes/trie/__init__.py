"""The token trie: every prefix of a vocabulary, and the sums of token weights below each."""

from genlm.bytes.trie.arrays import TrieArrays
from genlm.bytes.trie.masses import NodeMasses
from genlm.bytes.trie.modes import EOS, EOT, TrieMode, TrieOp
from genlm.bytes.trie.service import AsyncTokenByteTrie
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = [
    "EOS",
    "EOT",
    "AsyncTokenByteTrie",
    "NodeMasses",
    "TokenByteTrie",
    "TrieArrays",
    "TrieMode",
    "TrieOp",
]
