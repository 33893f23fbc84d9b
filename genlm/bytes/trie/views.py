"""The documented faces of the arrays: lists and dicts in all but storage, computed when somebody looks.

A vocabulary of 10⁵ tokens has as many dicts of edges and lists of bytes as nodes; building them takes longer
than all else together, and hardly anyone asks for more than a path. So `children` and `node2prefix` make the
entry that is asked for. Whatever else a `list` or a `dict` can do without changing, they do too: compare with
builtins, copy, pickle, concatenate, print. What a copy or a concatenation gives is the builtin. They cannot
be changed, since nothing could change with them; the builtins' mutating methods are missing.

`word2leaf` is as large as the vocabulary and made as a whole, so it is a `dict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, overload

from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.modes import EOS

if TYPE_CHECKING:
    from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["Children", "Prefixes", "WordToLeaf"]


class _View:
    """What a builtin can do, done by a copy; `builtin` is which."""

    __hash__ = None  # type: ignore[assignment]
    builtin: ClassVar[type]

    def __init__(self, trie: TokenByteTrie) -> None:
        self._trie = trie

    def __len__(self) -> int:
        return self._trie.node_count

    def copy(self) -> Any:
        """A builtin of the same entries."""
        return self.builtin(self)

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reduce__(self) -> Any:
        return self.builtin, (self.copy(),)


class Children(_View, Sequence[dict[Any, int]]):
    """`children[node]`: a dict from each edge below `node` to the node it leads to.

    Edges are bytes `0..255`, atomic units (`bytes`), the end-of-sequence symbol `EOS` at the root, and
    `(eot_sentinel, token_id)` for each token that ends at the node. Each look makes a dict of its own.
    """

    builtin = list

    @overload
    def __getitem__(self, node: int) -> dict[Any, int]: ...
    @overload
    def __getitem__(self, node: slice) -> list[dict[Any, int]]: ...
    def __getitem__(self, node: int | slice) -> dict[Any, int] | list[dict[Any, int]]:
        if isinstance(node, slice):
            return [self._edges(i) for i in range(*node.indices(len(self)))]
        return self._edges(range(len(self))[node])

    def _edges(self, node: int) -> dict[Any, int]:
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

    def __iter__(self) -> Iterator[dict[Any, int]]:
        return map(self._edges, range(len(self)))

    def __eq__(self, other: object) -> Any:  # NotImplemented is no bool
        if isinstance(other, Children):
            return self is other or (len(self) == len(other) and all(map(dict.__eq__, self, other)))
        if not isinstance(other, list):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    def __lt__(self, other: Any) -> Any:
        return list(self) < other

    def __le__(self, other: Any) -> Any:
        return list(self) <= other

    def __gt__(self, other: Any) -> Any:
        return list(self) > other

    def __ge__(self, other: Any) -> Any:
        return list(self) >= other

    def __add__(self, other: Any) -> Any:
        return list(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + list(self)

    def __mul__(self, times: Any) -> Any:
        return list(self) * times

    __rmul__ = __mul__


class Prefixes(_View, Mapping[int, list[int]]):
    """`node2prefix[node]`: the bytes read on the way to `node`, as a list of integers."""

    builtin = dict

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __reversed__(self) -> Iterator[int]:
        return reversed(range(len(self)))

    def __getitem__(self, node: Any) -> list[int]:
        hash(node)  # what cannot be hashed is a TypeError, as of a dict
        index = (
            node.__index__() if hasattr(node, "__index__") else int(node) if isinstance(node, float) else -1
        )
        if index != node or not 0 <= index < len(self):
            raise KeyError(node)
        trie = self._trie
        if index == trie.eos_node:
            return [EOS]
        if index > trie.eos_node:
            return list(trie.decode[trie.arrays.order[index - trie.eos_node - 1]])
        return list(trie.arrays.prefix(index, trie.decode))

    def __or__(self, other: Any) -> Any:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented


class WordToLeaf(dict[Any, int]):
    """`word2leaf[byte_string, token_id]`, or `word2leaf[byte_string]` where one token spells it.

    The keys are the pairs; bare byte strings are found by `[]`, `in` and `get` alone.
    """

    def __init__(self, trie: TokenByteTrie) -> None:
        words = ((bytes(token), token.token_id) for token in trie.decode)
        super().__init__(zip(words, trie.leaf_of_position.tolist(), strict=True))
        self._ids: dict[bytes, list[int]] = {}
        for word, token_id in self:
            self._ids.setdefault(word, []).append(token_id)

    def __missing__(self, key: Any) -> int:
        if isinstance(key, tuple) and len(key) == 2:
            word, token_id = key
            if isinstance(word, bytes) and type(word) is not bytes:  # a token in place of its byte string
                return self[bytes(word), token_id]
            raise KeyError(key)
        ids = self._ids.get(bytes(key), []) if isinstance(key, bytes) else []
        if len(ids) != 1:
            several = f"{len(ids)} tokens spell it: look up (byte_string, token_id) with one of {ids}"
            raise KeyError(
                f"{key!r}: {several if ids else 'keys are byte strings or (byte_string, token_id)'}"
            )
        return self[bytes(key), ids[0]]

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def get(self, key: Any, default: Any = None) -> Any:
        """The leaf of a key, or `default`."""
        try:
            return self[key]
        except KeyError:
            return default

    def __reduce__(self) -> Any:
        return dict, (dict(self),)
