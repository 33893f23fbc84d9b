"""The documented names of `backends/hf_tree`: a token model that never computes a context twice."""

from genlm.bytes.backends.hf_tree.adopt import adopt
from genlm.bytes.backends.hf_tree.engine import Engine, Statistics

__all__ = ["Engine", "Statistics", "adopt"]
