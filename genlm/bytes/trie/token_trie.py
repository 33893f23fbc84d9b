"""`TokenByteTrie`: the trie of a vocabulary, under its documented names.

The shape of the vocabulary is in `TrieArrays`, shared by every trie over the same spellings. This class
adds what one user chooses on top of it: which tokens end a sequence, and where sums are worked.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Int

from genlm.bytes.errors import bad_asserted, bad_type, bad_value
from genlm.bytes.token_class import token_class
from genlm.bytes.trie.arrays import ROOT, TrieArrays
from genlm.bytes.trie.blocks import Blocks
from genlm.bytes.trie.modes import EOS, Mode, TrieMode, TrieOp, as_mode
from genlm.bytes.trie.views import Children, Prefixes, WordToLeaf

if TYPE_CHECKING:
    import torch
    from genlm.backend.tokenization import Token
    from graphviz import Digraph

    from genlm.bytes.trie.sums import Branches
    from genlm.bytes.trie.torch_sums import Levels

    Weights = torch.Tensor | np.ndarray | Sequence[Any]
else:
    Weights = Any

__all__ = ["TokenByteTrie"]

_shapes: weakref.WeakValueDictionary[bytes, TrieArrays] = weakref.WeakValueDictionary()


class TokenByteTrie:
    """The prefixes of a vocabulary's byte strings, and sums of token weights below each.

    Nodes are numbered: prefixes in depth-first order (the root is 0), then the end-of-sequence node,
    then one leaf a token. Tokens that share a spelling have a leaf each.

    Args:
        decode: the vocabulary, `genlm.backend.tokenization.Token`s. Plain `bytes` are accepted with a
            `DeprecationWarning`; their token ids are their positions.
        device: where `weight_sum` and its like are worked: `"cpu"`, `"cuda"`, or None for CUDA if there
            is any.
        atomic_byte_strings: spellings that are read in one step, as a single symbol, from the root.
        eot_sentinel: the first half of an end-of-token edge `(eot_sentinel, token_id)` in `children`.
        eos_byte_strings: spellings that end a sequence where the mode is `TrieMode.WITH_EOS`.
        max_batch_size: rows worked at once on a GPU, and requests that the async service batches.
        atomic_tokens: older name of `atomic_byte_strings`.
        eot_token: older name of `eot_sentinel`.
        eos_tokens: older name of `eos_byte_strings`.

    Raises:
        ValueError: `decode` is empty; an atomic or EOS string is not in it; an unknown device; a
            `max_batch_size` below 1.
        TypeError: an entry of another type; both names of one argument given.

    Examples:
        >>> from genlm.backend.tokenization import Token
        >>> trie = TokenByteTrie([Token(0, b"a"), Token(1, b"ab"), Token(2, b"b")], device="cpu")
        >>> trie.weight_sum([0.5, 0.25, 0.25])[[trie.root, trie.children[trie.root][ord("a")]]]
        tensor([1.0000, 0.7500])
    """

    root = ROOT

    def __init__(
        self,
        decode: Sequence[Token],
        device: str | None = None,
        atomic_byte_strings: Iterable[bytes] | None = None,
        eot_sentinel: Any = None,
        eos_byte_strings: Iterable[bytes] | None = None,
        max_batch_size: int = 64,
        *,
        atomic_tokens: Iterable[bytes] | None = None,
        eot_token: Any = None,
        eos_tokens: Iterable[bytes] | None = None,
    ) -> None:
        atomic = _either("atomic_byte_strings", atomic_byte_strings, "atomic_tokens", atomic_tokens)
        eos = _either("eos_byte_strings", eos_byte_strings, "eos_tokens", eos_tokens)
        self.eot_sentinel = _either("eot_sentinel", eot_sentinel, "eot_token", eot_token)
        self.decode: list[Token] = _tokens(decode)
        spellings = [bytes(token) for token in self.decode]
        known = set(spellings) if atomic or eos else set[bytes]()
        self.atomic_byte_strings = _spelled("atomic_byte_strings", "Atomic", atomic, known)
        self.eos_byte_strings = _spelled("eos_byte_strings", "EOS", eos, known)
        if b"" in self.atomic_byte_strings | self.eos_byte_strings:
            raise bad_value("decode", b"", "an empty token can be neither atomic nor an end of sequence")
        if device is not None:
            self.device = _checked_device(device)
        if isinstance(max_batch_size, bool) or not isinstance(max_batch_size, int) or max_batch_size < 1:
            raise bad_value("max_batch_size", max_batch_size, "must be an integer of at least 1", "Try 64.")
        self.max_batch_size = max_batch_size

        self.arrays = _shape(spellings, frozenset(self.atomic_byte_strings))
        self.eos_node = len(self.arrays)
        self.node_count = self.eos_node + 1 + len(self.decode)
        ids = np.fromiter((token.token_id for token in self.decode), np.int64, len(self.decode))
        self.largest_id = int(ids.max())
        self.token_ids: Int[np.ndarray, " tokens"] = ids[self.arrays.order]
        # Where weights come by token id and that is not their order here, their places.
        in_order = np.arange(len(ids))
        by_id = np.array_equal(np.sort(ids), in_order) and not np.array_equal(ids, in_order)
        self._places = ids if by_id else None
        ends = [i for i, s in enumerate(spellings) if s in self.eos_byte_strings]
        self.eos_token_ids: list[int] = ids[ends].tolist()
        self.eos_token_id_set = frozenset(self.eos_token_ids)
        self.eos_leaves: Int[np.ndarray, " eos"] = np.sort(self._sorted_position[ends])

    atomic_tokens = property(lambda self: self.atomic_byte_strings, doc="Older name.")
    eot_token = property(lambda self: self.eot_sentinel, doc="Older name of `eot_sentinel`.")
    eos_tokens = property(lambda self: self.eos_byte_strings, doc="Older name of `eos_byte_strings`.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.decode)} tokens, {self.node_count} nodes, {self.device})"

    @cached_property
    def device(self) -> str:
        """Where sums are worked."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def blocks(self) -> Blocks:
        """The sorted tokens in blocks, for the masses of one distribution (`NodeMasses`)."""
        return Blocks.of(self.arrays, self.eos_leaves)

    @property
    def nbytes(self) -> int:
        """Memory held by the arrays of this trie, in bytes; the vocabulary itself is the caller's."""
        own = self.token_ids.nbytes + self.eos_leaves.nbytes
        branches = vars(self).get("_branches")
        sums = sum(a.nbytes for a in vars(branches).values()) if branches is not None else 0
        return self.arrays.nbytes + own + sums + (self.blocks.nbytes if "blocks" in vars(self) else 0)

    def validate(self) -> None:
        """Check the structure's invariants. Done once at construction of each new shape."""
        self.arrays.validate()

    # -- documented views -----------------------------------------------------------------------------

    @cached_property
    def children(self) -> Children:
        """`children[node]`: a dict from each edge to the node it leads to; a sequence, read-only."""
        return Children(self)

    @cached_property
    def node2prefix(self) -> Prefixes:
        """`node2prefix[node]`: the bytes on the way to it, as a list of integers; a mapping."""
        return Prefixes(self)

    @cached_property
    def word2leaf(self) -> WordToLeaf:
        """Leaf of each `(byte_string, token_id)`; also of a bare byte string that one token spells."""
        return WordToLeaf(self)

    @cached_property
    def leaf2word(self) -> dict[int, tuple[bytes, int]]:
        """The inverse of `word2leaf`."""
        return {leaf: word for word, leaf in self.word2leaf.items()}

    @cached_property
    def lookup(self) -> dict[tuple[bytes, int], int]:
        """Token id of each `(byte_string, token_id)`."""
        return {(bytes(token), token.token_id): token.token_id for token in self.decode}

    @cached_property
    def leaf2token_id(self) -> dict[int, int]:
        """Token id of each leaf."""
        return {int(leaf): int(token) for token, leaf in self.token_id_to_leaf}

    @cached_property
    def token_id_to_leaf(self) -> Int[np.ndarray, "tokens 2"]:
        """Pairs `(token_id, leaf)` in the order of `decode`."""
        ids = np.fromiter((t.token_id for t in self.decode), np.int64, len(self.decode))
        return np.stack([ids, self.leaf_of_position], axis=1)

    @cached_property
    def spelling_of_id(self) -> dict[int, bytes]:
        """The byte string of each token id."""
        return {token.token_id: bytes(token) for token in self.decode}

    @cached_property
    def producible(self) -> frozenset[int]:
        """The bytes that occur in any token."""
        return frozenset(b"".join(map(bytes, self.decode)))

    def readable(self, mode: TrieMode) -> frozenset[int]:
        """The bytes that some token is read by, one after another.

        Those of atomic units are not, nor, with `TrieMode.WITH_EOS`, those of tokens that end the sequence.
        """
        return self._readable[mode]

    @cached_property
    def _readable(self) -> dict[TrieMode, frozenset[int]]:
        words, units = set(map(bytes, self.decode)), self.atomic_byte_strings
        left_out = {TrieMode.WITHOUT_EOS: units, TrieMode.WITH_EOS: units | self.eos_byte_strings}
        return {mode: frozenset(b"".join(words - strings)) for mode, strings in left_out.items()}

    def may_read(self, symbol: int | bytes, mode: TrieMode) -> bool:
        """Whether any token at all is read by a symbol: a byte, 257 for the end, or an atomic unit."""
        if isinstance(symbol, bytes):
            return symbol in self.arrays.unit_node
        if symbol == EOS:
            return mode is TrieMode.WITH_EOS and len(self.eos_leaves) > 0
        return symbol in self.readable(mode)

    @property
    def leaf_of_position(self) -> Int[np.ndarray, " tokens"]:
        """The leaf of each entry of `decode`."""
        return self._sorted_position + self.eos_node + 1

    @property
    def _sorted_position(self) -> Int[np.ndarray, " tokens"]:
        position = np.empty(len(self.arrays.order), np.int64)
        position[self.arrays.order] = np.arange(len(position))
        return position

    def tokens_ending_at(self, node: int) -> list[tuple[int, int]]:
        """`(leaf, token_id)` of each token spelled by the path to `node`, in the order of `decode`."""
        first = int(self.arrays.lo[node])
        return [
            (self.eos_node + 1 + i, int(self.token_ids[i]))
            for i in range(first, first + int(self.arrays.ends[node]))
        ]

    # -- sums -----------------------------------------------------------------------------------------

    def weight_sum(self, ws: Weights, mode: Mode = None) -> Float32[torch.Tensor, " nodes"]:
        """For every node, the sum of the weights of the tokens below it.

        Args:
            ws: one weight per token, `[tokens]`: by token id where the ids are 0, 1, 2 … in any order, as
                those of a model are; where they have holes, in the order of `decode`.
            mode: a `TrieMode` or its value. `WITHOUT_EOS` (the same as None): every token is ordinary text
                and the end-of-sequence node gets 0. `WITH_EOS`: tokens that end a sequence give their
                weight to the end-of-sequence node and the root only.

        Returns:
            float32 on `device`, `[nodes]`. On a CPU, sums are worked in float64.

        Raises:
            ValueError: the number of weights differs from the number of tokens; an unknown mode.
        """
        return self._below(ws, mode, TrieOp.SUM, 1)[0]

    def batch_weight_sum(self, ws: Weights, mode: Mode = None) -> Float32[torch.Tensor, "batch nodes"]:
        """`weight_sum` of each row of `ws`, `[batch, tokens]`."""
        return self._below(ws, mode, TrieOp.SUM, 2)

    def weight_max(self, ws: Weights) -> Float32[torch.Tensor, " nodes"]:
        """For every node, the largest weight of the tokens below it. See `weight_sum`."""
        return self._below(ws, None, TrieOp.MAX, 1)[0]

    def batch_weight_max(self, ws: Weights) -> Float32[torch.Tensor, "batch nodes"]:
        """`weight_max` of each row of `ws`, `[batch, tokens]`."""
        return self._below(ws, None, TrieOp.MAX, 2)

    def check_weights(self, ws: Weights, dims: int) -> Float[torch.Tensor, "batch tokens"]:
        """`ws` as a batch, or a `ValueError` naming what is wrong with its shape."""
        import torch

        if isinstance(ws, list | tuple) and any(isinstance(row, torch.Tensor | np.ndarray) for row in ws):
            ws = torch.stack([torch.as_tensor(row).double() for row in ws])
        weights = torch.as_tensor(ws).detach()
        if not weights.is_floating_point() or weights.dtype not in (torch.float32, torch.float64):
            weights = weights.float() if weights.is_floating_point() else weights.double()
        if weights.dim() != dims or weights.shape[-1] != len(self.decode):
            want = f"[{len(self.decode)}]" if dims == 1 else f"[batch, {len(self.decode)}]"
            raise bad_asserted(
                "ws",
                f"weights of shape {list(weights.shape)}",
                f"this trie has {len(self.decode)} tokens and takes weights of shape {want}",
                "Pass one weight per entry of `decode`.",
            )
        return weights.reshape(-1, len(self.decode))

    def _below(self, ws: Weights, mode: Mode, op: TrieOp, dims: int) -> Float32[torch.Tensor, "batch nodes"]:
        import torch

        weights = self.check_weights(ws, dims)
        if self._places is not None:
            weights = weights[:, self._places]
        with_eos = as_mode(mode, TrieMode.WITHOUT_EOS) is TrieMode.WITH_EOS
        eos = self.eos_leaves if with_eos else self.eos_leaves[:0]
        if self.device == "cpu":
            from genlm.bytes.trie.sums import below_cpu

            rows = np.ascontiguousarray(weights.cpu().numpy())
            return torch.from_numpy(below_cpu(self.arrays, self._branches, rows, eos, op))
        from genlm.bytes.trie.torch_sums import below_torch

        leaves = torch.as_tensor(eos, device=self.device)
        parts = [
            below_torch(self._levels, part.to(self.device), leaves, op)
            for part in torch.split(weights, self.max_batch_size)
        ]
        return torch.cat(parts) if parts else weights.new_zeros(0, self.node_count).float()

    @cached_property
    def _branches(self) -> Branches:
        from genlm.bytes.trie.sums import Branches

        return Branches.of(self.arrays)

    @cached_property
    def _levels(self) -> Levels:
        from genlm.bytes.trie.torch_sums import Levels

        return Levels(self.arrays, self.device)

    def visualize(self, ws: Weights | None = None) -> Digraph:
        """A graphviz drawing of the trie.

        Args:
            ws: a number to show in each node, `[nodes]`, such as `weight_sum` returns; None for none.

        Raises:
            ValueError: the number of weights differs from the number of nodes.
            MissingDependencyError: graphviz is not installed.
        """
        from genlm.bytes.trie.draw import draw

        return draw(self, ws)


def _either(name: str, value: Any, older: str, older_value: Any) -> Any:
    """The value of an argument that has an older name."""
    if value is not None and older_value is not None:
        raise bad_type(older, older_value, f"cannot be given together with `{name}`", f"Give `{name}` alone.")
    return older_value if value is None else value


def _tokens(decode: Sequence[Any]) -> list[Token]:
    """The vocabulary as a list of `Token`s."""
    Token = token_class()
    entries = list(decode)
    if not entries:
        raise bad_value("decode", decode, "decode cannot be empty", "Pass the model's `byte_vocab`.")
    plain = False
    for position, entry in enumerate(entries):
        if isinstance(entry, Token):
            continue
        if not isinstance(entry, bytes):
            raise bad_type(
                f"decode[{position}]",
                entry,
                f"decode must contain Token objects, got {type(entry).__name__}",
                "Use genlm.backend.tokenization.decode_vocab() to make them.",
            )
        entries[position] = Token(position, entry)
        plain = True
    if plain:
        warnings.warn(
            "Passing plain bytes to TokenByteTrie is deprecated. Pass Token objects, such as those of "
            "genlm.backend.tokenization.decode_vocab().",
            DeprecationWarning,
            stacklevel=3,
        )
    return entries


def _spelled(name: str, kind: str, strings: Iterable[bytes] | None, known: set[bytes]) -> set[bytes]:
    """A set of byte strings that are all in the vocabulary."""
    if isinstance(strings, bytes | str):
        raise bad_type(name, strings, "must be a collection of bytes", f"Pass [{strings!r}].")
    found: set[bytes] = set()
    for string in strings or ():
        if not isinstance(string, bytes):
            raise bad_type(name, string, "each entry must be bytes")
        if bytes(string) not in known:
            raise bad_value(
                name,
                string,
                f"{kind} byte string {bytes(string)!r} not in vocabulary",
                "Pass a string that some token of `decode` spells exactly.",
            )
        found.add(bytes(string))
    return found


def _checked_device(device: str) -> str:
    if device not in ("cpu", "cuda"):
        raise bad_value("device", device, f"Invalid device: {device}", "Must be 'cpu', 'cuda' or None.")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise bad_value("device", device, "torch sees no CUDA device here", "Pass 'cpu' or None.")
    return device


def _shape(spellings: list[bytes], units: frozenset[bytes]) -> TrieArrays:
    """The arrays for these spellings: those in use already, or new ones."""
    digest = blake2b(digest_size=32)
    for part in (spellings, sorted(units)):
        digest.update(np.array([len(part), *map(len, part)], np.int64).tobytes())
        digest.update(b"".join(part))
    key = digest.digest()
    arrays = _shapes.get(key)
    if arrays is None:
        arrays = _shapes[key] = TrieArrays.build(spellings, units)
    return arrays
