"""One forward of a Hugging Face model over any set of nodes of a prefix tree.

New nodes' tokens are the sequence, a node's position is its depth, and a mask lets each node attend to
its ancestors and itself. Whatever else shares the forward, each node then computes exactly what it
would compute at the end of its own context. Layers with a sliding window see only the ancestors that
are near enough.

Whether a model takes such a mask is not guessed from its name: `TreeModel.check` tries it out (`trial.py`).

A tree may be *far*: its contexts are then read as the beginnings of such as are past a switch of the model's
positions (`positions.py`). Where none of a forward's nodes is past it itself, one is added that is.

`torch.compile` does not pay on a CPU, where nearly every forward has a shape of its own: SmolLM2-135M took 86
s for the first of compiled layers, and no forward over 1, 12 or 60 new nodes was faster than uncompiled.
Nearly all time is in matrix products, which compiling leaves as they are. So a compiled model is run as it
was written (`wrapped.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int

from genlm.bytes.backends.hf_tree.attention import attentions, reference
from genlm.bytes.backends.hf_tree.float32_head import Float32Head
from genlm.bytes.backends.hf_tree.kv_cache import KVCache
from genlm.bytes.backends.hf_tree.logprobs import normalized, token_logps
from genlm.bytes.backends.hf_tree.positions import forget_longer, longest_of, stretched, switch_of
from genlm.bytes.backends.hf_tree.small_matmul import TransposedMatmul, faster_transposed
from genlm.bytes.backends.hf_tree.tree_mask import ancestors, depths, is_chain
from genlm.bytes.backends.hf_tree.trial import try_out
from genlm.bytes.backends.hf_tree.wrapped import accepted, eagerly, is_compiled
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["TreeModel"]

FULL, SLIDING = "full_attention", "sliding_attention"


class TreeModel:
    """A causal language model that evaluates nodes of a prefix tree.

    Args:
        model: the Hugging Face model, in evaluation mode.
        most_bytes: see `KVCache`.

    Attributes:
        longest: the most tokens that the model reads; None where it does not say.
        switch: the longest context to be read in a tree that is not far; None: all are.
        attention: how its layers attend.
        deterministic: whether to do without what is chosen by measuring (`small_matmul.py`): a second engine
            may find otherwise, and round-off depends on it.

    Raises:
        UnsupportedModelError: from what the model's configuration says, it cannot work.
    """

    def __init__(self, model: Any, most_bytes: int) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.kinds = _layer_kinds(self.config)
        self.window: int = getattr(self.config, "sliding_window", None) or 0
        parameters = accepted(model)
        if not {"position_ids", "past_key_values"} <= parameters:
            raise UnsupportedModelError("its forward takes no position_ids and past_key_values")
        self._keeps_logits = "logits_to_keep" in parameters
        self.device: torch.device = model.device
        self._dtype: torch.dtype = model.dtype
        self._attentions = attentions(model, self.config, self.device)
        self.attention = self._attentions[0]
        self._reference = reference(model, self.config)
        self.cache = KVCache(len(self.kinds), self.device, most_bytes)
        self.longest = longest_of(model)
        self.switch = switch_of(self.config)
        self._stretched = stretched(model)
        self.deterministic = False
        self._transposed = faster_transposed(model) if self.device.type == "cpu" else frozenset()
        self._head: Float32Head | None = Float32Head(model)
        self._compiled = is_compiled(model)

    def run(self, new: list[ContextNode], wanted: Sequence[int]) -> list[Float32[torch.Tensor, " v"]]:
        """The next token's natural log-probabilities at some of `new` (see `forward`), in the host's memory.

        There beams read them, a few hundred bytes of each row; and there is more room than beside the keys
        and values, of which a context has a fraction.
        """
        return normalized([new[i] for i in wanted], self.forward(new, wanted))

    def run_scored(
        self, new: list[ContextNode], wanted: Sequence[int], scored: Sequence[tuple[int, int]]
    ) -> tuple[list[Float32[torch.Tensor, " v"]], Float32[torch.Tensor, " scored"]]:
        """`run`; and of a few tokens their log-probabilities alone, taken on the model's device.

        Args:
            new: see `forward`.
            wanted: positions in `new` whose rows are wanted.
            scored: positions in `new`, and the token asked for there.
        """
        at = list(dict.fromkeys([*wanted, *(i for i, _ in scored)])) or [len(new) - 1]
        logits = self.forward(new, at)
        row = {i: k for k, i in enumerate(at)}
        picked = token_logps(logits, [(row[i], token) for i, token in scored])
        return normalized([new[i] for i in wanted], logits[: len(wanted)]), picked

    @torch.no_grad()
    def forward(self, new: list[ContextNode], wanted: Sequence[int]) -> Float[torch.Tensor, "wanted v"]:
        """Evaluate `new`; return the logits at some of them, on the model's device.

        Args:
            new: the nodes to evaluate, parents first. Those that they descend from have slots.
            wanted: positions in `new`.
        """
        deepest = max(node.depth for node in new)
        if self.switch is not None and new[0].tree.far and deepest <= self.switch:
            beyond = ContextNode(new[0].tree, new[0].tree.root, new[0].token)
            beyond.depth = self.switch + 1
            try:
                return self.forward([*new, beyond], wanted)
            finally:
                self.cache.release([beyond])
        forget_longer(self.model, self._stretched, deepest)
        paths = self.cache.prepare(new)
        put: dict[str, Any] = {"device": self.device, "dtype": torch.long}
        kwargs: dict[str, Any] = {"logits_to_keep": torch.tensor(wanted, **put)} if self._keeps_logits else {}
        masks = self._masks(new, paths)
        with self._ways(len(new)):
            output = self.model(
                input_ids=torch.tensor([[node.token for node in new]], **put),
                position_ids=torch.tensor([[node.depth - 1 for node in new]], **put),
                attention_mask=masks,
                past_key_values=self.cache,
                use_cache=True,
                **kwargs,
            )
        logits: torch.Tensor = output.logits[0]
        return logits if self._keeps_logits else logits[list(wanted)]

    @contextmanager
    def _ways(self, new: int) -> Iterator[None]:
        """Have a forward over so many nodes computed in the best ways known."""
        with ExitStack() as ways:
            ways.enter_context(self.attention.used(self.config))
            ways.enter_context(eagerly(self._compiled))
            if self._head:
                ways.enter_context(self._head.used())
            if new in self._transposed and not self.deterministic:
                ways.enter_context(TransposedMatmul(self._transposed))
            yield

    @contextmanager
    def own_way(self) -> Iterator[None]:
        """Have a plain forward of the model computed as those are that ours are compared with."""
        with self._reference.used(self.config), eagerly(self._compiled):
            yield

    def _masks(self, new: list[ContextNode], paths: Mapping[ContextNode, Int[np.ndarray, " depth"]]) -> Any:
        """A mask for each kind of layer; None where a node may attend to all that it is shown."""
        shown = self.cache.view
        if not paths and is_chain(new):
            return None  # from the root: the model's own causal mask is this mask, and faster
        masks: dict[str, Any] = dict.fromkeys(self.kinds)
        alone = len(new) == 1 and shown.solid  # on what is exposed, its ancestors
        within = not self.window or new[-1].depth <= self.window
        if not (alone and (within or SLIDING not in masks)):
            full = ancestors(new, paths, shown)
            if FULL in masks and not alone:
                masks[FULL] = self._tensor(full)
            if SLIDING in masks:
                depth = np.array([node.depth for node in new])
                near = depths(new, paths, shown)[None, :] > depth[:, None] - self.window
                masks[SLIDING] = self._tensor(full & near)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _tensor(self, mask: Bool[np.ndarray, "new all"]) -> torch.Tensor:
        return self.attention.tensor(mask, self._dtype, self.device)

    def check(self) -> None:
        """Compare forwards over trees with plain ones (`trial.py`), and find the best way that agrees.

        Raises:
            UnsupportedModelError: the model fails, or the results differ.
        """
        ways = list(product(self._attentions, [self._head, None] if self._head else [None]))
        for way in ways:
            self.attention, self._head = way
            try:
                return try_out(self)
            except UnsupportedModelError:
                if way == ways[-1]:
                    raise


def _layer_kinds(config: Any) -> list[str]:
    """The attention of each layer: full or within a sliding window; for others `UnsupportedModelError`."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        window = getattr(config, "sliding_window", None)
        if window and getattr(config, "use_sliding_window", True):
            kinds = [SLIDING] * config.num_hidden_layers
        else:
            kinds = [FULL] * config.num_hidden_layers
    unknown = set(kinds) - {FULL, SLIDING}
    if unknown:
        raise UnsupportedModelError(f"it has layers of {', '.join(sorted(unknown))}")
    return list(kinds)
