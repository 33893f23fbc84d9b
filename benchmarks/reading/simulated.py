"""Reading and writing on devices that are not there: forwards and contexts as counted, at stated costs.

The model is run here, on a CPU, for what it says. Its backend states a device's cost, so that drafts and
offers are those that would be made there; what it takes is the forwards and contexts that were asked for, at
that cost. Beside it stands what the beam itself took here, in Python. So the figures say how the search suits
a device, and nothing of kernels, of memory, or of what the host does meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import torch
from accuracy.counter import MOST_BYTES, Counter
from common.machine import machine
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.contexts.cost import Cost
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.engine import Engine
from genlm.bytes.models import load_default_model

__all__ = ["run"]

DEVICES = {
    "a 1B model on an H200": Cost(12e-3, 0.2e-3),
    "an 8B model on an H200": Cost(45e-3, 0.55e-3),
    "a server, contexts nearly free": Cost(30e-3, 0.03e-3),
}
"""Seconds a forward and a context: the first two as measured (the section on a GPU, 1 to 64 contexts)."""
RULES = {"K=5, 0.05": BeamParams(K=5, prune_threshold=0.05), "default": BeamParams()}
READ, WRITTEN = 1000, 200


class Simulated(Counter):
    """Counts, and says what a device would take.

    Attributes:
        here: processor seconds that the model has taken here.
    """

    batches = True

    def __init__(self, engine: Engine, cost: Cost) -> None:
        super().__init__(engine)
        self.cost, self.here = cost, 0.0

    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        begun = time.process_time()
        rows = super().evaluate(contexts)
        self.here += time.process_time() - begun
        return rows


@dataclass(frozen=True)
class Spent:
    """What one case took: forwards, contexts, the device's seconds as stated, the beam's as measured."""

    forwards: int
    contexts: int
    device: float
    beam: float

    @property
    def cells(self) -> list[str]:
        both = f"{self.device + self.beam:.2f} s"
        return [str(self.forwards), f"{self.contexts:,}", f"{self.device:.2f} s", f"{self.beam:.2f} s", both]


def run(options: Options) -> Report:
    """Read and write at each cost."""
    llm = load_default_model(progress=False)
    engine = Engine(llm, max_cache_bytes=4 << 30)
    text = (HERE / "texts" / "english.txt").read_bytes()[: max(2, round(READ * options.scale))]
    steps = max(2, round(WRITTEN * options.scale))
    tokens = len(llm.tokenizer(text.decode()).input_ids)
    table = Table(["", "forwards", "contexts", "device", "beam, in Python", "both", "plain"])
    for device, cost in DEVICES.items():
        for rule, params in RULES.items():
            read, written, new = asyncio.run(_case(engine, cost, params, text, steps))
            plain = cost.forward + tokens * cost.context, new * (cost.forward + cost.context)
            what = f"{device}, {rule}"
            table.rows += [
                [f"{what}: read {len(text):,} bytes", *read.cells, f"{plain[0]:.2f} s"],
                [f"{what}: write {steps} after them", *written.cells, f"{plain[1]:.2f} s"],
            ]
    costs = [f"{name}: {1e3 * c.forward:g} and {1e3 * c.context:g} ms" for name, c in DEVICES.items()]
    return Report(
        title="Reading and writing bytes on simulated devices",
        machine=machine(package_versions(Clock())),
        table=table,
        notes=[
            "simulated: forwards and contexts are counted, with SmolLM2-135M, at a stated cost of each; what "
            "the beam takes in Python is measured on this CPU, in processor time",
            f"a forward and a context: {'; '.join(costs)}",
            "plain: one forward over the tokenizer's own tokens; one for each token of what was written",
            "writing: the likeliest byte each time, with the distribution of each",
        ],
        missed=[],
        variant="-simulated",
    )


async def _case(
    engine: Engine, cost: Cost, params: BeamParams, text: bytes, steps: int
) -> tuple[Spent, Spent, int]:
    """Reading, writing after it, and how many tokens the tokenizer would make of what was written."""
    backend = Simulated(engine, cost)
    beam = await ByteBeamState.initial(CachedLM(backend, MOST_BYTES), params)
    spent, made = list[Spent](), bytearray()
    for writes in (False, True):
        before = backend.forwards, backend.contexts, backend.here, time.process_time()
        if not writes:
            beam = await beam.prefill(text)
        for _ in range(steps if writes else 0):
            symbol = (await beam.logp_next()).materialize().argmax()
            if symbol > 255:
                break
            made.append(symbol)
            beam = await (beam.prune() << symbol)
        forwards, contexts = backend.forwards - before[0], backend.contexts - before[1]
        here = time.process_time() - before[3] - (backend.here - before[2])
        spent.append(Spent(forwards, contexts, forwards * cost.forward + contexts * cost.context, here))
    ids = backend.tokenizer(made.decode("utf-8", "ignore"), add_special_tokens=False).input_ids
    return spent[0], spent[1], len(ids)
