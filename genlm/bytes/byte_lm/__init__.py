"""One byte-level model made of a token-level one: candidates, the beam, healing, reading a context."""

from genlm.bytes.byte_lm.beam import ByteBeamState
from genlm.bytes.byte_lm.heal import TokenHealer
from genlm.bytes.byte_lm.lm_state import StatefulByteLM, StatefulTokenizedLM
from genlm.bytes.byte_lm.params import BeamParams
from genlm.bytes.byte_lm.trie_state import LazyTrieState

__all__ = [
    "BeamParams",
    "ByteBeamState",
    "LazyTrieState",
    "StatefulByteLM",
    "StatefulTokenizedLM",
    "TokenHealer",
]
