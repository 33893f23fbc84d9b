"""How far off the score of a text by an ensemble may be, from how far off its members are expected to be.

Each member leaves tokenizations out, and says by how many nats the log-probability of what it has read is
expected to be too low for it. With every member's probabilities so much higher, a weighted mean of them is
higher by what can be computed: of strings in a mixture, of each byte in a sum. By no other operation: there
a byte's probability is divided by what those of all bytes come to, and of the others nobody knows how much
each misses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm.beam import ByteBeamState
from genlm.bytes.ensemble.members import Member
from genlm.bytes.ensemble.operations import logsumexp
from genlm.bytes.ensemble.state import EnsembleState

__all__ = ["unfound"]

Each = Float64[np.ndarray, " members"]


async def unfound(states: Sequence[EnsembleState], text: bytes) -> Float64[np.ndarray, " places"] | None:
    """By how many nats the log-probability up to each place of a text is expected to be too low; see `Score`.

    Args:
        states: before each byte, and after the last.
        text: the bytes.

    Returns:
        None where nothing can be said.
    """
    rule = states[0].operation
    if not rule.is_mean:
        return None
    nats = [np.array([_nats(member) for member in state.members]) for state in states]
    if rule.stringwise:
        return np.array([_more(state.log_shares, n) for state, n in zip(states, nats, strict=True)])
    found = [float(states[0].shares @ nats[0])]
    for state, byte, before, after in zip(states[:-1], text, nats[:-1], nats[1:], strict=True):
        said = (await state.members_next())[:, byte]
        with np.errstate(divide="ignore"):
            found.append(found[-1] + _more(said + np.log(state.shares), after - before))
    return np.array(found)


def _nats(member: Member) -> float:
    if member is None:
        return 0.0
    return member.slack.nats if isinstance(member, ByteBeamState) else math.nan


def _more(logps: Each, nats: Each) -> float:
    """By how much the log of a sum grows if its terms do."""
    live = logps > -np.inf
    return float(logsumexp(logps[live] + nats[live]) - logsumexp(logps[live]))
