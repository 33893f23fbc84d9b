"""`genlm-control` 0.4.1's potentials and samplers, unchanged, on toys whose every answer can be enumerated.

The truth is `brute.py`: sums over all segmentations in float64. Where nothing is dropped `ByteLLM` must agree
with it to round-off, under every setting that its samplers are run with. What the samplers estimate, the
total weight of the texts that a constraint allows, is a sum over those texts; seeds are fixed.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import math
import re
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from brute import Brute
from genlm.control import (
    AWRS,
    EOS,
    SMC,
    BoolFSA,
    ByteLLM,
    Ensemble,
    JsonSchema,
    convert_to_weighted_logop,
    direct_token_sampler,
)
from toy import EOS_STRING, TOY, ToyLM

from genlm.bytes import BeamParams

pytestmark = pytest.mark.filterwarnings("ignore:Common vocabulary")  # toys have few bytes

EXACT = {
    "exact": {"exact": True},
    "K": {"K": 200},
    "K and threshold": {"K": 200, "prune_threshold": 1e-12},
    "tolerance": {"tolerance": 1e-12},
    "K and tolerance": {"K": 200, "tolerance": 1e-12},
}
"""Settings under which nothing that can be seen is dropped or waits."""
CUT = {"default": {}, "K=5": {"K": 5, "prune_threshold": 0.05}, "tolerance": {"tolerance": 0.1}}
PROMPT = b"ab"
PATTERN = "(a|b)(b|c)*"
MOST = 4  # bytes and the end
RUNS, PARTICLES = 4, 50

JSON_WORDS = [*(bytes([b]) for b in b'{}":,1a'), b'{"', b'":', b'{"a"', b'"a":', b"1}", b"11", EOS_STRING]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def settings(options: dict[str, Any]) -> BeamParams:
    return BeamParams(**options, eos_byte_strings=[EOS_STRING])


def byte_llm(
    lm: ToyLM, options: dict[str, Any] = EXACT["exact"], prompt: bytes = PROMPT, **more: Any
) -> ByteLLM:
    model = ByteLLM(lm, settings(options), **more)
    model.set_prompt_from_str(prompt.decode())
    return model


def units(text: bytes) -> list[bytes]:
    """A context as `ByteLLM` takes it: a list of single bytes."""
    return [bytes([b]) for b in text]


def texts(alphabet: bytes, most: int) -> list[bytes]:
    """All texts of at most so many bytes."""
    return [bytes(t) for n in range(most + 1) for t in itertools.product(alphabet, repeat=n)]


class Truth:
    """The conditional probabilities of a toy after a prompt."""

    def __init__(self, lm: ToyLM, prompt: bytes = PROMPT) -> None:
        self.brute, self.prompt, self.plain = Brute(lm, [EOS_STRING]), prompt, len(prompt)
        self.base = self.brute.prefix(prompt, self.plain)

    def prefix(self, text: bytes) -> float:
        return self.brute.prefix(self.prompt + text, self.plain) / self.base

    def ended(self, text: bytes) -> float:
        return self.brute.ended(self.prompt + text, self.plain) / self.base

    def next(self, text: bytes) -> np.ndarray:
        """As `ByteLLM` orders them: 256 bytes, then the end."""
        found = np.zeros(257)
        for symbol, p in self.brute.next(self.prompt + text, self.plain).items():
            found[min(symbol, 256)] = p
        return found


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)  # `genlm-control` draws with torch,
    np.random.seed(0)  # noqa: NPY002 — and resamples with numpy


@pytest.fixture
def lm() -> ToyLM:
    return ToyLM(TOY, seed=3)


def of_regex(model: ByteLLM, pattern: str = PATTERN) -> Any:
    return BoolFSA.from_regex(pattern).coerce(model, f=b"".join)


def allowed(alphabet: bytes = b"abc", pattern: str = PATTERN, most: int = MOST) -> list[bytes]:
    """The texts that end within `most` units, the end being one."""
    return [t for t in texts(alphabet, most - 1) if re.fullmatch(pattern.encode(), t)]


def text_of(context: list[Any]) -> bytes:
    """What a particle wrote; it has to have ended."""
    assert context[-1] is EOS
    return b"".join(context[:-1])


class TestByteLLM:
    @pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)
    @pytest.mark.parametrize("prompt", [b"", PROMPT, b"a<e>"], ids=["none", "some", "with EOS"])
    async def test_its_weights_are_the_enumerated_ones(self, options, prompt):
        lm = ToyLM([*TOY, b"<", b"e", b">"], seed=3)
        truth, model = Truth(lm, prompt), byte_llm(lm, options, prompt)
        for text in [b"", b"a", b"bc", b"cab"]:
            want = truth.prefix(text) if text else 1.0
            assert await model.prefix(units(text)) == pytest.approx(math.log(want), abs=1e-9)
            assert await model.complete(units(text)) == pytest.approx(math.log(truth.ended(text)), abs=1e-9)
            row = (await model.logw_next(units(text))).weights
            assert np.exp(row) == pytest.approx(truth.next(text), abs=1e-9)
        await model.cleanup()

    @pytest.mark.parametrize("options", CUT.values(), ids=CUT)
    async def test_what_is_cut_leaves_lower_bounds_and_distributions(self, lm, options):
        truth, model = Truth(lm, b""), byte_llm(lm, options, b"")
        for text in [b"a", b"bc", b"cabab"]:
            assert await model.prefix(units(text)) <= math.log(truth.prefix(text)) + 1e-9
            row = (await model.logw_next(units(text))).weights
            assert np.exp(row).sum() == pytest.approx(1.0)

    async def test_only_canonical_tokenizations(self):
        """The setting reaches the beam: `ByteLLM` says what such a beam says, less than of all."""
        from tiny import transformer

        from genlm.bytes import ByteBeamState

        llm = transformer("llama")
        model = ByteLLM(llm, BeamParams(tolerance=1e-6, canonical=True))
        every = ByteLLM(llm, BeamParams(tolerance=1e-6))
        beam = await ByteBeamState.initial(llm, BeamParams(tolerance=1e-6, canonical=True))
        for byte in b"the and":
            beam = await (beam.prune() << byte)
        canonical = await model.prefix(units(b"the and"))
        assert canonical == pytest.approx(beam.logZ, abs=1e-4)
        assert canonical < await every.prefix(units(b"the and")) - 1e-3

    async def test_a_small_cache_changes_nothing(self, lm):
        """Beams that were dropped are made again from older ones, whatever the order of questions."""
        truth, model = Truth(lm), byte_llm(lm, cache_size=2)
        for text in [b"cab", b"ca", b"b", b"cab", b"", b"ba"]:
            row = (await model.logw_next(units(text))).weights
            assert np.exp(row) == pytest.approx(truth.next(text), abs=1e-9)

    async def test_a_prompt_set_twice_and_another_and_the_first_again(self, lm):
        model = byte_llm(lm)
        for prompt in [PROMPT, PROMPT, b"c", b"", PROMPT]:
            model.set_prompt_from_str(prompt.decode())
            want = Truth(lm, prompt).prefix(b"ca")
            assert await model.prefix(units(b"ca")) == pytest.approx(math.log(want), abs=1e-9)

    async def test_cleanup_twice_and_questions_after_it(self, lm):
        want = pytest.approx(math.log(Truth(lm).prefix(b"ca")), abs=1e-9)
        model = byte_llm(lm)
        await model.cleanup()  # before anything was asked
        assert await model.prefix(units(b"ca")) == want
        await model.cleanup()
        await model.cleanup()
        assert await model.prefix(units(b"ca")) == want
        async with model:
            assert await model.prefix(units(b"ca")) == want
        assert await model.complete(units(b"ca")) == pytest.approx(math.log(Truth(lm).ended(b"ca")), abs=1e-9)

    async def test_many_at_once_and_each_alone(self, lm):
        truth, model = Truth(lm), byte_llm(lm)
        contexts = [units(t) for t in texts(b"abc", 2)]
        together = await asyncio.gather(*(model.logw_next(c) for c in contexts), model.batch_prefix(contexts))
        for context, row, logp in zip(contexts, together[:-1], together[-1], strict=True):
            text = b"".join(context)
            assert np.exp(row.weights) == pytest.approx(truth.next(text), abs=1e-9)
            assert math.exp(logp) == pytest.approx(truth.prefix(text) if text else 1.0, abs=1e-9)

    async def test_a_byte_that_no_token_has(self, lm):
        model = byte_llm(lm)
        for _ in range(2):  # a failure leaves nothing behind that would let the second pass
            with pytest.raises(ValueError, match="Beam became empty at byte 122 "):
                await model.prefix(units(b"az"))
        assert await model.prefix(units(b"a")) == pytest.approx(math.log(Truth(lm).prefix(b"a")), abs=1e-9)
        model.set_prompt_from_str("z")
        with pytest.raises(ValueError, match=r"0x7a.*offset 0"):
            await model.prefix(units(b"a"))

    async def test_a_model_that_is_dropped_is_collected(self, lm):
        model = byte_llm(lm)
        await model.logw_next(units(b"ca"))
        beam = model._last_beam
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None
        row = (await (await (beam.prune() << ord("b"))).logp_next()).ps  # the beam needs it no more
        assert np.exp(row[:256]) == pytest.approx(Truth(lm).next(b"cab")[:256], abs=1e-9)


class TestEnsemble:
    @pytest.mark.parametrize("op", ["sum", "prod", "harmonic", "min", "max", 2.0])
    @pytest.mark.parametrize("a", [0.5, 0.3])
    async def test_it_combines_the_enumerated_weights(self, lm, op, a):
        other = ToyLM([b"a", b"b", b"c", b"bc", b"ca", EOS_STRING], seed=8)  # another tokenizer
        ensemble = Ensemble(byte_llm(lm), byte_llm(other, prompt=b"c"), op=op, a=a)
        truths, combined = [Truth(lm), Truth(other, b"c")], convert_to_weighted_logop(op, a)
        for text in [b"a", b"bc"]:
            prefixes = [math.log(t.prefix(text)) for t in truths]
            ends = [math.log(t.ended(text)) for t in truths]
            assert await ensemble.prefix(units(text)) == pytest.approx(combined(*prefixes), abs=1e-9)
            assert await ensemble.complete(units(text)) == pytest.approx(combined(*ends), abs=1e-9)
            with np.errstate(divide="ignore"):
                rows = [p + np.log(t.next(text)) for p, t in zip(prefixes, truths, strict=True)]
            want = combined(*rows) - combined(*prefixes)
            got = (await ensemble.logw_next(units(text))).weights
            assert np.exp(got) == pytest.approx(np.exp(want), abs=1e-9)

    @pytest.mark.parametrize("op", ["sum", "prod", "harmonic", "min", "max"])
    async def test_two_equal_models_are_one(self, lm, op):
        ensemble, model = Ensemble(byte_llm(lm), byte_llm(lm), op=op), byte_llm(lm)
        for text in [b"", b"ca"]:
            assert await ensemble.prefix(units(text)) == pytest.approx(await model.prefix(units(text)))
            got = (await ensemble.logw_next(units(text))).weights
            assert np.exp(got) == pytest.approx(np.exp((await model.logw_next(units(text))).weights))

    async def test_a_product_of_two_equal_models_is_the_square(self, lm):
        product, truth = byte_llm(lm) * byte_llm(lm), Truth(lm)
        assert await product.prefix(units(b"ca")) == pytest.approx(2 * math.log(truth.prefix(b"ca")))
        row = (await product.logw_next(units(b"ca"))).weights
        assert np.exp(row) == pytest.approx(truth.next(b"ca") ** 2, abs=1e-9)


def samplers(model: ByteLLM) -> dict[str, Any]:
    """A regular expression by each of the samplers: of the product, by rejection, as a critic."""
    return {
        "direct": lambda: SMC(direct_token_sampler(model * of_regex(model))),
        "AWRS": lambda: SMC(AWRS(model, of_regex(model), seed=0)),
        "critic": lambda: SMC(direct_token_sampler(model), critic=of_regex(model)),
    }


async def several(smc: SMC) -> dict[bytes, float]:
    """The weights of texts that runs estimate, on average; all together they are the total's estimate."""
    found: dict[bytes, float] = {}
    for _ in range(RUNS):
        for context, logw in await smc(n_particles=PARTICLES, ess_threshold=0.5, max_tokens=MOST):
            if logw > -math.inf:
                text = text_of(context)
                found[text] = found.get(text, 0.0) + math.exp(logw) / (RUNS * PARTICLES)
    return found


class TestSampling:
    @pytest.mark.parametrize("options", [{"exact": True}, {}], ids=["exact", "default"])
    @pytest.mark.parametrize("name", ["direct", "AWRS", "critic"])
    async def test_smc_estimates_the_enumerated_total(self, lm, name, options):
        """Unbiased: what the constraint allows, and each text's share of it. Without the right weights of
        prefixes and ends it is off by a factor. Runs share their beams."""
        truth = {t: Truth(lm).ended(t) for t in allowed()}
        smc = samplers(byte_llm(lm, options))[name]()
        weights = await several(smc)
        assert set(weights) <= set(truth)
        total = sum(truth.values())
        assert sum(weights.values()) == pytest.approx(total, rel=0.35)
        assert sum(abs(weights.get(t, 0.0) - p) for t, p in truth.items()) / total < 0.5
        await smc.cleanup()

    @pytest.mark.parametrize(
        "options", [{"exact": True}, {"K": 200}, *CUT.values()], ids=["exact", "K", *CUT]
    )
    @pytest.mark.parametrize("name", ["direct", "AWRS", "critic"])
    async def test_ten_particles_run_after_run(self, lm, name, options):
        """Whatever the settings, what comes out satisfies the constraint; also after a cleanup in between."""
        model = byte_llm(lm, options)
        smc = samplers(model)[name]()
        for _ in range(2):
            found = await smc(n_particles=10, ess_threshold=0.5, max_tokens=MOST)
            assert len(found) == 10
            for context, weight in found:
                assert weight < 0.1
                assert weight == -math.inf or text_of(context) in allowed()
            await model.cleanup()  # and it is used again

    async def test_json_schemas(self):
        lm = ToyLM(JSON_WORDS, seed=5)
        model = byte_llm(lm, {"K": 200, "prune_threshold": 1e-12}, prompt=b"")
        schema = JsonSchema(SCHEMA).coerce(model, f=b"".join)
        truth = sum(Truth(lm, b"").ended(t) for t in [b'{"a":1}', b'{"a":11}'])  # all that are short enough
        found = await AWRS(model, schema, seed=0).smc(n_particles=40, ess_threshold=0.5, max_tokens=9)
        ended = [c for c, w in found if w > -math.inf]
        assert ended
        assert all(json.loads(text_of(c)) in ({"a": 1}, {"a": 11}) for c in ended)
        assert truth / 2 < math.exp(found.log_ml) < truth * 2
        await schema.cleanup()

    async def test_an_ensemble_of_two_tokenizers(self, lm):
        """No warming up: the particles' first questions read both prompts."""
        other = ToyLM([b"a", b"b", b"c", b"bc", b"ca", EOS_STRING], seed=8)
        ensemble = Ensemble(byte_llm(lm), byte_llm(other, prompt=b"c"), op="prod")
        truths = [Truth(lm), Truth(other, b"c")]
        want = sum(math.sqrt(truths[0].ended(t) * truths[1].ended(t)) for t in allowed())
        weights = await several(SMC(direct_token_sampler(ensemble * of_regex(ensemble))))
        assert sum(weights.values()) == pytest.approx(want, rel=0.35)

    @pytest.mark.parametrize("answers", [0, 1, 4])
    async def test_a_cancelled_run_and_then_another(self, lm, answers):
        """What was left half done, wherever that was, is not taken for done."""
        slow = Slow(TOY, seed=3)
        model = byte_llm(slow)
        smc = samplers(model)["AWRS"]()
        # `ByteLLM` keeps its first beam before that has read the prompt: cancelled there, it stays unread.
        await model.logw_next([])
        slow.let = asyncio.Semaphore(answers)
        run = asyncio.create_task(smc(n_particles=10, ess_threshold=0.5, max_tokens=MOST))
        await slow.stuck.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        slow.let = None
        for text in [b"", b"a", b"ab"]:
            row = (await model.logw_next(units(text))).weights
            assert np.exp(row) == pytest.approx(Truth(lm).next(text), abs=1e-9)
        found = await smc(n_particles=10, ess_threshold=0.5, max_tokens=MOST)
        assert all(w == -math.inf or text_of(c) in allowed() for c, w in found)


class Slow(ToyLM):
    """A toy that answers some questions, and then lets the asker wait."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.let: asyncio.Semaphore | None = None
        self.stuck = asyncio.Event()

    async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> torch.Tensor:
        if self.let is not None:
            if self.let.locked():
                self.stuck.set()
            await self.let.acquire()
        return await super().next_token_logprobs(token_ids, lora_name)
