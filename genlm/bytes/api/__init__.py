"""The front door: one object for everything, with plain methods or with coroutines."""

from genlm.bytes.api.async_lm import AsyncByteLM
from genlm.bytes.api.lm import ByteLM

__all__ = ["AsyncByteLM", "ByteLM"]
