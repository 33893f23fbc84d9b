"""Release 0.2.0 reading a text byte by byte. Only documented names are used."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from transformers.utils import logging

from genlm.bytes import BeamParams, ByteBeamState

logging.set_verbosity_error()
logging.disable_progress_bar()

llm: Any = None
loop = asyncio.new_event_loop()


@case
def load(clock: Clock, folder: str) -> dict[str, Any]:
    """Load the model in float32."""
    global llm
    opts = {"hf_opts": {"device_map": "cpu", "torch_dtype": "float32"}}
    llm = load_model_by_name(folder, backend="hf", llm_opts=opts)
    return {}


@case
def follow(clock: Clock, text: str, params: dict[str, Any], into: str) -> dict[str, Any]:
    """Ask for the distribution of each byte of `text`, in Latin-1, and read that byte. One block.

    The distributions are saved as an array, `[bytes, 258]`; every token that the model runs is counted.
    """
    return loop.run_until_complete(_follow(clock, text.encode("latin-1"), params, into))


async def _follow(clock: Clock, text: bytes, params: dict[str, Any], into: str) -> dict[str, Any]:
    llm.clear_cache()
    beam = await ByteBeamState.initial(llm, BeamParams(**params))
    count = {"contexts": 0, "forwards": 0}

    def counted(_: Any, args: Any, named: dict[str, Any]) -> None:
        ids = args[0] if args else named["input_ids"]
        count["contexts"] += ids.numel()
        count["forwards"] += 1

    hook = llm.model.register_forward_pre_hook(counted, with_kwargs=True)
    probs, live, logZ = np.zeros((len(text), 258)), list[int](), [-np.inf] * len(text)
    with clock:
        for i, byte in enumerate(text):
            chart = (await beam.logp_next()).materialize()
            for symbol, logp in chart.items():
                if symbol is not None:
                    probs[i, symbol] = np.exp(logp)
            beam = await (beam.prune() << byte)
            live.append(len(beam))
            logZ[i] = float(beam.logZ)
            if not len(beam):
                break  # the rest keeps probability 0
    hook.remove()
    np.save(into, probs)
    found = {"logZ": logZ, "candidates": sum(live) / len(text), **count}
    await beam.cleanup()
    return found


serve()
