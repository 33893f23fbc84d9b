"""The model that `--model_args` of the evaluation harness describes.

The harness's models share a set of names; what makes sense for a byte-level model is honoured, and anything
else is an error that lists what is known. The harness itself adds `device="cuda:0"` where nobody has named a
device, and its own models fall back to what there is; so do we, with a word.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from genlm.bytes.api import ByteLM
from genlm.bytes.byte_lm import BeamParams
from genlm.bytes.errors import bad_value
from genlm.bytes.util.numbers import whole_number
from genlm.bytes.vocab import start_context

__all__ = ["KNOWN", "check_beginning", "context_limit", "load"]

logger = logging.getLogger(__name__)

KNOWN = (
    *("pretrained", "K", "prune_threshold", "tolerance", "exact", "canonical", "device", "dtype", "backend"),
    *("revision", "window", "max_length", "max_gen_toks", "add_bos_token", "batch_size", "max_batch_size"),
)
"""Names for `--model_args`."""


def load(
    pretrained: str | None = None,
    K: int | None = None,
    prune_threshold: float = 0.0,
    tolerance: float | None = None,
    exact: bool = False,
    canonical: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    backend: str | None = None,
    revision: str | None = None,
) -> ByteLM:
    """The model; without `pretrained` the embedded one.

    Args:
        pretrained: a folder or a hub name; None or "default" for the embedded model.
        K: see `BeamParams`, as for `prune_threshold`, `tolerance`, `exact` and `canonical`.
        device: see `ByteLM.from_pretrained`; a CUDA device that is not there is another one, with a warning.
        dtype: see `ByteLM.from_pretrained`, as for `backend`.
        revision: None or "main".

    Raises:
        ValueError: a value out of range.
        ModelUnavailableError: there is no such model.
    """
    if revision not in (None, "main"):
        raise bad_value("revision", revision, "is not supported", "Download it, and give its folder.")
    name = None if pretrained in (None, "", "default") else str(pretrained)
    params = BeamParams(
        K=K, prune_threshold=prune_threshold, tolerance=tolerance, exact=exact, canonical=canonical
    )
    where = _device(device) if backend in (None, "hf") else None
    return ByteLM.from_pretrained(name, params, device=where, dtype=dtype, backend=backend, progress=False)


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
