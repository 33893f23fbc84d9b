"""The parts of `run.py`."""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NamedTuple

import torch
from gpu.models import TEXT, llama, served, tokens_of

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState
from genlm.bytes.backends.hf_tree import attention, fused_attention
from genlm.bytes.backends.hf_tree.backend import HFTreeBackend
from genlm.bytes.engine import Engine, adopt

SDPA = torch.nn.functional.scaled_dot_product_attention


class Bench:
    """What the parts share: the machine, and one model at a time."""

    def __init__(self, keep: Callable[..., None], *, tiny: bool, models: list[str]) -> None:
        self.keep, self.tiny, self.models = keep, tiny, models
        self.device = "cpu" if tiny else "cuda"
        self.dtype = torch.bfloat16
        self._held: tuple[Any, Any] = (None, None)
        self.loop = asyncio.new_event_loop()

    def llm(self, shape: str, dtype: torch.dtype | None = None) -> Any:
        """The model of a shape, as `genlm-backend` serves it; another one is dropped first."""
        key = (shape, dtype or self.dtype)
        if self._held[0] != key:
            self.drop()
            self._held = (key, served(llama(shape, self.device, key[1])))
        return self._held[1]

    def drop(self) -> None:
        self._held = (None, None)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def sync(self) -> float:
        """The time, when the device has done all it was given; in milliseconds."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * time.perf_counter()


def versions(bench: Bench) -> None:
    import numpy as np
    import transformers

    bench.keep(
        "versions",
        python=sys.version.split()[0],
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if bench.device == "cuda" else None,
        transformers=transformers.__version__,
        numpy=np.__version__,
        device=torch.cuda.get_device_name() if bench.device == "cuda" else "cpu",
        tf32=torch.backends.cuda.matmul.allow_tf32,
    )


def kernels(bench: Bench) -> None:
    """The kernels called directly against float64: types, sizes of heads, rows that see next to nothing."""
    if bench.device == "cpu":
        bench.keep("kernels", skipped="needs CUDA")
        return
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for size in (64, 80, 96, 128, 256):
            worst: dict[str, Any] = {}
            for new, slots, kind in (
                (1, 1003, "none"),
                (40, 40, "causal"),
                (1, 1003, "mask"),
                (70, 1003, "mask"),
            ):
                try:
                    worst[f"{kind} {new}"] = _off(bench, dtype, size, new, slots, kind)
                except Exception as error:
                    worst[f"{kind} {new}"] = f"{error!r}"[:300]
            bench.keep("kernels", dtype=str(dtype), head=size, off=worst)


def _off(bench: Bench, dtype: torch.dtype, size: int, new: int, slots: int, kind: str) -> float:
    torch.manual_seed(0)
    device = torch.device(bench.device)
    query = torch.randn(1, new, 8, size, dtype=dtype, device=device).transpose(1, 2)
    buffer = torch.randn(2, 1, 2, 2048, size, dtype=dtype, device=device)
    key, value = buffer[:, :, :, 5 : 5 + slots]
    allowed = torch.rand(new, slots).numpy() < 0.6
    allowed[1::2, : slots - new] = False  # whole blocks of keys are hidden from every other row
    allowed[range(new), range(slots - new, slots)] = True
    mask = fused_attention.padded_bias(allowed, dtype, device) if kind == "mask" else None
    found = fused_attention.fused_attention(query, key, value, mask, scale=None, causal=kind == "causal")
    assert found is not None, "no kernel takes it"
    keys, values = (of.double().repeat_interleave(4, 1) for of in (key, value))
    scores = query.double() @ keys.mT / size**0.5
    if kind == "causal":
        scores = scores.masked_fill(torch.ones(new, slots, device=device).triu(1).bool(), -torch.inf)
    if mask is not None:
        scores = scores + mask.double()
    return float((found.double() - (scores.softmax(-1) @ values).transpose(1, 2)).abs().max())


def plans(bench: Bench) -> None:
    """Attention at lengths that are new, and again: does somebody build plans?"""
    slots = range(100, 104) if bench.tiny else range(1000, 1021)
    make = {"device": bench.device, "dtype": bench.dtype}
    for heads, groups, new in ((32, 8, 8), (32, 8, 1), (32, 8, 64)):
        query = torch.randn(1, new, heads, 128, **make).transpose(1, 2)
        buffer = torch.randn(1, groups, 2048, 128, **make)
        allowed = {s: torch.rand(new, s).numpy() < 0.7 for s in slots}
        device = torch.device(bench.device)
        boolean = {s: torch.from_numpy(m).to(device)[None, None] for s, m in allowed.items()}
        padded = {s: fused_attention.padded_bias(m, bench.dtype, device) for s, m in allowed.items()}

        def sdpa(s: int) -> Any:
            keys = buffer[:, :, :s].repeat_interleave(heads // groups, 1)  # noqa: B023
            return SDPA(query, keys, keys, boolean[s])  # noqa: B023

        def ours(s: int) -> Any:
            keys = buffer[:, :, :s]  # noqa: B023
            return fused_attention.fused_attention(query, keys, keys, padded[s], scale=None, causal=False)  # noqa: B023

        def flash(s: int) -> Any:
            keys = buffer[:, :, :s]  # noqa: B023
            return fused_attention.fused_attention(query, keys, keys, None, scale=None, causal=False)  # noqa: B023

        ways = {"sdpa": sdpa, "sdpa, no cuDNN": sdpa}
        if bench.device == "cuda":
            ways |= {"ours": ours, "ours, no mask": flash}
            off = (sdpa(slots[0]).transpose(1, 2).float() - ours(slots[0]).float()).abs().max()
            bench.keep("plans", new=new, off=float(off))
        for name, way in ways.items():
            torch.backends.cuda.enable_cudnn_sdp(name != "sdpa, no cuDNN")
            way(slots[0])
            times: list[list[float]] = []
            for _ in range(3):
                times.append([])
                for s in slots:
                    begun = bench.sync()
                    way(s)
                    times[-1].append(bench.sync() - begun)
            again = [statistics.median(one) for one in times]
            bench.keep("plans", way=name, new=new, ms=again, worst_ms=[max(one) for one in times])
        torch.backends.cuda.enable_cudnn_sdp(True)


def forwards(bench: Bench, shape: str) -> None:
    """Forwards over 1, 8, 64 new contexts after a long one, in parts, against plain steps."""
    llm = bench.llm(shape)
    length = 60 if bench.tiny else 1000
    ids = (tokens_of(TEXT, llm.tokenizer) * 9)[:length]
    _plain_steps(bench, llm.model, ids, shape)
    begun = bench.sync()
    engine = Engine(llm)
    runner = engine.backend.runner
    bench.keep("forwards", model=shape, trial_ms=bench.sync() - begun, attention=list(runner.attention))
    ways = [runner.attention, attention.SDPA]
    for way in dict.fromkeys(ways):
        runner.attention = way
        for float32 in (True, False):
            head, runner._head = runner._head, runner._head if float32 else None
            if float32 or way == ways[0]:
                for count in (1, 8, 64):
                    _timed_forwards(bench, engine, ids, count, shape, f"{way.name}, float32 head {float32}")
            runner._head = head


def _plain_steps(bench: Bench, model: Any, ids: list[int], shape: str) -> None:
    with torch.no_grad():
        there = torch.tensor([ids], device=bench.device)
        for _ in range(2):
            begun = bench.sync()
            past = model(there, use_cache=True, logits_to_keep=1).past_key_values
            whole = bench.sync() - begun
        steps = []
        for _ in range(12):
            begun = bench.sync()
            model(there[:, :1], past_key_values=past, logits_to_keep=1)
            steps.append(bench.sync() - begun)
    bench.keep("plain", model=shape, prompt_ms=whole, step_ms=statistics.median(steps), first_ms=steps[0])


def _timed_forwards(bench: Bench, engine: Any, ids: list[int], count: int, shape: str, way: str) -> None:
    model = engine.model
    engine.clear_cache()
    stem = engine.node(ids)
    engine.next_token_logprobs_sync(ids)
    size = 40 if bench.tiny else 2000
    marks: list[float] = []
    rounds: dict[str, list[float]] = {name: [] for name in ("total", "before", "model", "after")}
    for i in range(4 if bench.tiny else 8):
        measured = i % 2 == 1  # waiting in between costs something itself, so the totals are those without
        hooks = []
        if measured:
            hooks = [
                model.register_forward_pre_hook(lambda *_: marks.append(bench.sync())),
                model.register_forward_hook(lambda *_: marks.append(bench.sync())),
            ]
        nodes = [stem.child(i * 100 + k % size + 1) for k in range(count)]
        marks.clear()
        begun = bench.sync()
        with torch.no_grad():
            engine.backend.evaluate(nodes)
        ended = bench.sync()
        for hook in hooks:
            hook.remove()
        if measured:
            start, end = marks
            rounds["before"].append(start - begun)
            rounds["model"].append(end - start)
            rounds["after"].append(ended - end)
        else:
            rounds["total"].append(ended - begun)
    found = {f"{name}_ms": statistics.median(times) for name, times in rounds.items()}
    bench.keep("forwards", model=shape, way=way, new=count, **found, first_ms=rounds["total"][0])


def reading(bench: Bench, shape: str) -> None:
    """1,000 bytes through a beam, cold and again: seconds, forwards, contexts."""
    llm = bench.llm(shape)
    text = TEXT[: 150 if bench.tiny else 1000]
    engine = adopt(llm)
    for name, params in {"K=5, 0.05": BeamParams(K=5, prune_threshold=0.05), "default": BeamParams()}.items():
        for again in range(2):
            beam = bench.loop.run_until_complete(ByteBeamState.initial(llm, params))
            engine.clear_cache()
            before = engine.statistics()
            begun = bench.sync()
            beam = bench.loop.run_until_complete(beam.prefill(text))
            took = bench.sync() - begun
            now = engine.statistics()
            bench.keep(
                "reading",
                model=shape,
                setting=name,
                again=again,
                bytes=len(text),
                seconds=took / 1e3,
                forwards=now.forwards - before.forwards,
                contexts=now.tokens_run - before.tokens_run,
                bits_a_byte=-beam.logZ / len(text) / 0.6931,
            )


def first_byte(bench: Bench, shape: str) -> None:
    """`complete` after 4,000 tokens: time to the first byte, with and without rows for the prompt."""
    llm = bench.llm(shape)
    text = TEXT * 40
    tokens = 200 if bench.tiny else 4000
    ids = tokens_of(text, llm.tokenizer)[:tokens]
    prompt = llm.tokenizer.decode(ids[1:])
    with torch.no_grad():
        for _ in range(2):
            begun = bench.sync()
            llm.model(torch.tensor([ids], device=bench.device), logits_to_keep=1)
            plain = bench.sync() - begun
    engine = adopt(llm)

    async def first() -> bytes:
        async with aclosing(aiter(AsyncByteLM(llm).stream(prompt, max_bytes=8))) as chunks:
            return bytes((await anext(chunks)).bytes)

    scores = HFTreeBackend.has_scores
    for name in ("numbers", "numbers", "rows"):
        if name == "rows":
            HFTreeBackend.has_scores = property(lambda _: False)  # type: ignore[method-assign,assignment]
        try:
            engine.clear_cache()
            before = engine.statistics()
            begun = bench.sync()
            made = bench.loop.run_until_complete(first())
            took = bench.sync() - begun
        finally:
            HFTreeBackend.has_scores = scores  # type: ignore[method-assign]
        bench.keep(
            "first_byte",
            model=shape,
            tokens=len(ids),
            way=name,
            ms=took,
            plain_forward_ms=plain,
            forwards=engine.statistics().forwards - before.forwards,
            made=repr(made),
        )


def precision(bench: Bench, shape: str) -> None:
    """The same context alone and among seven others: how far apart?"""
    for dtype in (torch.bfloat16, torch.float32):
        if shape == "8B" and dtype is torch.float32:
            continue
        llm = bench.llm(shape, dtype)
        engine = Engine(llm)
        runner = engine.backend.runner
        ids = (tokens_of(TEXT, llm.tokenizer) * 9)[: 60 if bench.tiny else 1000]
        heads = [runner._head, None] if runner._head else [None]
        for head in heads:
            runner._head = head
            apart, likely, ties = [], [], []
            for at in range(40, len(ids), len(ids) // 12):
                engine.clear_cache()
                alone = engine.next_token_logprobs_sync(ids[:at])
                engine.clear_cache()
                mates = [[*ids[:at], i] for i in range(3)] + [[*ids[: at - 1], i] for i in range(4)]
                among = engine.batch_next_token_logprobs_sync([ids[:at], *mates])[0]
                off = (alone - among).abs()
                apart.append(float(off.mean()))
                likely.append(float(off[alone.topk(20).indices].max()))
                best = alone.topk(1000).values
                ties.append(1000 - len(best.unique()))
            bench.keep(
                "precision",
                model=shape,
                dtype=str(dtype),
                float32_head=head is not None,
                mean=statistics.mean(apart),
                worst_of_top_20=max(likely),
                ties_in_1000=statistics.mean(ties),
            )


SMALL = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
"""The shape of models that are compared with themselves."""


def correctness(bench: Bench) -> None:
    """Rows over trees against the models' own forwards in float32 and bfloat16, several architectures."""
    import transformers

    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "Llama": ("LlamaForCausalLM", {}),
        "Qwen3": ("Qwen3ForCausalLM", {}),
        "Gemma3Text": ("Gemma3ForCausalLM", {"sliding_window": 32}),
        "Gemma2": ("Gemma2ForCausalLM", {"sliding_window": 32}),
        "Mistral": ("MistralForCausalLM", {"sliding_window": 32}),
    }
    for kind, (name, options) in kinds.items():
        for dtype in (torch.float32, torch.bfloat16):
            try:
                _one_kind(
                    bench,
                    transformers,
                    kind,
                    name,
                    {**SMALL, "max_position_embeddings": 512, **options},
                    dtype,
                )
            except Exception as error:
                bench.keep("correctness", kind=kind, dtype=str(dtype), failed=f"{error!r}"[:400])


def _one_kind(bench: Bench, hf: Any, kind: str, name: str, size: dict[str, Any], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = getattr(hf, name)(getattr(hf, f"{kind}Config")(**size)).to(bench.device, dtype).eval()
    with torch.no_grad():
        for which, weights in model.named_parameters():
            if weights.dim() > 1:
                weights.mul_(2.0 if "embed" not in which else 3.0)
    llm = _bare(model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        engine = Engine(llm)
    runner = engine.backend.runner
    draw = torch.Generator().manual_seed(1)
    trunk = torch.randint(3, 1000, (120,), generator=draw).tolist()
    worst = 0.0
    for _ in range(4):
        cuts = torch.randint(1, 120, (12,), generator=draw).tolist()
        contexts = [trunk[:cut] + torch.randint(3, 1000, (3,), generator=draw).tolist() for cut in cuts]
        found = engine.batch_next_token_logprobs_sync(contexts)
        for ids, row in zip(contexts, found, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([ids], device=bench.device), use_cache=False).logits[0, -1]
            want = torch.log_softmax(logits.float(), -1).cpu()
            worst = max(worst, float((row - want).abs().max()))
    bench.keep(
        "correctness",
        kind=kind,
        dtype=str(dtype),
        attention=runner.attention.name,
        mask=runner.attention.mask,
        float32_head=bool(runner._head),
        worst=worst,
        told=[str(one.message)[:200] for one in told],
    )


def _bare(model: Any) -> Any:
    from genlm.backend.llm import AsyncTransformer
    from gpu.models import tokenizer

    return AsyncTransformer(model, tokenizer())


def loaded_with(bench: Bench) -> None:
    """Models loaded with other attention functions are adopted, and give the same."""
    import transformers

    contexts = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10], [11]]
    want = None
    for name in ("sdpa", "eager", "flex_attention", "flash_attention_2", "kernels-community/flash-attn3"):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**SMALL)
        model = transformers.LlamaForCausalLM(config).to(bench.device, bench.dtype).eval()
        model.config._attn_implementation_internal = name  # its packages need not be there for that
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            begun = bench.sync()
            engine = adopt(_bare(model))
            took = bench.sync() - begun
        got = engine.batch_next_token_logprobs_sync(contexts)
        want = got if want is None else want
        runner = getattr(engine.backend, "runner", None)
        bench.keep(
            "loaded_with",
            name=name,
            tree=type(runner).__name__,
            attention=str(getattr(runner, "attention", None)),
            trial_ms=took,
            off=float((got - want).abs().max()),
            still=model.config._attn_implementation,
            told=[str(one.message)[:200] for one in told],
        )


class Part(NamedTuple):
    run: Callable[..., None]
    per_model: bool = False


PARTS = {
    "versions": Part(versions),
    "kernels": Part(kernels),
    "plans": Part(plans),
    "correctness": Part(correctness),
    "loaded_with": Part(loaded_with),
    "forwards": Part(forwards, True),
    "reading": Part(reading, True),
    "first_byte": Part(first_byte, True),
    "precision": Part(precision, True),
}
