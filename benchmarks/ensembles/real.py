"""Ensembles of real models on sentences that none was trained on: prompts, two backends, two tokenizers."""

from __future__ import annotations

import time
from typing import Any

from common.worker import Clock, case, serve
from ensembles.ngram import NGram
from genlm.backend import load_model_by_name
from transformers.utils import logging

from genlm.bytes import ByteLM
from genlm.bytes.contexts.cached_lm import CachedLM

logging.set_verbosity_error()
logging.disable_progress_bar()

PROMPTS = ["", "A sentence from a novel:\n", "A sentence from a letter to a friend:\n"]
state: dict[str, ByteLM] = {}


@case
def load(clock: Clock, folder: str, texts: list[str]) -> dict[str, Any]:
    """The model in float32, in GGUF if llama.cpp is there, and n-grams trained on some texts."""
    opts = {"hf_opts": {"device_map": "cpu", "torch_dtype": "float32"}}
    state["float32"] = ByteLM(load_model_by_name(folder, backend="hf", llm_opts=opts))
    began = time.perf_counter()
    state["n-grams"] = ByteLM(CachedLM(NGram(texts)), eos=[])
    trained, why = time.perf_counter() - began, ""
    try:
        state["GGUF Q4_1"] = ByteLM.from_pretrained(backend="llamacpp", progress=False)
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return {"trained": trained, "without gguf": why}


@case
def bits(
    clock: Clock,
    members: list[str],
    prompts: list[int],
    op: str,
    weights: list[float] | None,
    texts: list[str],
) -> dict[str, Any]:
    """Bits a byte of some texts by an ensemble; by the only member if there is one. Cold."""
    for lm in state.values():
        lm.forget()
    found = [state[name] for name in members]
    contexts = [PROMPTS[i] for i in prompts]
    one = len(found) == 1
    lm = found[0] if one else ByteLM.ensemble(found, op, weights, contexts=contexts)
    with clock:
        scores = lm.score(texts, contexts[0] if one else b"", on_impossible="inf")
    size = sum(len(text.encode()) for text in texts)
    return {"bits": -sum(score.logprob for score in scores) / size / 0.6931471805599453}


if __name__ == "__main__":
    serve()
