"""What `genlm-bytes score` is made of: texts in, rows out."""

from genlm.bytes.cli.scoring.parts import Parts, Unit
from genlm.bytes.cli.scoring.texts import Texts

__all__ = ["Parts", "Texts", "Unit"]
