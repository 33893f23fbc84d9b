"""Token contexts, shared by all that ask: one prefix tree, one cache, one batch at a time."""

__all__ = []
