"""Clients' subclasses: what a value's operations make is of the subclass, where it can be made at all.

A subclass may want arguments of its own. Nobody here knows them, so the values that follow are then of the
class that it extends, as all were in release 0.2.0.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TypeVar, cast

__all__ = ["makeable"]

T = TypeVar("T")


@cache
def makeable(kind: type[T], positional: int, *keywords: str) -> type[T]:
    """The class itself, or the nearest of its bases that is made of so many arguments and these keywords."""
    for base in kind.__mro__:
        try:
            inspect.signature(base).bind(*[None] * positional, **dict.fromkeys(keywords))
        except TypeError:
            continue
        return cast("type[T]", base)
    raise AssertionError(f"{kind} extends no class of ours")  # pragma: no cover
