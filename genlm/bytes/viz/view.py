"""What there is to see of a beam, as plain values: made once, drawn anywhere.

All hypotheses of a beam spell the same bytes and differ in how they cut them. Most cuts lie far behind and
are the same in all: those tokens are `shared`, and each row has only what comes after them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.util import LazyByteProbs

__all__ = ["BeamView", "NextByte", "Row", "view_beam"]


@dataclass(frozen=True)
class Row:
    """One hypothesis.

    Attributes:
        share: its share of the beam, between 0 and 1.
        logp: natural log of its weight.
        tokens: the tokens committed after the shared ones.
        partial: the bytes read of the next token.
        ended: whether it has read the end of the sequence.
        canonical: whether the model's own tokenizer cuts the bytes so; None where there is none to ask.
    """

    share: float
    logp: float
    tokens: tuple[bytes, ...]
    partial: bytes
    ended: bool
    canonical: bool | None


@dataclass(frozen=True)
class NextByte:
    """A byte that may come next, with its probability. `byte` is None for the end of the sequence."""

    byte: bytes | None
    p: float


@dataclass(frozen=True)
class BeamView:
    """A beam at one place of a text.

    Attributes:
        text: the bytes it has read.
        logp: natural log of its weight, a lower bound of the log prefix probability of `text`.
        shared: the tokens with which all rows begin.
        rows: the heaviest hypotheses, the heaviest first.
        others: how many hypotheses have no row, and their share of the beam.
        deferred: how many hypotheses are not evaluated yet.
        missing: the share of the whole that is expected to wait or to have been dropped.
        following: the likeliest next bytes, where somebody asked for them.
    """

    text: bytes
    logp: float
    shared: tuple[bytes, ...]
    rows: tuple[Row, ...]
    others: tuple[int, float]
    deferred: int
    missing: float
    following: tuple[NextByte, ...] = ()


def view_beam(
    beam: ByteBeamState, most: int = 10, *, logp_next: LazyByteProbs | None = None, top: int = 5
) -> BeamView:
    """What there is to see of a beam: the heaviest `most` hypotheses, and the `top` likeliest next bytes."""
    found = beam.tokenizations(most)
    shared = _common([t.token_ids for t in found])
    rows = tuple(
        Row(t.posterior, state.weight, t.byte_strings[shared:], t.partial, state.terminated, t.canonical)
        for t, state in zip(found, beam.states, strict=False)
    )
    following = [] if logp_next is None else likeliest(logp_next, top)
    left = 1.0 - math.fsum(row.share for row in rows) if len(beam) > len(rows) else 0.0
    return BeamView(
        text=b"".join(found[0].byte_strings) + found[0].partial if found else b"",
        logp=beam.logZ,
        shared=found[0].byte_strings[:shared] if found else (),
        rows=rows,
        others=(len(beam) - len(rows), max(0.0, left)),
        deferred=len(beam.deferred),
        missing=beam.slack.expected,
        following=tuple(NextByte(byte, math.exp(log)) for byte, log in following),
    )


def likeliest(logp_next: LazyByteProbs, top: int) -> list[tuple[bytes | None, float]]:
    """The likeliest next bytes that are possible at all, with their logs; None is the end."""
    keys: dict[Any, bytes | None] = {b: bytes([b]) for b in range(256)}
    keys |= {257: None} | {unit: unit for unit in logp_next.units}
    logs = sorted(((byte, logp_next[key]) for key, byte in keys.items()), key=lambda pair: -pair[1])
    return [(byte, log) for byte, log in logs[:top] if log > -math.inf]


def _common(paths: Sequence[Sequence[int]]) -> int:
    """The length of the beginning that all paths share."""
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*paths, strict=False)))
