"""`StatefulTokenizedLM`, `LazyTrieState`, `BeamParams` and the beam's documented surface."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import re

import numpy as np
import pytest
import torch
from brute import Brute
from toy import EOS_STRING, TOY, FixedLM, ToyLM

from genlm.bytes import AsyncTokenByteTrie, BeamParams, ByteBeamState, LazyTrieState, StatefulTokenizedLM
from genlm.bytes.errors import (
    EmptyBeamError,
    GenlmBytesError,
    ImpossibleByteError,
    InvalidValueError,
    NotMaterializedError,
)
from genlm.bytes.trie import EOS, EOT, TrieArrays, TrieMode


@pytest.fixture
def lm():
    return ToyLM(TOY, seed=7, bos=3)


@pytest.fixture
def trie(lm):
    return AsyncTokenByteTrie.from_vocab(lm.byte_vocab, eos_byte_strings=[EOS_STRING], device="cpu")


async def beam_on(lm, K=10, threshold=0.0, eos=(EOS_STRING,), **more):
    return await ByteBeamState.initial(lm, BeamParams(K, threshold, eos_byte_strings=list(eos)), **more)


class TestStatefulTokenizedLM:
    async def test_a_value(self, lm):
        start = StatefulTokenizedLM.initial(lm)
        after = start << 1 << np.int64(2)
        assert (start.context, after.context) == ([3], [3, 1, 2])
        assert after.model is lm and repr(after) == "b|ab|abc"
        logps = await after.logp_next()
        assert isinstance(logps, torch.Tensor) and lm.asked == [(3, 1, 2)]
        np.testing.assert_allclose(logps.exp(), lm.probs([3, 1, 2]))
        assert after.n_calls == 1 and start.n_calls == 0

    async def test_the_model_cannot_change_the_context(self, lm):
        async def spoil(ids, lora_name=None):
            ids.append(99)
            return torch.zeros(7)

        lm.next_token_logprobs = spoil
        state = StatefulTokenizedLM.initial(lm)
        await state.logp_next()
        assert state.context == [3]

    def test_max_context_length_holds_for_every_descendant(self, lm):
        start = StatefulTokenizedLM.initial(lm, [1, 2, 3], max_context_length=3)
        after = start << 4 << 5
        assert start.context == [1, 2, 3] and after.context == [3, 4, 5] and after.max_context_length == 3
        assert StatefulTokenizedLM(lm, [1, 2, 3], max_context_length=1).context == [3]
        assert (StatefulTokenizedLM(lm, [1], max_context_length=1) << 2).context == [2]

    @pytest.mark.parametrize(
        ("bos", "eos", "want"),
        [(3, 5, [3]), (None, 5, [5]), (None, [5, 6], [5]), (None, None, []), (None, [], [])],
    )
    def test_where_a_text_starts(self, bos, eos, want):
        assert StatefulTokenizedLM.initial(ToyLM(TOY, bos=bos, eos=eos)).context == want

    async def test_no_beginning_of_sequence(self):
        lm = ToyLM(TOY, seed=1)
        beam = await (await beam_on(lm) << ord("a"))
        assert math.exp(beam.logZ) == pytest.approx(Brute(lm, [EOS_STRING]).prefix(b"a"))
        assert lm.asked[0] == ()

    async def test_initial_context(self, lm):
        beam = await beam_on(lm, initial_context=[1, 1])
        assert lm.asked == [(1, 1)]
        p = Brute(lm, [EOS_STRING], start=(1, 1)).prefix(b"a")
        assert math.exp((await (beam << ord("a"))).logZ) == pytest.approx(p)

    def test_ids_that_no_token_has(self):
        lm = ToyLM([b"a", b"b"], ids=[0, 5])
        assert repr(StatefulTokenizedLM(lm, [0, 5, 3])) == "a|b|?"

    @pytest.mark.parametrize(
        ("kind", "match", "context", "opts"),
        [
            (ValueError, "`max_context_length` is 0", [], {"max_context_length": 0}),
            (TypeError, "`context` is 'ab'", "ab", {}),
            (TypeError, r"`context\[1\]` is None", [1, None], {}),
            (ValueError, r"`context\[0\]` is -1", [-1], {}),
        ],
    )
    def test_mistakes(self, lm, kind, match, context, opts):
        with pytest.raises(kind, match=match):
            StatefulTokenizedLM(lm, context, **opts)
        with pytest.raises(TypeError, match="`token"):
            StatefulTokenizedLM(lm, []) << "a"


class TestLazyTrieState:
    async def test_masses_wait_for_the_model(self, lm, trie):
        state = LazyTrieState.initial(lm, trie)
        assert not state.materialized and lm.asked == []
        for read in (lambda: state.mass, lambda: state.logp_next, lambda: state << 97, lambda: state.masses):
            with pytest.raises(ValueError, match="not yet materialized") as caught:
                read()
            assert isinstance(caught.value, NotMaterializedError)
        assert await state.materialize() is state and await state.materialize() is state
        assert lm.asked == [(3,)]

    async def test_mass(self, lm, trie):
        state = await LazyTrieState.initial(lm, trie).materialize()
        for mode in TrieMode:
            want = trie.trie.weight_sum(lm.probs([3]), mode).double()
            np.testing.assert_allclose(np.exp(state.with_mode(mode).mass), want, rtol=1e-6)

    async def test_actions_and_tokens_ending(self, lm, trie):
        state = await LazyTrieState.initial(lm, trie).materialize()
        assert (
            set(state.actions()) == {*b"<abc", EOS} and state.get_all_EOT() == [] and state.extend() is None
        )
        a = state << ord("a")
        assert a.partial == [97] and [t for _, t in a.get_all_EOT()] == [0, 4]
        assert a.get_EOT() == trie.trie.word2leaf[b"a", 0] == a.get_all_EOT()[0][0]
        p = lm.probs([3])
        extended = a.extend_all()
        assert {tuple(e.lm_state.context): pytest.approx(math.exp(e.weight)) for e in extended} == {
            (3, 0): p[0],
            (3, 4): p[4],
        }
        assert a.extend() is extended[0] and a.extend_all()[0] is extended[0]
        assert not extended[0].materialized and extended[0].partial == []
        assert a.actions()[ord("b")] == (a << ord("b")).node

    async def test_logp_next(self, lm, trie):
        state = (await LazyTrieState.initial(lm, trie).materialize()) << ord("a")
        p, logp = lm.probs([3]), state.logp_next
        inside = p[[0, 1, 2, 4]].sum()
        assert math.exp(logp[ord("b")]) == pytest.approx((p[1] + p[2]) / inside)
        assert math.exp(logp[None]) == math.exp(logp[EOT]) == pytest.approx((p[0] + p[4]) / inside)
        assert logp[EOS] == logp[ord("z")] == -math.inf
        assert np.exp(logp.ps).sum() == pytest.approx(1.0)

    @pytest.mark.parametrize("mode", TrieMode)
    @pytest.mark.parametrize("then", TrieMode)
    async def test_committable_is_what_extend_all_commits(self, mode, then):
        """An end that goes on as another token may be committed only where it was read as text."""
        lm = FixedLM([b"a", b"ab", b"abc", b"ab"], rule=lambda context: [0.25] * 4)
        trie = AsyncTokenByteTrie.from_vocab(lm.byte_vocab, eos_byte_strings=[b"ab"], device="cpu")
        state = await LazyTrieState.initial(lm, trie, mode).materialize()
        for byte in b"abc":
            state = state << byte
            for after in (state, state.with_mode(then)):
                assert after.committable == [e.lm_state.context[-1] for e in after.extend_all()]

    async def test_the_end(self, lm, trie):
        state = await LazyTrieState.initial(lm, trie).materialize()
        ended = state << EOS
        assert ended.terminated and ended.node == trie.trie.eos_node and ended.partial == [EOS]
        assert math.exp(ended.weight) == pytest.approx(lm.probs([3])[6])
        assert ended.actions() == {} and ended.get_all_EOT() == [] and ended.extend_all() == []
        assert ended << ord("a") is None and ended << EOS is None
        assert not np.isfinite(ended.logp_next.ps).any()
        assert (state << ord("a")) << EOS is None
        assert state.with_mode(TrieMode.WITHOUT_EOS) << EOS is None
        assert repr(ended).endswith("b|EOS") and repr((state << 97) << 98).endswith("b|ab")
        await ended.cleanup()

    async def test_commits_the_likeliest_of_equal_spellings_first(self):
        for ps in ([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]):
            llm = FixedLM([b"a", b"a", b"a", b"b"], rule=lambda context, ps=ps: ps)
            service = AsyncTokenByteTrie.from_vocab(llm.byte_vocab, device="cpu")
            start = await LazyTrieState.initial(llm, service).materialize()
            after = start << ord("a")
            weights = [state.weight for state in after.commit(after.node)]
            assert len(weights) == 3 and weights == sorted(weights, reverse=True)

    async def test_given_masses(self, lm, trie):
        """The constructor takes log masses, as clients that keep them do."""
        whole = await LazyTrieState.initial(lm, trie).materialize()
        for mode in TrieMode:
            mass = whole.with_mode(mode).mass
            given = LazyTrieState(whole.lm_state, trie, 0, 0.0, mass=mass, mode=mode)
            np.testing.assert_allclose(np.exp(given.mass), np.exp(mass), atol=1e-12)
            inside = given << 97
            placed = LazyTrieState(whole.lm_state, trie, inside.node, inside.weight, mass=mass, mode=mode)
            assert (placed << 98).weight == pytest.approx((inside << 98).weight)
        nowhere = LazyTrieState(whole.lm_state, trie, trie.trie.children[0][ord("<")], -1.0, mass=whole.mass)
        assert nowhere << ord("e") is None and nowhere.committed == -math.inf
        assert not np.isfinite(nowhere.logp_next.ps).any()

    async def test_impossible_tokens(self, trie):
        lm = FixedLM(TOY, rule=lambda c: [0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.0])
        state = await LazyTrieState.initial(lm, trie).materialize()
        assert (state << 97).extend_all() == [] and state << ord("c") is None and state << EOS is None

    @pytest.mark.parametrize("symbol", [-1, 256, 300])
    async def test_not_a_symbol(self, lm, trie, symbol):
        with pytest.raises(ValueError, match=f"`b` is {symbol}: must be a byte 0..255, or 257"):
            (await LazyTrieState.initial(lm, trie).materialize()) << symbol

    async def test_not_a_symbol_at_all(self, lm, trie):
        state = await LazyTrieState.initial(lm, trie).materialize()
        with pytest.raises(TypeError, match="`b` is 'a'"):
            state << "a"
        with pytest.raises(ValueError, match="atomic unit, and this trie has none"):
            state << b"a"

    @pytest.mark.parametrize("unknown", ["no_such_mode", "WITH_EOS", 1, True, b"with_eos", ["with_eos"]])
    async def test_modes_by_member_value_and_none(self, lm, trie, unknown):
        WITH, WITHOUT = TrieMode.WITH_EOS, TrieMode.WITHOUT_EOS
        ws, service, table = np.ones(len(TOY)), trie, trie.trie
        for mode, value in [(WITH, "with_eos"), (WITHOUT, "without_eos")]:
            assert (
                LazyTrieState.initial(lm, trie, value).mode is LazyTrieState.initial(lm, trie, mode=mode).mode
            )
            state = await LazyTrieState.initial(lm, trie, "without_eos").materialize()
            assert state.with_mode(value).mode is state.with_mode(mode).mode is mode
            beam = ByteBeamState([state], BeamParams(K=3)).with_mode(value)
            assert beam.states[0].mode is mode
            assert table.weight_sum(ws, value).equal(table.weight_sum(ws, mode))
            assert table.batch_weight_sum([ws], value).equal(table.batch_weight_sum([ws], mode))
            assert (await service.weight_sum(ws, value)).equal(table.weight_sum(ws, mode))
        assert LazyTrieState.initial(lm, trie, None).mode is WITH and state.with_mode(None).mode is WITH
        assert table.weight_sum(ws, None).equal(table.weight_sum(ws, WITHOUT))
        for call in (
            lambda: LazyTrieState.initial(lm, trie, unknown),
            lambda: LazyTrieState(state.lm_state, trie, 0, 0.0, mode=unknown),
            lambda: state.with_mode(unknown),
            lambda: ByteBeamState([state], BeamParams(K=3)).with_mode(unknown),
            lambda: table.weight_sum(ws, unknown),
            lambda: table.batch_weight_sum([ws], unknown),
        ):
            with pytest.raises(InvalidValueError, match=r"`mode` is .*TrieMode.WITH_EOS or 'with_eos'"):
                call()
        with pytest.raises(InvalidValueError, match="`mode` is"):
            await service.weight_sum(ws, unknown)

    async def test_a_model_after_some_tokens_may_be_any_object_that_can_say_what_comes_next(self, lm, trie):
        class After:
            """No context, no model, no `known`: `logp_next` and, once a token ends, `<<`."""

            def __init__(self, ids=(3,)):
                self.ids = ids

            async def logp_next(self):
                return await lm.next_token_logprobs(self.ids)

            def __lshift__(self, token):
                return After((*self.ids, token))

        own, ours = LazyTrieState.initial(After(), trie), LazyTrieState.initial(lm, trie)
        assert own.lm_state.ids == (3,) and not own.materialize_if_known()
        for method in ("beam", "tokenize", "heal"):
            found = []
            for start in (own, ours):
                beam = ByteBeamState([await start.materialize()], BeamParams(K=5))
                beam = await (await beam.prefill(b"abc", method=method) << ord("a"))
                found.append((beam.logZ, (await beam.logp_next()).materialize()))
                assert "abc" not in repr(beam) or repr(beam)
                assert beam._repr_html_() and await beam.greedy(b"", 2)
            assert found[0][0] == pytest.approx(found[1][0])
            found[0][1].assert_equal(found[1][1])

    async def test_a_model_needs_a_vocabulary_and_log_probabilities(self, lm):
        class Model:
            byte_vocab = lm.byte_vocab

            async def next_token_logprobs(self, ids):
                return await lm.next_token_logprobs([3, *ids])

        beam = await (await ByteBeamState.initial(Model(), BeamParams(K=5))).prefill(b"ab")
        same = await (await ByteBeamState.initial(lm, BeamParams(K=5))).prefill(b"ab")
        assert beam.logZ == pytest.approx(same.logZ) and "a" in repr(beam)

    async def test_extensions_are_in_the_order_of_the_tokens_that_end(self, lm, trie):
        state = await LazyTrieState.initial(lm, trie).materialize() << ord("a")
        ids = [token_id for _, token_id in state.get_all_EOT()]
        assert [e.lm_state.context[-1] for e in state.extend_all()] == ids == [0, 4]
        assert [e.weight for e in state.commit(state.node)] == sorted(
            (e.weight for e in state.extend_all()), reverse=True
        )


class TestBeamParams:
    def test_defaults_and_thresholds(self):
        params = BeamParams(K=3)
        assert (params.prune_threshold, params.verbose, params.heal) == (0.0, False, True)
        assert params.heal_max_backoff is params.heal_max_splits is None
        assert (
            params.eos_byte_strings == params.eos_tokens == set() and params.log_prune_threshold == -math.inf
        )
        assert BeamParams(np.int64(3), 0.5).log_prune_threshold == math.log(0.5)

    def test_older_name(self):
        with pytest.warns(DeprecationWarning, match="'eos_tokens' is deprecated"):
            params = BeamParams(K=1, eos_tokens=[b"x"])
        assert params.eos_tokens == params.eos_byte_strings == {b"x"}
        assert dataclasses.replace(params, K=2) == BeamParams(K=2, eos_byte_strings=[b"x"])

    @pytest.mark.parametrize(
        ("kind", "match", "opts"),
        [
            (ValueError, "`K` is 0: must be at least 1", {"K": 0}),
            (TypeError, r"`K` is 1.5 \(a float\)", {"K": 1.5}),
            (TypeError, "`K` is True", {"K": True}),
            (ValueError, "`prune_threshold` is -0.1: must be non-negative", {"prune_threshold": -0.1}),
            (ValueError, "`prune_threshold` is 1: must be .* below 1", {"prune_threshold": 1}),
            (ValueError, "`prune_threshold` is nan: must be a number", {"prune_threshold": math.nan}),
            (TypeError, "`prune_threshold` is 'x'", {"prune_threshold": "x"}),
            (TypeError, "each entry must be bytes", {"eos_byte_strings": ["x"]}),
            (TypeError, r"Pass \[b'x'\]", {"eos_byte_strings": b"x"}),
            (ValueError, "must not be empty", {"eos_byte_strings": [b""]}),
            (ValueError, "`heal_max_backoff` is -1", {"heal_max_backoff": -1}),
            (ValueError, "`heal_max_splits` is 0.5", {"heal_max_splits": 0.5}),
            (TypeError, "Cannot specify both", {"eos_tokens": [b"x"], "eos_byte_strings": [b"x"]}),
        ],
    )
    def test_mistakes(self, kind, match, opts):
        with pytest.raises(kind, match=match) as caught:
            BeamParams(**{"K": 1, **opts})
        assert isinstance(caught.value, GenlmBytesError)


class TestBeam:
    async def test_initial(self, lm):
        beam = await beam_on(lm)
        assert len(beam) == 1 and beam.logZ == 0.0 and list(beam) == beam.states
        assert beam.states[0].materialized and beam.states[0].mode is TrieMode.WITH_EOS

    async def test_the_trie_is_built_once(self, lm, monkeypatch):
        beam = await beam_on(lm)
        monkeypatch.setattr(TrieArrays, "build", None)
        again = await beam_on(lm)
        assert again.states[0].trie is beam.states[0].trie
        other = await beam_on(lm, eos=[b"ab"])
        assert other.states[0].trie.trie.arrays is beam.states[0].trie.trie.arrays
        twin = await beam_on(ToyLM(TOY, seed=8))
        assert twin.states[0].trie.trie.arrays is beam.states[0].trie.trie.arrays

    async def test_a_replaced_vocabulary_is_noticed(self, lm):
        first = await beam_on(lm)
        lm.byte_vocab = ToyLM([*TOY, b"z"]).byte_vocab
        assert len((await beam_on(lm)).states[0].trie.trie.decode) == 8
        assert len(first.states[0].trie.trie.decode) == 7

    async def test_models_that_cannot_be_kept(self):
        class Slotted:
            __slots__ = ("byte_vocab", "next_token_logprobs", "tokenizer")

        real, lm = ToyLM(TOY, seed=2), Slotted()
        lm.byte_vocab, lm.tokenizer, lm.next_token_logprobs = real.byte_vocab, None, real.next_token_logprobs
        assert (await (await beam_on(lm) << 97)).logZ < 0

    async def test_trie_opts(self, lm):
        opts = {"max_batch_size": 100, "device": "cpu", "atomic_byte_strings": [b"abc"]}
        before = dict(opts)
        beam = await beam_on(lm, trie_opts=opts)
        assert opts == before and beam.states[0].trie.trie.max_batch_size == 100
        assert (await beam_on(lm, trie_opts=opts)).states[0].trie is beam.states[0].trie
        assert (await beam_on(lm, trie_opts={"eos_byte_strings": [b"ab"]})).states[
            0
        ].trie.trie.eos_token_ids == [1]

    async def test_repr(self, lm):
        beam = await (await beam_on(lm) << ord("a"))
        plain = str(beam).splitlines()
        assert re.sub(r"\x1b\[\d+m", "", repr(beam)).splitlines() == plain and "\x1b" in repr(beam)
        assert plain[0] == f"Z: {beam.logZ:.6g}" and plain[1] == "Candidates:"
        assert len(plain) == 2 + len(beam) and plain[2].endswith("b|a") and plain[2].startswith("(")
        shares = [float(re.match(r"\(([\d.]+)\)", line)[1]) for line in plain[2:]]
        assert sum(shares) == pytest.approx(1, abs=1e-3)
        assert "EOS" in repr(await (await beam_on(lm) << EOS)) and "-inf" in repr(
            ByteBeamState([], beam.params)
        )

    async def test_extensions_are_measured_against_all_of_them(self):
        """Shares of logZ *and all extensions*: 0.6, 0.25 of 1 + 0.85."""
        rule = lambda c: [0.6, 0.25, 0.15] if not c else [0.0, 0.0, 1.0]  # noqa: E731
        lm = FixedLM([b"a", b"a", b"b"], rule=rule)
        for threshold, want in [(0.13, 2), (0.14, 1), (0.32, 1), (0.33, 0)]:
            beam = await beam_on(lm, eos=(), threshold=threshold)
            beam = await (beam << ord("a"))
            beam = ByteBeamState(beam.states, beam.params)
            extended = await beam.extend(0.0)
            assert len(extended) == want and all(e.materialized for e in extended)
        assert await ByteBeamState([], beam.params).extend(0.0) == []

    async def test_distributions_are_not_asked_for_twice(self, lm):
        beam = await beam_on(lm)
        for symbol in b"abc":
            await beam.logp_next()
            beam = await (beam.prune() << symbol)
        assert len(lm.asked) == len(set(lm.asked))

    async def test_unmaterialized_states_are_completed(self, lm, trie):
        beam = ByteBeamState([LazyTrieState.initial(lm, trie)], BeamParams(5))
        assert (await beam.logp_next())[97] > -math.inf
        beam = ByteBeamState([LazyTrieState.initial(lm, trie)], BeamParams(5))
        assert (await (beam << 97)).logZ < 0

    async def test_empty_beams(self, lm):
        beam = await beam_on(lm)
        empty = await (beam << ord("z"))
        assert len(empty) == 0 and empty.logZ == -math.inf and len(await (empty << 97)) == 0
        assert len(empty.prune()) == 0 and len(empty.with_mode(TrieMode.WITHOUT_EOS)) == 0
        with pytest.raises(EmptyBeamError, match="the beam is empty"):
            await empty.logp_next()
        with pytest.raises(EmptyBeamError, match="cannot read a context"):
            await empty.prefill(b"a")
        ended = await (beam << EOS)
        with pytest.raises(EmptyBeamError, match="end of the sequence"):
            await ended.logp_next()
        assert len(await (ended << 97)) == 0
        await empty.cleanup()
        await beam.cleanup()
        assert (await beam.logp_next())[97] > -math.inf

    async def test_nothing_left_but_pruned_extensions(self):
        lm = FixedLM([b"a", b"b"], rule=lambda c: [1.0, 0.0])
        beam = await (await beam_on(lm, eos=(), threshold=0.9) << 97)
        assert (await beam.logp_next())[97] == 0.0
        dead = FixedLM([b"a"], rule=lambda c: [0.0] if c else [1.0])
        beam = await (await beam_on(dead, eos=()) << 97)
        with pytest.raises(EmptyBeamError, match="no candidate of the beam has a next byte"):
            await beam.logp_next()

    @pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.2, 0.3, 0.5), (0.3, 0.5, 0.2)])
    async def test_the_last_resort_is_the_heaviest_extension(self, shares):
        """Where pruning left no extension, what comes next is what follows the likeliest token alone."""
        next_token = {0: [0, 0, 0, 1.0, 0, 0], 1: [0, 0, 0, 0, 1.0, 0], 2: [0, 0, 0, 0, 0, 1.0]}
        rule = lambda c: next_token[c[-1]] if c else [*shares, 0, 0, 0]  # noqa: E731
        lm = FixedLM([b"a", b"a", b"a", b"x", b"y", b"z"], rule=rule)
        beam = await (await beam_on(lm, eos=(), threshold=0.9) << 97)
        assert math.exp((await beam.logp_next())[b"xyz"[int(np.argmax(shares))]]) == pytest.approx(1.0)

    async def test_greedy_and_sample_stop_at_the_end(self):
        rule = lambda c: [0.9, 0.1] if len(c) < 2 else [0.2, 0.8]  # noqa: E731
        lm = FixedLM([b"a", b"<e>"], rule=rule)
        beam = await beam_on(lm)
        assert await beam.greedy(b"a", 10) == b"aa"
        assert await beam.sample(b"a", 10, draw=lambda p: max(p, key=p.get)) == b"aa"
        assert await beam.greedy(b"a", 0) == b"a" and await beam.greedy([97], 1) == b"aa"
        with pytest.raises(ValueError, match="`steps` is -1"):
            await beam.greedy(b"", -1)
        text = await beam.sample(b"a", 3)
        assert text.startswith(b"a") and set(text) <= {97}

    async def test_greedy_with_units(self):
        lm = FixedLM([b"a", b"<s>"], rule=lambda c: [0.4, 0.6])
        beam = await beam_on(lm, eos=(), trie_opts={"atomic_byte_strings": [b"<s>"]})
        assert await beam.greedy(b"a<s>", 2) == b"a<s><s><s>"

    @pytest.mark.parametrize(
        ("match", "call"),
        [
            ("`llm` is .*byte_vocab", lambda: ByteBeamState.initial(object(), BeamParams(1))),
            ("`params` is 5", lambda: ByteBeamState.initial(ToyLM(TOY), 5)),
        ],
    )
    async def test_mistakes(self, match, call):
        with pytest.raises(TypeError, match=match):
            await call()

    async def test_an_eos_string_that_no_token_spells(self, lm):
        with pytest.raises(ValueError, match="EOS byte string b'z' not in vocabulary"):
            await beam_on(lm, eos=[b"z"])


class TestPrefill:
    async def test_is_reading_byte_by_byte(self, lm):
        beam = await beam_on(lm, K=3, threshold=0.01)
        read = beam.with_mode(TrieMode.WITHOUT_EOS)
        for symbol in b"abcab":
            read = await (read.prune() << symbol)
        filled = await beam.prefill(b"abcab")
        assert filled.logZ == pytest.approx(read.logZ) and all(s.mode is TrieMode.WITH_EOS for s in filled)
        assert (await beam.prefill(b"")).states == beam.states
        assert (await beam.prefill(bytearray(b"abcab"))).logZ == filled.logZ

    async def test_a_byte_that_no_token_has(self, lm):
        with pytest.raises(
            ImpossibleByteError, match=r"0xff \(b'\\xff'\) at offset 3, after b'abc'.*no token"
        ) as caught:
            await (await beam_on(lm)).prefill(b"abc\xffa")
        error = caught.value
        assert (error.byte, error.offset, error.producible) == (0xFF, 3, False) and isinstance(
            error, ValueError
        )

    async def test_a_byte_that_cannot_come_here(self):
        lm = ToyLM([b"ab", b"c"], seed=1)
        with pytest.raises(
            ImpossibleByteError, match=r"at offset 1.*no kept tokenization.*heal=True"
        ) as caught:
            await (await beam_on(lm, eos=())).prefill(b"ac")
        assert caught.value.producible

    async def test_offsets_count_bytes_with_units(self):
        lm = ToyLM([b"a", b"<s>"], seed=1)
        beam = await beam_on(lm, eos=(), trie_opts={"atomic_byte_strings": [b"<s>"]})
        with pytest.raises(ImpossibleByteError, match="offset 4") as caught:
            await beam.prefill(b"a<s>z")
        assert caught.value.offset == 4
        lm = FixedLM([b"a", b"<s>"], rule=lambda c: [1.0, 0.0])
        beam = await beam_on(lm, eos=(), trie_opts={"atomic_byte_strings": [b"<s>"]})
        with pytest.raises(ImpossibleByteError, match="b'<s>' at offset 1") as caught:
            await beam.prefill(b"a<s>")
        assert caught.value.producible

    @pytest.mark.parametrize(
        ("kind", "match", "context"),
        [
            (TypeError, r"`bs` is 'ab'.*Encode text first: 'ab'.encode\(\)", "ab"),
            (TypeError, "`bs` is 5", 5),
            (TypeError, "cannot be followed", [97, EOS]),
            (ValueError, "`b` is 300", [300]),
        ],
    )
    async def test_mistakes(self, lm, kind, match, context):
        with pytest.raises(kind, match=match):
            await (await beam_on(lm)).prefill(context)

    @pytest.mark.parametrize(
        ("threshold", "size"),
        [(0.05, 1000), *(pytest.param(t, 10_000, marks=pytest.mark.slow) for t in (0.0, 0.05))],
    )
    async def test_thousands_of_arbitrary_bytes(self, threshold, size):
        """All bytes, split UTF-8 and NULs among them: read, with a vocabulary that has every byte."""
        rng = np.random.default_rng(0)
        words = [bytes([b]) for b in range(256)]
        words += [rng.bytes(int(n)) for n in rng.integers(2, 4, 300)] + [
            "é".encode(),
            "漢字".encode(),
            b"\0\0\0",
        ]

        class Uniform(FixedLM):  # a context of thousands of tokens is not worth a random seed
            pass

        lm = Uniform(words, rule=lambda c: np.full(len(words), 1 / len(words)))
        text = rng.bytes(size * 2 // 5) + ("漢字é\0\0\0\0" * 600).encode()[: size * 3 // 5]
        beam = await (await beam_on(lm, K=2, threshold=threshold, eos=())).prefill(text)
        assert len(beam) and math.isfinite(beam.logZ)

    async def test_pruned_to_death_without_healing(self):
        lm = FixedLM([b"abd", b"a", b"b", b"c"], rule=lambda c: [0.9, 0.05, 0.03, 0.02])
        beam = await ByteBeamState.initial(lm, BeamParams(5, 0.5, heal=False))
        with pytest.raises(ImpossibleByteError, match="smaller prune_threshold"):
            await beam.prefill(b"abc")
        healing = await ByteBeamState.initial(lm, BeamParams(5, 0.5))
        assert len(await healing.prefill(b"abc"))


async def test_verbose_says_what_it_does(caplog):
    lm = ToyLM(TOY, seed=1)
    with caplog.at_level(logging.INFO, "genlm.bytes"):
        await (await ByteBeamState.initial(lm, BeamParams(1, verbose=True)) << 97)
    assert "after 97" in caplog.text


def test_models_and_tries_serve_one_event_loop_after_another():
    """pytest-asyncio makes a loop a test; beams, tries and states made in one work in the next."""

    async def begin():
        return await (await beam_on(ToyLM(TOY, seed=3)) << 97)

    async def go_on(beam):
        assert (await (beam << 98)).logZ < beam.logZ
        assert (await beam.states[0].trie.weight_sum(np.ones(7))).shape == (17,)

    asyncio.run(go_on(asyncio.run(begin())))


def test_beams_in_plain_asyncio_run():
    lm = ToyLM(TOY, seed=5)
    first, second = (asyncio.run(beam_on(lm)) for _ in range(2))
    assert asyncio.run(first.greedy(b"a", 3)) == asyncio.run(second.greedy(b"a", 3))
