"""Canonical tokenizations: those that a model's own tokenizer produces."""

from genlm.bytes.canonical.context import CanonicalContext
from genlm.bytes.canonical.rules import CanonicalRules, CanonicalState, canonical_rules

__all__ = ["CanonicalContext", "CanonicalRules", "CanonicalState", "canonical_rules"]
