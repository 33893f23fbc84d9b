"""Where a completion must stop: the model's longest context."""

from __future__ import annotations

from typing import Any

from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.util.context_length import context_length

__all__ = ["context_is_full", "depth", "longest_context"]


def longest_context(lm_state: Any) -> int | None:
    """The most tokens that a state's model reads, if it says; None for a state that forgets the oldest."""
    if lm_state.max_context_length is not None:
        return None
    model = lm_state.model
    if isinstance(model, CachedLM):
        longest: int | None = model.backend.max_length
        return longest
    config = getattr(getattr(model, "model", None), "config", None)
    if config is None:
        return None
    text_config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return context_length(text_config)


def depth(lm_state: Any) -> int:
    """How many tokens a token-level state has read."""
    return int(lm_state.node.depth)


def context_is_full(beam: Any) -> bool:
    """Whether the next token of a candidate might not fit into the model's context."""
    if hasattr(beam, "context_is_full"):  # several models know for themselves
        return bool(beam.context_is_full)
    states = getattr(beam, "states", ())
    if not states:
        return False
    longest = longest_context(states[0].lm_state)
    return longest is not None and max(depth(state.lm_state) for state in states) >= longest
