"""What canonical tokenizations cost: contexts evaluated for each token of the tokenizer's own tokenization.

The beginnings of paragraphs of prose are read three ways, each with nothing cached: byte by byte, in one
`prefill`, and with the distribution asked for at every byte; and once, for comparison, by `prefill` over all
tokenizations.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from accuracy.session import emptied
from common.machine import hardware, versions
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.engine import Engine
from genlm.bytes.models import load_default_model

__all__ = ["run"]

BYTES = 300
TARGET = 3.0
"""Contexts a canonical token, over all texts, where nobody looks at distributions."""
WAYS = ("byte by byte", "prefill", "looking at every byte")


def run(options: Options) -> Report:
    """Read each text."""
    engine = Engine(load_default_model(progress=False))
    prose = (HERE / "texts" / "english.txt").read_bytes().strip().split(b"\n\n")
    texts = [text[: int(BYTES * options.scale)] for text in prose]
    found = [asyncio.run(_measure(engine, text)) for text in texts]
    rows = [[f"“{text[:24].decode()} …”", *_cells(row)] for text, row in zip(texts, found, strict=True)]
    mean = {key: statistics.mean(row[key] for row in found) for key in found[0]}
    rows.append(["mean", *_cells(mean)])
    missed = [way for way in WAYS[:2] if mean[way] > TARGET]
    header = ["", "tokens", *WAYS, "log Z", "all tokenizations: prefill", "log Z"]
    return Report(
        title=f"Contexts for each token, canonical=True: {BYTES} bytes of prose",
        machine=[f"{hardware()}; {versions(package_versions(Clock()))}"],
        table=Table(header, rows),
        notes=[
            "SmolLM2-135M-Instruct, the default tolerance; paragraphs of `texts/english.txt`; log Z in nats, "
            "the same for all three ways",
            f"target: at most {TARGET:g} contexts a token, byte by byte and by prefill: "
            f"{'missed' if missed else 'met'}",
        ],
        missed=[f"canonical contexts: {way}" for way in missed],
    )


async def _measure(engine: Engine, text: bytes) -> dict[str, float]:
    tokens = len(engine.tokenizer.encode(text.decode(), add_special_tokens=False))
    canonical = BeamParams(canonical=True)
    found: dict[str, float] = {"tokens": tokens}
    for way in WAYS:
        contexts, found["log Z"] = await _read(engine, canonical, text, way)
        found[way] = contexts / tokens
    contexts, found["all log Z"] = await _read(engine, BeamParams(), text, "prefill")
    found["all"] = contexts / tokens
    return found


async def _read(engine: Engine, params: BeamParams, text: bytes, way: str) -> tuple[int, float]:
    before = await emptied(engine)
    beam: Any = await ByteBeamState.initial(engine, params)
    if way == "prefill":
        beam = await beam.prefill(text)
    else:
        for byte in text:
            if way != "byte by byte":
                await beam.logp_next()
            beam = await (beam.prune() << byte)
    return engine.statistics().tokens_run - before.tokens_run, beam.logZ


def _cells(row: dict[str, float]) -> list[str]:
    return [
        f"{row['tokens']:.0f}",
        *(f"{row[way]:.1f}" for way in WAYS),
        f"{row['log Z']:.2f}",
        f"{row['all']:.1f}",
        f"{row['all log Z']:.2f}",
    ]
