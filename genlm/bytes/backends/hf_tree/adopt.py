"""Which models run through the engine, and one engine for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from threading import RLock
from typing import Any

import torch

from genlm.bytes.backends.hf_tree.engine import Engine
from genlm.bytes.backends.hf_tree.positions import stretched, switch_of
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["adopt"]

logger = logging.getLogger(__name__)

# On the model itself: an engine needs its model, so a table of engines, even one with weak keys, would
# keep every model alive for good. A cycle of two is collected.
_ATTRIBUTE = "_genlm_bytes_engine"
_lock = RLock()


def adopt(llm: Any) -> Any:
    """An engine over the model's weights, the same one each time; the model itself if none is needed.

    Models that are not `genlm-backend` `AsyncTransformer`s are returned as they are. Of a transformer that
    cannot be run over a tree of contexts (recurrent layers, an attention that takes no mask) the log says so
    once. It is returned as it is if `genlm-backend` runs it as its own forward does, which is tried; if not,
    an engine is returned that runs every context whole (`Engine(llm, trees=False)`).
    """
    hf = getattr(llm, "model", None)
    # Asked of the class: a mock has every attribute.
    if not (hasattr(type(llm), "walk_cache") and hasattr(hf, "config") and hasattr(type(llm), "_activate")):
        return llm
    with _lock:
        if _ATTRIBUTE not in vars(llm):
            setattr(llm, _ATTRIBUTE, _engine(llm))
        return getattr(llm, _ATTRIBUTE) or llm


def _engine(llm: Any) -> Engine | None:
    """The engine for a model; None if it is to be used as it is."""
    name = type(llm.model).__name__
    try:
        return Engine(llm)
    except UnsupportedModelError as error:
        why = error
    amiss = _amiss(llm)
    if amiss is None:
        logger.warning("%s runs without the engine: %s", name, why)
        return None
    try:
        engine = Engine(llm, trees=False)
    except UnsupportedModelError as error:
        logger.warning("%s runs without the engine: %s. It may fail: %s", name, why, error)
        return None
    logger.warning(
        "%s runs without the engine's cache, every context from its beginning: %s. (Nor does it run in "
        "genlm-backend's padded batches: %s.)",
        name,
        why,
        amiss,
    )
    return engine


def _amiss(llm: Any) -> str | None:
    """What is wrong with the way `genlm-backend` runs a model; None if nothing is.

    It pads the contexts of a batch, and hands the model a cache of keys and values, whatever it keeps.
    """
    if _follows_the_deepest(llm.model):
        return "its positions depend on the deepest context in the batch"
    size = llm.model.config.get_text_config(decoder=True).vocab_size
    ids = [(7 * i + 3) % size for i in range(1, 8)]
    contexts = [ids, ids[:3], [*ids[:2], ids[5]]]
    twin = copy(llm)  # with a queue and a cache of its own, so as to disturb nobody
    twin.reset_async_queries()
    twin.clear_cache()
    twin.timer = None
    try:
        with ThreadPoolExecutor(1) as thread, torch.no_grad():
            got = thread.submit(asyncio.run, _rows(twin, contexts)).result()
            want = [llm.next_token_logprobs_uncached(context) for context in contexts]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    off = max(float((a.exp() - b.exp()).abs().max()) for a, b in zip(got, want, strict=True))
    allowed = 1e-3 if llm.model.dtype == torch.float32 else 1e-1
    return None if off <= allowed * max(float(row.exp().max()) for row in want) else f"it is off by {off:.2g}"


def _follows_the_deepest(hf: Any) -> bool:
    try:
        return switch_of(hf.config.get_text_config(decoder=True)) is not None or bool(stretched(hf))
    except UnsupportedModelError:
        return True


async def _rows(llm: Any, contexts: Sequence[list[int]]) -> list[torch.Tensor]:
    return list(await llm.batch_next_token_logprobs(contexts))
