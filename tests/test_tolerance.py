"""Beams with a tolerance: light extensions wait, and every answer says how far off it may be."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from test_beam_exact import close, models, texts
from toy import EOS_STRING, BatchingToy, FixedLM, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.byte_lm.constants import ToleranceConstants
from genlm.bytes.byte_lm.deferred import DeferredQueue
from genlm.bytes.byte_lm.error_bounds import DroppedMass, Slack
from genlm.bytes.byte_lm.prior import token_prior
from genlm.bytes.byte_lm.threshold import ThresholdRule
from genlm.bytes.byte_lm.tolerance import ToleranceRule
from genlm.bytes.errors import BudgetExceededError, ImpossibleByteError
from genlm.bytes.trie import EOS, TokenByteTrie, TrieMode

tolerances = st.sampled_from([0.5, 0.1, 0.02, 1e-3, 1e-6])
thorough = examples(60)


def run(coroutine):
    return asyncio.run(coroutine)


async def start(lm, params=None, **more):
    return await ByteBeamState.initial(lm, params, **more)


def variation(logp, want):
    return 0.5 * sum(abs(math.exp(logp[s]) - p) for s, p in want.items())


@given(models(), texts)
@thorough
def test_a_tiny_tolerance_is_exact(model, text):
    lm, eos = model
    brute = Brute(lm, eos)

    async def go():
        beam = await start(lm, BeamParams(tolerance=1e-100, eos_byte_strings=list(eos), heal=False))
        for i in range(len(text) + 1):
            if i:
                beam = await (beam.prune() << text[i - 1])
            assert beam.logZ == pytest.approx(math.log(max(brute.prefix(text[:i]), 1e-300)), abs=1e-9) or (
                brute.prefix(text[:i]) == 0.0
            )
            if brute.prefix(text[:i]) == 0.0:
                return
        want = brute.next(text)
        logp = await beam.logp_next()
        assert variation(logp, want) < 1e-9

    run(go())


@given(models(), texts, tolerances, st.sampled_from([None, 1, 3]), st.sampled_from([1000, 1, 2]))
@thorough
def test_bounds_hold_the_truth_and_slack_the_error(model, text, tolerance, K, late):
    """Also with a cap on the candidates, or on what is evaluated late, and whatever was dropped on the
    way."""
    lm, eos = model
    brute = Brute(lm, eos)

    async def go():
        ends = list(eos)
        params = BeamParams(K, tolerance=tolerance, eos_byte_strings=ends, heal=False, max_late_contexts=late)
        beam = await start(lm, params)
        for i in range(len(text) + 1):
            if i:
                beam = await (beam.prune() << text[i - 1])
            p = brute.prefix(text[:i])
            lower, upper = beam.bounds()
            assert math.exp(lower) <= p + 1e-12 and p <= math.exp(upper) + 1e-12
            assert 0.0 <= beam.slack.expected <= beam.slack.bound <= 1.0
            if p == 0.0 or not len(beam):
                return
            assert 1.0 - math.exp(lower) / p <= beam.slack.bound + 1e-9
            if beam.logZ == -math.inf:
                return
            logp = await beam.logp_next()
            want = brute.next(text[:i])
            assert variation(logp, want) <= logp.slack.bound + 1e-9
            assert abs(np.exp(logp.ps).sum() - 1.0) < 1e-9

    run(go())


@given(models(), texts, st.integers(1, 3), st.sampled_from([0.0, 0.05, 0.3]))
@thorough
def test_bounds_hold_with_a_threshold_too(model, text, K, threshold):
    lm, eos = model
    brute = Brute(lm, eos)

    async def go():
        beam = await start(lm, BeamParams(K, threshold, eos_byte_strings=list(eos), heal=False))
        for i, byte in enumerate(text):
            beam = await (beam.prune() << byte)
            lower, upper = beam.bounds()
            p = brute.prefix(text[: i + 1])
            assert math.exp(lower) <= p + 1e-12 and p <= math.exp(upper) + 1e-12
            if not len(beam) or beam.logZ == -math.inf:
                return
            logp = await beam.logp_next()
            assert variation(logp, brute.next(text[: i + 1])) <= logp.slack.bound + 1e-9

    run(go())


@given(models(), texts)
@thorough
def test_exact_is_exact(model, text):
    lm, eos = model
    brute = Brute(lm, eos)

    async def go():
        beam = await start(lm, BeamParams(exact=True, eos_byte_strings=list(eos), heal=False))
        for i, byte in enumerate(text):
            beam = await (beam.prune() << byte)
            p = brute.prefix(text[: i + 1])
            assert close(beam.logZ, p)
            assert beam.bounds() == (beam.logZ, beam.logZ) and beam.slack == (0.0, 0.0)
            if p == 0.0:
                return
        for symbol, p in brute.next(text).items():
            assert close((await beam.logp_next())[symbol], p)

    run(go())


@given(st.lists(st.floats(0.05, 1.0), min_size=5, max_size=5), st.sampled_from([None, 0.3]))
@examples(20)
async def test_bounds_hold_in_whatever_mode_the_text_goes_on(weights, tolerance):
    """What was dropped inside `ab`, read as text, while `ab` was an end may be more as text."""
    lm = FixedLM([b"c", b"ca", b"a", b"aa", b"ab"], rule=lambda context: np.array(weights) / sum(weights))

    async def read(**more):
        beam = await start(lm, BeamParams(eos_byte_strings=[b"ab"], heal=False, **more))
        return (await beam.prefill(b"ca")).prune().with_mode(TrieMode.WITHOUT_EOS)

    truth = await read(exact=True)
    one = await (read(K=1) if tolerance is None else read(K=1, tolerance=tolerance))
    lower, upper = one.bounds()
    assert lower <= truth.logZ + 1e-9 and truth.logZ <= upper + 1e-9


@given(st.text("abc", min_size=4, max_size=12), st.integers(0, 999))
@examples(20)
async def test_what_was_dropped_stays_missing(text, seed):
    beam = await start(ToyLM([b"a", b"b", b"c", b"ab", b"bc", b"ca", b"abc"], seed=seed), BeamParams(K=1))
    missing = [0.0]
    for byte in b"abcabc" + text.encode():  # which `K=1` cannot hold
        beam = await (beam.prune() << byte)
        missing.append(beam.dropped.nats)
    assert missing == sorted(missing) and missing[-1] > 0.0


@pytest.mark.parametrize("tolerance", [0.01, 0.3])
@pytest.mark.parametrize("before", [1, 2, 3, 4])
async def test_who_waited_has_read_each_byte_in_the_mode_of_the_others(tolerance, before):
    """The end `yab`, read as text up to the end of the prompt: whoever is woken later weighs what is true."""
    lm = FixedLM([b"xyaq", b"x", b"yab", b"yabc"], rule=lambda context: [0.5, 0.02, 0.3, 0.18])

    async def read(params):
        beam = await (await start(lm, params)).prefill(b"xyab"[:before])
        for byte in b"xyab"[before:]:
            beam = await (beam.prune() << byte)
        return beam

    truth = await read(BeamParams(exact=True, eos_byte_strings=[b"yab"]))
    found = await read(BeamParams(tolerance=tolerance, eos_byte_strings=[b"yab"], heal=False))
    assert found.logZ == pytest.approx(truth.logZ)


@given(
    st.lists(st.tuples(st.floats(-30.0, 0.0), st.floats(-30.0, 0.0)), max_size=5),
    st.floats(-30.0, 0.0),
    st.booleans(),
)
def test_no_more_is_expected_than_can_be(droppings, kept, of_next):
    """Whatever was dropped, and whatever is left now: a share, and at most the certified one."""
    dropped = DroppedMass()
    for weight, rest in droppings:
        dropped = dropped.more([weight], rest).aged()
    expected, bound = Slack.of(kept, DeferredQueue(), dropped, of_next=of_next)
    assert 0.0 <= expected <= bound <= 1.0


async def test_bounds_of_a_sure_text():
    """Its log-probability is 0, and comes out above that by round-off."""
    beam = await start(ToyLM([b"a", b"a"]), BeamParams(exact=True))
    for n in range(1, 12):
        beam = await (beam.prune() << ord("a"))
        assert beam.bounds() == (beam.logZ, beam.logZ) == pytest.approx((0.0, 0.0)), n


async def test_exact_refuses_past_its_budget():
    beam = await start(ToyLM([b"a", b"aa", b"aaa"]), BeamParams(exact=True, max_candidates=20))
    with pytest.raises(BudgetExceededError, match="`max_candidates` is 20"):
        await beam.prefill(b"a" * 12)


@given(vocabularies(complete=False), st.text("abc", min_size=1, max_size=12), st.integers(0, 9), tolerances)
@thorough
async def test_prefill_is_reading_byte_by_byte(words, text, seed, tolerance):
    """With a model that batches, prefill asks ahead; with one that does not, it reads byte by byte."""
    found = []
    for kind in (ToyLM, BatchingToy):
        llm = kind(words, seed=seed, dtype=__import__("torch").float32)
        beam = await start(llm, BeamParams(tolerance=tolerance), initial_context=[])
        try:
            beam = await beam.prefill(text.encode())
        except ImpossibleByteError as error:
            found.append((error.offset, error.byte))
        else:
            found.append(
                (
                    [(round(s.weight, 3), s.lm_state.context, s.partial) for s in beam],
                    sorted((round(w.weight, 3), w.state.lm_state.context) for w in beam.deferred),
                )
            )
    assert found[0] == found[1]


def light_carrier(words=(b"a", b"ab", b"c", b"b")):
    """`a` then `c` is possible only by the token `a`, of a hundredth; `ab` is the heavy one."""
    return FixedLM(list(words), rule=lambda context: [0.01, 0.98, 0.005, 0.005])


async def test_the_carrier_of_a_byte_waits_and_is_woken():
    beam = await start(light_carrier(), BeamParams(tolerance=0.05))
    beam = await (beam << ord("a"))
    logp = await beam.logp_next()
    assert len(beam.deferred) == 0 and math.exp(logp[ord("b")]) > 0.98
    assert 0.0 < math.exp(logp[ord("c")]) < 1e-4, "its carrier waits: unlikely, not impossible"
    assert logp.slack.bound == pytest.approx(0.01 / (0.98 + 0.01), rel=1e-3)
    after = await (beam << ord("c"))
    assert after.logZ == pytest.approx(math.log(0.01 * 0.005))
    assert [s.lm_state.context for s in after] == [[0]]


@pytest.mark.parametrize("surprise", [0.03, 1e-300])
@pytest.mark.parametrize("recent", [2, 1])
async def test_a_surprise_makes_it_probe(surprise, recent):
    """`a` waits beside `ab`, far below the tolerance; the `y` after them surprises `ab`, and `by` is what `a`
    expects. Without looking, or looking at later ones only, it would go on waiting."""
    first, after_a, usual = [0.001, 0.997, 0.001, 0.001], [0.0, 0.1, 0.9, 0.0], [0.4, 0.3, 0.299, 0.001]
    lm = FixedLM(
        [b"a", b"ab", b"by", b"y"], rule=lambda c: first if not c else after_a if c == [0] else usual
    )
    numbers = ToleranceConstants(surprisal_trigger=surprise, probe_window=recent)
    beam = await start(lm, BeamParams(rule=ToleranceRule(0.01, constants=numbers)))
    for byte in b"ab":
        beam = await (beam << byte)
    assert [w.state.lm_state.context for w in beam.deferred] == [[0]]
    beam = await (beam << ord("y"))
    found = surprise == 0.03 and recent == 2
    assert math.exp(beam.logZ) == pytest.approx(0.997 * 0.001 + (0.001 * 0.9 if found else 0.0))
    assert len(beam.deferred) == (not found)


@pytest.mark.parametrize(
    ("cost", "tolerance", "looked_at"), [(4.0, 0.3, 3), (4.0, 0.42, 2), (3.6, 0.42, 2), (3.6, 0.6, 1)]
)
async def test_it_probes_more_the_greater_the_surprise_and_the_finer_the_tolerance(
    cost, tolerance, looked_at
):
    """Five ways to spell `a` wait; the `c` after `ab` costs so many nats. The heaviest are probed."""
    first, c = [0.001, 0.0014, 0.0013, 0.0012, 0.0011, 0.994, 0.0, 0.0], math.exp(-cost)
    lm = FixedLM(
        [b"a"] * 5 + [b"ab", b"bc", b"c"],
        rule=lambda context: [*[0.0] * 5, 0.5 - c, 0.5, c] if context else first,
    )
    rule = ToleranceRule(tolerance, constants=ToleranceConstants(nats_per_probe=1.5))
    beam = await start(lm, BeamParams(rule=rule))
    beam = await (await (beam << ord("a")) << ord("b"))
    lm.asked.clear()
    beam = await (beam << ord("c"))
    assert sorted(lm.asked) == [*[(1,), (2,), (3,)][:looked_at], (5,)]
    assert len(beam.deferred) == 5 - looked_at


async def test_a_surprise_probes_the_nearest_to_the_tolerance_and_not_the_heaviest():
    """`a` waits at five times the weight of `c`, which came later, when the text was less likely: beside the
    others of its place `c` is twice as heavy as `a` was, and one only is probed."""
    words = [b"a", b"ab", b"c", b"cd", b"dy", b"y", b"x"]
    a, ab, c, cd, dy, y, x = range(7)
    rows = {
        (): {a: 0.004, ab: 0.99, x: 0.006},
        (ab,): {c: 0.0008, cd: 0.1, x: 0.8992},
        (ab, c): {dy: 0.9, x: 0.1},
    }
    usual = {y: 0.001, x: 0.999}
    lm = FixedLM(words, rule=lambda context: [rows.get(tuple(context), usual).get(t, 0.0) for t in range(7)])
    beam = await start(
        lm, BeamParams(rule=ToleranceRule(0.01, constants=ToleranceConstants(nats_per_probe=20.0)))
    )
    for byte in b"abcd":
        beam = await (beam << byte)
    assert [w.state.lm_state.context for w in beam.deferred] == [[ab, c], [a]]
    beam = await (beam << ord("y"))
    assert math.exp(beam.logZ) == pytest.approx(0.99 * (0.1 * 0.001 + 0.0008 * 0.9))
    assert [w.state.lm_state.context for w in beam.deferred] == [[a]]


async def test_those_near_the_bar_go_along_with_a_forward_that_goes_out():
    """Six ways to spell `a`: one is due, the next three go along; one is as near, one too light."""
    first = [0.001, 0.035, 0.04, 0.6, 0.05, 0.034, 0.24]
    lm = FixedLM([b"a"] * 6 + [b"b"], rule=lambda _: first)
    beam = await (await start(lm, BeamParams(tolerance=0.1)) << ord("a"))
    lm.asked.clear()
    beam = await (beam << ord("b"))
    assert sorted(lm.asked) == [(1,), (2,), (3,), (4,)]
    assert [w.state.lm_state.context for w in beam.deferred] == [[5], [0]]
    assert math.exp(beam.logZ) == pytest.approx((0.035 + 0.04 + 0.6 + 0.05) * 0.24)


async def test_without_a_forward_nobody_goes_along():
    """`a` ends inside `ab`: its bar is 0.6 while a text is read, and 0.25 is near enough to go along."""
    lm = FixedLM([b"a", b"ab", b"c"], rule=lambda _: [0.25, 0.74, 0.01])
    beam = await (await start(lm, BeamParams(tolerance=0.02)) << ord("a"))
    lm.asked.clear()
    beam = await (beam << ord("b"))
    assert not lm.asked and len(beam.deferred) == 1


async def test_who_waits_is_carried_along():
    beam = await start(light_carrier(), BeamParams(tolerance=0.05))
    beam = await (await beam.prefill(b"ab")).prefill(b"ab")
    assert [w.state.lm_state.context for w in beam.deferred] == [[1, 0], [0]]  # `a` in either place
    assert len(beam.prune().deferred) == len(beam.with_mode(TrieMode.WITHOUT_EOS).deferred) == 2
    assert "Deferred:\x1b[0m 2" in repr(beam)
    assert beam.bounds().upper > beam.bounds().lower


async def test_waiting_candidates_come_before_healing(monkeypatch):
    from genlm.bytes.byte_lm import beam as module

    monkeypatch.setattr(module.TokenHealer, "try_heal", lambda *_: pytest.fail("healed"))
    beam = await (await start(light_carrier(), BeamParams(tolerance=0.4))).prefill(b"ab")
    beam = await (await start(light_carrier(), BeamParams(tolerance=0.4)) << ord("a"))
    assert len(await (beam << ord("c"))) == 1


async def test_healing_where_nobody_waits():
    lm = FixedLM(
        [b"a", b"abc", b"b"], rule=lambda context: [0.0, 1.0, 0.0] if not context else [0.2, 0.2, 0.6]
    )
    beam = await start(lm, BeamParams(tolerance=0.1))
    beam = await (await (beam << ord("a")) << ord("b"))
    assert len(await (beam << ord("b"))) == 0  # no tokenization of `ab` has any probability but `abc`
    assert (await (beam << ord("b"))).logZ == -math.inf


async def test_the_end_of_the_sequence():
    lm = FixedLM([b"a", b"ab", EOS_STRING], rule=lambda context: [0.05, 0.75, 0.2])
    beam = await start(lm, BeamParams(tolerance=0.1, eos_byte_strings=[EOS_STRING]))
    beam = await beam.prefill(b"a")
    waited = await (beam << EOS)  # only a|EOS can end here, and `a` waits
    assert waited.logZ == pytest.approx(math.log(0.05 * 0.2))
    assert math.exp((await beam.logp_next())[EOS]) > 0.0


def test_default():
    assert BeamParams().tolerance == 5e-4 and BeamParams().K is None
    assert BeamParams(K=5).tolerance is None and BeamParams(exact=True).tolerance is None
    assert BeamParams(K=5, tolerance=0.01).K == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"tolerance": "low"}, "tolerance"),
        ({"tolerance": True}, "tolerance"),
        ({"tolerance": 0.1, "prune_threshold": 0.1}, "prune_threshold"),
        ({"tolerance": 0.1, "exact": True}, "exact"),
        ({"exact": True, "K": 5}, "K"),
        ({"exact": True, "prune_threshold": 0.1}, "prune_threshold"),
        ({"exact": True, "max_candidates": 0}, "max_candidates"),
        ({"exact": True, "max_candidates": 1.5}, "max_candidates"),
        ({"prune_threshold": 0.1}, "K"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        BeamParams(**settings)


def test_the_prior_of_tokens():
    """By hand: four tokens, each drawn with probability 1/4."""
    trie = TokenByteTrie(ToyLM([b"a", b"ab", b"b", b"c"]).byte_vocab)
    assert math.exp(token_prior(trie, b"a")) == pytest.approx(2 / 4)
    assert math.exp(token_prior(trie, b"ab")) == pytest.approx(1 / 4 + 1 / 4 * 1 / 4)
    assert math.exp(token_prior(trie, b"ca")) == pytest.approx(1 / 4 * 2 / 4)
    assert token_prior(trie, b"d") == -math.inf


async def test_a_queue_keeps_at_most_so_many():
    (state,) = (await start(light_carrier(), BeamParams(tolerance=0.5))).states
    queue = DeferredQueue(constants=ToleranceConstants(max_deferred=5))
    gone, kept = queue.push([state] * 8, common_boundary=True).prune(-math.inf)
    assert len(kept) == 5 and len(gone) == 3 and ToleranceConstants().max_deferred == 4096


async def test_a_rule_of_ones_own():
    """Beam search that keeps only hypotheses at a token's end: a class of a few lines."""

    class Greedy(ThresholdRule):
        def prune(self, data):
            heaviest = data.hypotheses[0].weight
            return data.after([state for state in data.hypotheses if state.weight == heaviest])

    lm = FixedLM([b"a", b"ab", b"b"], rule=lambda _: [0.3, 0.6, 0.1])
    beam = await (await start(lm, BeamParams(rule=Greedy()))).prefill(b"ab")
    assert [s.lm_state.context for s in beam.prune()] == [[]] and beam.prune().logZ == math.log(0.6)
    with pytest.raises(ValueError, match="`tolerance`"):
        BeamParams(rule=Greedy(), tolerance=0.1)
    with pytest.raises(TypeError, match="`rule`"):
        BeamParams(rule=5)


async def test_tokenizations():
    """The tokenizer of the toy cuts `ab` as one token."""
    from test_prefill_methods import SpellingTokenizer

    words = [b"a", b"b", b"ab"]
    lm = FixedLM(words, rule=lambda context: [0.3, 0.1, 0.6], bos=2)
    beam = await start(lm, BeamParams(exact=True))
    assert [t.token_ids for t in beam.tokenizations()] == [()]
    lm.tokenizer = SpellingTokenizer(words)
    found = (await beam.prefill(b"ab")).tokenizations()
    assert [(t.token_ids, t.byte_strings, t.partial, t.canonical) for t in found] == [
        ((), (), b"ab", True),
        ((0,), (b"a",), b"b", False),
    ]
    assert [t.posterior for t in found] == pytest.approx([0.6 / 0.63, 0.03 / 0.63])
