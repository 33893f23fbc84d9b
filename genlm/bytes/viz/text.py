"""Text of a model's making, safe to show: `genlm.bytes.escaping`, under the name it has among drawings."""

from __future__ import annotations

from genlm.bytes.escaping import one_line, safe_text

__all__ = ["one_line", "safe_text"]
