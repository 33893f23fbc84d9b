"""Matrix products over two to four rows, taken the other way round where that is faster.

A beam that reads or writes byte by byte mostly runs two to four new nodes in a forward, and just there
`x @ W.T` is slow in common libraries: two rows take longer than four. `(W @ x.T).T` is the same product.
SmolLM2-135M in float32 (torch 2.13 with MKL, an AMD EPYC, a context of 300, processor time, medians of 9
forwards on one thread and, in brackets, on two):

| new nodes | as it is | other way round |
|---|---|---|
| 1 | 65 ms (118) | |
| 2 | 117 (183) | 60 (94) |
| 3 | 128 (213) | 84 (105) |
| 4 | 105 (177) | 87 (108) |
| 5 | 111 (174) | 117 (174) |

In bfloat16 the other way round takes one and a half times as long, and other processors have other
libraries. So nothing is assumed: `faster_transposed` times both on the model's own weights, for 0.2 s.

The model is not touched. Calls of `torch.nn.functional.linear` are intercepted, in one thread, during one
forward. Intercepting costs every torch function about 6 µs, 7 ms a forward, so it is done only
for forwards of so many rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

__all__ = ["TransposedMatmul", "faster_transposed"]

COUNTS = (2, 3, 4)
LEAST, MOST = 1 << 20, 1 << 24
"""Numbers in the weights that are timed: with fewer a forward takes a few milliseconds at most, and
intercepting is what it would take; more do not fit into the processor's cache, just as in a forward."""
ROUNDS = 3
WORTHWHILE = 0.85
"""The share of the time it may take at most: intercepting is to be earned, and noise is no reason."""


class TransposedMatmul(TorchFunctionMode):
    """While it is entered, this thread takes products over so many rows the other way round."""

    def __init__(self, counts: Collection[int]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is linear and not kwargs and _is_plain(args[1]):
            rows, weight, *bias = args
            if rows.numel() // rows.shape[-1] in self._counts:
                made = _transposed(rows.reshape(-1, rows.shape[-1]), weight).reshape(*rows.shape[:-1], -1)
                return made if not bias or bias[0] is None else made + bias[0]
        return func(*args, **(kwargs or {}))


def faster_transposed(model: torch.nn.Module) -> frozenset[int]:
    """The numbers of rows at which the model's products are faster the other way round. Takes 0.2 s."""
    weights = list(_some_weights(model))
    if sum(weight.numel() for weight in weights) < LEAST:
        return frozenset()
    return frozenset(count for count in COUNTS if _is_faster(count, weights))


@torch.no_grad()
def _is_faster(count: int, weights: list[Float[torch.Tensor, "_ _"]]) -> bool:
    best: dict[Callable[..., Any], float] = {}
    inputs = {size: torch.ones(count, size) for size in {weight.shape[1] for weight in weights}}
    for _ in range(ROUNDS):
        for way in (linear, _transposed):
            start = time.perf_counter()
            for weight in weights:
                way(inputs[weight.shape[1]], weight)
            best[way] = min(best.get(way, float("inf")), time.perf_counter() - start)
    return best[_transposed] < WORTHWHILE * best[linear]


def _transposed(
    rows: Float[torch.Tensor, "n inner"], weight: Float[torch.Tensor, "outer inner"]
) -> Float[torch.Tensor, "n outer"]:
    # What follows reads row by row: left transposed, it would take longer than is gained.
    return torch.mm(weight, rows.T).T.contiguous()


def _some_weights(model: torch.nn.Module) -> Iterator[Float[torch.Tensor, "_ _"]]:
    """The first linear layers' weights; none of a model that is compiled, which must be left alone."""
    taken = 0
    layers: list[Any] = []
    for module in model.modules():
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod"):
            return
        if isinstance(module, torch.nn.Linear) and _is_plain(module.weight):
            layers.append(module.weight)
    for weight in layers:
        if taken < MOST:
            taken += weight.numel()
            yield weight


def _is_plain(weight: Any) -> bool:
    """Whether a weight is what a product on this processor can take as it lies: not packed, nor quantized."""
    return (
        type(weight) in (torch.Tensor, torch.nn.Parameter)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and weight.dim() == 2
    )
