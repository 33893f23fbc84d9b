"""A log-sum of a few numbers, a draw by weight, and numbers of any origin as one array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp, inf, isfinite, log, nan
from typing import Any

import numpy as np

from genlm.bytes.errors import bad_type

__all__ = ["as_array", "logsumexp", "sample_dict"]

# Up to this length a Python loop over an array is as fast as numpy: 4 µs either way at 32 numbers.
_LOOP_MAX = 32


def logsumexp(arr: Iterable[Any]) -> float:
    """The logarithm of the sum of exponentials, natural, without overflow.

    Args:
        arr: numbers: a sequence, array or any iterable; all entries of an array with several axes.

    Returns:
        A Python float: `-inf` for no numbers and for none but `-inf`, NaN if any number is NaN.

    Raises:
        TypeError: something other than numbers.

    Examples:
        >>> logsumexp([log(0.25), log(0.5)]) == log(0.75)
        True
        >>> logsumexp([])
        -inf
    """
    if not isinstance(arr, list | tuple):
        if hasattr(arr, "__array__"):
            array = as_array("arr", arr)
            if array.size > _LOOP_MAX:
                top = float(array.max())
                return top + log(np.exp(array.astype(np.float64) - top).sum()) if isfinite(top) else top
            arr = array.ravel().tolist()
        else:
            try:
                arr = list(arr)
            except TypeError as error:
                raise bad_type("arr", arr, "must be numbers") from error
    if not arr:
        return -inf
    try:
        top = float(max(arr))
        if isfinite(top):
            return top + log(sum([exp(x - top) for x in arr]))
    except (TypeError, ValueError):
        return logsumexp(as_array("arr", arr))
    return nan if any(x != x for x in arr) else top


def sample_dict(x: Mapping[Any, float], *args: Any, **kwargs: Any) -> Any:
    """Draws a key of `x` with probability proportional to its value: `arsenal.maths.sample_dict`.

    Here, since importing arsenal loads pandas and matplotlib: this imports it at the first draw.

    Args:
        x: a mapping from keys to weights.
        *args: passed on, as are keywords.
        **kwargs: `size`, the number of draws; `u`, the uniform number(s) to use in place of numpy's
            global random numbers.

    Examples:
        >>> sample_dict({"a": 0.25, "b": 0.75}, u=0.5)
        'b'
    """
    from arsenal.maths import sample_dict as draw

    return draw(x, *args, **kwargs)


def as_array(name: str, x: Any) -> np.ndarray:
    """Floats as an array; the same one if `x` is one. Tensors of any device and type become float64."""
    if hasattr(x, "detach"):
        x = x.detach().cpu().double().numpy()
    try:
        array = np.asarray(x)
        return array if array.dtype.kind == "f" else array.astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise bad_type(name, x, "must hold nothing but real numbers") from error
