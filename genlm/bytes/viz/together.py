"""What there is to see of several models as one: what each says comes next, beside what they say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.ensemble import EnsembleState
from genlm.bytes.viz.view import BeamView, NextByte, likeliest, view_beam

__all__ = ["EnsembleView", "MemberView", "view_ensemble"]


@dataclass(frozen=True)
class MemberView:
    """One member of an ensemble.

    Attributes:
        name: what it is called.
        share: its weight; in a mixture its share, as it follows from the text. None where none has a weight.
        beam: its beam; None if it is none, or cannot have written the text.
        alive: whether it can have written the text.
        says: its probability of each of the ensemble's likeliest next bytes.
    """

    name: str
    share: float | None
    beam: BeamView | None
    alive: bool
    says: tuple[float, ...] = ()


@dataclass(frozen=True)
class EnsembleView:
    """Several models as one, at one place of a text.

    Attributes:
        text: the bytes that were watched being read.
        logp: natural log of the ensemble's probability of these.
        members: the members, each with its own say.
        following: the likeliest next bytes, where somebody asked for them.
    """

    text: bytes
    logp: float
    members: tuple[MemberView, ...]
    following: tuple[NextByte, ...] = ()


def view_ensemble(
    state: EnsembleState,
    most: int = 10,
    *,
    top: int = 5,
    text: bytes = b"",
    logp: float = 0.0,
    names: Sequence[str] = (),
) -> EnsembleView:
    """What there is to see of an ensemble: each member's beam, and the `top` likeliest next bytes.

    These where somebody has asked it for `logp_next`: their probability by all together, and by each.

    Args:
        state: the ensemble.
        most: hypotheses of each beam.
        top: how many next bytes.
        text: what it has read, as far as it is to be shown.
        logp: natural log of its probability of that.
        names: of the members; their numbers where there are none.
    """
    following: tuple[NextByte, ...] = ()
    says: Any = np.zeros((len(state.members), 0))
    if top and state.seen is not None:
        logp_next, rows = state.seen
        found = likeliest(logp_next, top)
        following = tuple(NextByte(byte, math.exp(log)) for byte, log in found)
        says = np.exp(rows[:, [257 if byte is None else byte[0] for byte, _ in found]])
    weights = None if not state.operation.stringwise and state.operation.weights is None else state.shares
    members = tuple(
        MemberView(
            name=names[i] if i < len(names) else str(i + 1),
            share=None if weights is None else float(weights[i]),
            beam=view_beam(member, most) if isinstance(member, ByteBeamState) else None,
            alive=member is not None,
            says=tuple(says[i].tolist()),
        )
        for i, member in enumerate(state.members)
    )
    return EnsembleView(text, logp, members, following)
