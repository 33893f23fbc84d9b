"""LoRA adapters, from a beam down to the weights, against the plain adapted model."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tiny
import torch
from toy import TOY, ToyLM

from genlm.bytes import BeamParams, ByteBeamState, StatefulTokenizedLM
from genlm.bytes.engine import Engine
from genlm.bytes.errors import GenlmBytesError

# peft asks for what transformers has renamed, and warns of what is meant: a second adapter, and removing one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute:UserWarning"),
    pytest.mark.filterwarnings("ignore:Adapter one was active which is now deleted:UserWarning"),
]
TEXT = b"the cat and the hat"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters for the small Llama, with random weights large enough to matter, as saved folders."""
    peft = pytest.importorskip("peft")
    paths = []
    for seed in range(2):
        model = tiny.model("llama")
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)
        paths.append(str(tmp_path_factory.mktemp(f"adapter{seed}")))
        peft.get_peft_model(model, config).save_pretrained(paths[-1])
    return paths


@pytest.fixture
def llm(adapters):
    llm = tiny.transformer("llama")
    llm.add_new_lora(adapters[0], "one")
    llm.add_new_lora(adapters[1], "two")
    return llm


@torch.no_grad()
def plain(adapter, ids):
    """The adapted model, made by `peft` alone."""
    model = tiny.model("llama")
    if adapter is not None:
        import peft

        model = peft.PeftModel.from_pretrained(model, adapter)
    return torch.log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0, -1].float(), -1)


def near(one, other):
    return (one - other).abs().max() < 5e-4


async def test_each_request_has_its_own(llm, adapters):
    engine, rng = Engine(llm), np.random.default_rng(0)
    ids = rng.integers(0, len(tiny.tokenizer()), 9).tolist()
    want = [plain(None, ids), plain(adapters[0], ids), plain(adapters[1], ids)]
    assert not near(want[0], want[1]) and not near(want[1], want[2])
    for name, expected in ((None, want[0]), ("one", want[1]), (None, want[0]), ("two", want[2])):
        engine.clear_cache()
        assert near(await engine.next_token_logprobs(ids, lora_name=name), expected)
        assert near(engine.next_token_logprobs_sync(ids, name), expected)
    engine.clear_cache()
    together = [engine.next_token_logprobs(ids, lora_name=name) for name in (None, "one", "two")]
    for got, expected in zip(await asyncio.gather(*together), want, strict=True):
        assert near(got, expected)
    assert engine.statistics().slots == 3 * len(ids)


async def test_a_beam_has_one(llm):
    params = BeamParams(3, 0.01)

    async def read(name, engine):
        start = await ByteBeamState.initial(llm, params, engine=engine, lora_name=name)
        beam = await start.prefill(TEXT)
        assert {state.lm_state.lora_name for state in beam} == {name}
        probs = (await beam.logp_next()).materialize()
        return beam.logZ, [probs[b] for b in range(256) if b in probs]

    seen = []
    for name in (None, "one", "two"):
        (logZ, probs), (want_logZ, want) = await read(name, True), await read(name, False)
        assert logZ == pytest.approx(want_logZ, abs=1e-3)
        assert probs == pytest.approx(want, abs=1e-3)
        seen.append(logZ)
    assert len({round(logZ, 2) for logZ in seen}) == 3
    with pytest.raises(ValueError, match="nobody's"):
        await ByteBeamState.initial(llm, params, lora_name="nobody's")


@pytest.mark.parametrize("through_engine", [True, False])
async def test_replaced_under_its_name(llm, adapters, through_engine):
    """What was begun with the old one is not mixed with the new one."""
    engine = Engine(llm)
    owner = engine if through_engine else llm
    old = engine.node([1, 2, 3], "one")
    before = await engine.logprobs(old)
    owner.add_new_lora(adapters[1], "one")
    assert near(await engine.next_token_logprobs([1, 2, 3], "one"), plain(adapters[1], [1, 2, 3]))
    assert torch.equal(await engine.logprobs(old), before)
    with pytest.raises(ValueError, match="another adapter has been loaded") as caught:
        await engine.logprobs(old.child(4))
    assert isinstance(caught.value, GenlmBytesError)
    owner.remove_lora("one")
    with pytest.raises(ValueError, match="'one'"):
        await engine.next_token_logprobs([1, 2, 3], "one")


async def test_other_models_are_told_by_keyword():
    asked = []

    class Adapted(ToyLM):
        async def next_token_logprobs(self, token_ids, **options):
            asked.append(options)
            return await super().next_token_logprobs(token_ids)

    lm = Adapted(TOY)
    state = StatefulTokenizedLM.initial(lm, [0], lora_name="x") << 1
    assert state.lora_name == "x" and StatefulTokenizedLM(lm, [0], lora_name="x").lora_name == "x"
    await state.logp_next()
    await (StatefulTokenizedLM.initial(lm, [0], max_context_length=1) << 1).logp_next()
    beam = await ByteBeamState.initial(lm, BeamParams(2), lora_name="x")
    assert asked == [{"lora_name": "x"}, {}, {"lora_name": "x"}] and len(beam)
