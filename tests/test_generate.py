"""Completing text on toy models: what is drawn, where it stops, what comes back."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from brute import Brute
from budget import examples
from hypothesis import example, given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, FixedLM, ToyLM, vocabularies

from genlm.bytes import AsyncByteLM, BeamParams
from genlm.bytes.byte_lm import StatefulTokenizedLM
from genlm.bytes.engine import adopt
from genlm.bytes.errors import InvalidTypeError, InvalidValueError
from genlm.bytes.generate import Options
from genlm.bytes.generate.run import Read, Stream
from genlm.bytes.generate.sampling import WARPERS, process, processors, sample
from genlm.bytes.generate.stops import StopFinder
from genlm.bytes.generate.tokenwise import TokenDecoder, edge_pairs
from genlm.bytes.util import utf8
from genlm.bytes.util.numbers import whole_number
from genlm.bytes.vocab import start_context

EXACT = BeamParams(K=10_000, prune_threshold=0.0)


class Whole(AsyncByteLM):
    """Considers all tokenizations of the whole prompt, whatever the default is."""

    async def _read(self, context, **options):
        return await super()._read(context, **{**options, "method": "beam"})


def exact(lm: ToyLM, eos: tuple[bytes, ...] = ()) -> AsyncByteLM:
    """A model whose beam drops nothing."""
    return Whole(lm, EXACT, eos=eos)


class Fixed(np.random.Generator):
    """Random numbers that are given: enumerating them enumerates what can be drawn."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = list(numbers)

    def random(self, *_: object, **__: object) -> float:
        return self.numbers.pop(0)


def middles(ps: np.ndarray) -> dict[int, float]:
    """For each entry of positive probability, a number in [0, 1) that draws it."""
    ends = np.cumsum(ps) / ps.sum()
    starts = np.concatenate([[0.0], ends[:-1]])
    return {i: float((a + b) / 2) for i, (a, b) in enumerate(zip(starts, ends, strict=True)) if b > a}


def left(logits: Any, **asked: Any) -> np.ndarray:
    """The distribution from which is drawn."""
    steps = [WARPERS[name](asked[name]) for name in WARPERS if asked.get(name) is not None]
    logits = process(steps, np.asarray(logits))
    ps = np.exp(logits - logits.max())
    return ps / ps.sum()


async def exact_bytes(lm: ToyLM, prompt: bytes, length: int, **asked: Any) -> dict[bytes, float]:
    """What drawing `length` tokens from the prompt's edge on gives, over everything that can be drawn."""
    found: dict[bytes, float] = {}
    reader = exact(lm)
    beam = await reader.beam(prompt)
    options = Options(**{"temperature": 1.0, **asked}, valid_utf8=False)

    async def go(numbers: list[float], p: float, more: int) -> None:
        decoder = TokenDecoder(beam, prompt, options, Fixed(*numbers))
        text = b"".join([(await decoder.step()).text for _ in numbers])
        if more == 0:
            found[text] = found.get(text, 0.0) + p
            return
        if decoder._lm_state is None:
            ps = left((await edge_pairs(beam)).logps, **asked)
        else:
            ps = left((await decoder._lm_state.logp_next()).numpy(), **asked)
        for i, number in middles(ps).items():
            await go([*numbers, number], p * float(ps[i]), more - 1)

    await go([], 1.0, length)
    return found


class TestTokens:
    @examples(10)
    @given(
        words=vocabularies(most=3, longest=3),
        seed=st.integers(0, 99),
        prompt=st.lists(st.sampled_from(b"abc"), max_size=3).map(bytes),
    )
    async def test_at_temperature_one_bytes_have_the_beams_distribution(self, words, seed, prompt):
        """The covering token is drawn from the posterior: enumerated, it gives the marginals of bytes."""
        lm = ToyLM(words, seed)
        brute = Brute(lm)
        drawn = await exact_bytes(lm, prompt, 2)
        assert sum(drawn.values()) == pytest.approx(1.0)
        for first in b"abc":
            # Two tokens give at least one byte, so the first byte is settled.
            p = sum(p for text, p in drawn.items() if text[:1] == bytes([first]))
            want = brute.prefix([*prompt, first]) / brute.prefix(list(prompt))
            assert p == pytest.approx(want, abs=1e-9)

    @examples(25)
    @given(
        words=vocabularies(most=5, longest=3),
        seed=st.integers(0, 99),
        prompt=st.lists(st.sampled_from(b"abc"), min_size=1, max_size=4).map(bytes),
        temperature=st.sampled_from([0.3, 1.0, 2.0]),
        top_k=st.sampled_from([None, 1, 2, 3]),
    )
    @example(words=[b"a", b"b", b"c", b"aa"], seed=34, prompt=b"aa", temperature=0.3, top_k=None)
    async def test_the_edge_by_its_closed_form(self, words, seed, prompt, temperature, top_k):
        """Pairs of a segmentation of the prompt's beginning and a token over its edge, raised to 1/T."""
        lm = ToyLM(words, seed)
        pairs = sorted(edge_by_brute_force(lm, prompt), key=lambda pair: -pair[1])
        weights = [w ** (1 / temperature) for _, w in pairs]
        if top_k is not None:
            least = sorted(weights, reverse=True)[:top_k][-1]
            weights = [w if w >= least * (1 - 1e-12) else 0.0 for w in weights]
        want: dict[bytes, float] = {}
        for (new, _), w in zip(pairs, weights, strict=True):
            want[new] = want.get(new, 0.0) + w / sum(weights)
        drawn = await exact_bytes(lm, prompt, 1, temperature=temperature, top_k=top_k)
        assert drawn.keys() <= {text for text, p in want.items() if p > 0.0}
        # No random number draws what is less probable than the last place of 1.
        assert want == pytest.approx({text: drawn.get(text, 0.0) for text in want}, abs=1e-15)

    @examples(25)
    @given(
        words=vocabularies(most=5, longest=3),
        seed=st.integers(0, 99),
        prompt=st.lists(st.sampled_from(b"abc"), min_size=1, max_size=4).map(bytes),
    )
    async def test_greedy_takes_the_likeliest_cover_then_the_likeliest_tokens(self, words, seed, prompt):
        lm = ToyLM(words, seed)
        best = max(covers(lm, prompt), key=lambda cover: cover[2])
        context, new, weight = best
        logprob = math.log(weight / Brute(lm).prefix(list(prompt)))
        while len(new) < 6:
            p = lm.probs(context)
            token = int(p.argmax())
            logprob += math.log(p[token])
            context, new = (*context, token), new + words[token]
        completion = await exact(lm).complete(prompt, max_bytes=len(new), valid_utf8=False)
        assert completion.bytes == new
        assert completion.logprob == pytest.approx(logprob)
        assert completion.finish_reason == "length"

    @examples(25)
    @given(words=vocabularies(most=5, longest=4), seed=st.integers(0, 99), length=st.integers(1, 8))
    async def test_log_probability_of_bytes_cut_inside_a_token(self, words, seed, length):
        """All tokens count that begin with the bytes kept: by brute force after the tokens before."""
        lm = ToyLM(words, seed)
        completion = await exact(lm).complete("ab", max_bytes=length, seed=seed)
        assert len(completion.bytes) == length
        brute = Brute(lm)
        text = [*b"ab", *completion.bytes]
        assert completion.logprob <= math.log(brute.prefix(text) / brute.prefix(list(b"ab"))) + 1e-9
        if len(words) == 3:  # one way to write anything: the bound is the thing itself
            assert completion.logprob == pytest.approx(math.log(brute.prefix(text) / brute.prefix([*b"ab"])))

    @pytest.mark.parametrize(("length", "p"), [(1, 0.7), (2, 0.6), (3, 0.6), (4, 0.4), (5, 0.4 * 0.7)])
    async def test_log_probability_where_the_limit_cuts_a_token(self, length, p):
        words = [b"abcd", b"abce", b"ax", b"ab<e>", b"."]
        lm = FixedLM(words, rule=lambda context: [0.4, 0.2, 0.1, 0.2, 0.1])
        completion = await exact(lm, (b"ab<e>",)).complete("", max_bytes=length)
        assert completion.bytes == b"abcdabcd"[:length]
        assert math.exp(completion.logprob) == pytest.approx(p)

    async def test_log_probability_where_the_limit_cuts_the_token_at_the_edge(self):
        lm = FixedLM([b"abcd", b"abce", b"a", b"b"], rule=lambda context: [0.4, 0.2, 0.3, 0.1])
        completion = await exact(lm).complete("a", max_bytes=2)
        assert math.exp(completion.logprob) == pytest.approx((0.4 + 0.2) / (0.4 + 0.2 + 0.3))

    async def test_unlike_the_longest_token(self):
        """`c` inside a token is open to every token that begins so, wherever the tokenizer would cut."""
        lm = FixedLM([b"a", b"b", b"c", b"cb"], rule=lambda context: [0.1, 0.1, 0.2, 0.6])
        healed = await exact(lm).complete("ac", max_bytes=1)
        cut = await exact(lm).complete("ac", max_bytes=1, token_healing=False)
        assert (healed.text, cut.text) == ("b", "c")

    async def test_tokens_that_spell_nothing_or_have_no_logit_are_never_drawn(self):
        lm = FixedLM([b"", b"a", b"b"], logits=5, rule=lambda context: [0.5, 0.1, 0.05, 0.35, 0.0])
        assert (await exact(lm).complete("a", max_tokens=3)).text == "aaa"
        drawn = await exact(lm).complete("a", max_tokens=40, seed=1)
        assert set(drawn.text) == {"a", "b"}

    async def test_an_end_that_the_prompt_spells_is_text(self):
        def rule(context):
            return [0.5, 0.2, 0.3] if len(context) < 2 else [0.1, 0.1, 0.8]

        lm = FixedLM([b"a", b"b", EOS_STRING], rule=rule)
        completion = await exact(lm, (EOS_STRING,)).complete("a<e>", max_bytes=5)
        assert completion.finish_reason == "eos" and completion.bytes == b""
        assert completion.logprob == pytest.approx(math.log(0.8))


def covers(lm: ToyLM, prompt: bytes) -> list[tuple[tuple[int, ...], bytes, float]]:
    """Each way in which tokens cover the prompt: the context after, the new bytes, the probability."""
    found = []

    def go(context: tuple[int, ...], at: int, p: float) -> None:
        probs = lm.probs(context)
        for token, word in enumerate(map(bytes, lm.byte_vocab)):
            rest, weight = prompt[at:], p * float(probs[token])
            if word.startswith(rest):
                found.append(((*context, token), word[len(rest) :], weight))
            elif rest.startswith(word):
                go((*context, token), at + len(word), weight)

    go((), 0, 1.0)
    return found


def edge_by_brute_force(lm: ToyLM, prompt: bytes) -> list[tuple[bytes, float]]:
    return [(new, p) for _, new, p in covers(lm, prompt)]


class TestBytes:
    @examples(25)
    @given(
        words=vocabularies(most=5, longest=3),
        seed=st.integers(0, 99),
        prompt=st.lists(st.sampled_from(b"abc"), max_size=3).map(bytes),
    )
    async def test_greedy_is_the_argmax_of_brute_force(self, words, seed, prompt):
        lm = ToyLM([*words, EOS_STRING], seed)
        brute = Brute(lm, (EOS_STRING,))
        text, reason, logprob = list(prompt), "length", 0.0
        for _ in range(4):
            chart = brute.next(text, plain=len(prompt))
            best = max(chart, key=lambda symbol: chart[symbol])
            logprob += math.log(chart[best])
            if best == 257:
                reason = "eos"
                break
            text.append(best)
        completion = await exact(lm, (EOS_STRING,)).complete(prompt, max_bytes=4, unit="byte")
        assert [*prompt, *completion.bytes] == text
        assert completion.finish_reason == reason
        assert completion.logprob == pytest.approx(logprob)
        assert completion.usage.completion_tokens is None

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    @pytest.mark.parametrize("top_k", [None, 2])
    async def test_temperature_acts_on_bytes(self, temperature, top_k):
        lm = ToyLM(TOY, seed=3)
        chart = Brute(lm).next(list(b"ab"))
        raised = {b: p ** (1 / temperature) for b, p in chart.items() if p}
        kept = sorted(raised, key=lambda b: -raised[b])[:top_k]
        total = sum(raised[b] for b in kept)
        read = Read(await exact(lm).beam(b"ab"), b"ab")
        options = Options(temperature=temperature, top_k=top_k, unit="byte", max_bytes=1)
        edges = np.cumsum([raised.get(b, 0.0) / total if b in kept else 0.0 for b in range(256)])
        for byte in kept:
            low, high = edges[byte] - raised[byte] / total, edges[byte]
            for number in (low + 1e-9, (low + high) / 2, high - 1e-9):
                stream = Stream(read, options)
                stream._rng = Fixed(float(number))
                assert (await stream.collect()).bytes == bytes([byte])


class Drawn(np.random.Generator):
    """A source of random numbers that always gives the same."""

    def __init__(self, number):
        super().__init__(np.random.PCG64(0))
        self.number = number

    def random(self):
        return self.number


class TestWarpers:
    """Against the processors of `transformers`, one by one and all together."""

    def test_top_k_keeps_those_as_likely_as_the_last(self):
        np.testing.assert_allclose(left(np.log([0.4, 0.2, 0.3, 0.3]), top_k=2), [0.4, 0, 0.3, 0.3])

    @pytest.mark.parametrize("number", [0.0, 0.25, 0.5, 1.0 - 2**-53, 1.0])  # the last by round-off
    def test_nothing_impossible_is_drawn(self, number):
        for ps in ([0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0]):
            with np.errstate(divide="ignore"):
                index = sample(np.log(ps), Drawn(number))
            assert ps[index] > 0.0
            below = sum(ps[:index])
            assert below <= number <= below + ps[index]

    @examples(60)
    @given(
        logits=st.lists(st.integers(-60, 60), min_size=2, max_size=30, unique=True),
        temperature=st.sampled_from([0.5, 1.0, 1.7]),
        top_k=st.sampled_from([None, 1, 3, 100]),
        top_p=st.sampled_from([None, 0.3, 0.9, 1.0]),
        min_p=st.sampled_from([None, 0.05, 0.5]),
    )
    def test_as_transformers_does(self, logits, temperature, top_k, top_p, min_p):
        from transformers.generation import logits_process as hf

        scores = torch.tensor([logits], dtype=torch.float64) / 10
        steps = [hf.TemperatureLogitsWarper(temperature)]
        steps += [hf.TopKLogitsWarper(min(top_k, len(logits)))] if top_k else []
        steps += [hf.TopPLogitsWarper(top_p)] if top_p is not None and top_p < 1 else []
        steps += [hf.MinPLogitsWarper(min_p)] if min_p is not None else []
        for step in steps:
            scores = step(None, scores)
        want = torch.softmax(scores, -1)[0].numpy()
        got = left(np.array(logits) / 10, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        np.testing.assert_allclose(got, want, atol=1e-12)

    @pytest.mark.parametrize("top_p", [0.2, 0.95, 0.999])
    @pytest.mark.parametrize("spread", [0.1, 2.0, 8.0])
    def test_top_p_of_many_entries(self, top_p, spread):
        """The few that are sorted first may not be enough: then all are."""
        logps = np.random.default_rng(0).normal(size=20_000) * spread
        got = left(logps, top_p=top_p)
        ps = np.exp(logps - logps.max())
        ps /= ps.sum()
        order = np.argsort(-ps)
        kept = order[: int(np.searchsorted(np.cumsum(ps[order]), top_p)) + 1]
        assert set(np.flatnonzero(got)) == set(kept)
        assert got.sum() == pytest.approx(1.0)


class TestRepetitionPenalty:
    @examples(60)
    @given(
        logits=st.lists(st.integers(-60, 60), min_size=4, max_size=12),
        tokens=st.lists(st.integers(0, 3), max_size=6),
        penalty=st.sampled_from([0.5, 1.0, 1.3, 4.0]),
    )
    def test_as_transformers_does(self, logits, tokens, penalty):
        from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

        scores = torch.tensor([logits], dtype=torch.float64)
        want = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([tokens], dtype=torch.long), scores)
        got = process(processors(Options(repetition_penalty=penalty)), np.array(logits, np.float64), tokens)
        np.testing.assert_array_equal(got, want[0].numpy())

    @examples(40)
    @given(
        words=vocabularies(most=5, longest=3),
        seed=st.integers(0, 99),
        prompt=st.lists(st.sampled_from(b"abc"), min_size=1, max_size=5).map(bytes),
        penalty=st.sampled_from([0.4, 1.5, 3.0]),
    )
    async def test_each_candidate_by_its_own_tokens(self, words, seed, prompt, penalty):
        """At the edge and after it, against sums by hand; greedy decoding included."""
        lm = ToyLM(words, seed)

        def penalised(context: tuple[int, ...]) -> np.ndarray:
            logps = np.log(lm.probs(context))
            logps[list(set(context))] *= penalty
            return np.exp(logps) / np.exp(logps).sum()

        found = {}
        for (*context, token), _, p in covers(lm, prompt):
            before = tuple(context)
            found[(*before, token)] = p / lm.probs(before)[token] * penalised(before)[token]
        beam = await exact(lm).beam(prompt)
        pairs = await edge_pairs(beam, processors(Options(repetition_penalty=penalty)))
        contexts = [tuple(pairs.states[i].lm_state.context) for i in pairs.owner]
        got = {(*c, t): math.exp(p) for c, t, p in zip(contexts, pairs.tokens, pairs.processed, strict=True)}
        assert got == pytest.approx(found)

        context = max(found, key=found.__getitem__)
        for _ in range(6):
            context = (*context, int(penalised(context).argmax()))
        new = b"".join(words[t] for t in context)[len(prompt) :]
        options = {"max_bytes": max(1, len(new)), "valid_utf8": False, "repetition_penalty": penalty}
        completion = await exact(lm).complete(prompt, **options)
        assert completion.bytes[: len(new)] == new
        # The log-probability is the model's own.
        brute, text = Brute(lm), [*prompt, *completion.bytes]
        if len(text) <= 14:  # brute force doubles with each byte
            assert completion.logprob <= math.log(brute.prefix(text) / brute.prefix(list(prompt))) + 1e-9

    async def test_it_is_not_a_request_to_draw_and_one_is_none(self):
        model = exact(ToyLM(TOY, seed=5))
        plain = await model.complete("ab", max_bytes=12)
        assert await model.complete("ab", max_bytes=12, repetition_penalty=1) == plain
        first = await model.complete("ab", max_bytes=12, repetition_penalty=3)
        assert first.bytes != plain.bytes
        assert await model.complete("ab", max_bytes=12, repetition_penalty=3) == first
        assert await model.complete("ab", max_bytes=12, repetition_penalty=1.0, unit="byte")

    @pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
    def test_logits_of_models_that_have_them(self, kind):
        import tiny

        llm = tiny.transformer(kind)
        engine = adopt(llm)
        ids = [[3, 4, 5], [3, 4, 9], [7]]
        for context in ids:
            state = StatefulTokenizedLM(engine, context)
            logps = asyncio.run(state.logp_next())
            want = llm.model(torch.tensor([context]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(logps + state.log_normalizer, want.float(), atol=1e-4, rtol=1e-4)
            assert abs(state.log_normalizer) > 1e-3

    @pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
    async def test_greedy_decoding_of_a_small_model_is_that_of_transformers(self, penalty):
        import tiny

        llm = tiny.transformer("llama")
        await as_transformers_generates(llm, "the man and the end", penalty)

    @pytest.mark.real_model
    @pytest.mark.parametrize(
        "penalty", [pytest.param(1.0, marks=pytest.mark.slow), 1.3, pytest.param(0.8, marks=pytest.mark.slow)]
    )
    async def test_greedy_decoding_is_that_of_transformers(self, default_llm, penalty):
        prompt = "The capital of France is Paris, and the capital of Germany is"
        await as_transformers_generates(default_llm, prompt, penalty)


async def as_transformers_generates(llm: Any, prompt: str, penalty: float) -> None:
    tokenizer = llm.tokenizer
    ids = [*start_context(llm), *tokenizer.encode(prompt, add_special_tokens=False)]
    out = llm.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=32,
        do_sample=False,
        repetition_penalty=penalty,
        pad_token_id=tokenizer.eos_token_id,
    )
    new = [i for i in out[0, len(ids) :].tolist() if i not in tokenizer.all_special_ids]  # an end
    want = b"".join(llm.byte_vocab[i].byte_string for i in new)
    options = {"max_tokens": 32, "token_healing": False, "valid_utf8": False}
    lm = AsyncByteLM(llm)
    assert (await lm.complete(prompt, **options, repetition_penalty=penalty)).bytes == want
    if penalty != 1.0:
        assert (await lm.complete(prompt, **options)).bytes != want


class TestStopping:
    @examples(200)
    @given(
        text=st.lists(st.sampled_from(b"abc"), max_size=12).map(bytes),
        stops=st.lists(st.lists(st.sampled_from(b"abc"), min_size=1, max_size=3).map(bytes), max_size=3),
        cuts=st.lists(st.integers(0, 12), max_size=5),
    )
    def test_the_first_stop_however_the_text_grows(self, text, stops, cuts):
        finder = StopFinder(stops)
        byte_by_byte = next(
            (
                (min(end - len(s) for s in stops if text[:end].endswith(s)), end)
                for end in range(1, len(text) + 1)
                if any(text[:end].endswith(s) for s in stops)
            ),
            None,
        )
        since = 0
        for upto in sorted({*(c for c in cuts if c <= len(text)), len(text)}):
            found = finder.feed(text[since:upto])
            if found is not None:
                break
            held = finder.held
            begun = [n for n in range(upto + 1) if any(s.startswith(text[upto - n : upto]) for s in stops)]
            assert held == max((n for n in begun if n < max(map(len, stops), default=0)), default=0)
            since = upto
        assert found == byte_by_byte

    @pytest.mark.parametrize("unit", ["byte", "token"])
    async def test_a_stop_string_across_tokens(self, unit):
        lm = FixedLM([b"ab", b"a", b"b"], rule=lambda context: [0.8, 0.1, 0.1])
        completion = await exact(lm).complete("", stop=["ba", "zz"], unit=unit)
        assert (completion.text, completion.finish_reason, completion.stop) == ("a", "stop", b"ba")
        assert completion.logprob == pytest.approx(math.log(0.9))

    async def test_limits(self):
        lm = FixedLM([b"ab", b"a", b"b"], rule=lambda context: [0.8, 0.1, 0.1])
        model = exact(lm)
        assert (await model.complete("", max_bytes=3)).text == "aba"
        three = await model.complete("", max_tokens=3)
        assert (three.text, three.usage.completion_tokens, three.finish_reason) == ("ababab", 3, "length")
        assert len((await model.complete("")).bytes) == 256
        # A stop string that the limit cuts off has not been met.
        cut = await model.complete("", max_bytes=4, stop="abba")
        assert cut.finish_reason == "length"

    async def test_the_end_of_the_sequence(self):
        def rule(context):
            return [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0] if len(context) > 2 else [0, 0, 1.0, 0, 0, 0, 0]

        for unit in ("byte", "token"):
            completion = await exact(FixedLM(TOY, rule=rule), (EOS_STRING,)).complete("ab", unit=unit)
            assert (completion.text, completion.finish_reason) == ("cabcabc", "eos")
            assert completion.logprob == pytest.approx(0.0)

    async def test_streams_show_nothing_that_may_be_taken_back(self):
        lm = FixedLM([b"x", b"EN", b"D", "é".encode()[:1], "é".encode()[1:]], seed=0)
        lm.rule = lambda context: np.eye(5)[[3, 4, 0, 1, 0, 1, 2][min(len(context), 6)]]
        model = exact(lm)
        for unit in ("byte", "token"):
            stream = model.stream("", stop="END", unit=unit)
            chunks = [chunk async for chunk in stream]
            assert "".join(map(str, chunks)) == "éxENx" == stream.completion.text
            assert b"".join(chunk.bytes for chunk in chunks) == stream.completion.bytes
            assert [c.finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
            assert all(c.text.isprintable() and "\ufffd" not in c.text for c in chunks)

    async def test_the_models_context_ends(self):
        from tiny import LONGEST, transformer

        model = AsyncByteLM(transformer("gpt2"), BeamParams(K=2, prune_threshold=0.2), eos=[])
        prompt = "x" * (LONGEST - 4)
        for unit in ("token", "byte"):
            completion = await model.complete(prompt, unit=unit, max_bytes=500)
            assert completion.finish_reason == "length"
            assert 0 < len(completion.bytes) < 500


class TestUtf8:
    WORDS = ("é".encode()[:1], "é".encode()[1:], "€".encode()[:2], "€".encode()[2:], b"a", b"\xff", b"<e>")

    @examples(40)
    @given(
        seed=st.integers(0, 999),
        unit=st.sampled_from(["byte", "token"]),
        prompt=st.sampled_from([b"", b"a", b"\xc3", b"\xe2\x82"]),
    )
    async def test_text_stays_valid(self, seed, unit, prompt):
        model = exact(ToyLM(self.WORDS, seed % 7), (b"<e>",))
        completion = await model.complete(prompt, unit=unit, max_bytes=6, seed=seed)
        whole = prompt + completion.bytes
        text = whole.decode(errors="ignore")  # a character may be cut off at the limit, and only there
        assert whole.startswith(text.encode()) and len(whole) - len(text.encode()) < 3
        assert completion.text == text if len(prompt) != 1 or prompt == b"\xc3" else True
        if completion.finish_reason == "eos":
            assert whole == text.encode()

    @pytest.mark.parametrize("unit", ["byte", "token"])
    async def test_invalid_bytes_only_if_asked(self, unit):
        lm = FixedLM(self.WORDS, rule=lambda context: [0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.1])
        completion = await exact(lm).complete("a", max_bytes=2, unit=unit, valid_utf8=False)
        assert (completion.bytes, completion.text) == (b"\xff\xff", "\ufffd\ufffd")
        completion = await exact(lm).complete("a", max_bytes=2, unit=unit)
        assert b"\xff" not in completion.bytes

    @pytest.mark.parametrize("unit", ["byte", "token"])
    async def test_a_character_that_the_prompt_began_is_given_whole(self, unit):
        lm = FixedLM(self.WORDS, rule=lambda context: [0.1, 0.3, 0.1, 0.1, 0.2, 0.1, 0.1])
        completion = await exact(lm).complete(b"caf\xc3"[3:], max_bytes=2, unit=unit)
        assert (completion.bytes[:1], completion.text[:1]) == (b"\xa9", "é")

    @pytest.mark.parametrize("unit", ["byte", "token"])
    async def test_a_dead_end_is_said(self, unit):
        lm = FixedLM([b"\xc3", b"a"], rule=lambda context: [1.0, 0.0])
        completion = await exact(lm).complete("", unit=unit)
        assert (completion.bytes, completion.text, completion.finish_reason) == (b"\xc3", "", "dead_end")


class TestSeveral:
    async def test_a_seed_decides_whatever_else_runs(self):
        model = exact(ToyLM(TOY, seed=5), (EOS_STRING,))
        for unit in ("byte", "token"):
            options = {"unit": unit, "max_bytes": 7, "temperature": 1.0}
            alone = await model.complete("ab", seed=7, **options)
            crowd = await asyncio.gather(
                *(model.complete("ab", seed=seed, **options) for seed in range(12)),
                model.complete("c", **options),
            )
            assert crowd[7] == alone
            assert len({c.bytes for c in crowd}) > 4

    async def test_a_batch_is_its_prompts_one_by_one(self):
        model = exact(ToyLM(TOY, seed=5), (EOS_STRING,))
        prompts = ["ab", b"c", "", ("a", 3, "b")]
        for options in ({"max_bytes": 9}, {"max_bytes": 9, "seed": 3, "n": 2}):
            batch = await model.complete(prompts, **options)
            assert batch == [await model.complete(p, **options) for p in prompts]
        assert await model.complete([]) == []

    async def test_n_and_best_of(self):
        model = exact(ToyLM(TOY, seed=5), (EOS_STRING,))
        five = await model.complete("ab", n=5, seed=2, max_bytes=8)
        assert len(five) == 5 and len({c.bytes for c in five}) > 1
        assert await model.complete("ab", n=3, seed=2, max_bytes=8) == five[:3]
        best = await model.complete("ab", best_of=5, seed=2, max_bytes=8)
        each = [c.logprob / max(1, len(c.bytes)) for c in five]
        assert best == five[each.index(max(each))]
        two = await model.complete("ab", n=2, best_of=5, seed=2, max_bytes=8)
        assert two[0] == best and two[1] in five

    async def test_without_a_seed_draws_differ(self):
        model = exact(ToyLM(TOY, seed=5))
        drawn = await model.complete("ab", n=4, max_bytes=40)
        assert len({c.bytes for c in drawn}) == 4

    async def test_greedy_unless_a_draw_is_asked_for(self):
        model = exact(ToyLM(TOY, seed=5))
        first = await model.complete("ab", max_bytes=30)
        assert first == await model.complete("ab", max_bytes=30, temperature=0, seed=1)
        assert first == await model.complete("ab", max_bytes=30, top_k=1)
        assert first != await model.complete("ab", max_bytes=30, seed=1)

    async def test_echo(self):
        completion = await exact(ToyLM(TOY, seed=5)).complete(b"ab", max_bytes=3, echo=True)
        assert completion.text[:2] == "ab" and completion.bytes[:2] == b"ab"
        assert (completion.usage.prompt_bytes, completion.usage.completion_bytes) == (2, 3)


class TestCharacters:
    WORDS = ("é".encode()[:1], "é".encode()[1:], "€".encode(), b"a", b"b", b"<e>")

    async def test_bytes_merge_to_characters(self):
        lm = ToyLM(self.WORDS, seed=1)
        brute = Brute(lm, (b"<e>",))
        p = await exact(lm, (b"<e>",)).next("a")
        chars = await p.chars(top=None)
        base = brute.prefix([*b"a"])
        for char in "é€ab":
            want = brute.prefix([*b"a", *char.encode()]) / base
            # next-byte distributions are normalised over what keeps on; so is their product
            assert math.exp(chars[char]) == pytest.approx(want, rel=1e-6)
        assert math.exp(chars["EOS"]) == pytest.approx(brute.ended([*b"a"], plain=1) / base)
        assert list(chars) == sorted(chars, key=lambda c: -chars[c])
        assert p[257] == pytest.approx(chars["EOS"])

    async def test_the_likeliest_few_come_first(self):
        p = await exact(ToyLM(self.WORDS, seed=1), (b"<e>",)).next("a")
        every = await p.chars(top=None)
        for top in range(1, len(every) + 1):
            assert list(await p.chars(top=top)) == list(every)[:top]

    async def test_a_character_that_the_context_began(self):
        p = await exact(ToyLM(self.WORDS, seed=1)).next(b"a\xc3")
        assert set(await p.chars()) == {"é"}


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"max_bytes": 0}, InvalidValueError, "`max_bytes` is 0"),
            ({"max_bytes": -3}, InvalidValueError, "`max_bytes` is -3"),
            ({"max_bytes": 2.5}, InvalidTypeError, "`max_bytes` is 2.5"),
            ({"max_bytes": True}, InvalidTypeError, "`max_bytes` is True"),
            ({"max_tokens": 0}, InvalidValueError, "`max_tokens` is 0"),
            ({"temperature": math.nan}, InvalidValueError, "`temperature` is nan"),
            ({"temperature": -1}, InvalidValueError, "`temperature` is -1"),
            ({"temperature": "hot"}, InvalidTypeError, "`temperature` is 'hot'"),
            ({"temperature": math.inf}, InvalidValueError, "`temperature` is inf"),
            ({"top_p": 0}, InvalidValueError, "`top_p` is 0"),
            ({"top_p": 1.5}, InvalidValueError, "`top_p` is 1.5"),
            ({"min_p": 2}, InvalidValueError, "`min_p` is 2"),
            ({"repetition_penalty": 0}, InvalidValueError, "`repetition_penalty` is 0"),
            ({"repetition_penalty": math.nan}, InvalidValueError, "`repetition_penalty` is nan"),
            ({"repetition_penalty": "1,3"}, InvalidTypeError, "`repetition_penalty` is '1,3'"),
            (
                {"repetition_penalty": 2, "unit": "byte"},
                InvalidValueError,
                "penalty on tokens",
            ),
            ({"repetition_penalty": 2, "mask": lambda text: b"a"}, InvalidValueError, "leave out `mask`"),
            ({"top_k": 0}, InvalidValueError, "`top_k` is 0"),
            ({"seed": -1}, InvalidValueError, "`seed` is -1"),
            ({"n": 0}, InvalidValueError, "`n` is 0"),
            ({"n": 3, "best_of": 2}, InvalidValueError, "`best_of` is 2"),
            ({"stop": ""}, InvalidValueError, "`stop` is ''"),
            ({"stop": ["a", b""]}, InvalidValueError, "`stop` is b''"),
            ({"stop": [3]}, InvalidTypeError, "`stop` is 3"),
            ({"stop": 3}, InvalidTypeError, "`stop` is 3"),
            ({"unit": "word"}, InvalidValueError, "`unit` is 'word'"),
            ({"unit": "byte", "max_tokens": 3}, InvalidValueError, "`max_tokens` is 3"),
            ({"unit": "token", "mask": lambda text: b"a"}, InvalidValueError, "`unit` is 'token'"),
            ({"mask": 3}, InvalidTypeError, "`mask` is 3"),
            ({"method": "magic"}, InvalidValueError, "`method` is 'magic'"),
        ],
    )
    async def test_options(self, options, error, words):
        with pytest.raises(error, match=words.replace("(", r"\(")):
            await exact(ToyLM(TOY)).complete("ab", **options)

    @pytest.mark.parametrize(
        ("prompt", "error", "words"),
        [
            (3.5, InvalidTypeError, "`prompt` is 3.5"),
            (None, InvalidTypeError, "`prompt` is None"),
            ("a\ud800", InvalidValueError, "lone surrogate at 1"),
            (("a", 99), InvalidValueError, r"`prompt\[1\]` is 99"),
            (("a", 2.5), InvalidTypeError, r"`prompt\[1\]` is 2.5"),
            (("z", 1), InvalidValueError, "no tokens of this model spell"),
            ("z", InvalidValueError, "no token of this model contains that byte"),
            ([{"role": "user", "content": "hi"}], InvalidValueError, "no chat template"),
            ([{"role": "user"}], InvalidTypeError, r"`prompt\[0\]`"),
        ],
    )
    async def test_prompts(self, prompt, error, words):
        with pytest.raises(error, match=words):
            await exact(ToyLM(TOY)).complete(prompt)

    def test_whole_floats_are_integers(self):
        """R has no others."""
        assert repr(whole_number("max_bytes", 20.0, 1)) == "20"


@pytest.mark.slow
def test_utf8_is_what_python_reads():
    """All pairs of bytes: whether a text may go on so, and how many bytes are then still to come."""

    def reads(text):
        try:
            return bool(text.decode())
        except UnicodeDecodeError:
            return False

    more = [bytes(rest) for n in range(4) for rest in itertools.product((0x80, 0x90, 0xA0, 0xBF), repeat=n)]
    for pair in map(bytes, itertools.product([0x41, *range(0x80, 256)], range(256))):
        state = utf8.advance(utf8.START, pair)
        still = {len(rest) for rest in more if reads(pair + rest)}
        assert (state != utf8.BROKEN) == bool(still), pair
        assert (state == utf8.START) == (0 in still), pair
