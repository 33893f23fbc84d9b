"""From logits on the model's device to log-probabilities in the host's memory.

Each row has memory of its own: one that is kept must not keep all of them. From another device rows come
through page-locked memory that is used again: the device writes there by itself, at the full speed of the
bus, where a copy to other memory passes through a small buffer of the driver's. That is also the only point
at which a forward waits for the device.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32

from genlm.bytes.contexts.tree import ContextNode

__all__ = ["normalized", "token_logps"]

STAGED = 32 << 20
"""Bytes of page-locked memory, or one row: as much as takes a millisecond to fill."""


class _Staging(threading.local):
    """Page-locked memory, for each thread."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def rows(self, rows: Float32[torch.Tensor, "nodes v"]) -> list[Float32[torch.Tensor, " v"]]:
        """Rows on a device, in the host's memory."""
        size = rows.shape[-1]
        at_once = max(1, STAGED // (rows.element_size() * max(1, size)))
        if self._memory.numel() < min(at_once, len(rows)) * size:
            locked = rows.device.type == "cuda"
            self._memory = torch.empty(at_once * size, dtype=rows.dtype, pin_memory=locked)
        found = list[torch.Tensor]()
        for part in torch.split(rows, at_once):
            staged = self._memory[: part.numel()].view(part.shape)
            staged.copy_(part)
            found += [row.clone() for row in staged]
        return found


_staging = _Staging()


def normalized(
    nodes: Sequence[ContextNode], logits: Float[torch.Tensor, "nodes v"]
) -> list[Float32[torch.Tensor, " v"]]:
    """The log-softmaxes of logits at some nodes, which are told what it takes off (`log_normalizer`)."""
    if logits.device.type == "cpu":
        # A row fits into the processor's cache: 300 of 49k take 13 ms one by one, 40 ms at once.
        found = [torch.log_softmax(row, dim=-1, dtype=torch.float32) for row in logits]
        taken_off = [float(a.max()) - float(b.max()) for a, b in zip(logits, found, strict=True)]
    else:
        rows = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        taken_off = (logits.amax(-1).float() - rows.amax(-1)).tolist()
        found = _staging.rows(rows)
    for node, normalizer in zip(nodes, taken_off, strict=True):
        node.log_normalizer = normalizer
    return found


def token_logps(
    logits: Float[torch.Tensor, "nodes v"], asked: Sequence[tuple[int, int]]
) -> Float32[torch.Tensor, " asked"]:
    """Log-probabilities of single tokens, `(row, token)`, as `normalized` has them; only they are moved."""
    if not asked:
        return torch.empty(0)
    if logits.device.type == "cpu":  # one by one, as there
        rows = {i: torch.log_softmax(logits[i], dim=-1, dtype=torch.float32) for i in {i for i, _ in asked}}
        return torch.stack([rows[i][token] for i, token in asked])
    at = torch.tensor(asked, device=logits.device)
    return torch.log_softmax(logits, dim=-1, dtype=torch.float32)[at[:, 0], at[:, 1]].cpu()
