"""The model that `--model_args` of the evaluation harness describes.

Several names with `+` between, or a list of them, are an ensemble. The harness's models share a set of names;
what makes sense for a byte-level model is honoured, and anything else is an error that lists what is known.
The harness itself adds `device="cuda:0"` where nobody has named a device, and its own models fall back to
what there is; so do we, with a word.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch

from genlm.bytes.api import ByteLM
from genlm.bytes.byte_lm import BeamParams
from genlm.bytes.ensemble import operation
from genlm.bytes.errors import bad_value
from genlm.bytes.util.numbers import whole_number
from genlm.bytes.vocab import start_context

__all__ = ["KNOWN", "check_beginning", "context_limit", "load"]

logger = logging.getLogger(__name__)

KNOWN = (
    *("pretrained", "K", "prune_threshold", "tolerance", "exact", "canonical", "device", "dtype", "backend"),
    *(
        "op",
        "weights",
        "revision",
        "window",
        "max_length",
        "max_gen_toks",
        "add_bos_token",
        "batch_size",
        "max_batch_size",
    ),
    "start",
)
"""Names for `--model_args`."""


def load(
    pretrained: str | Sequence[str | None] | None = None,
    K: int | None = None,
    prune_threshold: float = 0.0,
    tolerance: float | None = None,
    exact: bool = False,
    canonical: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    backend: str | None = None,
    revision: str | None = None,
    op: str | float | None = None,
    weights: str | float | Sequence[float] | None = None,
    start: str | int | None = None,
) -> ByteLM:
    """The model; without `pretrained` the embedded one.

    Args:
        pretrained: a folder or a hub name; None or "default" for the embedded model. Several, with `+`
            between (a folder whose own name has one is one model) or as a list, are an ensemble.
        K: see `BeamParams`, as for `prune_threshold`, `tolerance`, `exact` and `canonical`.
        device: see `ByteLM.from_pretrained`; a CUDA device that is not there is another one, with a warning.
        dtype: see `ByteLM.from_pretrained`, as for `backend`.
        revision: None or "main".
        op: how several are one; see `ByteLM.ensemble`.
        weights: of several, with `+` between, `0.7+0.3`, or as a list.
        start: see `ByteLM`.

    Raises:
        ValueError: a value out of range.
        ModelUnavailableError: there is no such model.
    """
    if revision not in (None, "main"):
        raise bad_value("revision", revision, "is not supported", "Download it, and give its folder.")
    names = _names(pretrained)
    shares = _numbers(weights)
    if len(names) == 1 and (op is not None or weights is not None):
        given = "weights" if op is None else "op"
        rule = "there is one model only"
        raise bad_value(given, weights if op is None else op, rule, "Name several: pretrained=A+B.")
    operation("prod" if op is None else op, len(names), shares)  # before anything is loaded
    params = BeamParams(
        K=K, prune_threshold=prune_threshold, tolerance=tolerance, exact=exact, canonical=canonical
    )
    where = _device(device) if backend in (None, "hf") else None
    options: dict[str, Any] = {"device": where, "dtype": dtype, "backend": backend, "progress": False}
    options["start"] = start
    made = {name: ByteLM.from_pretrained(name, params, **options) for name in dict.fromkeys(names)}
    if len(names) == 1:
        return made[names[0]]
    return ByteLM.ensemble([made[name] for name in names], "prod" if op is None else op, shares)


def _names(pretrained: Any) -> list[str | None]:
    several = pretrained
    if isinstance(pretrained, str):
        several = [pretrained] if os.path.exists(pretrained) else pretrained.split("+")
    found = [several] if several is None or not isinstance(several, list | tuple) else several
    if not found:
        raise bad_value("pretrained", pretrained, "must name a model", "Leave it out for the embedded one.")
    return [None if name in (None, "", "default") else str(name) for name in found]


def _numbers(weights: Any) -> list[float] | None:
    if weights is None or isinstance(weights, list | tuple):
        return weights if weights is None else list(weights)
    try:
        return [float(weight) for weight in str(weights).split("+")]
    except ValueError:
        raise bad_value("weights", weights, "must be numbers with + between, one for each model") from None


def _device(device: Any) -> Any:
    """The device asked for; None, for the best there is, where it is a CUDA device that is not there."""
    kind, _, number = str(device).partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        return device
    if int(number or 0) < torch.cuda.device_count():
        return device
    instead = "cuda" if torch.cuda.is_available() else "cpu"
    logger.warning("there is no device %s here: the model runs on %s.", device, instead)
    return None


def check_beginning(llm: Any, add_bos_token: Any) -> None:
    """That texts begin as `add_bos_token` says: after the beginning-of-sequence token, or without one.

    Raises:
        ValueError: the tokenizer has none; or it has one, and is to go without.
    """
    if add_bos_token is None:
        return
    if isinstance(llm, tuple):  # those of an ensemble
        for one in llm:
            check_beginning(one, add_bos_token)
        return
    bos = getattr(getattr(llm, "tokenizer", None), "bos_token_id", None)
    if add_bos_token and bos is None:
        rule = f"the tokenizer has no such token; texts begin after the ids {start_context(llm)}"
        raise bad_value("add_bos_token", add_bos_token, rule, "Leave it out.")
    if not add_bos_token and bos is not None:
        rule = "the first byte of a text has a probability only after a token, which is the beginning's"
        raise bad_value("add_bos_token", add_bos_token, rule, "Leave it out.")


def context_limit(longest: int | None, max_length: Any, least: int) -> int | None:
    """The most tokens of a context: `max_length`, or what the model reads at most; None for no limit.

    Raises:
        ValueError: `max_length` is more than the model reads, or too few tokens to work with.
    """
    asked = whole_number("max_length", max_length, least)
    if asked is not None and longest is not None and asked > longest:
        raise bad_value("max_length", max_length, f"this model reads at most {longest} tokens")
    return longest if asked is None else asked
