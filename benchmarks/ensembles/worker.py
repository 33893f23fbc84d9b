"""Cases of the ensembles benchmark: models alone and together, prompts on one model, particles."""

from __future__ import annotations

from typing import Any

from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from transformers.utils import logging

from genlm.bytes import ByteLM
from genlm.bytes.generate.grammar import regex

logging.set_verbosity_error()
logging.disable_progress_bar()

state: dict[str, ByteLM] = {}
PROMPTS = ["The first thing I saw was", "In a small town by the sea there", "My friend told me that the"]
PATTERN = "[A-Z][a-z]+( [a-z]+)*[.]"


@case
def load(clock: Clock, folder: str) -> None:
    """The model twice: two objects, which share nothing; and all code once."""
    opts = {"hf_opts": {"device_map": "cpu", "torch_dtype": "float32"}}
    for name in ("one", "other"):
        state[name] = ByteLM(load_model_by_name(folder, backend="hf", llm_opts=opts))
    write(Clock(), "together", 4)


def _model(name: str) -> ByteLM:
    one, other = state["one"], state["other"]
    if name == "together":
        return ByteLM.ensemble([one, other])
    if name == "prompts":
        return ByteLM.ensemble([one] * len(PROMPTS), contexts=PROMPTS)
    return state[name]


@case
def write(clock: Clock, name: str, length: int) -> dict[str, Any]:
    """New bytes, one by one, by one model or several; cold."""
    for lm in state.values():
        lm.forget()
    model = _model(name)
    with clock:
        done = model.complete(" " if name == "prompts" else PROMPTS[0], unit="byte", max_bytes=length)
    return {"text": done.text}


@case
def particles(clock: Clock, count: int, length: int) -> dict[str, Any]:
    """Particles under a regular expression; cold."""
    state["one"].forget()
    with clock:
        drawn = state["one"].complete(
            PROMPTS[0], particles=count, seed=1, max_bytes=length, mask=regex(PATTERN)
        )
    return {"log_normalizer": drawn.log_normalizer, "different": len(drawn.posterior)}


if __name__ == "__main__":
    serve()
