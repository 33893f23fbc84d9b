"""The two symbols beside the 256 bytes."""

from __future__ import annotations

__all__ = ["EOS", "EOT"]

EOT = 256
"""Index of *end of token* in a distribution over next bytes. Internal: no text contains it."""

EOS = 257
"""Index of *end of sequence* in a distribution over next bytes, and the symbol that reads it."""
