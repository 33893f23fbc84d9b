"""Completing text: contexts, drawing, stopping, constraints, streams."""

from genlm.bytes.generate.completion import Chunk, Completion, FinishReason, Usage
from genlm.bytes.generate.constraint import Mask
from genlm.bytes.generate.context import Prompt, is_batch, parse_context
from genlm.bytes.generate.options import Options
from genlm.bytes.generate.run import Read, Stream, complete
from genlm.bytes.generate.truncate import Truncation

__all__ = [
    "Chunk",
    "Completion",
    "FinishReason",
    "Mask",
    "Options",
    "Prompt",
    "Read",
    "Stream",
    "Truncation",
    "Usage",
    "complete",
    "is_batch",
    "parse_context",
]
