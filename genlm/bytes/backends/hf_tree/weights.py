"""Whether a model is still the one that the engine's keys and values came from.

What is kept is worth nothing once the weights are others. Two things are noticed before each forward, for 20
µs in a model of 272 tensors: that a tensor has been written to (torch counts that: an optimizer's step,
`load_state_dict`, `copy_`), and that the weights have gone elsewhere (`model.to(...)`, `model.half()`). What
is written through `tensor.data` is not counted, so merging a LoRA adapter into the weights is not noticed,
nor is what happens to tensors that the model was given after it was adopted: `Engine.clear_cache` is then
needed.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Weights"]


class Weights:
    """What the weights of a model were when they were last looked at."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._tensors = [weight for weight in model.parameters() if not weight.is_inference()]
        self._place, self._writes = self._places(), self._written()

    def moved(self) -> bool:
        """Whether they are elsewhere, or of another type, than when this was made."""
        return self._places() != self._place

    def written(self) -> bool:
        """Whether they have been written to since this was asked last."""
        before, self._writes = self._writes, self._written()
        return before != self._writes

    def _written(self) -> int:
        return sum(weight._version for weight in self._tensors)

    def _places(self) -> list[tuple[Any, ...]]:
        """Of the first and the last: of what is moved, all is."""
        ends = [*self._tensors[:1], *self._tensors[-1:]]
        return [(weight.dtype, weight.device, weight.data_ptr()) for weight in ends]
