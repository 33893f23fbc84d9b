"""The settings that are compared, and the one that stands in for the truth."""

from __future__ import annotations

from typing import Any, NamedTuple

from genlm.bytes import BeamParams
from genlm.bytes.byte_lm.constants import ToleranceConstants
from genlm.bytes.byte_lm.tolerance import ToleranceRule

__all__ = ["COLD", "DEFAULT", "LOOSER", "OURS", "REFERENCE", "REFERENCES", "RELEASE", "SETTINGS", "Setting"]


class Setting(NamedTuple):
    """Arguments of `BeamParams`, and how the table names them.

    Attributes:
        words: its name.
        params: the arguments.
        least: what a byte counts at least where it raises deferred hypotheses (`min_symbol_prob`); None as
            it is.
    """

    words: str
    params: dict[str, Any]
    least: float | None = None

    def beam_params(self) -> BeamParams:
        """As settings of a beam."""
        if self.least is None:
            return BeamParams(**self.params)
        return BeamParams(
            rule=ToleranceRule(**self.params, constants=ToleranceConstants(min_symbol_prob=self.least))
        )


DEFAULT = "default"
OURS = {
    "3e-3": Setting("tolerance 3e-3", {"tolerance": 3e-3}),
    "1e-3": Setting("tolerance 1e-3", {"tolerance": 1e-3}),
    DEFAULT: Setting("default: tolerance 5e-4", {}),
    "1e-4": Setting("tolerance 1e-4", {"tolerance": 1e-4}),
}
RELEASE = {
    "K5-0.05": Setting("K=5, threshold 0.05", {"K": 5, "prune_threshold": 0.05}),
    "K5-0": Setting("K=5, threshold 0", {"K": 5}),
    "K10-1e-3": Setting("K=10, threshold 1e-3", {"K": 10, "prune_threshold": 1e-3}),
}
"""Settings that release 0.2.0 has too. On our engine they give what it gives."""

SETTINGS = OURS | RELEASE

COLD = ("K5-0", "K5-0.05", DEFAULT)
"""Settings that are run with nothing cached too, for their seconds."""

REFERENCE = Setting("tolerance 1e-5 and 1e-3 a byte", {"tolerance": 1e-5}, 1e-3)
LOOSER = Setting("tolerance 3e-5 and 1e-3 a byte", {"tolerance": 3e-5}, 1e-3)
"""The reference, and a setting three times looser: by how much the two differ says how far either is off.
Both look sooner at who waits where a byte surprises the beam, since no tolerance of 1e-5 alone finds what a
surprise makes heavy."""

REFERENCES = {
    "chat": (Setting("tolerance 1e-5 and 1e-2 a byte", {"tolerance": 1e-5}, 1e-2), REFERENCE),
    "german": (
        Setting("tolerance 3e-5", {"tolerance": 3e-5, "K": 300}),
        Setting("tolerance 1e-4", {"tolerance": 1e-4, "K": 300}),
    ),
}
"""Paragraphs that have others: in the chat, after 60 nats of surprise, 8 % of the weight lies with candidates
that were e^-15 of it 30 bytes before; in German the usual reference would take hours."""
