"""What a model may answer: one natural log-probability for each token id.

A model is anybody's object. What it gives is looked at where it is given, once, so that a mistake is named
where it is made and not by an index error, a nan or advice about settings far from there.

Tensors of any floating type on any device, arrays and lists of numbers will do. Log-probabilities may be
minus infinity. They must be no undefined number and not above zero, and their probabilities must sum to one,
but for round-off: `ROOM`. A row may be longer than the vocabulary (padding) or shorter (tokens that were
added to the tokenizer alone, and have probability zero everywhere).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from genlm.bytes.errors import ModelOutputError
from genlm.bytes.util.rows import as_numpy

if TYPE_CHECKING:
    import torch

__all__ = ["ROOM", "checked_row"]

ROOM = 0.2
"""How far the log of the sum may be from 0, and an entry above it. A log-softmax in bfloat16 rounds each
entry by up to 0.03 where it is near -10, and the log of the sum that it subtracts by up to 0.13 where that is
above 32; in float16 an eighth of that. Logits that nobody has normalised are off by 5 and more."""


def checked_row(model: Any, row: Any, *, values: bool = True) -> Float[torch.Tensor, " logits"]:
    """What a model gave as a tensor of log-probabilities.

    Args:
        model: the model, for the error to name.
        row: what it gave.
        values: look at the numbers, too.

    Raises:
        ModelOutputError: it is something else.
    """
    import torch

    if not isinstance(row, torch.Tensor):
        row = _from_numbers(model, row)
    if row.dim() != 1 or not len(row):
        raise _wrong(model, f"a tensor of shape {tuple(row.shape)}", "Return one row, `[token ids]`.")
    if not row.is_floating_point():
        raise _wrong(model, f"a tensor of {row.dtype}", "Return floating-point numbers.")
    if row.is_meta:
        raise _wrong(model, "a tensor on the meta device, which has no numbers", "Return one with numbers.")
    given: torch.Tensor = row.detach() if row.requires_grad else row
    if values:
        _check_values(model, given)
    return given


def _from_numbers(model: Any, row: Any) -> torch.Tensor:
    import torch

    try:
        made = np.asarray(row)
        if made.dtype.kind == "f":
            return torch.from_numpy(np.array(made))
    except Exception as error:
        raise _wrong(model, f"a {type(row).__name__} ({error})", "Return a tensor.") from None
    raise _wrong(model, f"a {type(row).__name__}: {row!r:.60}", "Return a tensor.")


def _check_values(model: Any, row: Float[torch.Tensor, " logits"]) -> None:
    # numpy: for one row, waking torch's threads costs more than the work they share.
    numbers = as_numpy(row)
    most = float(numbers.max())
    if most != most:
        count = int(np.isnan(numbers).sum())
        where = int(np.isnan(numbers).argmax())
        given = f"nan as {count} of its {len(numbers)} log-probabilities, the first for token {where}"
        raise _wrong(model, given, "Look for overflow in half precision, or damaged weights.")
    if most > ROOM:
        given = f"{most:.4g} as the log-probability of token {int(numbers.argmax())}"
        raise _wrong(model, given, "Apply a log-softmax to logits.")
    if most > -np.inf:  # a context that nothing may follow has all of them there
        total = float(np.log(np.exp(numbers).sum(dtype=np.float64)))
        if abs(total) > ROOM:
            given = f"log-probabilities whose probabilities sum to {np.exp(total):.4g}"
            raise _wrong(model, given, "Normalise them, over all token ids.")


def _wrong(model: Any, given: str, instead: str) -> ModelOutputError:
    way = (
        "Or set BeamParams(check_model=False) to take its numbers as they are." if "log-prob" in given else ""
    )
    return ModelOutputError(
        f"{type(model).__name__} gave {given}: it must give one natural log-probability for each token id, "
        f"none of them nan, their probabilities summing to 1. {instead} {way}".rstrip()
    )
