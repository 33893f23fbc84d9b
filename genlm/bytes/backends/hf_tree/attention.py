"""Which attention function a forward over a tree uses, and what mask that function takes.

A model attends by the function that its configuration names. During our forwards it bears the name of one
that takes any mask: our own (`grouped_query.py`), transformers' `sdpa`, or the model's own code, `eager`. So
it does not matter which one the model was loaded with: FlashAttention, FlexAttention and kernels from the hub
take no tree masks, and are used again in everybody else's forwards.

Which of them does what the model's own forward does is tried out, best first (`TreeModel.check`). What a
model adds to its scores (sinks, a cap, biases of positions) only some of them know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from genlm.bytes.backends.hf_tree import grouped_query
from genlm.bytes.backends.hf_tree.fused_attention import has_kernels, padded_bias

__all__ = ["Attention", "attentions", "reference"]

TAKE_MASKS = ("sdpa", "eager")


class Attention(NamedTuple):
    """An attention function.

    Attributes:
        name: under which transformers knows it.
        mask: what it takes: booleans; the lowest finite number where a node may not attend; or minus
            infinity there, in padded rows.
    """

    name: str
    mask: Literal["boolean", "lowest", "padded"]

    @contextmanager
    def used(self, config: Any) -> Iterator[None]:
        """Have the layers with this configuration attend so."""
        before = config._attn_implementation
        if before == self.name:
            yield
            return
        config._attn_implementation = self.name
        try:
            yield
        finally:
            config._attn_implementation = before

    def tensor(
        self, mask: Bool[np.ndarray, "new all"], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """`[1, 1, new, all]`: a mask as the function takes it."""
        if self.mask == "padded":
            return padded_bias(mask, dtype, device)
        allowed = torch.from_numpy(mask).to(device)[None, None]
        if self.mask == "boolean":
            return allowed
        lowest = torch.finfo(dtype).min
        return torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill(~allowed, lowest)


SDPA, EAGER = Attention("sdpa", "boolean"), Attention("eager", "lowest")


def attentions(model: Any, config: Any, device: torch.device) -> list[Attention]:
    """The functions that a model may attend by, best first."""
    loaded = _loaded(config)
    if loaded == "eager":
        return [EAGER]
    found = []
    if has_kernels(device):
        found.append(Attention(grouped_query.NAME, "padded"))
    elif loaded != "sdpa" or (device.type == "cpu" and grouped_query.groups_queries(model)):
        found.append(Attention(grouped_query.NAME, "boolean"))
    if loaded == "sdpa":
        return [*found, SDPA]
    return [*found, *([SDPA] if getattr(model, "_supports_sdpa", False) else []), EAGER]


def reference(model: Any, config: Any) -> Attention:
    """What the model's own forwards are compared with: what it was loaded with, if that takes masks.

    Others are made for some device and precision, and one is compiled at every length.
    """
    loaded = _loaded(config)
    if loaded in TAKE_MASKS:
        return SDPA if loaded == "sdpa" else EAGER
    return SDPA if getattr(model, "_supports_sdpa", False) else EAGER


def _loaded(config: Any) -> str:
    return getattr(config, "_attn_implementation", None) or "eager"
