"""Attention of our own: kernels called directly, masks as they take them, models loaded with any function."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from genlm.bytes.backends.hf_tree import fused_attention as fused
from genlm.bytes.backends.hf_tree import grouped_query
from genlm.bytes.backends.hf_tree.attention import Attention, attentions
from genlm.bytes.backends.hf_tree.forward import TreeModel
from genlm.bytes.backends.hf_tree.fused_attention import KERNELS, Kernels, fused_attention, padded_bias
from genlm.bytes.contexts.tree import ContextTree
from genlm.bytes.engine import Engine
from genlm.bytes.errors import UnsupportedModelError

OURS = Attention(grouped_query.NAME, "padded")


def repeated(query: Any, key: Any, value: Any, mask: Any, causal: bool, scale: float | None) -> torch.Tensor:
    """The obvious way: keys and values copied for each head."""
    each = query.shape[1] // key.shape[1]
    key, value = (of.repeat_interleave(each, 1) for of in (key, value))
    product = torch.nn.functional.scaled_dot_product_attention
    return product(query, key, value, mask, is_causal=causal, scale=scale).transpose(1, 2)


def plain(asked: list[str]) -> Kernels:
    """What the kernels compute, without any of what makes them fast; they check what CUDA's insist on."""

    def weighted(query: Any, key: Any, value: Any, scale: Any, bias: Any, causal: bool) -> torch.Tensor:
        scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        return (scores if bias is None else scores + bias).softmax(-1) @ value

    def flash(
        query: Any, key: Any, value: Any, dropout: float, causal: bool, debug: bool, *, scale: Any
    ) -> Any:
        asked.append("flash")
        assert dropout == 0.0 and not debug and query.shape[3] <= 256
        return (repeated(query, key, value, None, causal, scale).transpose(1, 2),)

    def efficient(
        query: Any, key: Any, value: Any, bias: Any, lse: bool, dropout: float, causal: bool, *, scale: Any
    ) -> Any:
        asked.append("efficient")
        assert not lse and dropout == 0.0 and query.shape[:2] == key.shape[:2] == value.shape[:2]
        if bias is not None:
            assert bias.shape == (*query.shape[:3], key.shape[2]) and bias.dtype == query.dtype
            assert bias.stride(3) == 1 and bias.stride(2) % 8 == 0 and not causal
        # As the kernel lays its answer out: rows before heads.
        out = weighted(query, key, value, scale, bias, causal).transpose(1, 2).contiguous()
        return (out.transpose(1, 2),)

    return Kernels(flash, efficient)


@given(st.data(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(0, 20))
@examples(60)
def test_equals_the_obvious_way(data: Any, groups: int, each: int, new: int, old: int) -> None:
    """In float64; keys are stretches of a buffer, masks boolean, additive, in padded rows or none."""
    torch.manual_seed(data.draw(st.integers(0, 9)))
    slots, size = new + old, data.draw(st.sampled_from([2, 8, 16]))
    query = torch.randn(1, new, groups * each, size, dtype=torch.float64).transpose(1, 2)
    buffers = torch.randn(2, 1, groups, slots + 5, size, dtype=torch.float64)
    key, value = buffers[:, :, :, 3 : 3 + slots]
    allowed = np.random.default_rng(new).random((new, slots)) < 0.5
    allowed[range(new), range(old, slots)] = True
    boolean = torch.from_numpy(allowed)[None, None]
    added = torch.zeros(boolean.shape, dtype=torch.float64).masked_fill(~boolean, -torch.inf)
    masks = {
        "none": None,
        "boolean": boolean,
        "added": added,
        "padded": padded_bias(allowed, torch.float64, torch.device("cpu")),
    }
    kind = data.draw(st.sampled_from([*masks]))
    causal = kind == "none" and old == 0 and data.draw(st.booleans())
    scale, asked = data.draw(st.sampled_from([None, 0.3])), list[str]()
    found = fused_attention(query, key, value, masks[kind], scale=scale, causal=causal, kernels=plain(asked))
    want = repeated(query, key, value, None if kind == "none" else boolean, causal, scale)
    assert found is not None and asked == ["flash" if kind == "none" else "efficient"]
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "new, slots, masked", [(1, 1000, False), (8, 1003, True), (64, 64, False), (1, 9, True)]
)
def test_shapes_on_meta(dtype: torch.dtype, new: int, slots: int, masked: bool) -> None:
    """CUDA's own operators take the tensors that they are given, grouped as they are."""
    meta = torch.device("meta")
    query = torch.empty(1, new, 32, 128, dtype=dtype, device=meta).transpose(1, 2)
    buffer = torch.empty(1, 8, 4096, 128, dtype=dtype, device=meta)
    mask = padded_bias(np.ones((new, slots), np.bool_), dtype, meta) if masked else None
    shown = buffer[:, :, 7 : 7 + slots]
    causal = not masked and new > 1
    out = fused_attention(query, shown, shown, mask, scale=None, causal=causal, kernels=KERNELS)
    assert out is not None and out.shape == (1, new, 32, 128) and out.dtype == dtype


def test_what_is_passed_on() -> None:
    """Others' forwards in between: batches, training, sizes that no kernel takes, keys beside the new."""
    q, k = torch.zeros(1, 4, 3, 8), torch.zeros(1, 2, 5, 8)
    mask = torch.zeros(1, 1, 3, 5)

    def taken(q: Any, k: Any, mask: Any, causal: bool = False) -> bool:
        asked: list[str] = []
        found = fused_attention(q, k, k, mask, scale=None, causal=causal, kernels=plain(asked))
        return found is not None

    assert taken(q, k, mask) and taken(q, k, None)
    assert not taken(q.expand(2, -1, -1, -1), k.expand(2, -1, -1, -1), mask)
    assert not taken(q, k, mask.expand(1, 4, 3, 5)), "a mask for each head"
    assert not taken(q, k, None, causal=True), "causal beside keys that are there already"
    assert not taken(q[..., :6], k[..., :6], mask), "16 bytes"
    assert not taken(q, k.double(), mask)
    assert not taken(q.requires_grad_(), k, mask)
    with torch.no_grad():
        assert taken(q, k, mask)


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CPU taken for a device that has the kernels."""
    asked: list[str] = []
    for module in (fused, grouped_query):
        monkeypatch.setattr(module, "has_kernels", lambda device: True)
    monkeypatch.setattr("genlm.bytes.backends.hf_tree.attention.has_kernels", lambda device: True)
    monkeypatch.setattr(grouped_query, "fused_attention", partial(fused_attention, kernels=plain(asked)))
    return asked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3", "mistral", "gpt2", "gemma2"])
def test_whole_models(as_on_cuda: list[str], kind: str, dtype: torch.dtype) -> None:
    """A tree of contexts under our function against the models' own forwards, also past a window."""
    llm = tiny.transformer(kind, dtype=dtype)
    engine = Engine(llm)
    assert engine.backend.runner.attention == (
        Attention("eager", "lowest") if llm.model.config._attn_implementation == "eager" else OURS
    )
    as_on_cuda.clear()
    contexts = [[3, 4, 5, 6, 7, 8, 9, 10, 11], [3, 4, 7], [8], [3, 4, 5, 6, 7, 8, 9, 10, 12], [3, 4, 7, 1]]
    got = engine.batch_next_token_logprobs_sync(contexts)
    more = [[*ids, 2] for ids in contexts]
    got = torch.cat([got, engine.batch_next_token_logprobs_sync(more)])
    for ids, row in zip([*contexts, *more], got, strict=True):
        with torch.no_grad():
            want = llm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].float().log_softmax(-1)
        assert (row - want).abs().max() < (5e-4 if dtype is torch.float32 else 0.15)
    if kind != "gemma2":
        assert "efficient" in as_on_cuda


class TestModelsLoadedWithOthers:
    @pytest.mark.parametrize(
        "loaded", ["flash_attention_2", "flex_attention", "kernels-community/flash-attn3"]
    )
    @pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gemma3"])
    def test_are_adopted(self, kind: str, loaded: str) -> None:
        """And are told nothing: between our forwards the name is theirs."""
        llm = tiny.transformer(kind)
        contexts = [[3, 4, 5, 6], [3, 4, 7], [8]]
        want = Engine(llm).batch_next_token_logprobs_sync(contexts)
        llm.model.config._attn_implementation_internal = loaded
        engine = Engine(llm)
        torch.testing.assert_close(engine.batch_next_token_logprobs_sync(contexts), want)
        assert llm.model.config._attn_implementation == loaded

    def test_sinks_are_left_to_the_models_own_code(self) -> None:
        """transformers' sdpa drops them in silence, so ours refuses."""
        llm = tiny.served(
            "GptOss",
            **{**tiny.GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 6},
        )
        contexts = [[3, 4, 5, 6], [3, 4, 7], [8]]
        want = Engine(llm).batch_next_token_logprobs_sync(contexts)
        llm.model.config._attn_implementation_internal = "kernels-community/vllm-flash-attn3"
        engine = Engine(llm)
        assert engine.backend.runner.attention.name == "eager"
        torch.testing.assert_close(engine.batch_next_token_logprobs_sync(contexts), want)

    def test_what_no_function_can(self) -> None:
        """BLOOM adds a bias of its own that no mask of ours replaces."""
        llm = tiny.transformer("bloom")
        with pytest.raises(UnsupportedModelError):
            Engine(llm)

    def test_order(self) -> None:
        model = tiny.model("llama")
        config, cpu = model.config, torch.device("cpu")
        assert [one.name for one in attentions(model, config, cpu)] == [OURS.name, "sdpa"]
        config._attn_implementation_internal = "flex_attention"
        assert [one.name for one in attentions(model, config, cpu)] == [OURS.name, "sdpa", "eager"]


def test_the_bias_on_meta() -> None:
    """A forward stays on its device with our masks, too."""
    on_meta = TreeModel(tiny.model("llama").to("meta"), most_bytes=10**6)
    on_meta.attention = OURS
    tree = ContextTree()
    trunk = [tree.find(range(1, n)) for n in range(2, 12)]
    on_meta.forward(trunk, [9])
    assert on_meta.forward([trunk[-1].child(i) for i in range(9)], range(9)).shape[0] == 9
