"""Cases of the reading benchmark. Runs under both sides: only the documented names are used.

Whatever is particular to our side is behind `OURS`. Every case starts cold: what a side remembers is
dropped first. Both sides know then what a beam that has read nothing knows, the model after its
beginning-of-sequence token.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache, wraps
from typing import Any

import torch
from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from transformers.utils import logging

from genlm.bytes import BeamParams, ByteBeamState, TokenByteTrie

try:
    from genlm.bytes.engine import Engine
except ImportError:
    OURS = False
else:
    OURS = True
    from common.exclusive import Stopwatch, instrumented
    from common.resident import Peak

    from genlm.bytes import AsyncByteLM

EOS = 257

logging.set_verbosity_error()
logging.disable_progress_bar()

llm: Any = None
loop = asyncio.new_event_loop()
# The release reads 1,000 bytes in minutes, and three rows begin with the same ones.
kept: dict[tuple[str, int, float], tuple[Any, float, float]] = {}


def coroutine_case(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """A case that is a coroutine function; all of them share one event loop, as kept beams must."""

    @wraps(function)
    def run(clock: Clock, **arguments: Any) -> Any:
        return loop.run_until_complete(function(clock, **arguments))

    return case(run)


@case
def load(clock: Clock, folder: str, device: str) -> dict[str, Any]:
    """Load the model, and run all code once so that imports, tries and compilation are paid for."""
    global llm
    opts = {"hf_opts": {"device_map": device, "torch_dtype": "float32"}}
    llm = load_model_by_name(folder, backend="hf", llm_opts=opts)

    async def warm() -> None:
        beam = await (await start(5, 0.05)).prefill(b"An apple a day")
        for _ in range(3):
            beam = await (beam.prune() << likeliest((await beam.logp_next()).materialize())[0])
        await beam.cleanup()

    loop.run_until_complete(warm())
    parameters = sum(p.numel() for p in llm.model.parameters())
    found = torch.cuda.get_device_name(device) if "cuda" in device else "cpu"
    return {"threads": torch.get_num_threads(), "device": found, "parameters": parameters}


async def start(K: int, threshold: float, model: Any = None) -> ByteBeamState:
    """A beam that has read nothing, on a model that remembers nothing else."""
    gc.collect()
    llm.clear_cache()
    beam = await ByteBeamState.initial(model or llm, BeamParams(K=K, prune_threshold=threshold))
    if OURS:
        engine_of(beam).clear_cache()
        await beam.states[0].lm_state.logp_next()
    return beam


def engine_of(beam: ByteBeamState) -> Any:
    return beam.states[0].lm_state.model


@contextlib.contextmanager
def timed(clock: Clock) -> Iterator[None]:
    """`with clock`, on a GPU too: what was started there is waited for."""
    with clock:
        yield
        if llm.model.device.type == "cuda":
            torch.cuda.synchronize()


def likeliest(chart: Any) -> tuple[int, float]:
    """The likeliest next symbol of a chart of log-probabilities, and its lead in probability."""
    (symbol, first), (_, second) = sorted(chart.items(), key=lambda item: -item[1])[:2]
    return symbol, math.exp(first) - math.exp(second)


async def reading(
    clock: Clock, text: str, K: int, threshold: float, keep: bool
) -> tuple[ByteBeamState, dict[str, int]]:
    """A cold beam that has read `text`, and the engine's work. One timed block."""
    beam = await start(K, threshold)
    before = counts(beam)
    with timed(clock):
        beam = await beam.prefill(text.encode("latin-1"))
    if keep:
        await forget(text, K, threshold)
        kept[text, K, threshold] = beam, clock.seconds[-1], clock.cpu[-1]
    return beam, since(before, beam)


async def forget(*key: Any) -> None:
    if key in kept:
        await kept.pop(key)[0].cleanup()


async def greedy(beam: ByteBeamState, steps: int) -> tuple[ByteBeamState, bytearray, list[Any]]:
    """`steps` bytes, each the likeliest; what `beam.greedy` does, and the distributions besides."""
    made, charts = bytearray(), []
    for step in range(steps):
        charts.append((await beam.logp_next()).materialize())
        symbol = charts[-1].argmax()
        if symbol == EOS:
            break
        made.append(symbol)
        if step + 1 < steps:
            beam = await (beam.prune() << symbol)
    return beam, made, charts


def counts(beam: ByteBeamState) -> dict[str, int]:
    return engine_of(beam).statistics()._asdict() if OURS else {}


def since(before: dict[str, int], beam: ByteBeamState) -> dict[str, int]:
    """Forwards and tokens that our engine has run since `before`; nothing of a side without one."""
    now = counts(beam)
    return {name: now[name] - before[name] for name in ("forwards", "tokens_run") if name in now}


@coroutine_case
async def read(clock: Clock, text: str, K: int, threshold: float, keep: bool = False) -> dict[str, Any]:
    """Read `text` with `prefill`. One timed block."""
    beam, work = await reading(clock, text, K, threshold, keep)
    if not keep:
        await beam.cleanup()
    return {"logZ": beam.logZ, "tokens": beam.states[0].lm_state.context, **work}


@coroutine_case
async def write(
    clock: Clock, context: str, K: int, threshold: float, then: float, steps: int, keep: bool = False
) -> dict[str, Any]:
    """Read `context`, then append the likeliest bytes under the threshold `then`. Two timed blocks.

    With `keep`, a beam that has read this context already is used again, and the seconds that this took
    then are the first block's.
    """
    if keep and (context, K, threshold) in kept:
        beam, seconds, cpu = kept[context, K, threshold]
        clock.seconds.append(seconds)
        clock.cpu.append(cpu)
        # What rows before this one have left. Nothing of the context is lost: the release remembers
        # distributions, of which the beam holds those that it needs, and no keys and values.
        llm.clear_cache()
    else:
        beam, _ = await reading(clock, context, K, threshold, keep)
    before = counts(beam)
    context_logZ = beam.logZ
    beam = ByteBeamState(beam.states, BeamParams(K=K, prune_threshold=then))
    with timed(clock):
        beam, made, charts = await greedy(beam, steps)
    work = since(before, beam)
    if not keep:
        await beam.cleanup()
    return {
        "made": bytes(made).decode("latin-1"),
        "leads": [likeliest(chart)[1] for chart in charts],
        "logZ": context_logZ,
        "logZ after": beam.logZ,
        "tokens": beam.states[0].lm_state.context,
        **work,
    }


@case
def lost(clock: Clock, tokens: list[int]) -> dict[str, float]:
    """What this side's sums lose of the whole, as the log of the root's mass, which should be 0.

    Summed over the distributions along a candidate's `tokens`, its last one excepted: each token that is
    committed is divided by that mass, so the candidate's log weight is too high by as much.
    """
    trie = TokenByteTrie(llm.byte_vocab, device="cpu")
    with torch.no_grad():
        ps = torch.softmax(llm.model(torch.tensor([tokens], device=llm.model.device)).logits[0].float(), -1)
    roots = trie.batch_weight_sum(ps.cpu())[:-1, trie.root]
    return {"lost": float(torch.as_tensor(roots).double().log().sum())}


@coroutine_case
async def follow(clock: Clock, context: str, text: str, K: int, threshold: float) -> dict[str, Any]:
    """After `context`, ask for the distribution of each byte of `text` and read that byte. One block."""
    beam = await (await start(K, threshold)).prefill(context.encode("latin-1"))
    before = counts(beam)
    with timed(clock):
        for byte in text.encode("latin-1"):
            await beam.logp_next()
            beam = await (beam.prune() << byte)
    work = since(before, beam)
    await beam.cleanup()
    return {"logZ": beam.logZ, **work}


@coroutine_case
async def prompts(
    clock: Clock, texts: list[str], K: int, threshold: float, steps: int, together: bool
) -> dict[str, Any]:
    """Read every text, then continue every one, each stage gathered or one by one. Two blocks."""

    async def each(jobs: list[Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*jobs)) if together else [await job for job in jobs]

    beam = await start(K, threshold)
    with timed(clock):
        beams = await each([beam.prefill(text.encode("latin-1")) for text in texts])
    with timed(clock):
        ends = await each([greedy(beam, steps) for beam in beams])
    return {
        "logZ": [beam.logZ for beam in beams],
        "made": [bytes(made).decode("latin-1") for _, made, _ in ends],
        "leads": [[likeliest(chart)[1] for chart in charts] for _, _, charts in ends],
    }


@case
def forward(clock: Clock, text: str) -> dict[str, Any]:
    """One plain forward over the tokenizer's own tokens: what any way of scoring `text` must pay."""
    ids = canonical(text)
    with torch.no_grad(), timed(clock):
        llm.model(ids)
    return {"tokens": ids.shape[1]}


@case
def generate(clock: Clock, context: str, least: int) -> dict[str, Any]:
    """`transformers.generate` from the tokens of `context`: at least `least` bytes. Two blocks.

    First the context, then the new tokens on its keys and values.
    """
    ids = canonical(context)
    tokens = tokens_for(context, least)  # untimed
    with torch.no_grad(), timed(clock):
        past = llm.model(ids[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
    with timed(clock):
        made = extend(ids, tokens, past_key_values=past)
    text = new_bytes(made)
    return {"made": text.decode("latin-1"), "bytes": len(text), "tokens": tokens}


@cache
def tokens_for(context: str, least: int) -> int:
    """How many tokens `generate` takes to make `least` bytes."""
    ids, tokens = canonical(context), least // 4 + 1
    while len(new_bytes(made := extend(ids, tokens))) < least:
        tokens *= 2
    return next(n for n in range(1, tokens + 1) if len(new_bytes(made[:n])) >= least)


def canonical(text: str) -> torch.Tensor:
    tokenizer = llm.tokenizer
    ids = tokenizer.encode(text.encode("latin-1").decode(), add_special_tokens=False)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return torch.tensor([[*bos, *ids]], device=llm.model.device)


def extend(ids: torch.Tensor, tokens: int, **options: Any) -> list[int]:
    out = llm.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        **options,
    )
    return out[0, ids.shape[1] :].tolist()


def new_bytes(ids: list[int]) -> bytes:
    return b"".join(bytes(llm.byte_vocab[i].byte_string) for i in ids)


if OURS:

    @coroutine_case
    async def complete(clock: Clock, context: str, most: int) -> dict[str, Any]:
        """`complete` from nothing, greedily. Two blocks: to the first new bytes, and the others."""
        beam = await start(5, 0.05)  # forgets all that is known
        before = counts(beam)
        chunks = aiter(AsyncByteLM(llm).stream(context, max_bytes=most))
        with timed(clock):
            made = [(await anext(chunks)).bytes]
        with timed(clock):
            made += [chunk.bytes async for chunk in chunks]
        return {"made": b"".join(made).decode("latin-1"), **since(before, beam)}

    @coroutine_case
    async def memory(clock: Clock, text: str, K: int, threshold: float, limit: int | None) -> dict[str, Any]:
        """Read `text` and watch the memory of this process, which should be a fresh one. One block."""
        engine = Engine(llm, max_cache_bytes=limit)
        beam = await start(K, threshold, engine)
        most = 0

        def watch(*_: Any) -> None:
            nonlocal most
            most = max(most, engine.statistics().cache_bytes)

        hook = llm.model.register_forward_hook(watch)
        with Peak(llm.model.device) as peak:
            with timed(clock):
                beam = await beam.prefill(text.encode("latin-1"))
            watch()
        hook.remove()
        return {
            "before": peak.before,
            "peak": peak.most,
            "cache": most,
            "limit": engine.max_cache_bytes,
            "logZ": beam.logZ,
            **engine.statistics()._asdict(),
        }

    @coroutine_case
    async def profile(clock: Clock, context: str, K: int, threshold: float, steps: int) -> dict[str, Any]:
        """Where the seconds of reading and of writing go. Two blocks, each with its parts."""
        beam = await start(K, threshold)
        parts = []
        with instrumented(llm) as stopwatch:
            for work in ("read", "write"):
                before = counts(beam)
                stopwatch.restart()
                begun = time.perf_counter()
                if work == "read":
                    with timed(clock):
                        beam = await beam.prefill(context.encode("latin-1"))
                else:
                    with timed(clock):
                        beam, made, _ = await greedy(beam, steps)
                total = time.perf_counter() - begun
                found = share_out(stopwatch, total)
                parts.append({**found, **since(before, beam)})
        return {"read": parts[0], "write": parts[1], "bytes": len(made)}

    def share_out(stopwatch: Stopwatch, total: float) -> dict[str, Any]:
        seconds = dict(stopwatch.seconds)
        seconds["beam, in Python"] = total - sum(seconds.values())
        return {"seconds": seconds, "total": total}


try:
    serve()
finally:
    for key in list(kept):
        loop.run_until_complete(forget(*key))
