"""Completing text: drawing, stopping, constraints, streams."""

from genlm.bytes.generate.completion import Alternative, Chunk, Completion, FinishReason, Usage
from genlm.bytes.generate.constraint import Mask
from genlm.bytes.generate.particles import WeightedCompletions, draw_particles
from genlm.bytes.generate.run import Read, Stream, complete
from genlm.bytes.options import GenerationOptions, Options

__all__ = [
    "Alternative",
    "Chunk",
    "Completion",
    "FinishReason",
    "GenerationOptions",
    "Mask",
    "Options",
    "Read",
    "Stream",
    "Usage",
    "WeightedCompletions",
    "complete",
    "draw_particles",
]
