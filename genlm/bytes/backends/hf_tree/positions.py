"""How far a model's positions reach, and those that depend on how deep the deepest context of a forward is.

In most models a position is encoded as such. Two ways of stretching a model's context are not like that:

- *longrope* (Phi-3-128k, Phi-4-mini) has two sets of frequencies. A forward in which any position reaches
  `original_max_position_embeddings` rotates every position by the long one, the first included. So a context
  that is longer than this *switch* has nothing in common with the shorter ones that it begins with. The
  engine keeps it in a tree of its own (`Twins`), beside which only such contexts are evaluated.
- *dynamic* scaling recomputes the frequencies where a context is longer than `max_position_embeddings`, which
  is as far as the engine reads. But a longer forward of somebody else's leaves its frequencies behind, until
  a forward that is *shorter* than that; so one exactly as long is preceded by a forward over one token.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch

from genlm.bytes.contexts.tree import ContextNode, ContextTree
from genlm.bytes.errors import UnsupportedModelError
from genlm.bytes.util.context_length import context_length

__all__ = ["Twins", "forget_longer", "longest_of", "stretched", "switch_of"]


def longest_of(model: Any) -> int | None:
    """The most tokens that a Hugging Face model reads; None where it does not say.

    RoBERTa and its like look positions up in a table in which the first comes after that of padding, so they
    read fewer tokens than `max_position_embeddings`.
    """
    longest = context_length(model.config.get_text_config(decoder=True))
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if longest is not None and padding is not None and name.endswith("position_embeddings"):
            longest = min(longest, module.num_embeddings - 1 - padding)
    return longest


def switch_of(config: Any) -> int | None:
    """The longest context that longrope reads by its short frequencies; None for a model without.

    Raises:
        UnsupportedModelError: its layers switch at different lengths.
    """
    found = set()
    for rope in _ropes(config):
        if _kind(rope) == "longrope":
            most = rope.get("original_max_position_embeddings")
            found.add(most or getattr(config, "original_max_position_embeddings", None))
    if len(found) > 1 or None in found:
        raise UnsupportedModelError(
            f"the positions of its layers change their meaning at {sorted(map(str, found))}"
        )
    return found.pop() if found else None


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The settings of the rotary positions; several where kinds of layers have their own."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in given.values() if isinstance(value, dict)]
    return nested if nested and "rope_type" not in given else [given]


def _kind(rope: dict[str, Any]) -> str | None:
    return rope.get("rope_type", rope.get("type"))


def stretched(model: torch.nn.Module) -> list[Any]:
    """The modules that remember the longest forward: those of dynamic scaling."""
    return [module for module in model.modules() if _remembers(module)]


def _remembers(module: Any) -> bool:
    kinds = getattr(module, "rope_type", None)
    kinds = list(kinds.values()) if isinstance(kinds, dict) else [kinds]
    return hasattr(module, "max_seq_len_cached") and any("dynamic" in (kind or "") for kind in kinds)


def forget_longer(model: Any, modules: list[Any], deepest: int) -> None:
    """Have the modules of dynamic scaling forget a forward that was longer than `deepest` tokens."""
    if any(deepest >= module.original_max_seq_len for module in modules):
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


class Twins:
    """Contexts past the switch, each with a twin in a tree of its own, and so with its ancestors' twins."""

    def __init__(self) -> None:
        self._trees: WeakKeyDictionary[ContextTree, ContextTree] = WeakKeyDictionary()
        self._nodes: WeakKeyDictionary[ContextNode, ContextNode] = WeakKeyDictionary()

    def of(self, node: ContextNode) -> ContextNode:
        """The twin of a node: always the same, as long as the node lives."""
        way: list[ContextNode] = []
        at = node
        while at.parent is not None and at not in self._nodes:
            way.append(at)
            at = at.parent
        twin = self._nodes.get(at)
        if twin is None:
            tree = self._trees.get(node.tree)
            if tree is None:
                tree = self._trees[node.tree] = ContextTree(node.tree.lora_name, node.tree.adapter, far=True)
            twin = tree.root
        for below in reversed(way):
            twin = self._nodes[below] = twin.child(below.token)
        return twin
