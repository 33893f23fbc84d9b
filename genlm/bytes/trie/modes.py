"""The symbols and the two readings of a vocabulary that every trie operation refers to."""

from __future__ import annotations

from enum import Enum
from typing import Any

from genlm.bytes.errors import bad_value
from genlm.bytes.util.symbols import EOS, EOT

__all__ = ["EOS", "EOT", "Mode", "TrieMode", "TrieOp", "as_mode"]


class TrieMode(Enum):
    """How the tokens that spell an end-of-sequence string are read."""

    WITHOUT_EOS = "without_eos"
    """As ordinary text: their bytes can be read one by one."""

    WITH_EOS = "with_eos"
    """As the end: their probability belongs to the virtual symbol `EOS` and to no byte."""


Mode = TrieMode | str | None
"""A mode as users give it: a member, its value, or None for the default."""


def as_mode(mode: Mode | Any, default: TrieMode) -> TrieMode:
    """The member that a user means.

    Raises:
        ValueError: none of the two modes.

    Examples:
        >>> as_mode("with_eos", TrieMode.WITHOUT_EOS), as_mode(None, TrieMode.WITHOUT_EOS)
        (<TrieMode.WITH_EOS: 'with_eos'>, <TrieMode.WITHOUT_EOS: 'without_eos'>)
    """
    if mode.__class__ is TrieMode:
        return mode  # the hot path of a beam: members are what it passes
    if mode is None:
        return default
    try:
        return TrieMode(mode)
    except ValueError:
        known = ", ".join(f"{m!s} or {m.value!r}" for m in TrieMode)
        raise bad_value("mode", mode, f"must be {known}", "None is the default.") from None


class TrieOp(Enum):
    """What a batched request asks of the weights below each node."""

    SUM = "sum"
    MAX = "max"
