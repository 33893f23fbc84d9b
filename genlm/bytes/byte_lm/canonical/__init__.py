"""Canonical tokenizations: those that a model's own tokenizer produces."""

from genlm.bytes.byte_lm.canonical.rules import CanonicalRules, CanonicalState, canonical_rules

__all__ = ["CanonicalRules", "CanonicalState", "canonical_rules"]
