"""Which models run through the engine, and one engine for each."""

from __future__ import annotations

import logging
from threading import RLock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from genlm.bytes.errors import UnsupportedModelError

if TYPE_CHECKING:
    from genlm.bytes.engine.engine import Engine

__all__ = ["adopt"]

logger = logging.getLogger(__name__)

_engines: WeakKeyDictionary[Any, Engine | None] = WeakKeyDictionary()
_engines_lock = RLock()


def adopt(llm: Any) -> Any:
    """An engine over the model's weights, the same one each time; the model itself if none is possible.

    Models that are not `genlm-backend` `AsyncTransformer`s are returned as they are. A transformer that
    cannot be run over a tree of contexts (recurrent layers, an attention that takes no mask) is too, and
    the log says so once.
    """
    hf = getattr(llm, "model", None)
    if not (hasattr(llm, "walk_cache") and hasattr(hf, "config") and hasattr(llm, "_activate")):
        return llm
    from genlm.bytes.engine.engine import Engine

    with _engines_lock:
        if llm not in _engines:
            try:
                _engines[llm] = Engine(llm)
            except UnsupportedModelError as why:
                logger.warning("%s runs without the engine: %s", type(hf).__name__, why)
                _engines[llm] = None
        engine = _engines[llm]
    return llm if engine is None else engine
