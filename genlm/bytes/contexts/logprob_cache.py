"""The log-probabilities that are remembered: those used last, within a bound in bytes."""

from __future__ import annotations

from collections import OrderedDict

from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.util.rows import Row

__all__ = ["LogProbCache"]


class LogProbCache:
    """Holds contexts that have rows. Whoever calls it holds a lock.

    Args:
        most_bytes: the bound.

    Attributes:
        nbytes: memory of the rows, in bytes.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.nbytes = 0
        self.contexts: OrderedDict[ContextNode, None] = OrderedDict()

    def keep(self, context: ContextNode, row: Row) -> None:
        """Remember a context's row; give up others, the least recently used first."""
        self.drop(context)  # it may have been asked for twice at the same time
        context.logps = row
        self.contexts[context] = None
        self.nbytes += row.nbytes
        while self.nbytes > self.most_bytes:
            self.drop(next(iter(self.contexts)))

    def drop(self, context: ContextNode) -> None:
        """Give up a context's row."""
        if context.logps is not None and context in self.contexts:
            del self.contexts[context]
            self.nbytes -= context.logps.nbytes
            context.logps = context.masses = None

    def touch(self, context: ContextNode) -> None:
        """Note that a context's row is used."""
        if context in self.contexts:
            self.contexts.move_to_end(context)

    def clear(self) -> None:
        """Give up all."""
        for context in self.contexts:
            context.logps = context.masses = None
        self.contexts.clear()
        self.nbytes = 0
