"""Reading a paragraph byte by byte, with the distribution at every byte, and how far it is off."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from genlm.bytes import BeamParams, ByteBeamState

__all__ = ["Errors", "Reading", "compare", "read"]

LOST, TAKEN = 1e-6, 1e-3
"""A byte counts as lost where it is given less than `LOST` and the reference gives more than `TAKEN`."""


@dataclass
class Reading:
    """What reading a text byte by byte gave.

    Attributes:
        probs: the distribution before each byte, `[bytes, 258]`.
        bound: the slack that each distribution reported, certified, `[bytes]`.
        expected: the slack that each expected, `[bytes]`.
        logZ: natural log of the probability of the bytes so far, after each, `[bytes]`.
        upper: certified upper bounds of the same, `[bytes]`.
        candidates: live candidates, the mean over all bytes.
        waiting: waiting candidates, likewise.
        seconds: processor time; includes the model's only where nothing was known before.
        contexts, forwards: see `Counter`.
    """

    probs: np.ndarray
    bound: np.ndarray
    expected: np.ndarray
    logZ: np.ndarray
    upper: np.ndarray
    candidates: float
    waiting: float
    seconds: float
    contexts: int = 0
    forwards: int = 0

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez_compressed(unfinished, **asdict(self))
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Reading:
        with np.load(path) as found:
            values = {field.name: found[field.name] for field in fields(cls)}
        return cls(**{name: value if value.ndim else value.item() for name, value in values.items()})


async def read(llm: Any, params: BeamParams, text: bytes) -> Reading:
    """Read `text` byte by byte, asking for the distribution before each byte."""
    beam = await ByteBeamState.initial(llm, params)
    probs = np.zeros((len(text), 258))
    bound, expected, live, waiting = (np.zeros(len(text)) for _ in range(4))
    logZ, upper = (np.full(len(text), -math.inf) for _ in range(2))
    start = time.process_time()
    for i, byte in enumerate(text):
        answer = await beam.logp_next()
        probs[i] = np.exp(answer.ps)
        if answer.slack is not None:
            expected[i], bound[i] = answer.slack
        beam = await (beam.prune() << byte)
        live[i], waiting[i] = len(beam), len(beam.deferred)
        logZ[i], upper[i] = beam.bounds()
        if not len(beam):
            break  # the rest keeps probability 0
    return Reading(
        probs=probs,
        bound=bound,
        expected=expected,
        logZ=logZ,
        upper=upper,
        candidates=float(live.mean()),
        waiting=float(waiting.mean()),
        seconds=time.process_time() - start,
    )


@dataclass(frozen=True)
class Errors:
    """How far a reading is from the reference.

    Attributes:
        mean, worst: |Δ log p| of the byte that follows, in nats; a byte of probability 0 counts 700.
        tv, worst_tv: total variation of the distributions.
        excess: bits per byte of the text by `probs`, beyond the reference's.
        lost: bytes given less than `LOST` that the reference gives more than `TAKEN`, over all
            distributions.
        logZ: log Z less the reference's.
        broken: distributions further off than their certified bound, by more than the reference's own doubt.
        expected, missing: the share of the prefix probability that is left out, as expected and as it is;
            means over all bytes.
        above_expected: distributions further off than their expected slack.
        worst_at: where |Δ log p| is worst, the offset of the byte.
    """

    mean: float
    worst: float
    tv: float
    worst_tv: float
    excess: float
    lost: int
    logZ: float
    broken: int
    expected: float
    missing: float
    above_expected: int
    worst_at: int


def compare(reference: Reading, got: Reading, text: bytes, doubt: float = 1e-6) -> Errors:
    """The errors of a reading.

    Args:
        doubt: total variation by which the reference itself may be off.
    """
    at = np.arange(len(text)), np.frombuffer(text, dtype=np.uint8)
    tiny = math.exp(-700.0)
    logs = np.log(np.maximum(got.probs[at], tiny)), np.log(np.maximum(reference.probs[at], tiny))
    off = np.abs(logs[0] - logs[1])
    tv = 0.5 * np.abs(got.probs - reference.probs).sum(axis=1)
    return Errors(
        mean=float(off.mean()),
        worst=float(off.max()),
        tv=float(tv.mean()),
        worst_tv=float(tv.max()),
        excess=float((logs[1] - logs[0]).mean() / math.log(2.0)),
        lost=int(((got.probs < LOST) & (reference.probs > TAKEN)).sum()),
        logZ=float(got.logZ[-1] - reference.logZ[-1]),
        broken=int((tv > got.bound + doubt).sum()),
        expected=float(got.expected.mean()),
        missing=float(-np.expm1(np.minimum(got.logZ - reference.logZ, 0.0)).mean()),
        above_expected=int((tv > got.expected + doubt).sum()),
        worst_at=int(off.argmax()),
    )
