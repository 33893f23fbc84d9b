"""A drawing of a trie, for small vocabularies and papers. Needs the optional package graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from genlm.bytes.errors import bad_asserted, optional
from genlm.bytes.trie.modes import EOS
from genlm.bytes.util.maths import as_array

if TYPE_CHECKING:
    from graphviz import Digraph

    from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["draw"]


def draw(trie: TokenByteTrie, ws: Any) -> Digraph:
    """The trie as a graph: circles are prefixes, boxes are tokens, labels are bytes."""
    weights = None if ws is None else _checked(trie, ws)
    graphviz = optional("graphviz", "`visualize`", "'genlm-bytes[viz]'")
    graph: Digraph = graphviz.Digraph(node_attr={"fontsize": "10"}, edge_attr={"fontsize": "10"})
    for node in range(trie.node_count):
        weight = "" if weights is None else f"\n{weights[node]:.4g}"
        shape = "circle" if node < trie.eos_node else "box"
        graph.node(str(node), f"{node}{weight}", shape=shape)
    for node in range(trie.eos_node):
        for edge, child in trie.children[node].items():
            graph.edge(str(node), str(child), _label(edge))
    return graph


def _checked(trie: TokenByteTrie, ws: Any) -> Float[np.ndarray, " nodes"]:
    weights = as_array("ws", ws)
    if weights.shape != (trie.node_count,):
        raise bad_asserted(
            "ws",
            f"weights of shape {list(weights.shape)}",
            f"the trie has {trie.node_count} nodes, and a drawing takes one weight for each",
            "Pass what `weight_sum` or `weight_max` makes of the tokens' weights.",
        )
    return weights


def _label(edge: object) -> str:
    if edge == EOS:
        return "EOS"
    if isinstance(edge, int):
        edge = bytes([edge])
    if isinstance(edge, bytes):
        # A backslash starts an escape in graphviz's own label language.
        return repr(edge)[2:-1].replace("\\", "\\\\")
    return f"EOT {edge[1]}" if isinstance(edge, tuple) else str(edge)
