"""Rows, one log-probability a token: tensors or arrays, as whoever made them had them.

Torch takes two seconds to import and 200 MB. It is left alone where neither a model nor a caller has tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import torch

    Row = Float[np.ndarray, " logits"] | Float[torch.Tensor, " logits"]
else:
    Row = Float[Any, " logits"]

__all__ = ["Row", "as_numpy", "as_tensor"]


def as_tensor(row: Row) -> Float[torch.Tensor, " logits"]:
    """A row for callers outside, who are promised tensors. Its memory is shared where that can be."""
    import torch

    return torch.as_tensor(row)


def as_numpy(row: Row) -> Float[np.ndarray, " logits"]:
    """A row for numpy. Its memory is shared where that can be."""
    if isinstance(row, np.ndarray):
        return row
    row = row.detach().cpu()
    narrow = row.element_size() < 4  # numpy does not know bfloat16
    found: Float[np.ndarray, " logits"] = (row.float() if narrow else row).numpy()
    return found
