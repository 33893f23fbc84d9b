"""Cases of the scoring benchmark: word surprisals of sentences, plain scores of their tokens, release 0.2.0.

Runs under both sides. Each case starts cold: what a side remembers is dropped first, untimed.
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable
from typing import Any

import torch
from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from transformers.utils import logging

from genlm.bytes import BeamParams, ByteBeamState

try:
    from genlm.bytes import ByteLM
    from genlm.bytes.engine import adopt
except ImportError:
    OURS = False
else:
    OURS = True

logging.set_verbosity_error()
logging.disable_progress_bar()

state: dict[str, Any] = {}
loop = asyncio.new_event_loop()


@case
def load(clock: Clock, folder: str, device: str) -> dict[str, Any]:
    """Load the model, and run all code once."""
    opts = {"hf_opts": {"device_map": device, "torch_dtype": "float32"}}
    llm = state["llm"] = load_model_by_name(folder, backend="hf", llm_opts=opts)
    if OURS:
        for canonical in (False, True):
            state["lm", canonical] = ByteLM(llm, BeamParams(canonical=canonical))
            words(Clock(), ["An apple a day."], canonical)
        tokens(Clock(), ["An apple a day."], 32)
    else:
        shifts(Clock(), ["An apple"], 5, 0.05)
    found = torch.cuda.get_device_name(device) if "cuda" in device else "cpu"
    return {"threads": torch.get_num_threads(), "device": found}


if OURS:

    def counted(
        clock: Clock, work: Callable[[Any], Any], canonical: bool = False
    ) -> tuple[Any, dict[str, int]]:
        """What some work on the model gives, with nothing cached, and the contexts and forwards it took."""
        lm = state["lm", canonical]
        lm.forget()
        engine = adopt(lm.llm)
        before = engine.statistics()
        with clock:
            found = work(lm)
        after = engine.statistics()
        contexts, forwards = after.tokens_run - before.tokens_run, after.forwards - before.forwards
        return found, {"contexts": contexts, "forwards": forwards}

    @case
    def words(clock: Clock, sentences: list[str], canonical: bool) -> dict[str, Any]:
        """Word surprisals with their boundaries; default accuracy."""
        rows, cost = counted(clock, lambda lm: lm.word_surprisal(sentences), canonical)
        return {"bits": sum(row.surprisal for row in rows), "words": len(rows), **cost}

    @case
    def scores(clock: Clock, sentences: list[str]) -> dict[str, Any]:
        """The log-probabilities of the bytes alone."""
        found, cost = counted(clock, lambda lm: lm.score(sentences))
        return {"logp": [score.logprob for score in found], **cost}


@case
def tokens(clock: Clock, sentences: list[str], batch: int) -> dict[str, Any]:
    """The log-probability of each sentence's tokens: padded batches of like length, as one would write it."""
    llm = state["llm"]
    tokenizer, model = llm.tokenizer, llm.model
    found = [0.0] * len(sentences)
    gc.collect()
    with clock, torch.no_grad():
        ids = [[tokenizer.bos_token_id, *tokenizer.encode(s, add_special_tokens=False)] for s in sentences]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for first in range(0, len(order), batch):
            some = order[first : first + batch]
            longest = max(len(ids[i]) for i in some)
            given = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in some]).to(model.device)
            lengths = torch.tensor([len(ids[i]) for i in some]).to(model.device)
            mask = torch.arange(longest, device=model.device)[None, :] < lengths[:, None]
            logps = model(input_ids=given, attention_mask=mask).logits[:, :-1].log_softmax(-1)
            picked = logps.gather(-1, given[:, 1:, None])[..., 0]
            sums = (picked * mask[:, 1:]).sum(-1).tolist()
            for i, value in zip(some, sums, strict=True):
                found[i] = value
    return {"logp": found, "tokens": sum(map(len, ids)) - len(ids)}


@case
def shifts(clock: Clock, sentences: list[str], K: int, threshold: float) -> dict[str, Any]:
    """Sentences read by `<<`, one byte after another, one sentence after another."""
    return loop.run_until_complete(_shifts(clock, sentences, K, threshold))


async def _shifts(clock: Clock, sentences: list[str], K: int, threshold: float) -> dict[str, Any]:
    llm = state["llm"]
    found: list[float | None] = []
    for sentence in sentences:
        gc.collect()
        llm.clear_cache()
        beam = await ByteBeamState.initial(llm, BeamParams(K=K, prune_threshold=threshold))
        logp = 0.0
        with clock:
            for byte in sentence.encode():
                before = beam.prune()
                beam = await (before << byte)
                logp += float(beam.logZ) - float(before.logZ) if len(beam) else -math.inf
                if not len(beam):
                    break
        found.append(logp if math.isfinite(logp) else None)
        await beam.cleanup()
    return {"logp": found}


if __name__ == "__main__":
    serve()
