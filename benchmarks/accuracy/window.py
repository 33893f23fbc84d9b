"""What a sliding window loses: a text read through windows of several sizes against the same in full context.

The loss is the difference in log-probability by the number of bytes. It has two parts, which the table does
not tell apart: what the model would have made of the tokens that were forgotten, and the candidates that
waited when the window slid, which are dropped.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from common.machine import hardware, versions
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.engine import adopt

__all__ = ["run"]

BYTES = 2_000
BEAM = BeamParams(K=5, prune_threshold=0.01)
"""So that the number of contexts is bounded: without a K it grows with the length of a text, for minutes."""
WINDOWS = ((256, 128), (256, 64), (128, 64), (128, 32), (64, 32), (32, 16))
"""Window and overlap, in tokens."""
TARGET = 0.02
"""Nats a byte, for the window of 256 tokens with its default overlap."""


@dataclass(frozen=True)
class Measured:
    """The log-probabilities of the bytes, and what they took."""

    logprobs: np.ndarray
    seconds: float
    tokens_run: int


def run(options: Options) -> Report:
    """Score the text in full context, then through each window."""
    lm = ByteLM.from_pretrained(None, BEAM, progress=False)
    prose = (HERE / "texts" / "english.txt").read_bytes()
    text = prose[: prose.index(b"\n", int(BYTES * options.scale))]
    tokens = len(lm.llm.tokenizer.encode(text.decode(), add_special_tokens=False))
    full = _measure(lm, text)
    rows = [["all", "", *_cells(full, full)]]
    print(*rows[-1], flush=True)
    loss = math.nan
    for window, overlap in WINDOWS:
        if window >= tokens:
            continue  # the text fits
        found = _measure(lm, text, window=window, overlap=overlap)
        rows.append([str(window), str(overlap), *_cells(found, full)])
        print(*rows[-1], flush=True)
        if (window, overlap) == (256, 128):
            loss = _loss(found, full)
    lm.close()
    met = not loss > TARGET
    return Report(
        title=f"A window that slides over {len(text):,} bytes: what is lost against the full context",
        machine=[f"{hardware()}; {versions(package_versions(Clock()))}"],
        table=Table(
            ["window", "overlap", "bits/byte", "nats/byte lost", "most in 100 bytes", "tokens run", "s"], rows
        ),
        notes=[
            f"SmolLM2-135M-Instruct, float32, K={BEAM.K}, threshold {BEAM.prune_threshold}; the beginning of "
            f"`texts/english.txt`, {tokens} tokens as the tokenizer cuts it; window and overlap in tokens",
            "lost: log-probability in full context less that through the window, by the number of bytes; "
            "below 0 the window did better",
            f"target: at most {TARGET} nats/byte at 256/128: {'met' if met else 'missed'}",
        ],
        missed=[] if met else ["loss of the window of 256 tokens"],
    )


def _measure(lm: ByteLM, text: bytes, **window: int) -> Measured:
    lm.forget()
    engine: Any = adopt(lm.llm)
    before, start = engine.statistics().tokens_run, time.perf_counter()
    score: Any = lm.score(text, **window)
    return Measured(score.logprobs, time.perf_counter() - start, engine.statistics().tokens_run - before)


def _loss(found: Measured, full: Measured) -> float:
    return float((full.logprobs - found.logprobs).mean())


def _cells(found: Measured, full: Measured) -> list[str]:
    lost = full.logprobs - found.logprobs
    stretches = [float(part.sum()) for part in np.array_split(lost, max(1, len(lost) // 100))]
    bits = -float(found.logprobs.mean()) / math.log(2)
    known = found is full
    return [
        f"{bits:.4f}",
        "" if known else f"{_loss(found, full):.4f}",
        "" if known else f"{max(stretches):.2f}",
        f"{found.tokens_run:,}",
        f"{found.seconds:.0f}",
    ]
