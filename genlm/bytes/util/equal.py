"""Equality of records that hold arrays, and nan for what is not known: a copy is what it was copied from."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

__all__ = ["equal_fields"]


def equal_fields(one: Any, other: Any) -> bool:
    """Whether two instances of a dataclass have equal fields: arrays as a whole, and nan equal to nan."""
    names = [field.name for field in dataclasses.fields(one)]
    return all(_equal(getattr(one, name), getattr(other, name)) for name in names)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | float) and isinstance(other, np.ndarray | float):
        return np.array_equal(one, other, equal_nan=True)
    return bool(one == other)
