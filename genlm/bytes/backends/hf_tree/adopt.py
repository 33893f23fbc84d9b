"""Which models run through the engine, and one engine for each."""

from __future__ import annotations

import logging
import warnings
from threading import RLock
from typing import Any

from genlm.bytes.backends.hf_tree.engine import Engine
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
    cannot be run over a tree of contexts (recurrent layers, an attention that takes no mask) a warning and
    the log say so once, and its engine runs every context whole (`Engine(llm, trees=False)`): not in the
    padded batches of `genlm-backend`, since models are wrong in those, too, in ways no few contexts show.
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
    try:
        engine = Engine(llm, trees=False)
    except UnsupportedModelError as error:
        _warn(f"{name} runs without the engine: {why}. It may fail: {error}")
        return None
    _warn(
        f"{name} runs without the engine's cache, every context from its beginning: {why}. Reading a text "
        "takes some ten to a hundred times as long."
    )
    return engine


def _warn(text: str) -> None:
    logger.warning(text)
    warnings.warn(text, UserWarning, stacklevel=4)
