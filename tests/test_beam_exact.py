"""The beam against brute force: exact with nothing dropped, a lower bound otherwise."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.backends.async_lm import cached
from genlm.bytes.errors import ImpossibleByteError
from genlm.bytes.trie import EOS, TrieMode, blocks


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Toys have few tokens: here nodes are large from three on, everywhere else from `LARGE` on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "LARGE", 2)
        yield


ALL = 10**9
texts = st.lists(st.sampled_from(b"abc"), max_size=6).map(bytes)
seeds = st.integers(0, 2**20)
thorough = examples(60)


def run(coroutine):
    return asyncio.run(coroutine)


async def start(lm, *, K=ALL, threshold=0.0, eos=(), heal=False, **more):
    return await ByteBeamState.initial(
        lm, BeamParams(K, threshold, eos_byte_strings=list(eos), heal=heal), **more
    )


def close(log, p):
    """A log-probability against a probability, to 1e-9 relative."""
    if p == 0.0:
        return log == -math.inf
    return abs(math.exp(log - math.log(p)) - 1.0) < 1e-9


def check_next(logp, want):
    for symbol, p in want.items():
        assert close(logp[symbol], p), (symbol, logp[symbol], math.log(p) if p else None)
    assert abs(np.exp(logp.ps).sum() + sum(math.exp(x) for x in logp.units.values()) - 1.0) < 1e-9


@st.composite
def models(draw):
    """A toy over a random vocabulary; perhaps with tokens that end a sequence, one spelled twice."""
    spellings = draw(vocabularies(complete=draw(st.booleans())))  # or with bytes that no token begins with
    eos = draw(st.sampled_from([(), (EOS_STRING,), (b"ab",), (EOS_STRING, b"cc")]))
    for string in eos:
        spellings += [string] * draw(st.integers(1, 2))
    if EOS_STRING in eos and draw(st.booleans()):
        spellings += [b"<", b"e", b">", b"c<", b"e>a"]
    return ToyLM(
        draw(st.permutations(spellings)), seed=draw(seeds), bos=draw(st.sampled_from([None, 0]))
    ), eos


@given(models(), texts)
@thorough
def test_reading_symbol_by_symbol(model, text):
    lm, eos = model

    async def go():
        beam, brute = await start(lm, eos=eos), Brute(lm, eos)
        for i, symbol in enumerate(text):
            beam = await (beam << symbol)
            assert close(beam.logZ, brute.prefix(text[: i + 1]))
            if not len(beam):
                return
        check_next(await beam.logp_next(), brute.next(text))
        ended = await (beam << EOS)
        assert close(ended.logZ, brute.ended(text))

    run(go())


@given(models(), texts, texts, st.data())
@thorough
def test_a_prompt_is_text_even_where_it_spells_an_end(model, before, after, data):
    """EOS strings in the prompt are text, also at its very start and end; after it they are special."""
    lm, eos = model
    end = data.draw(st.sampled_from(sorted(eos) or [b""]))
    prompt = data.draw(
        st.sampled_from([end, end + before, before + end, end + end, before + end[:2], before])
    )[:7]

    async def go():
        beam, brute = await start(lm, eos=eos), Brute(lm, eos)
        try:
            beam = await beam.prefill(prompt)
        except ImpossibleByteError as error:
            assert brute.prefix(prompt[: error.offset + 1], plain=len(prompt)) == 0.0
            return
        for i in range(min(3, len(after)) + 1):
            text = prompt + after[:i]
            if i:
                beam = await (beam << after[i - 1])
            p = brute.prefix(text, plain=len(prompt))
            assert close(beam.logZ, p)
            if p == 0.0:
                return
        check_next(await beam.logp_next(), brute.next(text, plain=len(prompt)))
        assert close((await (beam << EOS)).logZ, brute.ended(text, plain=len(prompt)))

    run(go())


@given(models(), texts, texts)
@thorough
def test_prefill_in_two_parts_is_prefill_in_one(model, one, two):
    lm, eos = model
    if eos:
        one += sorted(eos)[0]
    one, two = one[:5], two[:2]

    async def go():
        beam = await start(lm, eos=eos)
        try:
            whole = await beam.prefill(one + two)
        except ImpossibleByteError:
            return
        parts = await (await beam.prefill(one)).prefill(two)
        assert parts.logZ == pytest.approx(whole.logZ, abs=1e-9)
        if whole.logZ == -np.inf:  # tokens that would go on are no text from here on
            return
        np.testing.assert_allclose(
            np.exp((await parts.logp_next()).ps), np.exp((await whole.logp_next()).ps), atol=1e-12
        )

    run(go())


@given(models(), texts, st.integers(1, 4), st.sampled_from([0.0, 0.001, 0.05, 0.3]), st.booleans())
@thorough
def test_any_beam_gives_a_lower_bound(model, text, K, threshold, heal):
    lm, eos = model

    async def go():
        beam, brute = await start(lm, K=K, threshold=threshold, eos=eos, heal=heal), Brute(lm, eos)
        for i, symbol in enumerate(text):
            beam = await (beam.prune() << symbol)
            p = brute.prefix(text[: i + 1])
            assert beam.logZ <= (math.log(p) if p else -math.inf) + 1e-9
            if not len(beam):
                return
        logp = await beam.logp_next()
        assert abs(np.exp(logp.ps).sum() - 1.0) < 1e-9 and logp[None] == -math.inf

    run(go())


@given(models(), texts, st.integers(1, 4), st.sampled_from([0.0, 0.01, 0.2]))
@thorough
def test_prune_keeps_exactly_what_it_says(model, text, K, threshold):
    lm, eos = model

    async def go():
        beam = await start(lm, eos=eos)
        for symbol in text:
            beam = await (beam << symbol)
        beam = ByteBeamState(beam.states, BeamParams(K, threshold))
        weights = [s.weight for s in beam]
        assert weights == sorted(weights, reverse=True)
        least = math.log(threshold) if threshold else -math.inf
        heavy = [s for s in beam.states if s.weight - beam.logZ > least]
        assert beam.prune().states == heavy[:K]

    run(go())


@given(models(), texts)
@thorough
def test_modes_round_trip(model, text):
    lm, eos = model

    async def go():
        beam = await start(lm, eos=eos)
        for symbol in text:
            beam = await (beam << symbol)
        there = beam.with_mode(TrieMode.WITHOUT_EOS)
        back = there.with_mode(TrieMode.WITH_EOS)
        assert [s.weight for s in back] == pytest.approx([s.weight for s in beam], abs=1e-12)
        assert [s.node for s in back] == [s.node for s in beam]
        if len(beam):
            np.testing.assert_allclose((await back.logp_next()).ps, (await beam.logp_next()).ps, atol=1e-12)
        brute = Brute(lm)  # nothing ends a sequence: what the other mode means
        if text and not eos:
            assert close(there.logZ, brute.prefix(text))
        assert all(s.mode is TrieMode.WITHOUT_EOS for s in there)
        assert beam.with_mode(TrieMode.WITH_EOS).states == beam.states

    run(go())


def test_modes_count_what_goes_on_below():
    """Inside a token that may become an end: counted as text in one mode, left out in the other."""
    lm = ToyLM([b"a", b"ab", b"abc"], seed=3)

    async def go():
        beam = await start(lm, eos=[b"abc"])
        for symbol in b"ab":
            beam = await (beam << symbol)
        p = lm.probs([])
        inside = max(beam, key=lambda s: len(s.partial))
        assert bytes(inside.partial) == b"ab" and math.exp(inside.weight) == pytest.approx(p[1])
        # These bytes were read as no part of an end, and stay so: P(`abc`) is that of the symbol EOS.
        assert math.exp(inside.with_mode(TrieMode.WITHOUT_EOS).weight) == pytest.approx(p[1])
        beam = (await start(lm, eos=[b"abc"])).with_mode(TrieMode.WITHOUT_EOS)
        for symbol in b"ab":
            beam = await (beam << symbol)
        wider = max(beam, key=lambda s: len(s.partial))
        assert math.exp(wider.weight) == pytest.approx(p[1] + p[2])
        narrower = wider.with_mode(TrieMode.WITH_EOS)
        assert math.exp(narrower.weight) == pytest.approx(p[1])
        assert math.exp(narrower.with_mode(TrieMode.WITHOUT_EOS).weight) == pytest.approx(p[1] + p[2])

    run(go())


def test_a_mode_can_leave_a_candidate_without_weight_and_give_it_back():
    lm = ToyLM([b"a", b"<e>"], seed=1)

    async def go():
        beam = (await start(lm, eos=[b"<e>"])).with_mode(TrieMode.WITHOUT_EOS)
        beam = await (beam << ord("<"))
        gone = beam.with_mode(TrieMode.WITH_EOS)
        assert gone.logZ == -math.inf and len(gone) == 1 and not len(gone.prune())
        assert gone.with_mode(TrieMode.WITHOUT_EOS).logZ == pytest.approx(beam.logZ)
        assert "(" in repr(gone)

    run(go())


units = st.sampled_from([(b"<s>",), (b"ab", b"<s>")])


@given(st.data(), units, seeds)
@thorough
def test_atomic_units(data, atomic, seed):
    """A unit is one symbol, in `<<` and in a context alike; its spelling by other tokens is not it."""
    spellings = [*data.draw(vocabularies(most=5)), b"<", b"s", b">", b"<s>", b"<s>", b"ab"]
    lm = ToyLM(spellings, seed=seed)
    symbols = data.draw(st.lists(st.sampled_from([*b"abc<", *atomic]), max_size=4))

    async def go():
        opts = {"atomic_byte_strings": list(atomic)}
        beam, brute = await start(lm, trie_opts=opts), Brute(lm, units=atomic)
        assert opts == {"atomic_byte_strings": list(atomic)}
        read = beam
        for symbol in symbols:
            read = await (read << symbol)
        p = brute.prefix(symbols)
        assert close(read.logZ, p)
        if p == 0.0:
            return
        want = brute.next(symbols, units=atomic)
        logp = await read.logp_next()
        check_next(logp, {s: q for s, q in want.items() if s != EOS})
        if symbols:
            filled = await beam.prefill(symbols)
            assert filled.logZ == pytest.approx(read.logZ)

    run(go())


def test_units_are_found_in_bytes():
    lm = ToyLM([b"a", b"b", b"ab", b"<s>", b"<s>>", b"<", b"s", b">"], seed=5)
    opts = {"atomic_byte_strings": [b"<s>", b"<s>>"]}

    async def go():
        beam = await start(lm, trie_opts=opts)
        one = await beam.prefill(b"a<s>b<s>>")
        other = await beam.prefill([ord("a"), b"<s>", ord("b"), b"<s>>"])
        assert (
            one.logZ
            == other.logZ
            == pytest.approx(
                math.log(Brute(lm, units=[b"<s>", b"<s>>"]).prefix([ord("a"), b"<s>", ord("b"), b"<s>>"]))
            )
        )
        assert bytes(one.states[0].partial) == b"<s>>"
        spelled_out = await beam.prefill(list(b"a<s>"))
        assert not any(t in (3, 4) for s in spelled_out for t in s.lm_state.context)

    run(go())


@given(vocabularies(most=6), seeds, st.data())
@thorough
def test_ids_logits_and_empty_tokens(spellings, seed, data):
    """Holes in the ids, logits without tokens, tokens without logits, empty spellings."""
    spellings = [*spellings, b"", b""]
    ids = sorted(data.draw(st.sets(st.integers(0, 30), min_size=len(spellings), max_size=len(spellings))))
    logits = max(ids) + 1 + data.draw(st.sampled_from([0, 7, -1, -3]))
    lm = ToyLM(spellings, seed=seed, ids=ids, logits=max(2, logits))
    text = data.draw(texts)[:4]

    async def go():
        beam, brute = await start(lm), Brute(lm)
        for symbol in text:
            beam = await (beam << symbol)
        p = brute.prefix(text)
        assert close(beam.logZ, p)
        if p:
            check_next(await beam.logp_next(), brute.next(text))

    run(go())


@pytest.mark.parametrize("eos", [(), (EOS_STRING,)])
def test_sampling_follows_the_chain_rule(eos):
    """Every text of up to 3 bytes is drawn with the probability that brute force gives it."""
    lm, total = ToyLM(TOY, seed=11), 0.0
    brute = Brute(lm, eos)

    async def go():
        nonlocal total
        beam = await start(lm, eos=eos)
        Z = sum(brute.prefix([s]) for s in b"abc<") + brute.ended([])
        pending = [[]]
        while pending:
            script = pending.pop()
            p, asked = 1.0, 0

            def draw(probs, script=script):
                nonlocal p, asked
                asked += 1
                if asked > len(script):
                    pending.extend([*script, s] for s, q in probs.items() if q > 0)
                    raise StopAsyncIteration
                p *= probs[script[asked - 1]]
                return script[asked - 1]

            try:
                text = await beam.sample(b"", 3, draw=draw)
            except (StopAsyncIteration, RuntimeError):
                continue
            ended = script[-1] == EOS
            assert text == bytes(script[:-1] if ended else script)
            want = (brute.ended(text) if ended else brute.prefix(text)) / Z
            assert p == pytest.approx(want, rel=1e-9)
            total += p

    run(go())
    assert total == pytest.approx(1.0, abs=1e-9)


def test_sample_frequencies():
    """Drawn for real, with a fixed seed: frequencies within five standard errors of brute force."""
    lm, n = ToyLM([b"a", b"ab", b"b", b"<e>"], seed=4), 3000
    rng = np.random.default_rng(0)

    def draw(probs):
        keys = list(probs)
        return keys[rng.choice(len(keys), p=np.fromiter(probs.values(), float) / sum(probs.values()))]

    async def go():
        beam = await start(lm, eos=[b"<e>"])
        counts: dict[bytes, int] = {}
        for _ in range(n):
            text = await beam.sample(b"", 1, draw=draw)
            counts[text] = counts.get(text, 0) + 1
        return counts

    counts, want = run(go()), Brute(lm, [b"<e>"]).next([])
    assert set(counts) == {b"a", b"b", b""}
    for text, count in counts.items():
        p = want[text[0] if text else EOS]
        assert abs(count / n - p) < 5 * math.sqrt(p * (1 - p) / n)


@given(models(), texts.filter(bool), st.integers(1, 4), st.sampled_from([0.0, 0.05]))
@thorough
def test_what_pruning_discards_is_not_evaluated(model, text, K, threshold):
    """Reading that knows of the `prune` to come, against the eager way: the same beam, no more contexts."""
    lm, eos = model

    async def read(told):
        cached(lm).clear_cache()
        lm.asked.clear()
        beam = await start(lm, K=K, threshold=threshold, eos=eos)
        for symbol in text:
            beam = (await beam.advance(symbol, pruned=told)).prune()
        return [(s.weight, s.lm_state.context, bytes(s.partial)) for s in beam], set(lm.asked)

    (eager, all_asked), (lazy, asked) = run(read(False)), run(read(True))
    assert lazy == eager and asked <= all_asked


def test_it_does_save_contexts():
    asked = []
    for told in (False, True):
        lm = ToyLM([b"a", b"b", b"ab", b"ba", b"aba"], seed=3)

        async def read(lm=lm, told=told):
            beam = await start(lm, K=2)
            for symbol in b"abababab":
                beam = (await beam.advance(symbol, pruned=told)).prune()
            return len(lm.asked)

        asked.append(run(read()))
    assert asked[1] < asked[0]
