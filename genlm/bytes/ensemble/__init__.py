"""Several byte-level models as one: their next-byte distributions speak one alphabet."""

from genlm.bytes.ensemble.operations import Operation, operation
from genlm.bytes.ensemble.state import EnsembleState

__all__ = ["EnsembleState", "Operation", "operation"]
