"""What evaluates token contexts: one package or module for each kind of model."""

__all__ = []
