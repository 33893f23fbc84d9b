"""Which models the engine takes, and that those it takes are right: past windows, past a switch of the
positions, beside contexts of any other length. What it does not take is served by plain forwards.

Models have random weights; each is compared with its own forward over each whole context.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny import GROUPED

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.backends.hf_tree import forward, trial
from genlm.bytes.backends.hf_tree.uncached import UncachedModel
from genlm.bytes.engine import Engine, adopt
from genlm.bytes.errors import UnsupportedModelError
from genlm.bytes.models import load_default_model

TOKENS = len(tiny.tokenizer())
SWITCH = 20
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 3.0, 8.0, 20.0],
    "original_max_position_embeddings": SWITCH,
}


def grouped(kind: str, longest: int = 80, **options: Any) -> Any:
    return tiny.served(kind, **{**GROUPED, "max_position_embeddings": longest}, **options)


def phi3(**options: Any) -> Any:
    return grouped(
        "Phi3", pad_token_id=0, original_max_position_embeddings=SWITCH, rope_parameters=LONGROPE, **options
    )


def gpt_neo(window: int = 256, longest: int = 512) -> Any:
    kinds = [[["global", "local"], 2]]
    small = {"hidden_size": 32, "num_layers": 4, "num_heads": 4, "max_position_embeddings": longest}
    return tiny.served("GPTNeo", **small, window_size=window, attention_types=kinds)


HYBRID: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
MAMBA2 = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 4,
    "mamba_expand": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
HYBRIDS: dict[str, dict[str, Any]] = {
    "Lfm2": {"layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3},
    "Qwen3Next": {
        **EXPERTS,
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "GraniteMoeHybrid": {
        **MAMBA2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 16,
        "layer_types": ["mamba", "attention"] * 2,
    },
    "Jamba": {
        **EXPERTS,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "Bamba": {**MAMBA2, "attn_layer_indices": [1, 3]},
    "FalconH1": {**MAMBA2, "mamba_d_ssm": 64, "head_dim": 8},
}


def runs_plainly(engine: Any) -> bool:
    return isinstance(engine, Engine) and isinstance(engine.backend.runner, UncachedModel)


@torch.no_grad()
def plain(llm: Any, ids: list[int]) -> torch.Tensor:
    """The plain forward over one context; dynamic positions have forgotten any longer one before it."""
    llm.model(torch.tensor([[1]]), use_cache=False)
    return torch.log_softmax(llm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].float(), -1)


def compare(llm: Any, engine: Any, depths: list[int], seed: int = 0) -> None:
    """Contexts of these lengths with a common beginning: in two batches, all at once, each a token on."""
    rng = np.random.default_rng(seed)
    stem = rng.integers(0, TOKENS, max(depths)).tolist()
    contexts = [[*stem[: depth - 1], int(rng.integers(TOKENS))] for depth in rng.permutation(depths)]
    half = len(contexts) // 2
    longer = [[*ids, 7] for ids in contexts if len(ids) < max(depths)]
    for asked in (contexts[:half], contexts[half:], contexts, longer, [ids[:-2] for ids in contexts]):
        got = engine.batch_next_token_logprobs_sync(asked)
        for ids, row in zip(asked, got, strict=True):
            torch.testing.assert_close(row, plain(llm, ids), atol=5e-4, rtol=0.0, msg=f"{len(ids)} tokens")


@pytest.mark.parametrize("window", [6, 64])
@pytest.mark.parametrize("kind", ["Mistral", "Gemma3Text", "Gemma2"])
def test_windows(kind: str, window: int) -> None:
    llm = grouped(kind, longest=3 * window, sliding_window=window)
    around = [window - 1, window, window + 1, window + 2]
    compare(llm, Engine(llm), [3, *around, 2 * window, 3 * window])


@pytest.mark.parametrize("amiss", ["shorter", "longer", "of no layer"])
@pytest.mark.parametrize("window", [6, 4096])
@pytest.mark.parametrize("kind", ["Mistral", "Gemma3Text"])
def test_the_trial_knows_a_window_by_one_token(
    kind: str, window: int, amiss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that took the window for another is refused, though no trial runs so many tokens."""
    options = {"layer_types": ["sliding_attention", "full_attention"] * 2} if kind == "Gemma3Text" else {}
    llm = grouped(kind, longest=2 * window, sliding_window=window, **options)
    run = []
    count = llm.model.register_forward_pre_hook(
        lambda _, args, given: run.append((given.get("input_ids") if not args else args[0]).shape[-1]),
        with_kwargs=True,
    )
    Engine(llm)
    assert sum(run) < 100
    count.remove()
    real = forward.TreeModel.__init__

    def taken_for_another(self: Any, *args: Any) -> None:
        real(self, *args)
        self.window += {"shorter": -1, "longer": 1, "of no layer": 0}[amiss]
        if amiss == "of no layer":
            self.kinds = [forward.FULL] * len(self.kinds)

    monkeypatch.setattr(forward.TreeModel, "__init__", taken_for_another)
    with pytest.raises(UnsupportedModelError, match=r"contexts of .* tokens is off by"):
        Engine(llm)
    llm.model.bfloat16()  # whose round-off is no excuse
    with pytest.raises(UnsupportedModelError, match=r"contexts of .* tokens is off by"):
        Engine(llm)


@pytest.mark.real_model
@pytest.mark.thorough
@torch.no_grad()
def test_round_off_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the small model's own probabilities move by 0.05 where an embedding's last place does: more
    than the precision alone allows. How much a tree is off by depends on the processor, so it is made up."""
    model = Engine(load_default_model(progress=False, dtype="bfloat16")).backend.runner
    moved = trial._round_off(model)
    assert 0.005 < moved < 0.2
    even = torch.zeros(1000)

    def tried(off: float) -> None:
        probabilities = even.softmax(-1)
        probabilities[7] += off
        trial._compare(model, "a tree", [probabilities.log()], [even])

    tried(0.9 * moved)
    with pytest.raises(UnsupportedModelError, match="a tree is off by"):
        tried(1.1 * moved)
    monkeypatch.setattr(trial, "_round_off", lambda model: 0.0)
    with pytest.raises(UnsupportedModelError, match="a tree is off by"):
        tried(0.9 * moved)


@pytest.mark.parametrize("depths", [[5, 18, 19, 20], [5, 18, 19, 20, 21, 22], [21, 25, 40], [1, 2, 79, 80]])
def test_longrope_on_both_sides_of_the_switch(depths: list[int]) -> None:
    llm = phi3()
    compare(llm, Engine(llm), [max(3, depth) for depth in depths])


def test_longrope_in_parts_and_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning of a long context is read as such, in however many forwards."""
    from genlm.bytes.backends.hf_tree import backend as module

    monkeypatch.setattr(module, "MOST_NEW", 7)
    llm = phi3()
    compare(llm, Engine(llm, max_cache_bytes=40_000), [5, 19, 20, 21, 40, 41, 60])


def test_a_switch_that_is_not_heeded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "switch_of", lambda config: None)
    with pytest.raises(UnsupportedModelError, match="off by"):
        Engine(phi3())
    monkeypatch.setattr(forward, "switch_of", lambda config: SWITCH + 3)
    with pytest.raises(UnsupportedModelError, match="off by"):
        Engine(phi3())


def test_layers_that_switch_at_different_lengths() -> None:
    rope = {
        "full_attention": LONGROPE,
        "sliding_attention": {**LONGROPE, "original_max_position_embeddings": 9},
    }
    llm = phi3()
    llm.model.config.rope_parameters = rope
    with pytest.raises(UnsupportedModelError, match="change their meaning"):
        Engine(llm)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 20},
        {"rope_type": "linear", "factor": 2.0},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 20,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_other_ways_of_stretching(rope: dict[str, Any]) -> None:
    llm = grouped("Llama", longest=40, rope_parameters={"rope_theta": 10_000.0, **rope})
    engine = Engine(llm)
    compare(llm, engine, [3, 19, 20, 21, 39, 40])


def test_dynamic_positions_after_a_longer_forward_of_somebody_elses() -> None:
    llm = grouped(
        "Llama", longest=40, rope_parameters={"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}
    )
    engine = Engine(llm)
    whole = list(range(5, 45))
    want = plain(llm, whole)
    with torch.no_grad():
        llm.model(torch.arange(5, 105)[None], use_cache=False)
    torch.testing.assert_close(engine.next_token_logprobs_sync(whole), want, atol=5e-4, rtol=0.0)


@pytest.mark.parametrize("window", [64, 256])
def test_gpt_neo_counts_columns(window: int) -> None:
    """Its local attention is of the mask's columns, whatever is in them: refused, and right without."""
    llm = gpt_neo(window)
    with pytest.raises(UnsupportedModelError, match="off by"):
        Engine(llm)
    engine = adopt(llm)
    assert runs_plainly(engine)
    compare(llm, engine, [3, 12, 30, 100])


THOROUGHLY = {"Bamba", "FalconH1", "GraniteMoeHybrid"}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.thorough] if k in THOROUGHLY else []) for k in HYBRIDS]
)
async def test_hybrid_models_run(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """`genlm-backend` gives them a cache of keys and values alone, and fails."""
    llm = tiny.served(kind, **HYBRID, **HYBRIDS[kind])
    with pytest.raises(UnsupportedModelError, match="it has layers of"):
        Engine(llm)
    with caplog.at_level(logging.WARNING, "genlm.bytes"):
        engine = adopt(llm)
    assert runs_plainly(engine) and adopt(llm) is engine
    assert "every context from its beginning" in caplog.text
    compare(llm, engine, [3, 9, 20, 20])
    start = await ByteBeamState.initial(llm, BeamParams(K=2))
    read = await start.prefill(b"the a")
    by_byte = start
    for byte in b"the a":
        by_byte = await (by_byte.prune() << byte)
    assert read.logZ == pytest.approx(by_byte.logZ, abs=1e-3)


def test_plain_forwards_share_what_they_can() -> None:
    """A text that is read at once is one forward, siblings are another."""
    engine = Engine(tiny.transformer("bloom"), trees=False)
    before = engine.statistics()
    engine.batch_next_token_logprobs_sync([[5], [5, 6], [5, 6, 7, 8], [5, 6, 7]])
    siblings = engine.batch_next_token_logprobs_sync([[5, 6, 7, i] for i in range(9, 15)])
    after = engine.statistics()
    assert (after.forwards - before.forwards, after.tokens_run - before.tokens_run) == (2, 4 + 6 * 4)
    assert after.slots == 0 and after.cache_bytes == 10 * 4 * TOKENS
    engine.deterministic = True
    engine.clear_cache()
    again = engine.batch_next_token_logprobs_sync([[5, 6, 7, i] for i in range(9, 15)])
    assert engine.statistics().forwards == after.forwards + 6
    torch.testing.assert_close(siblings, again)


def test_a_model_that_looks_ahead() -> None:
    """What it says after a beginning depends on what follows: no context is read off a longer one."""
    options = {k: value for k, value in HYBRID.items() if k != "num_key_value_heads"}
    llm = tiny.served("Bert", **options, is_decoder=False)
    engine = Engine(llm, trees=False)
    model = engine.backend.runner
    assert isinstance(model, UncachedModel) and not model._causal and model._batches
    compare(llm, engine, [3, 9, 20, 21])


def test_a_model_whose_own_forward_fails(caplog: pytest.LogCaptureFixture) -> None:
    llm = tiny.transformer("mamba")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernels")

    llm.model.forward = broken
    with pytest.raises(UnsupportedModelError, match="its own forward fails: RuntimeError: no kernels"):
        Engine(llm, trees=False)
    assert adopt(llm) is llm and "It may fail: its own forward fails" in caplog.text


def test_the_trunk_says_the_same_twice() -> None:
    made = trial._Trunk(1)
    like = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made.values(0, like, 100), made.values(0, 2 * like, 100))
    assert made.values(0, like, 3).shape == (1, 2, 3, 4)
    assert made.values(0, like.half(), 10**9).isfinite().all()
