"""How many tokens a Hugging Face model reads, by what its configuration says."""

from __future__ import annotations

from typing import Any

__all__ = ["context_length"]


def context_length(config: Any) -> int | None:
    """The most tokens that a model reads; None where its configuration does not say, or says "any number".

    Args:
        config: the configuration of the text model. `max_position_embeddings` is what transformers maps most
            models' own names to; but not MPT's `max_seq_len`. XLNet's is -1.
    """
    for name in ("max_position_embeddings", "max_seq_len"):
        found = getattr(config, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return None
