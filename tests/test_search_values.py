"""Beams are values: what is asked of one changes no other. And what waits costs no more than it says."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import FixedLM, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteBeamState, TokenByteTrie
from genlm.bytes.byte_lm import prior
from genlm.bytes.byte_lm.constants import ToleranceConstants
from genlm.bytes.byte_lm.deferred import Deferred, DeferredQueue
from genlm.bytes.byte_lm.prior import Segment, token_prior
from genlm.bytes.trie.arrays import TrieArrays

tolerances = st.sampled_from([0.5, 0.1, 0.02, 1e-3])


def held(beam: ByteBeamState) -> Any:
    waiting = sorted((w.history.length, w.state.lm_state.context, w.weight, w.key) for w in beam.deferred)
    return [(s.weight, s.lm_state.context, s.node) for s in beam], waiting, beam.slack


@given(
    vocabularies(most=12, longest=6),
    st.text("aabbc", min_size=4, max_size=14),
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    tolerances,
    st.integers(0, 2**20),
)
@examples(80)
async def test_looking_at_an_older_beam_changes_no_newer_one(words, text, ages, tolerance, seed):
    """After each byte, a beam of a few bytes ago is looked at: those that went on from it do not notice."""

    async def read(looking: bool) -> list[Any]:
        beams = [await ByteBeamState.initial(ToyLM(words, seed=seed), BeamParams(tolerance=tolerance))]
        for n, byte in enumerate(text.encode()):
            beams.append(await (beams[-1].prune() << byte))
            if looking:
                await beams[max(0, n - ages[n % len(ages)])].logp_next()
        return [held(beam) for beam in beams]

    assert await read(True) == await read(False)


async def test_branches_share_what_was_read_and_no_more():
    """Two ways to go on from one beam, one of them looked at on the way, in either order."""
    lm = ToyLM([b"a", b"b", b"ab", b"ba", b"abab", b"bb"], seed=5)
    beam = await (await ByteBeamState.initial(lm, BeamParams(tolerance=0.1))).prefill(b"abab")
    alone = held(await (await (beam << 97) << 98))
    other = await (beam << 98)
    await beam.logp_next()
    await other.logp_next()
    again = await ByteBeamState.initial(lm, BeamParams(tolerance=0.1))
    again = await again.prefill(b"abab")
    assert held(await (await (again << 97) << 98)) == alone


@given(vocabularies(), st.text("abc", max_size=8), tolerances, st.integers(0, 999))
@examples(60)
async def test_slack_counts_nobody_twice(words, text, tolerance, seed):
    """A limit on the candidates that none exceeds changes nothing, what is missing included."""
    found = []
    for K in (None, 10**6):
        beam = await ByteBeamState.initial(ToyLM(words, seed=seed), BeamParams(K, tolerance=tolerance))
        for byte in text.encode():
            beam = await (beam.prune() << byte)
        found.append((beam.slack, (await beam.logp_next()).slack, held(beam)))
    assert found[0] == found[1]


# --- priors -----------------------------------------------------------------------------------------


def prior_by_definition(trie: TokenByteTrie, text: bytes) -> float:
    """Tokens drawn one after another, evenly, until they cover the text."""
    words = [bytes(token) for token in trie.decode]
    if not text:
        return 1.0
    likely = [w for w in words if w.startswith(text)]
    whole = [
        prior_by_definition(trie, text[len(w) :]) for w in words if len(w) < len(text) and text.startswith(w)
    ]
    drawn = [w for w in words if 0x80 <= w[0] < 0xC0] if 0x80 <= text[0] < 0xC0 else words
    return (len(likely) + sum(whole)) / max(len(drawn), 1)


@given(
    vocabularies(b"ab\xc3\xa9", complete=False),
    st.lists(st.sampled_from(b"ab\xc3\xa9"), max_size=7).map(bytes),
    st.lists(st.none() | st.integers(0, 7), min_size=7, max_size=7),
    st.sampled_from([1, 300, prior.REMEMBERED]),
)
@examples(100)
def test_priors_are_what_they_say(words, text, asked, remembered):
    trie = TokenByteTrie(ToyLM(words).byte_vocab)
    segment = Segment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "REMEMBERED", remembered)
        for n, byte in enumerate(text, start=1):
            segment = segment.after(byte)
            if (length := asked[n - 1]) is not None:  # now and then, of one place or another
                segment.prior(trie, min(length, n))
    for length in range(len(text) + 1):
        want = prior_by_definition(trie, text[len(text) - length :])
        assert math.exp(segment.prior(trie, length)) == pytest.approx(want)
        assert math.exp(token_prior(trie, text[len(text) - length :])) == pytest.approx(want)


def test_what_is_remembered_of_segments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that grows as long as a text, all of whose beginnings are asked for."""
    monkeypatch.setattr(prior, "REMEMBERED", 10_000)
    trie, segment = TokenByteTrie(ToyLM([b"a", b"b", b"ab"]).byte_vocab), Segment()
    for byte in b"ab" * 500:
        segment = segment.after(byte)
        segment.prior(trie, 1)
    assert 0 < sum(map(len, prior._known[trie])) <= 2 * prior.REMEMBERED


@pytest.mark.parametrize("length", [50, 100, 200])
async def test_inside_a_long_token_a_byte_costs_its_length(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps in the trie grow with the square of the text, not with its third power or more."""
    steps, child = 0, TrieArrays.child

    def counted(self, node, symbol):
        nonlocal steps
        steps += 1
        return child(self, node, symbol)

    words = [b"ab" * n for n in (1, 2, 4, 250)] + [b"ab" * 250 + b"c", b"a", b"b"]
    lm = FixedLM(words, rule=lambda _: [0.01, 0.01, 0.01, 0.9, 0.05, 0.01, 0.01])
    start = await ByteBeamState.initial(lm, BeamParams(tolerance=1e-3))
    monkeypatch.setattr(TrieArrays, "child", counted)
    beam = await start.prefill(b"ab" * (length // 2))
    assert len(beam) and steps < 10 * length**2


async def test_what_is_found_late_is_aligned_where_it_would_have_been() -> None:
    """At the first common boundary since it was deferred, as what waits there already."""
    (state,) = await ByteBeamState.initial(FixedLM([b"a", b"ab"], rule=lambda _: [0.3, 0.7]), BeamParams())
    extensions = (state << 97).extend_all()
    begun = DeferredQueue().read(97, state.mode, -2.0)
    at_once, late = begun.push(extensions, False), begun
    for boundary in (False, True, True):
        at_once, late = (q.push([], boundary).read(97, state.mode, -2.0) for q in (at_once, late))
    late = late.push_late([Deferred(extension, begun.history) for extension in extensions])
    assert not late.unaligned and [d.key for d in late] == pytest.approx([d.key for d in at_once])


async def test_both_kinds_of_deferred_hypotheses_are_bounded() -> None:
    empty = DeferredQueue(constants=ToleranceConstants(max_deferred=5))
    lm = FixedLM([b"a", b"ab"], rule=lambda _: [0.3, 0.7])
    (state,) = await ByteBeamState.initial(lm, BeamParams())
    for common_boundary in (True, False):
        gone, kept = empty.push([state] * 3, common_boundary).prune(-math.inf)
        assert (len(gone), len(kept)) == (0, 3)
    queue = empty.push([(state << 97).extend_all()[0]] * 3, common_boundary=False)
    queue = queue.read(97, state.mode, -1.0).push([state] * 4, common_boundary=False)
    gone, kept = queue.prune(-math.inf)
    assert (len(gone), len(kept)) == (2, 5)
    assert {w.weight for w in gone} == {min(w.weight for w in queue)} == {math.log(0.3)}


@given(
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6),
    st.lists(st.booleans(), max_size=4),
    st.integers(0, 8),
    st.floats(-6.0, 0.0),
)
@examples(60)
async def test_a_queue_loses_nobody(weights, boundaries, most, bar):
    """Whatever is taken, probed or dropped: each is in what was taken or in what is left."""
    lm = FixedLM(
        [b"a"] * len(weights) + [b"ab"], rule=lambda _: [w / sum(weights) / 2 for w in weights] + [0.5]
    )
    (state,) = await ByteBeamState.initial(lm, BeamParams())
    extensions = (state << 97).extend_all()
    queue = DeferredQueue(constants=ToleranceConstants(max_deferred=4))
    for boundary in boundaries:
        queue = queue.push(extensions, boundary).read(97, state.mode, -1.0)
    taken, left = queue.pop_above(bar - 2.0, 0.5, most)
    assert sorted([d.weight for d in taken] + left.weights) == sorted(queue.weights) and len(taken) <= most
    probed, left = queue.probe(most)
    assert sorted([d.weight for d in probed] + left.weights) == sorted(queue.weights)
    gone, kept = queue.prune(bar)
    assert sorted(gone.weights + kept.weights) == sorted(queue.weights)


def test_brute_agrees_where_nothing_waits():
    """The values above are those of the definition when the tolerance is fine enough."""
    lm = ToyLM([b"a", b"b", b"ab", b"bab"], seed=3)

    async def go():
        beam = await ByteBeamState.initial(lm, BeamParams(tolerance=1e-12))
        for byte in b"abab":
            await beam.logp_next()
            beam = await (beam.prune() << byte)
        assert math.exp(beam.logZ) == pytest.approx(Brute(lm).prefix(b"abab"))

    asyncio.run(go())


# --- the account of what is missing -------------------------------------------------------------------


async def test_over_a_long_text_nats_add_up_and_no_share_is_above_1():
    """At each `a` a tenth is dropped: after n of them the whole is 0.9^-n times what was kept."""
    lm = FixedLM([b"a", b"a"], rule=lambda _: [0.9, 0.1])
    beam = await ByteBeamState.initial(lm, BeamParams(K=1))
    for n in range(1, 1001):
        beam = await (beam.prune() << ord("a"))
        if n in (1, 2, 10, 100, 1000):
            logp = await beam.prune().logp_next()
            assert beam.bounds().lower == pytest.approx(beam.logZ)
            dropped = max(0, n - 2)  # the last two are not pruned yet
            assert beam.slack.nats == pytest.approx(-dropped * math.log(0.9), rel=0.02, abs=1e-9) or n == 1000
            assert beam.slack.expected <= beam.slack.bound <= 1.0
            assert logp.slack.expected <= logp.slack.bound <= 1.0
    assert 0.9 < beam.slack.expected <= 1.0 and beam.slack.bound == pytest.approx(1.0)
    assert logp.slack.expected < 1.0


async def test_what_was_dropped_long_ago_counts_little_for_what_comes_next():
    lm = FixedLM([b"a", b"a", b"b"], rule=lambda c: [0.5, 0.3, 0.2] if len(c) < 5 else [0.0, 0.0, 1.0])
    beam = await (await ByteBeamState.initial(lm, BeamParams(K=1))).prefill(b"aaaaa")
    whole, next_byte = [], []
    for _ in range(300):
        beam = await (beam.prune() << ord("b"))
        whole.append(beam.slack.expected)
        next_byte.append((await beam.logp_next()).slack.expected)
    assert whole[-1] == pytest.approx(whole[1]) and whole[-1] > 0.5
    assert next_byte[-1] < 0.05 and next_byte[5:] == sorted(next_byte[5:], reverse=True)
