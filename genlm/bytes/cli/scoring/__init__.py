"""What `genlm-bytes score` is made of: texts in, rows out, files that can be gone on with."""

from genlm.bytes.cli.scoring.parts import Parts, Unit
from genlm.bytes.cli.scoring.texts import Texts

__all__ = ["Parts", "Texts", "Unit"]
