"""GGUF files on llama.cpp: a tree of contexts over sequences of one KV cache."""

__all__ = []
