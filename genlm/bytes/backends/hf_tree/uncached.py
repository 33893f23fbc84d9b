"""Models that cannot be run over a tree: every context whole, in forwards of its own kind, nothing kept.

Recurrent and hybrid models (Mamba, LFM2, Qwen3-Next, Granite 4, Jamba, Bamba, Falcon-H1) keep a state in
place of keys and values, and attention biased by the distance of columns (BLOOM, MPT, GPT-Neo) takes no mask
of ours. What they say after a context is what their own forward over it says, without padding and without a
cache; that is what is run here.

Two things make it cheaper where a trial finds that they change nothing. A forward over a context also tells
what comes after each of its beginnings, so of a text that is read all at once only the whole is run. And
contexts of the same length share a forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Float32

from genlm.bytes.backends.hf_tree.kv_cache import KVCache
from genlm.bytes.backends.hf_tree.logprobs import normalized
from genlm.bytes.backends.hf_tree.positions import longest_of
from genlm.bytes.backends.hf_tree.wrapped import accepted
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["UncachedModel"]

MOST_TOKENS = 4096
"""Of several contexts in one forward."""
LENGTH, BEGINNINGS = 64, (6, 33, 50)
"""Tokens of the contexts that are tried, and of their beginnings. Some models select what they attend to, and
break ties by what is yet to come, or keep a summary of each block: eleven tokens do not show it."""

_Found = dict[ContextNode, Float32[torch.Tensor, " logits"]]


class UncachedModel:
    """A causal language model that evaluates each context from its beginning.

    Args:
        model: the Hugging Face model, in evaluation mode.

    Attributes:
        cache: an empty one, where a `TreeModel` has its keys and values.
        longest: the most tokens that the model reads; None where it does not say.
        deterministic: whether contexts are to be run one by one.
        forwards, tokens: how many have been run.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.device: torch.device = model.device
        self.longest = longest_of(model)
        self.switch: int | None = None
        self.cache = KVCache(0, self.device, 0)
        self.deterministic = False
        self.forwards = self.tokens = 0
        self._keeps_logits = "logits_to_keep" in accepted(model)
        self._causal = self._batches = False

    def run(self, wanted: Sequence[ContextNode]) -> _Found:
        """The next token's natural log-probabilities at some nodes, in the host's memory."""
        found: _Found = {}
        for alike in self._batched(_covering(wanted) if self._causal else {node: [node] for node in wanted}):
            found |= self._forward(alike)
        return found

    def _batched(
        self, covering: dict[ContextNode, list[ContextNode]]
    ) -> Iterator[dict[ContextNode, list[ContextNode]]]:
        """Contexts that share a forward, each with those of its beginnings that are wanted."""
        for depth, alike in groupby(sorted(covering, key=lambda node: node.depth), lambda node: node.depth):
            leaves = list(alike)
            most = max(1, MOST_TOKENS // depth) if self._batches and not self.deterministic else 1
            for first in range(0, len(leaves), most):
                yield {leaf: covering[leaf] for leaf in leaves[first : first + most]}

    @torch.no_grad()
    def _forward(self, covering: dict[ContextNode, list[ContextNode]]) -> _Found:
        contexts = [leaf.tokens() for leaf in covering]
        kept = sorted({node.depth - 1 for inside in covering.values() for node in inside})
        put: dict[str, Any] = {"device": self.device, "dtype": torch.long}
        kwargs: dict[str, Any] = {"logits_to_keep": torch.tensor(kept, **put)} if self._keeps_logits else {}
        logits = self.model(torch.tensor(contexts, **put), use_cache=False, **kwargs).logits
        self.forwards += 1
        self.tokens += sum(map(len, contexts))
        at = {position: i if self._keeps_logits else position for i, position in enumerate(kept)}
        found: _Found = {}
        for row, inside in zip(logits, covering.values(), strict=True):
            rows = normalized(inside, row[[at[node.depth - 1] for node in inside]])
            found |= dict(zip(inside, rows, strict=True))
        return found

    @torch.no_grad()
    def check(self) -> None:
        """Find out what may share a forward.

        Raises:
            UnsupportedModelError: the model's own forward fails.
        """
        size, length = self.config.vocab_size, min(LENGTH, self.longest or LENGTH)
        one, other = ([(k * i + 3) % size for i in range(1, length + 1)] for k in (7, 5))
        beginnings = [one[:n] for n in BEGINNINGS if n < length]
        try:
            first, second, *short = (self._logits([ids])[0] for ids in (one, other, *beginnings))
            both = self._logits([one, other])
        except Exception as error:
            raise UnsupportedModelError(f"its own forward fails: {type(error).__name__}: {error}") from error
        dtype = self.model.dtype
        self._causal = all(_near(first[len(rows) - 1], rows[-1], dtype) for rows in short)
        self._batches = all(_near(a[-1], b[-1], dtype) for a, b in zip(both, (first, second), strict=True))

    def _logits(self, contexts: list[list[int]]) -> Float[torch.Tensor, "contexts n v"]:
        logits: torch.Tensor = self.model(torch.tensor(contexts, device=self.device), use_cache=False).logits
        return logits.float()


def _near(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two rows of logits differ by round-off only."""
    allowed = {torch.float32: 1e-3, torch.float16: 2e-2}.get(dtype, 1e-1)
    a, b = one.softmax(-1), other.softmax(-1)
    return bool((a - b).abs().max() <= allowed * a.max())


def _covering(wanted: Sequence[ContextNode]) -> dict[ContextNode, list[ContextNode]]:
    """Contexts that begin with all that are wanted, each with those that it begins with."""
    left, found = set(wanted), {}
    for leaf in sorted(wanted, key=lambda node: -node.depth):
        if leaf not in left:
            continue
        inside: list[ContextNode] = []
        at: ContextNode | None = leaf
        while at is not None:
            if at in left:
                left.discard(at)
                inside.append(at)
            at = at.parent
        found[leaf] = inside
    return found
