"""A drawing of a trie, for small vocabularies and papers. Needs the optional package graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float32
from torch import Tensor

from genlm.bytes.errors import MissingDependencyError
from genlm.bytes.trie.modes import EOS

if TYPE_CHECKING:
    from graphviz import Digraph

    from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["draw"]


def draw(trie: TokenByteTrie, sums: Float32[Tensor, " nodes"] | None) -> Digraph:
    """The trie as a graph: circles are prefixes, boxes are tokens, labels are bytes."""
    try:
        from graphviz import Digraph
    except ImportError as missing:
        raise MissingDependencyError(
            "`visualize` needs the package graphviz. Run: pip install 'genlm-bytes[viz]'"
        ) from missing
    graph = Digraph(node_attr={"fontsize": "10"}, edge_attr={"fontsize": "10"})
    for node in range(trie.node_count):
        weight = "" if sums is None else f"\n{float(sums[node]):.4g}"
        shape = "circle" if node < trie.eos_node else "box"
        graph.node(str(node), f"{node}{weight}", shape=shape)
    for node in range(trie.eos_node):
        for edge, child in trie.children[node].items():
            graph.edge(str(node), str(child), _label(edge))
    return graph


def _label(edge: object) -> str:
    if edge == EOS:
        return "EOS"
    if isinstance(edge, int):
        edge = bytes([edge])
    if isinstance(edge, bytes):
        # A backslash starts an escape in graphviz's own label language.
        return repr(edge)[2:-1].replace("\\", "\\\\")
    return f"EOT {edge[1]}" if isinstance(edge, tuple) else str(edge)
