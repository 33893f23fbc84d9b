"""The contexts that a search visits, as one prefix tree.

A node is a context: its parent's tokens and one more. It may hold a *slot* (where the model's keys and
values for its last token are kept) and *log-probabilities* (what the model says comes next). Both can be
dropped to save memory and computed again, because the path to the root says how.

The tree holds its nodes weakly; a node lives while a candidate stands on it, while it has a descendant
that does, or while it holds a slot or log-probabilities. So nothing has to be freed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from genlm.bytes.trie.masses import NodeMasses
from genlm.bytes.util.rows import Row

__all__ = ["ContextNode", "ContextTree"]

LATEST = 64
"""Contexts whose tokens are remembered: more than a beam has candidates."""


class ContextNode:
    """A context of `depth` tokens. The root, of depth 0, has read nothing.

    Attributes:
        parent: the context without its last token; None for the root.
        token: the last token's id; -1 for the root.
        slot: where its keys and values are kept, or None.
        logps: natural log-probabilities of the next token, or None.
        masses: which of the tokens count (see `LazyTrieState`), and their sums by prefix, as far as somebody
            has asked; given up with `logps`.
        log_normalizer: what the model's logits are above `logps`; 0 where a backend has no logits.
        used: when a forward last needed it, or one without a slot of its own descended from it. Before
            anything is evicted it is brought up to what its descendants have.
    """

    __slots__ = (
        "__weakref__",
        "depth",
        "log_normalizer",
        "logps",
        "masses",
        "parent",
        "slot",
        "token",
        "tree",
        "used",
    )

    def __init__(self, tree: ContextTree, parent: ContextNode | None, token: int) -> None:
        self.tree = tree
        self.parent = parent
        self.token = token
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.slot: int | None = None
        self.logps: Row | None = None
        self.masses: tuple[Any, NodeMasses] | None = None
        self.log_normalizer = 0.0
        self.used = 0

    def child(self, token: int) -> ContextNode:
        """The context with one more token: the same object for the same token."""
        return self.tree.child(self, token)

    def tokens(self) -> list[int]:
        """The token ids of the context."""
        return self.tree.tokens(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> ContextNode:
        """The same context of the model's copy, where there is one (`StatefulTokenizedLM`); else itself."""
        tree: ContextTree = memo.get(id(self.tree), self.tree)
        return self if tree is self.tree else tree.find(self.tokens())

    def __repr__(self) -> str:
        return f"ContextNode(depth={self.depth}, token={self.token}, slot={self.slot})"


class ContextTree:
    """All contexts under one set of weights (the base model's, or one adapter's).

    Args:
        lora_name: the adapter's name; None for the model without one.
        adapter: an object that is another one when another adapter has been loaded under that name.
        far: whether its contexts are read as beginnings of such as are past a switch (`positions.py`).
    """

    def __init__(self, lora_name: str | None = None, adapter: object = None, far: bool = False) -> None:
        self.lora_name = lora_name
        self.adapter = adapter
        self.far = far
        self.root = ContextNode(self, None, -1)
        # A node keeps its parent alive, so no key here outlives the node whose identity it holds.
        self._nodes: WeakValueDictionary[tuple[int, int], ContextNode] = WeakValueDictionary()
        self._latest: dict[ContextNode, list[int]] = {}
        self._lock = Lock()  # loops in several threads ask for the same child at once

    def child(self, parent: ContextNode, token: int) -> ContextNode:
        """The node of `parent`'s context and one more token."""
        key = (id(parent), token)
        with self._lock:
            node = self._nodes.get(key)
            if node is None:
                node = self._nodes[key] = ContextNode(self, parent, token)
        return node

    def tokens(self, node: ContextNode) -> list[int]:
        """The token ids of a node's context. Those asked for last are remembered: the next are mostly longer
        by one, and a whole path takes a millisecond for each few thousand tokens."""
        tail: list[int] = []
        at = node
        with self._lock:
            while at.parent is not None and at not in self._latest:
                tail.append(at.token)
                at = at.parent
            found = [*self._latest.get(at, ()), *reversed(tail)]
            self._latest[node] = found
            if len(self._latest) > LATEST:
                del self._latest[next(iter(self._latest))]
        return list(found)

    def find(self, tokens: Sequence[int]) -> ContextNode:
        """The node of a whole context."""
        node = self.root
        for token in tokens:
            node = self.child(node, token)
        return node

    def __len__(self) -> int:
        return len(self._nodes)
