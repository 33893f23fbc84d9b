"""`genlm-control` 0.4.1, unchanged, on this library: its `ByteLLM` and its `Ensemble` of two.

`ByteLLM` keeps one beam a context and reads one byte at a time with `beam.prune() << byte`. What it
returns must be what our beam says, to float32 noise: contexts may be evaluated in other batches.
"""

from __future__ import annotations

import importlib.metadata
import math

import numpy as np
import pytest
import torch

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.trie import EOS as EOS_SYMBOL

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]

EOS_STRING = b"<|im_end|>"
PROMPT = "The capital of France is"
OTHER = "Paris, France. The city is"
# The model likes to end its turn after such a sentence.
ANSWERED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello! How can I help you today?"
ASKED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHi! How can I assist you today?"
NEAR = {"rel": 0, "abs": 1e-3}


@pytest.fixture
def params():
    return BeamParams(K=5, prune_threshold=0.05, eos_byte_strings=[EOS_STRING])


def byte_llm(llm, params, prompt=PROMPT):
    from genlm.control import ByteLLM

    model = ByteLLM(llm, params)
    model.set_prompt_from_str(prompt)
    return model


def units(text: bytes) -> list[bytes]:
    """A context as `ByteLLM` takes it: a list of single bytes."""
    return [bytes([b]) for b in text]


async def our_beams(llm, params, prompt: str, text: bytes) -> list[ByteBeamState]:
    """Our beam after the prompt, and after each byte of `text`."""
    beams = [await (await ByteBeamState.initial(llm, params)).prefill(prompt.encode())]
    for byte in text:
        beams.append(await (beams[-1].prune() << byte))
    return beams


def test_the_release_is_the_one_promised():
    assert importlib.metadata.version("genlm-control") == "0.4.1"


async def test_prefix_and_next_and_complete_are_the_beam_s(default_llm, params):
    start, *_, after = await our_beams(default_llm, params, PROMPT, b" P")
    async with byte_llm(default_llm, params) as model:
        assert model.vocab == units(bytes(range(256)))
        assert await model.prefix([]) == 0.0
        prefix = await model.prefix(units(b" P"))
        assert prefix == pytest.approx(after.logZ - start.logZ, **NEAR)
        assert -5 < prefix < 0

        ours = (await after.logp_next()).ps
        weights = (await model.logw_next(units(b" P"))).weights
        assert weights.shape == (257,)
        theirs = np.exp(np.asarray(weights, np.float64))
        assert theirs.sum() == pytest.approx(1.0, abs=1e-5)
        assert np.allclose(theirs[:256], np.exp(ours[:256]), atol=1e-4)
        assert theirs[256] == pytest.approx(math.exp(ours[EOS_SYMBOL]), abs=1e-4)
        assert bytes([int(theirs.argmax())]) == b"a"  # Paris

        complete = await model.complete(units(b" P"))
        assert complete == pytest.approx(after.logZ - start.logZ + ours[EOS_SYMBOL], **NEAR)


async def test_batches_equal_single_calls(default_llm, params):
    contexts = [units(b" P"), units(b" t"), units(b" P")]
    async with byte_llm(default_llm, params) as model:
        prefixes = await model.batch_prefix(contexts)
        assert prefixes[0] == prefixes[2] != prefixes[1]
        assert [await model.prefix(c) for c in contexts] == pytest.approx(list(prefixes), **NEAR)
        completes = await model.batch_complete(contexts[:2])
        assert [await model.complete(c) for c in contexts[:2]] == pytest.approx(list(completes), **NEAR)
        rows = await model.batch_logw_next(contexts[:2])
        for row, context in zip(rows.weights, contexts, strict=False):
            single = (await model.logw_next(context)).weights
            assert np.allclose(np.exp(np.asarray(row)), np.exp(np.asarray(single)), atol=1e-4)


async def test_an_eos_string_in_the_prompt_is_text_and_special_after_it(default_llm, params):
    """The chat prompt spells EOS itself; only the model's own is the end."""
    async with byte_llm(default_llm, params, ANSWERED) as model:
        weights = np.exp(np.asarray((await model.logw_next([])).weights, np.float64))
        assert weights.sum() == pytest.approx(1.0, abs=1e-5)
        assert 0.2 < weights[256] < 1.0
        assert weights[ord("<")] < 0.01


async def test_a_new_prompt_and_cleanup_forget_the_beams(default_llm, params):
    model = byte_llm(default_llm, params)
    first = await model.prefix(units(b" P"))
    model.set_prompt_from_str(OTHER)
    second = await model.prefix(units(b" P"))
    start, *_, after = await our_beams(default_llm, params, OTHER, b" P")
    assert second == pytest.approx(after.logZ - start.logZ, **NEAR)
    assert first != pytest.approx(second, **NEAR)
    await model.cleanup()
    assert not model._beam_cache
    assert await model.prefix(units(b" P")) == pytest.approx(second, **NEAR)
    await model.cleanup()


async def test_an_impossible_byte_is_a_value_error(default_llm, params):
    async with byte_llm(default_llm, params) as model:
        with pytest.raises(ValueError, match="Beam became empty at byte 4 "):
            await model.prefix([b"\x04"])
        model.set_prompt_from_str("\x04")
        with pytest.raises(ValueError, match="offset 0"):
            await model.prefix([b"a"])


@pytest.mark.parametrize("op", ["sum", "prod", "min"])
async def test_ensemble_combines_the_two(default_llm, params, op):
    from genlm.control import Ensemble, convert_to_weighted_logop

    one = byte_llm(default_llm, params)
    two = byte_llm(default_llm, params, OTHER)
    ensemble = Ensemble(one, two, op=op, a=0.5)
    combined = convert_to_weighted_logop(op, 0.5)
    context = units(b" P")
    each = [await one.prefix(context), await two.prefix(context)]
    assert await ensemble.prefix(context) == pytest.approx(combined(*each), **NEAR)
    ends = [await one.complete(context), await two.complete(context)]
    assert await ensemble.complete(context) == pytest.approx(combined(*ends), **NEAR)

    rows = [np.asarray((await p.logw_next(context)).weights, np.float64) for p in (one, two)]
    want = combined(each[0] + rows[0], each[1] + rows[1]) - combined(*each)
    got = np.asarray((await ensemble.logw_next(context)).weights, np.float64)
    assert np.allclose(np.exp(got), np.exp(want), atol=1e-4)
    await one.cleanup()
    await two.cleanup()


async def test_sampling_from_an_ensemble_with_smc(default_llm, params):
    from genlm.control import EOS, Ensemble, direct_token_sampler

    torch.manual_seed(0)  # genlm-control draws with torch
    one = byte_llm(default_llm, params, ANSWERED)
    two = byte_llm(default_llm, params, ASKED)
    ensemble = Ensemble(one, two, op="sum", a=0.5)
    # Read the prompts before anything runs concurrently: `ByteLLM` stores its first beam before that has
    # read the prompt, and a second task that asks meanwhile takes it as it is.
    await ensemble.logw_next([])
    most = 3
    sequences = await direct_token_sampler(ensemble).smc(n_particles=4, ess_threshold=0.0, max_tokens=most)
    assert len(sequences.contexts) == 4
    for context, weight in zip(sequences.contexts, sequences.log_weights, strict=True):
        assert 1 <= len(context) <= most and context[-1] is EOS
        # Nothing is resampled at a threshold of 0: a particle's weight is the product of the normalizers
        # of the distributions it was drawn from, and of the probability of an end that was forced on it.
        want = 0.0
        for i in range(len(context)):
            row = np.asarray((await ensemble.logw_next(context[:i])).weights, np.float64)
            want += float(row[-1] if i == most - 1 else np.logaddexp.reduce(row))
        assert weight == pytest.approx(want, abs=1e-2)
    await one.cleanup()
    await two.cleanup()
