"""Cases of the ensembles benchmark: models alone and together, prompts on one model, particles."""

from __future__ import annotations

from typing import Any

from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from transformers.utils import logging

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.engine import adopt
from genlm.bytes.generate.grammar import regex

logging.set_verbosity_error()
logging.disable_progress_bar()

state: dict[str, ByteLM] = {}
PROMPTS = ["The first thing I saw was", "In a small town by the sea there", "My friend told me that the"]
PATTERN = "[A-Z][a-z]+( [a-z]+){99,}[.]"
"""Which no text fits that is shorter than what is asked for: all particles write as many bytes."""
ENDS = ["", " It was late.", " Nobody spoke."]


@case
def load(clock: Clock, folder: str) -> None:
    """The model twice: two objects, which share nothing; and all code once."""
    opts = {"hf_opts": {"device_map": "cpu", "torch_dtype": "float32"}}
    for name in ("one", "other"):
        state[name] = ByteLM(load_model_by_name(folder, backend="hf", llm_opts=opts))
    write(Clock(), "together", 4)


@case
def shared(clock: Clock, before: str, members: int, same: bool, length: int) -> dict[str, Any]:
    """Read a long text and write on, by members of one model: after the same text, or other ends of it."""
    one = state["one"]
    one.forget()
    contexts = [before + ("" if same else ENDS[i]) for i in range(members)]
    model = ByteLM.ensemble([one] * members, contexts=contexts)
    with clock:
        done = model.complete(" ", max_bytes=length)
    return {"text": done.text}


@case
def product(
    clock: Clock, prompts: list[str], count: int, length: int, seed: int, K: int | None = None
) -> dict[str, Any]:
    """Particles of the geometric mean of the model after two prompts; cold."""
    one = state["one"] if K is None else ByteLM(state["one"].llm, BeamParams(K=K), eos=[b"<|im_end|>"])
    one.forget()
    model = ByteLM.ensemble([one] * len(prompts), contexts=prompts)
    with clock:
        drawn = model.complete("", particles=count, seed=seed, max_bytes=length, valid_utf8=False)
    return {"log_ml": drawn.log_normalizer}


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
def particles(clock: Clock, count: int, seeds: list[int], length: int) -> dict[str, Any]:
    """Particles under a regular expression; cold, a time for each seed."""
    found: dict[str, Any] = {"contexts": [], "forwards": [], "different": []}
    for seed in seeds:
        state["one"].forget()
        before = adopt(state["one"].llm).statistics()
        with clock:
            drawn = state["one"].complete(
                PROMPTS[0], particles=count, seed=seed, max_bytes=length, mask=regex(PATTERN)
            )
        after = adopt(state["one"].llm).statistics()
        found["contexts"].append(after.tokens_run - before.tokens_run)
        found["forwards"].append(after.forwards - before.forwards)
        found["different"].append(len({one.bytes for one in drawn}))
    return found


if __name__ == "__main__":
    serve()
