"""Cases of the backends benchmark: one kind of model in a process of its own, at default accuracy.

Each case starts cold: what has been read is forgotten first, untimed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from common.worker import Clock, case, serve

state: dict[str, Any] = {}


@case
def load(clock: Clock, kind: str) -> dict[str, Any]:
    """Import and load, until the first row; kinds are `llamacpp` and types of Hugging Face weights."""
    with clock:
        from genlm.bytes import AsyncByteLM
        from genlm.bytes.models import load_default_model

        how = {"backend": "llamacpp"} if kind == "llamacpp" else {"dtype": kind, "device": "cpu"}
        state["llm"] = load_default_model(progress=False, **how)
        state["lm"] = AsyncByteLM(state["llm"])
        asyncio.run(state["lm"].next("The"))
    state["kind"] = kind
    return _memory()


def _memory() -> dict[str, Any]:
    """Bytes: the most that this process has held, pages of mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return {"peak": 1024 * int(peak.split()[1]), "threads": os.environ.get("OMP_NUM_THREADS")}


def _timed(clock: Clock, work: Any) -> Any:
    async def run() -> Any:
        await state["lm"].forget()
        with clock:
            return await work(state["lm"])

    return asyncio.run(run())


@case
def reading(clock: Clock, text: str) -> dict[str, Any]:
    """A text by `prefill`."""
    beam = _timed(clock, lambda lm: lm.beam(text))
    return {"logZ": float(beam.logZ), **_memory()}


@case
def writing(clock: Clock, context: str, steps: int) -> dict[str, Any]:
    """The likeliest bytes, one after another, with a look at each distribution. The context is not timed."""

    async def run() -> None:
        await state["lm"].forget()
        beam = await state["lm"].beam(context)
        with clock:
            for _ in range(steps):
                beam = await (beam.prune() << int((await beam.logp_next()).ps[:256].argmax()))

    asyncio.run(run())
    return _memory()


@case
def rows(clock: Clock, text: str, path: str) -> dict[str, Any]:
    """The probabilities of the token after each of a text, saved to a file."""
    import numpy as np

    async def run() -> Any:
        ids = list(state["llm"].tokenizer.encode(text, add_special_tokens=False))
        from genlm.bytes.backends.async_lm import cached
        from genlm.bytes.engine import adopt

        model = cached(adopt(state["llm"]))
        return await model.batch_next_token_logprobs([ids[: n + 1] for n in range(len(ids))])

    np.save(path, asyncio.run(run()).exp().numpy())
    return {}


@case
def first_byte(clock: Clock, context: str) -> dict[str, Any]:
    """The distribution after a context."""
    _timed(clock, lambda lm: lm.next(context))
    return {}


@case
def together(clock: Clock, prompts: list[str], size: int) -> dict[str, Any]:
    """Completions of some prompts at once."""
    _timed(clock, lambda lm: lm.complete(prompts, max_bytes=size, temperature=0.0))
    return _memory()


@case
def complete(clock: Clock, prompt: str, size: int) -> dict[str, Any]:
    """One completion, token by token; the likeliest."""
    found = _timed(clock, lambda lm: lm.complete(prompt, max_bytes=size, temperature=0.0))
    return {"bytes": len(found.bytes)}


@case
def own(clock: Clock, prompt: str, size: int) -> dict[str, Any]:
    """The same by the backend itself: as many tokens as spell `size` bytes; the prompt is timed too."""
    tokens = size // 4
    if state["kind"] == "llamacpp":
        if "own" not in state:
            from llama_cpp import Llama

            from genlm.bytes.models import default_gguf_path

            path = str(default_gguf_path(progress=False))
            threads = state["llm"].backend.session.n_threads
            state["own"] = Llama(path, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)
        state["own"].reset()
        with clock:
            made = state["own"].create_completion(prompt, max_tokens=tokens, temperature=0.0)
        return {"bytes": len(made["choices"][0]["text"].encode())}
    import torch

    llm = state["llm"]
    ids = torch.tensor([llm.tokenizer.encode(prompt, add_special_tokens=False)])
    with clock, torch.no_grad():
        made = llm.model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=2)
    return {"bytes": len(llm.tokenizer.decode(made[0, ids.shape[1] :]).encode())}


if __name__ == "__main__":
    serve()
    if "own" in state:  # it frees its model by a library that is gone when Python ends
        state["own"].close()
