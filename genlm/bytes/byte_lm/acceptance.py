"""How probable it is that a drafted context will be needed, learned while a text is read.

Some things that can be seen of a draft tell of its chances: its kind, and the share of the beam that it is
expected to have. For each kind and each e-fold of that share the drafts of this text that were needed, and
those that were not, are counted. A prior counts as much as `PRIOR_WEIGHT` drafts (a Beta posterior's mean),
so that the first drafts are judged too. In speculative decoding this is the acceptance rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from genlm.bytes.contexts.tree import ContextNode

__all__ = ["Acceptance"]

PRIOR_WEIGHT = 4.0

_Kind = tuple[Any, int]


class Acceptance:
    """Counts, and the drafts that are not decided yet."""

    def __init__(self) -> None:
        self._needed: dict[_Kind, int] = defaultdict(int)
        self._made: dict[_Kind, int] = defaultdict(int)
        self._open: dict[ContextNode, tuple[_Kind, int]] = {}

    def probability(self, kind: Any, log_share: float, prior: float) -> float:
        """The probability that a draft is needed.

        Args:
            kind: what is drafted.
            log_share: natural log of the share of the beam that it is expected to have.
            prior: what is taken before anything is known.
        """
        key = _key(kind, log_share)
        return (self._needed[key] + PRIOR_WEIGHT * prior) / (self._made[key] + PRIOR_WEIGHT)

    def drafted(self, node: ContextNode, kind: Any, log_share: float, until: int) -> None:
        """A context has been drafted, in vain if nothing has needed it when symbol `until` has been read."""
        self._open.setdefault(node, (_key(kind, log_share), until))

    def used(self, nodes: Iterable[ContextNode]) -> None:
        """Contexts were needed."""
        for node in nodes:
            found = self._open.pop(node, None)
            if found is not None:
                self._needed[found[0]] += 1
                self._made[found[0]] += 1

    def passed(self, index: int) -> None:
        """Everything before a symbol has been read for good."""
        for node in [node for node, (_, until) in self._open.items() if until < index]:
            self._made[self._open.pop(node)[0]] += 1


def _key(kind: Any, log_share: float) -> _Kind:
    return kind, max(-20, min(0, round(log_share)))
