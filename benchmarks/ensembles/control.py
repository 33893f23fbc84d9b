"""`genlm-control`'s `Ensemble` of two `ByteLLM`s under its sequential Monte Carlo, on installed beams."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from genlm.control import BoolFSA, ByteLLM, Ensemble, direct_token_sampler
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


def _drawn(clock: Clock, prompts: list[str], pattern: str | None, length: int, **of: Any) -> dict[str, Any]:
    """Particles, cold: of the model after a prompt, or of the geometric mean after two, under a pattern.

    A text ends after `length` bytes without having to: `max_tokens` alone has them weighted by the end's
    probability there, which is another distribution than one over the first bytes.
    """

    async def draw() -> Any:
        state["llm"].clear_cache()
        params = BeamParams(
            K=of["K"], prune_threshold=of["threshold"], eos_byte_strings=[b"<|im_end|>"], **of.get("more", {})
        )
        members = [ByteLLM(state["llm"], params) for _ in prompts]
        for member, prompt in zip(members, prompts, strict=True):
            member.set_prompt_from_str(prompt)
        random.seed(of["seed"])
        np.random.seed(of["seed"])  # noqa: NPY002 - what genlm-control draws with
        with clock:
            target = members[0] if len(members) == 1 else Ensemble(*members, op="prod")
            if pattern is not None:
                target = target * BoolFSA.from_regex(pattern).coerce(target, f=b"".join)
            found = await direct_token_sampler(target).smc(
                n_particles=of["count"],
                ess_threshold=0.5,
                max_tokens=length + 1,
                terminate_when=lambda context: len(context) >= length,
                resampling_method="systematic",
            )
        for member in members:
            await member.cleanup()
        return found

    drawn = state["loop"].run_until_complete(draw())
    texts = [b"".join(part for part in context if isinstance(part, bytes)) for context, _ in drawn]
    return {"log_ml": float(drawn.log_ml), "texts": [text.decode("utf-8", "replace") for text in texts]}


@case
def ensemble(
    clock: Clock, prompts: list[str], count: int, length: int, seed: int, K: int, threshold: float
) -> dict[str, Any]:
    """Particles of the geometric mean of the model after two prompts."""
    asked = {"count": count, "seed": seed, "K": K, "threshold": threshold}
    return _drawn(clock, prompts, None, length, **asked)


@case
def constrained(
    clock: Clock,
    prompts: list[str],
    pattern: str,
    count: int,
    length: int,
    seed: int,
    K: int,
    threshold: float,
) -> dict[str, Any]:
    """The same under a regular expression; of one model after one prompt."""
    asked = {"count": count, "seed": seed, "K": K, "threshold": threshold}
    return _drawn(clock, prompts, pattern, length, **asked)


if __name__ == "__main__":
    serve()
