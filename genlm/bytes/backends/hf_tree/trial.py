"""Whether a model computes over a tree what it computes alone: found out by trying, for it cannot be guessed.

What is tried is all that the engine vouches for: contexts that share beginnings, read in several forwards,
beside others that are far deeper; columns in any order, with others' keys between; contexts just around
the length where a sliding window begins to slide, and around that where the positions change their meaning
(`positions.py`). Each is compared with the model's own forward over the same tokens.

A window may be of 4,096 tokens, and a forward over so many is dear. So the contexts around it have a few
tokens only, after a *trunk* of keys and values that no forward has made: the model's own forward is given
them as its cache, ours as the columns of its mask. In most of the trunk they are zero; only at the first
depths, which the window leaves behind first, are values so large that seeing one of them or not decides
the outcome. Likewise positions far out are given to a few tokens, without any before them.

In all it takes seven forwards over a few tokens each, and two more where there is a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from transformers.cache_utils import Cache, CacheLayerMixin

from genlm.bytes.backends.hf_tree.kv_view import KVView
from genlm.bytes.contexts.tree import ContextNode, ContextTree
from genlm.bytes.errors import UnsupportedModelError

if TYPE_CHECKING:
    from genlm.bytes.backends.hf_tree.forward import TreeModel

__all__ = ["try_out"]

SHORT = 9
"""Depth of the trunk that is tried whatever the model."""
EDGE = 6
"""Depths at the trunk's beginning that weigh so much: more than the new nodes are deep."""

_Rows = Float32[torch.Tensor, "contexts logits"]


@torch.no_grad()
def try_out(model: TreeModel) -> None:
    """Raises `UnsupportedModelError` where a model fails, or gives other results over a tree than alone."""
    size = model.config.vocab_size
    tokens = [(7 * i + 3) % size for i in range(1, 9)]
    depths = {SHORT} | ({max(1, model.window - 3)} if _slides(model) else set())
    try:
        _small_tree(model, tokens)
        for depth in sorted(depths):
            _after_a_trunk(model, tokens, depth)
        if model.switch is not None:
            _around_the_switch(model, tokens, model.switch)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(f"a trial run failed: {type(error).__name__}: {error}") from error


def _slides(model: TreeModel) -> bool:
    """Whether there is a window, and a context that does not fit into it."""
    return bool(model.window) and (model.longest is None or model.window < model.longest)


def _compare(
    model: TreeModel, what: str, got: Sequence[torch.Tensor], logits: Sequence[torch.Tensor]
) -> None:
    want: _Rows = torch.log_softmax(torch.stack(list(logits)).float(), dim=-1).cpu()
    found: _Rows = torch.stack(list(got))
    worst = float((found.exp() - want.exp()).abs().max())
    # Round-off depends on the precision; a mask that is ignored moves probabilities far more, but on
    # an untrained model all are near 1/size, so the allowance is relative to the largest.
    allowed = {torch.float32: 1e-3, torch.float16: 2e-2}.get(model.model.dtype, 1e-1)
    if not worst <= allowed * float(want.exp().max()) and not worst <= _round_off(model):
        raise UnsupportedModelError(f"a trial run with {what} is off by {worst:.2g}")


def _round_off(model: TreeModel) -> float:
    """How far probabilities move where embeddings are changed in their last place: what a 16-bit precision
    leaves open. In a small model that can be more than what is allowed by the precision alone."""
    if model.model.dtype.itemsize > 2:
        return 0.0
    tokens = [(7 * i + 3) % model.config.vocab_size for i in range(1, 5)]
    embed = model.model.get_input_embeddings()(torch.tensor([tokens], device=model.device))
    signs = torch.randint(0, 2, (4, *embed.shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    step = torch.finfo(embed.dtype).eps
    nudged = [embed, *((embed.float() * (1 + step * sign.to(embed.device))).to(embed) for sign in signs)]
    with model.own_way():
        found = [model.model(inputs_embeds=one, use_cache=False).logits.float().softmax(-1) for one in nudged]
    return max(float((one - found[0]).abs().max()) for one in found[1:])


def _alone(
    model: TreeModel, contexts: Sequence[Sequence[int]], start: int | None = None
) -> Float[torch.Tensor, "contexts n v"]:
    """The logits of the model's own forward over contexts of one length, that begin at position `start`."""
    ids = torch.tensor([list(tokens) for tokens in contexts], device=model.device)
    given: dict[str, Any] = {"use_cache": False}
    if start is not None:
        positions = torch.arange(start, start + ids.shape[1], device=model.device)
        given["position_ids"] = positions.expand(len(ids), -1)
    with model.own_way():
        logits: torch.Tensor = model.model(ids, **given).logits
    return logits


def _shifted(depth: int, *, far: bool = False) -> ContextTree:
    """A tree whose contexts lack their first `depth` tokens."""
    tree = ContextTree(far=far)
    tree.root.depth = depth
    return tree


def _small_tree(model: TreeModel, tokens: Sequence[int]) -> None:
    """A few contexts in three forwards, in the last of them beside some that are as deep as can be."""
    a, b, c, d, e, *_ = tokens
    tree = ContextTree()
    trunk = [tree.find([a]), tree.find([a, b])]
    alone = tree.find([a, b, c])  # it needs no mask
    leaves = [tree.find(path) for path in ([a, b, d], [a, e], [a, b, d, e], [a, b, c, d])]
    leaves.sort(key=lambda node: node.depth)
    most = model.switch or model.longest
    start = max(0, most - 2) if most else 0
    deep = [_shifted(start).find([e]), _shifted(start).find([c, b])] if most else []
    deep = [node for leaf in deep for node in (leaf.parent, leaf) if node is not None and node.parent]
    mates = [*leaves, *deep]
    try:
        model.run(trunk, [1])
        got = [*model.run([alone], [0]), *model.run(mates, range(len(mates)))]
    finally:
        model.cache.release([*trunk, alone, *mates])
        model.cache.trim()
    one, other, third = _alone(model, [[a, b, c, d], [a, b, d, e], [a, e, a, a]])
    rows = {(a, b, c): one[2], (a, b, c, d): one[3], (a, b, d): other[2], (a, b, d, e): other[3]}
    rows[a, e] = third[1]
    near = [rows[tuple(node.tokens())] for node in (alone, *leaves)]
    _compare(model, "a tree mask", got[: len(near)], near)
    if deep:
        one, other = _alone(model, [[e, a], [c, b]], start)
        _compare(model, "positions far out", got[len(near) :], [one[0], other[0], other[1]])


def _around_the_switch(model: TreeModel, tokens: Sequence[int], switch: int) -> None:
    """The last contexts before the switch and the first after it."""
    start = max(0, switch - 3)
    tokens = tokens[:6]
    near, far = (_shifted(start, far=far).find(tokens[:n]) for far, n in ((False, switch - start), (True, 6)))
    chain = _line(far)
    low = [node for node in chain if node.depth <= switch]
    try:
        got = [model.run(_line(near), [switch - start - 1])[0]]
        if low:
            model.run(low, [0])
        got += model.run(chain[len(low) :], range(len(chain) - len(low)))
    finally:
        model.cache.release([*_line(near), *chain])
        model.cache.trim()
    want = [_alone(model, [node.tokens()], start)[0, -1] for node in (near, *chain[len(low) :])]
    _compare(model, "contexts around a switch of the positions", got, want)


def _line(node: ContextNode) -> list[ContextNode]:
    """A node and its ancestors without the root, the first first."""
    found = []
    while node.parent is not None:
        found.append(node)
        node = node.parent
    return found[::-1]


# -- a trunk that no forward has made ------------------------------------------------------------------


def _after_a_trunk(model: TreeModel, tokens: Sequence[int], depth: int) -> None:
    """A few contexts after a trunk, its columns and theirs in any order, and with holes."""
    a, b, c, d, e, f, g, h = tokens
    tree = ContextTree()
    end = tree.root.child(a)
    end.depth = depth
    chain = [end]
    for token in (b, c, d, e, f):
        chain.append(chain[-1].child(token))
    chain, aside = chain[1:], chain[1].child(g)
    new = sorted([*chain, aside, aside.child(h)], key=lambda node: node.depth)
    count = depth + len(new) + SHORT
    columns = np.random.default_rng(0).permutation(count)
    trunk = _Trunk(len(model.kinds))
    ours = _Columns(trunk, columns[:depth], columns[depth : depth + len(new)], count, end)
    cache, model.cache = model.cache, ours
    try:
        given = {
            "past_key_values": _Columns(trunk, np.arange(depth), np.arange(depth, depth + 5), depth + 5),
            "position_ids": torch.arange(depth, depth + 5, device=model.device)[None],
        }
        ids = torch.tensor([[node.token for node in chain]], device=model.device)
        with model.own_way():
            want = model.model(ids, use_cache=True, **given).logits[0]
        got = model.run(new, [new.index(node) for node in chain])
    finally:
        model.cache = cache
    _compare(model, f"contexts of {depth + 1} to {depth + 5} tokens", got, list(want))


class _Trunk:
    """What is to be found at each depth of each layer: the same for two forwards.

    Attributes:
        spread: of each layer, how large its own values are.
    """

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.spread: dict[int, float] = {}

    def values(
        self, layer: int, like: Float[torch.Tensor, "1 h n d"], depth: int
    ) -> Float[torch.Tensor, "1 h e d"]:
        """The values at the first depths."""
        if layer not in self.spread:
            self.spread[layer] = float(like.float().std())
        shape = (*like.shape[:2], min(EDGE, depth), like.shape[3])
        found = torch.randn(shape, generator=torch.Generator().manual_seed(layer))
        largest = min(torch.finfo(like.dtype).max, torch.finfo(torch.float32).max) / 100
        return (found * (depth * self.spread[layer])).clamp(-largest, largest).to(like)


class _Columns(Cache):  # type: ignore[misc]
    """A cache that holds a trunk, in any columns.

    Args:
        trunk: the trunk.
        old: the column of each of its depths.
        new: those of the new nodes.
        count: how many columns there are.
        end: the node at the trunk's end.
    """

    def __init__(
        self,
        trunk: _Trunk,
        old: Int[np.ndarray, " depth"],
        new: Int[np.ndarray, " new"],
        count: int,
        end: ContextNode | None = None,
    ) -> None:
        super().__init__(layers=[_Layer(self, i) for i in range(trunk.layers)])
        self.trunk, self.old, self.end = trunk, old, end
        self.new = torch.from_numpy(new)
        self.view = KVView(new, np.sort(old), 0, count)

    def prepare(self, new: list[ContextNode]) -> dict[ContextNode, Int[np.ndarray, " depth"]]:
        """See `KVCache`."""
        assert self.end is not None and len(new) == len(self.new)
        return {self.end: self.old}


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    is_sliding = False

    def __init__(self, cache: _Columns, index: int) -> None:
        super().__init__()
        self._cache, self._index = cache, index

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cache = self._cache
        edge = cache.trunk.values(self._index, value_states, len(cache.old))
        values = self._among(value_states)
        values[:, :, torch.from_numpy(cache.old[: edge.shape[2]]).to(values.device)] = edge
        return self._among(key_states), values

    def _among(self, states: Float[torch.Tensor, "1 h n d"]) -> Float[torch.Tensor, "1 h c d"]:
        """Some states in the new nodes' columns; elsewhere zero."""
        made = states.new_zeros((*states.shape[:2], self._cache.view.length, states.shape[3]))
        return made.index_copy_(2, self._cache.new.to(states.device), states)

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        return self._cache.view.length, 0

    def get_seq_length(self) -> int:
        return self._cache.view.length - len(self._cache.new)

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length
