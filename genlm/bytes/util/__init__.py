"""Small things that the whole library shares. Importing them loads numpy and nothing heavier."""

from genlm.bytes.util.chart import Chart
from genlm.bytes.util.maths import logsumexp, sample_dict
from genlm.bytes.util.probs import LazyByteProbs
from genlm.bytes.util.text import escape, format_byte, format_table

__all__ = ["Chart", "LazyByteProbs", "escape", "format_byte", "format_table", "logsumexp", "sample_dict"]
