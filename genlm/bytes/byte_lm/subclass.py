"""Clients' subclasses: what a value's operations make is of the subclass, where it can be made at all.

A subclass may want arguments of its own. Nobody here knows them, so the values that follow are then of the
class that it extends, as all were in release 0.2.0.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, TypeVar

__all__ = ["makeable"]

T = TypeVar("T")


def makeable(kind: type[T], positional: int, *keywords: str) -> type[T]:
    """The class itself, or the nearest of its bases that is made of so many arguments and these keywords."""
    named: Any = kind
    found: type[T] = _makeable(named, positional, keywords)
    return found


@cache
def _makeable(kind: Any, positional: int, keywords: tuple[str, ...]) -> Any:
    for base in kind.__mro__:
        try:
            inspect.signature(base).bind(*[None] * positional, **dict.fromkeys(keywords))
        except TypeError:
            continue
        return base
    raise AssertionError(f"{kind} extends no class of ours")  # pragma: no cover
