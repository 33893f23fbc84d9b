"""Logits in float32 from a head in half precision.

In bfloat16 numbers between 16 and 32 lie 0.125 apart. Logits are as large, so rounding them alone moves a
token's log-probability by up to 0.06, makes ties, and makes the value after a context depend on which kernel
took the product, and so on how many contexts shared the forward. The product is summed in float32 anyway;
what is asked for here is that it be not rounded at its end, which costs nothing.

The head is a module of the model, which is not touched but for the time of our forward, and then only in the
thread of that forward. What the model does with logits afterwards, a cap or a scale, it does with these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Float, Float32

__all__ = ["Float32Head"]

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Float32Head:
    """A model's head, or nothing where it is to be left alone.

    Args:
        model: the model.
        product: a product of two matrices in half precision, in float32.
    """

    def __init__(self, model: Any, product: Product | None = None) -> None:
        self._product = product or _mm
        head = _head(model)
        self._head = head if head is not None and (product or _has_product(head.weight)) else None

    def __bool__(self) -> bool:
        return self._head is not None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have this thread's forwards give logits in float32."""
        head = self._head
        if head is None or "forward" in vars(head):  # somebody else's hook
            yield
            return
        owner, usual = get_ident(), head.forward

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            mine = get_ident() == owner and hidden.dtype is head.weight.dtype
            return self._logits(head, hidden) if mine else usual(hidden)

        head.forward = forward
        try:
            yield
        finally:
            del head.forward

    def _logits(self, head: Any, hidden: Float[torch.Tensor, "*b h"]) -> Float32[torch.Tensor, "*b v"]:
        made = self._product(hidden.reshape(-1, hidden.shape[-1]), head.weight.T)
        if head.bias is not None:
            made = made + head.bias.float()
        return made.reshape(*hidden.shape[:-1], -1)


def _head(model: Any) -> Any:
    """The layer that gives logits, if it is a plain one in half precision."""
    try:
        head = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    if type(head) is not torch.nn.Linear or type(head.weight) is not torch.nn.Parameter:
        return None  # quantized, or an adapter's
    return head if head.weight.dtype in (torch.float16, torch.bfloat16) else None


def _has_product(weight: torch.Tensor) -> bool:
    """Whether torch takes such products there: from 2.10 on, on CUDA."""
    if weight.device.type != "cuda":
        return False
    some = torch.ones(16, 16, dtype=weight.dtype, device=weight.device)
    try:
        return _mm(some, some).dtype is torch.float32
    except (TypeError, RuntimeError, NotImplementedError):
        return False


def _mm(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = torch.mm(rows, columns, out_dtype=torch.float32)
    return made
