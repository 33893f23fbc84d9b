"""Which models run through the engine, and one engine for each."""

from __future__ import annotations

import logging
from threading import RLock
from typing import Any

from genlm.bytes.engine.engine import Engine
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["adopt"]

logger = logging.getLogger(__name__)

# On the model itself: an engine needs its model, so a table of engines, even one with weak keys, would
# keep every model alive for good. A cycle of two is collected.
_ATTRIBUTE = "_genlm_bytes_engine"
_lock = RLock()


def adopt(llm: Any) -> Any:
    """An engine over the model's weights, the same one each time; the model itself if none is possible.

    Models that are not `genlm-backend` `AsyncTransformer`s are returned as they are. A transformer that
    cannot be run over a tree of contexts (recurrent layers, an attention that takes no mask) is too, and
    the log says so once.
    """
    hf = getattr(llm, "model", None)
    # Asked of the class: a mock has every attribute.
    if not (hasattr(type(llm), "walk_cache") and hasattr(hf, "config") and hasattr(type(llm), "_activate")):
        return llm
    with _lock:
        if _ATTRIBUTE not in vars(llm):
            try:
                engine = Engine(llm)
            except UnsupportedModelError as why:
                logger.warning("%s runs without the engine: %s", type(hf).__name__, why)
                engine = None
            setattr(llm, _ATTRIBUTE, engine)
        return getattr(llm, _ATTRIBUTE) or llm
