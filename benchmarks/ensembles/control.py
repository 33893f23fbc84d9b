"""`genlm-control`'s `Ensemble` of two `ByteLLM`s under its sequential Monte Carlo, on installed beams."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from genlm.control import ByteLLM, Ensemble, direct_token_sampler
from transformers.utils import logging

from genlm.bytes import BeamParams

logging.set_verbosity_error()
logging.disable_progress_bar()

state: dict[str, Any] = {"loop": asyncio.new_event_loop()}


@case
def load(clock: Clock, folder: str) -> None:
    """The model."""
    opts = {"hf_opts": {"device_map": "cpu", "torch_dtype": "float32"}}
    state["llm"] = load_model_by_name(folder, backend="hf", llm_opts=opts)


@case
def ensemble(
    clock: Clock, prompts: list[str], count: int, length: int, seed: int, K: int, threshold: float
) -> dict[str, Any]:
    """Particles of the geometric mean of the model after two prompts; cold."""

    async def draw() -> float:
        state["llm"].clear_cache()
        params = BeamParams(K=K, prune_threshold=threshold, eos_byte_strings=[b"<|im_end|>"])
        members = [ByteLLM(state["llm"], params) for _ in prompts]
        for member, prompt in zip(members, prompts, strict=True):
            member.set_prompt_from_str(prompt)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what genlm-control draws with
        with clock:
            sampler = direct_token_sampler(Ensemble(*members, op="prod"))
            drawn = await sampler.smc(n_particles=count, ess_threshold=0.5, max_tokens=length)
        for member in members:
            await member.cleanup()
        return float(drawn.log_ml)

    return {"log_ml": state["loop"].run_until_complete(draw())}


if __name__ == "__main__":
    serve()
