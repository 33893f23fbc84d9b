"""The front door: one object for everything, with plain methods or with coroutines."""

from genlm.bytes.front.async_lm import AsyncByteLM
from genlm.bytes.front.lm import ByteLM

__all__ = ["AsyncByteLM", "ByteLM"]
