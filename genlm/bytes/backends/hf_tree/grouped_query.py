"""Grouped-query attention under a mask without a copy of the keys for every head.

In most models several heads share keys and values. Where each query sees the same, transformers lets the
product know; under a mask it copies keys and values once for each head, in every layer and forward. Here the
heads of a group become rows of one product over the keys as they lie, each with its node's mask. The
scaled dot product is torch's. Attention of SmolLM2-135M's 30 layers over 950 slots, one thread, for 2, 3, 8
and 30 new nodes: 22, 15, 21 and 53 ms with copies, 8, 10, 18 and 47 ms without. On CUDA the kernels are
called directly (`fused_attention.py`).

The function is registered with transformers under a name of ours, which the model's configuration bears
during a forward of the engine. Somebody else's forward at that moment, in another thread, uses it too. It
computes the same, and passes on what it has nothing to do with. What it does not know it refuses.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from genlm.bytes.backends.hf_tree.fused_attention import fused_attention, has_kernels

__all__ = ["NAME", "groups_queries"]

NAME = "genlm_bytes_grouped_query"
SPECIAL = ("softcap", "position_bias")
"""What a few models add to the scores; transformers' function sees to it."""
SINKS = "s_aux"
"""What a few models add to the sum below; transformers' function drops it in silence."""


def groups_queries(model: torch.nn.Module) -> bool:
    """Whether several of the model's heads share keys, and transformers is who hands them out."""
    return any(getattr(module, "num_key_value_groups", 1) > 1 for module in model.modules())


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`query` is `[batch, heads, new, size]`, keys and values `[batch, groups, slots, size]`."""
    if kwargs.get(SINKS) is not None:
        raise NotImplementedError("attention sinks")
    batch, heads, new, size = query.shape
    groups = key.shape[1]
    special = kwargs.get("dropout") or any(kwargs.get(name) is not None for name in SPECIAL)
    if not special and has_kernels(query.device):
        causal = attention_mask is None and new > 1 and _is_causal(module, kwargs)
        out = fused_attention(query, key, value, attention_mask, scale=scaling, causal=causal)
        if out is not None:
            return out.contiguous(), None
    if groups == heads or special or attention_mask is None or attention_mask.shape[1] != 1:
        usual = sdpa_attention_forward
        found, _ = usual(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return found, None
    each = heads // groups
    rows = query.reshape(batch, groups, each * new, size)
    masks = attention_mask.expand(-1, each, -1, -1).reshape(len(attention_mask), 1, each * new, -1)
    found = torch.nn.functional.scaled_dot_product_attention(rows, key, value, masks, scale=scaling)
    return found.reshape(batch, heads, new, -1).transpose(1, 2).contiguous(), None


def _is_causal(module: torch.nn.Module, kwargs: dict[str, Any]) -> bool:
    given = kwargs.get("is_causal")
    return bool(getattr(module, "is_causal", True) if given is None else given)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
