"""How much tests do: in `make test` (`QUICK=1`) what ends within minutes, in `make thorough` all."""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["QUICK", "examples"]

QUICK = bool(os.environ.get("QUICK"))


def examples(thorough: int) -> settings:
    """Settings of a property test: so many examples, or a fifth of them where it has to be quick."""
    return settings(max_examples=max(4, thorough // 5) if QUICK else thorough)
