"""A Hugging Face model over a tree of contexts: KV cache, tree attention, one batched forward."""

__all__ = []
