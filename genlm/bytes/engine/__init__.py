"""A token model that never computes a context twice: prefix tree, key-value slots, one batched forward."""

from genlm.bytes.engine.adopt import adopt
from genlm.bytes.engine.engine import Engine, Statistics

__all__ = ["Engine", "Statistics", "adopt"]
