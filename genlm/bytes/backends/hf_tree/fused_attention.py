"""Attention on CUDA by torch's fused kernels, called directly.

The dispatcher behind `scaled_dot_product_attention` prefers cuDNN on recent devices, which builds a plan for
every new pair of lengths, for tens of milliseconds; nearly every forward over a tree has new ones. Under a
mask transformers also copies keys and values for each head that shares them, and torch converts and pads the
mask, in every layer. And which kernels may be used is a setting of the whole process, not ours to change.

Here, without a mask, it is *flash*, which knows groups of heads. Under one it is the *memory-efficient*
kernel: a group of heads is an entry of its batch, whose heads see the same keys (a stride of 0, no copy) and
the same rows of one additive mask. That is made once a forward (`padded_bias`), since the kernel wants rows
whose distance is a multiple of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

__all__ = ["KERNELS", "Kernels", "fused_attention", "has_kernels", "padded_bias"]

PADDING = 16
"""Numbers in a row of a mask: a multiple of this, as torch itself pads."""
LARGEST_HEAD = 256
"""Of the flash kernel."""


class Kernels(NamedTuple):
    """The two kernels; both answer with a tuple whose first entry is `[batch, heads, new, size]`."""

    flash: Callable[..., tuple[Any, ...]]
    efficient: Callable[..., tuple[Any, ...]]


KERNELS = Kernels(
    torch.ops.aten._scaled_dot_product_flash_attention, torch.ops.aten._scaled_dot_product_efficient_attention
)


@cache
def has_kernels(device: torch.device) -> bool:
    """Whether the kernels run there: on NVIDIA's devices from the Ampere generation on."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def fused_attention(
    query: Float[torch.Tensor, "b heads new size"],
    key: Float[torch.Tensor, "b groups slots size"],
    value: Float[torch.Tensor, "b groups slots value_size"],
    mask: torch.Tensor | None,
    *,
    scale: float | None,
    causal: bool,
    kernels: Kernels = KERNELS,
) -> Float[torch.Tensor, "b new heads value_size"] | None:
    """Attention of some heads to the keys of their groups; None where no kernel takes such tensors.

    Args:
        query: the new nodes' queries.
        key: the keys, each group's once.
        value: the values.
        mask: `[1, 1, new, slots]`, added to the scores, or boolean; None where there is none.
        scale: what scores are multiplied by; None is one over the root of `size`.
        causal: without a mask: the new nodes are all there is, and each sees those before it.
        kernels: what computes it.
    """
    if not _fits(query, key, value, mask, causal):
        return None
    if mask is None and query.dtype is not torch.float32 and _flash_takes(query, value):
        found: torch.Tensor = kernels.flash(query, key, value, 0.0, causal, False, scale=scale)[0]
        return found.transpose(1, 2)
    groups, new, slots = key.shape[1], query.shape[2], key.shape[2]
    each = query.shape[1] // groups
    bias = None if mask is None else _bias(mask, query.dtype).expand(groups, each, new, slots)
    rows = query[0].view(groups, each, new, -1)
    keys, values = (of[0][:, None].expand(groups, each, slots, of.shape[3]) for of in (key, value))
    out: torch.Tensor = kernels.efficient(rows, keys, values, bias, False, 0.0, causal, scale=scale)[0]
    return out.permute(2, 0, 1, 3).reshape(1, new, groups * each, -1)


def _fits(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, causal: bool
) -> bool:
    """Whether the memory-efficient kernel takes these; other people's forwards may come here, too."""
    tensors = (query, key, value)
    if len(query) != 1 or query.shape[1] % key.shape[1] or len({t.dtype for t in tensors}) > 1:
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False  # what a backward pass needs is not kept here
    if mask is None and causal and query.shape[2] != key.shape[2]:
        return False
    if mask is not None and (mask.dim() != 4 or mask.shape[:2] != (1, 1) or mask.shape[2] != query.shape[2]):
        return False
    unit = 16 // query.element_size()
    return all(
        t.shape[3] % unit == 0 and t.stride(3) == 1 and not any(s % unit for s in t.stride()[1:3])
        for t in tensors
    )


def _flash_takes(query: torch.Tensor, value: torch.Tensor) -> bool:
    return query.shape[3] == value.shape[3] <= LARGEST_HEAD


def _bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as the kernel wants it; mostly it is so already."""
    if mask.dtype is dtype and mask.stride(3) == 1 and mask.stride(2) % PADDING == 0:
        return mask
    new, slots = mask.shape[2:]
    padded = torch.zeros((1, 1, new, _padded(slots)), dtype=dtype, device=mask.device)[..., :slots]
    if mask.dtype is torch.bool:
        return padded.masked_fill_(~mask, -torch.inf)
    return padded.copy_(mask)


def padded_bias(
    mask: Bool[np.ndarray, "new all"], dtype: torch.dtype, device: torch.device
) -> Float[torch.Tensor, "1 1 new all"]:
    """A mask to be added to scores: 0 where a node may attend, minus infinity elsewhere; in padded rows."""
    new, slots = mask.shape
    hidden = np.ones((new, _padded(slots)), np.bool_)
    hidden[:, :slots] = ~mask
    there = torch.from_numpy(hidden).to(device)
    bias = torch.zeros(there.shape, dtype=dtype, device=device).masked_fill_(there, -torch.inf)
    return bias[None, None, :, :slots]


def _padded(slots: int) -> int:
    return -(-slots // PADDING) * PADDING
