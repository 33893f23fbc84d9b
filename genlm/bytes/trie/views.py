"""The documented, dictionary-like faces of the arrays, computed when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.modes import EOS

if TYPE_CHECKING:
    from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["Children", "Prefixes", "WordToLeaf"]


class Children(Sequence[dict[Any, int]]):
    """`children[node]`: a mapping from each edge below `node` to the node it leads to.

    Edges are bytes `0..255`, atomic units (`bytes`), the end-of-sequence symbol `EOS` at the root, and
    `(eot_sentinel, token_id)` for each token that ends at the node.
    """

    def __init__(self, trie: TokenByteTrie) -> None:
        self._trie = trie

    def __len__(self) -> int:
        return self._trie.node_count

    @overload
    def __getitem__(self, node: int) -> dict[Any, int]: ...
    @overload
    def __getitem__(self, node: slice) -> list[dict[Any, int]]: ...
    def __getitem__(self, node: int | slice) -> dict[Any, int] | list[dict[Any, int]]:
        if isinstance(node, slice):
            return [self[i] for i in range(*node.indices(len(self)))]
        node = range(len(self))[node]
        trie = self._trie
        edges: dict[Any, int] = {}
        if node >= trie.eos_node:
            return edges
        labels, nodes = trie.arrays.byte_children(node)
        edges.update(zip(labels.tolist(), nodes.tolist(), strict=True))
        if node == ROOT:
            edges.update(trie.arrays.unit_node)
            edges[EOS] = trie.eos_node
        edges.update(((trie.eot_sentinel, token), leaf) for leaf, token in trie.tokens_ending_at(node))
        return edges


class Prefixes(Sequence[list[int]]):
    """`node2prefix[node]`: the bytes read on the way to `node`, as a list of integers."""

    def __init__(self, trie: TokenByteTrie) -> None:
        self._trie = trie

    def __len__(self) -> int:
        return self._trie.node_count

    @overload
    def __getitem__(self, node: int) -> list[int]: ...
    @overload
    def __getitem__(self, node: slice) -> list[list[int]]: ...
    def __getitem__(self, node: int | slice) -> list[int] | list[list[int]]:
        if isinstance(node, slice):
            return [self[i] for i in range(*node.indices(len(self)))]
        node = range(len(self))[node]
        trie = self._trie
        if node == trie.eos_node:
            return [EOS]
        if node > trie.eos_node:
            return list(trie.decode[trie.arrays.order[node - trie.eos_node - 1]])
        return list(trie.arrays.prefix(node, trie.decode))


class WordToLeaf(Mapping[Any, int]):
    """`word2leaf[byte_string, token_id]`, or `word2leaf[byte_string]` where one token spells it."""

    def __init__(self, trie: TokenByteTrie) -> None:
        self._trie = trie

    @cached_property
    def _leaves(self) -> dict[tuple[bytes, int], int]:
        trie = self._trie
        return {
            (bytes(token), token.token_id): leaf
            for token, leaf in zip(trie.decode, trie.leaf_of_position.tolist(), strict=True)
        }

    @cached_property
    def _ids(self) -> dict[bytes, list[int]]:
        ids: dict[bytes, list[int]] = {}
        for word, token_id in self._leaves:
            ids.setdefault(word, []).append(token_id)
        return ids

    def __getitem__(self, key: Any) -> int:
        if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], bytes):
            return self._leaves[bytes(key[0]), key[1]]
        ids = self._ids[bytes(key)] if isinstance(key, bytes) else []
        if len(ids) != 1:
            several = f"{len(ids)} tokens spell it: look up (byte_string, token_id) with one of {ids}"
            raise KeyError(
                f"{key!r}: {several if ids else 'keys are byte strings or (byte_string, token_id)'}"
            )
        return self._leaves[bytes(key), ids[0]]

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._leaves!r})"
