"""Completing text: drawing, stopping, constraints, streams."""

from genlm.bytes.generate.completion import Chunk, Completion, FinishReason, Usage
from genlm.bytes.generate.constraint import Mask
from genlm.bytes.generate.options import Options
from genlm.bytes.generate.run import Read, Stream, complete
from genlm.bytes.generate.truncate import Truncation

__all__ = [
    "Chunk",
    "Completion",
    "FinishReason",
    "Mask",
    "Options",
    "Read",
    "Stream",
    "Truncation",
    "Usage",
    "complete",
]
