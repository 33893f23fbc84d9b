"""What clients do with documented objects beside calling them: subclass, replace, copy, mock, set, cancel.

Each test is a small program that ran on release 0.2.0, written from the documentation.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import math
import pickle
import threading
from typing import Any
from unittest.mock import AsyncMock, MagicMock, patch

import numpy as np
import pytest
import torch
from toy import EOS_STRING, TOY, BatchingToy, ToyLM

from genlm.bytes import AsyncTokenByteTrie, BeamParams, ByteBeamState, Chart, LazyTrieState, TokenByteTrie
from genlm.bytes.backends.async_lm import cached
from genlm.bytes.byte_lm import StatefulByteLM, StatefulTokenizedLM
from genlm.bytes.byte_lm.subclass import makeable
from genlm.bytes.ensemble.operations import Extremum
from genlm.bytes.ensemble.state import EnsembleState
from genlm.bytes.errors import InvalidTypeError
from genlm.bytes.trie import TrieMode
from genlm.bytes.util import LazyByteProbs

LOGITS = torch.log_softmax(torch.arange(7.0), 0)
ENDS = frozenset([EOS_STRING])


@pytest.fixture
def lm() -> ToyLM:
    return ToyLM(TOY, seed=3)


@pytest.fixture
def trie(lm: ToyLM) -> AsyncTokenByteTrie:
    return AsyncTokenByteTrie.from_vocab(lm.byte_vocab, eos_byte_strings=ENDS)


@pytest.fixture(params=["K", "tolerance"])
def params(request: Any) -> BeamParams:
    rule = {"K": {"K": 20}, "tolerance": {"tolerance": 1e-9}}[request.param]
    return BeamParams(**rule, eos_byte_strings=ENDS)


async def read(beam: Any, text: bytes) -> Any:
    for byte in text:
        beam = await (beam.prune() << byte)
    return beam


class TestParams:
    @pytest.mark.parametrize("name", ["eos_byte_strings", "eos_tokens"])
    def test_replace(self, name):
        with pytest.warns(DeprecationWarning) if name == "eos_tokens" else _nothing():
            params = BeamParams(K=5, heal_max_backoff=3, **{name: [b"a"]})
        other = dataclasses.replace(params, K=7)
        assert (other.K, other.heal_max_backoff) == (7, 3)
        assert other.eos_byte_strings == other.eos_tokens == {b"a"}
        other = dataclasses.replace(other, eos_byte_strings=[b"b"])
        assert other.eos_byte_strings == other.eos_tokens == {b"b"}

    def test_there_and_back(self):
        params = BeamParams(K=5, prune_threshold=0.1, eos_byte_strings=[b"a"])
        made = [BeamParams(**dataclasses.asdict(params)), copy.copy(params), copy.deepcopy(params)]
        made.append(pickle.loads(pickle.dumps(params)))
        made.append(BeamParams(**{f.name: getattr(params, f.name) for f in dataclasses.fields(params)}))
        assert all(p == params for p in made)
        assert "eos_byte_strings={b'a'}" in repr(params) and "eos_tokens" not in repr(params)

    def test_both_names_are_still_refused(self):
        for given in ([b"a"], {b"a"}):
            with pytest.raises(TypeError, match="Cannot specify both"):
                BeamParams(K=5, eos_byte_strings={b"a"}, eos_tokens=given)

    async def test_a_subclass_with_fields_of_its_own(self, lm):
        @dataclasses.dataclass
        class Mine(BeamParams):
            extra: int = 4

        beam = await read(await ByteBeamState.initial(lm, Mine(K=5, extra=9)), b"ab")
        assert beam.params.extra == 9

    async def test_settings_changed_in_place(self, lm):
        beam = await read(await ByteBeamState.initial(lm, BeamParams(K=20)), b"abca")
        assert len(beam) > 1
        beam.params.K = 1
        assert len(beam.prune()) == 1


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: Any) -> None: ...


class TestSubclassesOfTheBeam:
    async def test_an_overridden_prune_is_what_prunes(self, lm, params):
        class Mine(ByteBeamState):
            def prune(self) -> Any:
                return type(self)(self.states[:1], self.params)

        start = await Mine.initial(lm, params)
        for beam in (await read(start, b"ab"), await start.prefill(b"ab")):
            assert type(beam) is Mine
            assert len(beam) > 1 == len(beam.prune())
        assert (await start.greedy(b"ab", 2)).startswith(b"ab")

    async def test_an_overridden_distribution_is_what_is_generated_from(self, lm, params):
        class NoB(ByteBeamState):
            async def logp_next(self) -> LazyByteProbs:
                ps = np.array((await super().logp_next()).ps)
                ps[ord("b")] = -np.inf
                return LazyByteProbs(ps)

        assert b"b" not in (await (await NoB.initial(lm, params)).greedy(b"a", 6))

    async def test_attributes_of_its_own(self, lm, params):
        class Mine(ByteBeamState):
            def __init__(self, states: Any, params: Any, tag: str = "x") -> None:
                super().__init__(states, params)
                self.tag, self.size = tag, len(states)

        beam = await read(await Mine.initial(lm, params), b"ab")
        assert (beam.tag, beam.size) == ("x", len(beam))

    async def test_arguments_that_only_it_knows(self, lm, params):
        """Nobody else can make one; what follows is then a plain beam, with the same numbers."""

        class Mine(ByteBeamState):
            def __init__(self, states: Any, params: Any, tag: str) -> None:
                super().__init__(states, params)
                self.tag = tag

        plain = await read(await ByteBeamState.initial(lm, params), b"ab")
        mine = Mine(plain.states, plain.params, "x")
        assert mine.logZ == plain.logZ
        for after in (await read(mine, b"c"), await mine.prefill(b"c"), mine.prune(), mine.with_mode(None)):
            assert type(after) is ByteBeamState
        want = await read(ByteBeamState(plain.states, plain.params), b"c")
        assert (await read(mine, b"c")).logZ == pytest.approx(want.logZ)
        assert np.exp((await mine.logp_next()).ps).sum() == pytest.approx(1.0)

    def test_the_nearest_class_that_can_be_made(self):
        class Same(LazyTrieState): ...

        class Odd(Same):
            def __init__(self) -> None: ...

        assert makeable(Odd, 4, "mode") is Same
        assert makeable(Same, 4, "mode") is Same


class TestSubclassesOfTheParts:
    async def test_a_state_with_the_older_signature(self, lm, trie):
        """That of 0.2.0, without our additions to it."""

        class Mine(LazyTrieState):
            def __init__(self, lm_state: Any, trie: Any, node: int, weight: float, mass: Any = None,
                         mode: Any = TrieMode.WITH_EOS, terminated: bool = False) -> None:  # fmt: skip
                super().__init__(lm_state, trie, node, weight, mass, mode, terminated)

        state = await Mine.initial(lm, trie).materialize()
        after = state << ord("a")
        want = (await LazyTrieState.initial(lm, trie).materialize()) << ord("a")
        assert after.weight == want.weight
        made = [after, *after.extend_all(), after.with_mode(TrieMode.WITHOUT_EOS), state << 257]
        assert all(type(s) is Mine for s in made)

    @pytest.mark.parametrize("text", [b"a", b"ab", b"abca"])
    async def test_a_weight_that_is_set_counts_from_there_on(self, lm, params, text):
        """As in a search that twists its candidates. It is one candidate's: the others keep theirs."""
        one, other = [await read(await ByteBeamState.initial(lm, params), text) for _ in range(2)]
        await one.states[0].materialize()
        await other.states[0].materialize()
        one.states[0].extend_all()  # looked at before
        one.states[0].weight -= 2.0
        state, plain = one.states[0], other.states[0]
        assert [e.weight + 2.0 for e in state.extend_all()] == pytest.approx(
            [e.weight for e in plain.extend_all()]
        )
        moved = [(state << b, plain << b) for b in b"abc"]
        assert [a.weight + 2.0 for a, _ in moved if a] == pytest.approx([b.weight for _, b in moved if b])
        there = state.with_mode(TrieMode.WITHOUT_EOS)
        assert there.weight + 2.0 == pytest.approx(plain.with_mode(TrieMode.WITHOUT_EOS).weight)
        back = there.with_mode(TrieMode.WITH_EOS)
        assert [e.weight + 2.0 for e in back.extend_all()] == pytest.approx(
            [e.weight for e in plain.extend_all()]
        )

    async def test_a_weight_set_at_the_root_and_one_of_nothing(self, lm, trie):
        state = await LazyTrieState.initial(lm, trie).materialize()
        plain = state << ord("a")
        state.weight = -math.inf
        assert (state << ord("a")).weight == -math.inf
        state.weight = -3.0
        assert (state << ord("a")).weight == pytest.approx(plain.weight - 3.0)
        assert state.with_mode(TrieMode.WITHOUT_EOS).committed == -3.0

    async def test_a_token_model_of_ones_own(self, lm, trie):
        class Hot(StatefulTokenizedLM):
            async def logp_next(self) -> torch.Tensor:
                return torch.log_softmax((await super().logp_next()) / 2, 0)

        beam = await ByteBeamState([await LazyTrieState.initial(Hot.initial(lm), trie).materialize()],
                                   BeamParams(K=20)).prefill(b"abca")  # fmt: skip
        assert all(type(s.lm_state) is Hot for s in beam)
        assert beam.logZ != pytest.approx((await (await ByteBeamState.initial(lm, BeamParams(K=20))).prefill(
            b"abca")).logZ)  # fmt: skip

    @pytest.mark.parametrize("kind", [ToyLM, BatchingToy])
    async def test_a_token_model_of_ones_own_is_asked_where_the_models_answer_is_known(self, kind):
        """A row that is remembered is that of the model, and not what the client makes of it."""

        class Hot(StatefulTokenizedLM):
            async def logp_next(self) -> torch.Tensor:
                return torch.log_softmax((await super().logp_next()) / 2, 0)

        llm, params = kind(TOY), BeamParams(tolerance=1e-3)
        plain = await ByteBeamState.initial(llm, params)
        begun = LazyTrieState.initial(Hot.initial(llm), plain.trie)
        ways = [read, ByteBeamState.prefill]
        found = [(await way(ByteBeamState([begun], params), b"abcab")).logZ for way in ways]
        await plain.prefill(b"abcab")  # its rows are remembered now
        assert not LazyTrieState.initial(Hot.initial(llm), plain.trie).materialize_if_known()
        found += [(await way(ByteBeamState([begun], params), b"abcab")).logZ for way in ways]
        assert found == pytest.approx([found[0]] * 4, abs=1e-12)

    async def test_attributes_can_be_put_on_anything(self, lm, params):
        beam = await read(await ByteBeamState.initial(lm, params), b"a")
        state = beam.states[0]
        lm_state = StatefulTokenizedLM(lm, [0])
        things: list[Any] = [
            beam,
            state,
            lm_state,
            state.trie,
            state.trie.trie,
            await beam.logp_next(),
            Chart(0),
        ]
        for thing in things:
            thing.note = "mine"
            assert thing.note == "mine"
        assert (lm_state << 1).context == [0, 1]

    async def test_a_trie_of_ones_own(self, lm):
        class Mine(TokenByteTrie):
            calls = 0

            def batch_weight_sum(self, ws: Any, mode: Any = None) -> torch.Tensor:
                type(self).calls += 1
                return super().batch_weight_sum(ws, mode)

        service = AsyncTokenByteTrie(Mine(lm.byte_vocab, device="cpu"))
        sums = await asyncio.gather(*(service.weight_sum(torch.ones(7)) for _ in range(3)))
        assert [float(s[service.trie.root]) for s in sums] == [7.0] * 3
        assert Mine.calls == 1

    async def test_a_byte_level_model_of_ones_own(self):
        class Cycle(StatefulByteLM):
            def __init__(self, text: bytes = b"") -> None:
                self.text = text

            async def __lshift__(self, b: int) -> Any:
                return Cycle(self.text + bytes([b]))

            def prune(self) -> Any:
                return self

            async def logp_next(self) -> LazyByteProbs:
                ps = torch.full((258,), -torch.inf)
                ps[97 + len(self.text) % 3 if len(self.text) < 5 else 257] = 0.0
                return LazyByteProbs(ps)

            async def prefill(self, bs: Any) -> Any:
                return Cycle(self.text + bytes(bs))

        assert await Cycle().greedy(b"x", 10) == b"xbcab"  # and then the end
        assert await Cycle().sample(b"x", 3) == b"xbca"
        assert await Cycle().sample(b"", 2, draw=lambda p: max(p, key=p.get)) == b"ab"
        await Cycle().cleanup()


class TestCopies:
    async def test_beams_and_states(self, lm, params):
        beam = await read(await ByteBeamState.initial(lm, params), b"ab")
        want = (await read(beam, b"c")).logZ
        for other in (copy.copy(beam), copy.deepcopy(beam)):
            assert (await read(other, b"c")).logZ == want
        assert copy.deepcopy(beam.states[0]).weight == beam.states[0].weight
        assert len({beam, beam, copy.copy(beam)}) == 2  # by identity

    @pytest.mark.parametrize(
        "settings", [{}, {"K": 3, "prune_threshold": 0.05}, {"tolerance": 0.2}], ids=repr
    )
    async def test_deep_copies_of_what_has_read_a_long_text(self, settings):
        """What has been read is a chain, as long as the text: longer than what Python copies link by link."""
        make, text = ToyLM([b"a", b"b", b"c", b"ab", b"bc", b"abcba"]), b"abcba" * 50
        beam = await (await ByteBeamState.initial(make, BeamParams(**settings))).prefill(text)
        want = (await beam.prefill(b"ab")).logZ
        other = copy.deepcopy(beam)
        assert (await other.prefill(b"ab")).logZ == pytest.approx(want, abs=1e-12)
        assert len(other.deferred) == len(beam.deferred)
        nodes = [state.lm_state.node for state in other.states]
        assert not {node.tree for node in nodes} & {state.lm_state.node.tree for state in beam.states}
        cousins = list(other.data.deferred.cousins.weights) if len(beam.deferred) else []
        assert {node.tree for node in cousins} <= {nodes[0].tree}

    async def test_what_holds_a_running_model_is_not_pickled(self, lm, params):
        beam = await read(await ByteBeamState.initial(lm, params), b"ab")
        together = EnsembleState([beam, beam], Extremum(False))
        for one in (beam, beam.states[0], beam.states[0].lm_state, cached(lm), together):
            with pytest.raises(InvalidTypeError, match=r"cannot be pickled.*read again"):
                pickle.dumps(one)

    async def test_what_holds_numbers_only_is_pickled(self, lm, params):
        logp = await (await read(await ByteBeamState.initial(lm, params), b"ab")).logp_next()
        assert pickle.loads(pickle.dumps(logp)).materialize() == logp.materialize()
        chart = pickle.loads(pickle.dumps(Chart(0.5, {"a": 1.0})))
        assert (type(chart), chart, chart["absent"]) == (Chart, {"a": 1.0}, 0.5)
        trie = TokenByteTrie(lm.byte_vocab, device="cpu")
        for other in (pickle.loads(pickle.dumps(trie)), copy.deepcopy(trie)):
            assert (other.weight_sum(torch.ones(7)) == trie.weight_sum(torch.ones(7))).all()

    async def test_token_models(self, lm):
        state = StatefulTokenizedLM(lm, [0, 1])
        state.mine = 1
        other = copy.copy(state) << 2
        assert (state.context, other.context) == ([0, 1], [0, 1, 2])
        assert copy.deepcopy(state).context == [0, 1]


def mocked(kind: type) -> Any:
    model = kind()
    model.byte_vocab = ToyLM(TOY).byte_vocab
    model.tokenizer = MagicMock(bos_token_id=0, eos_token_id=None)
    model.next_token_logprobs = AsyncMock(return_value=LOGITS)
    return model


class TestMocks:
    @pytest.mark.parametrize("kind", [MagicMock, AsyncMock])
    async def test_a_model(self, kind, params):
        """A mock has every attribute that anybody asks for; that makes it no engine and no transformer."""
        model = mocked(kind)
        beam = await (await ByteBeamState.initial(model, params)).prefill(b"ab")
        assert model.next_token_logprobs.await_count > 1
        a, ab, abc, again = (float(LOGITS[i].exp()) for i in (0, 1, 2, 4))
        b = float(LOGITS[3].exp())
        assert math.exp(beam.logZ) == pytest.approx(ab + abc + (a + again) * b)
        state = await LazyTrieState.initial(model, beam.states[0].trie).materialize()
        assert math.exp((state << ord("a")).weight) == pytest.approx(a + ab + abc + again)

    async def test_a_token_state(self, trie):
        state = MagicMock()
        state.logp_next = AsyncMock(return_value=LOGITS)
        state.__lshift__ = lambda self, token: state
        moved = (await LazyTrieState(state, trie, trie.trie.root, 0.0).materialize()) << ord("a")
        assert len(moved.extend_all()) == 2
        state.logp_next.assert_awaited_once()

    async def test_methods_patched_on_the_class(self, lm, params):
        with patch.object(ByteBeamState, "prune", lambda self: ByteBeamState(self.states[:1], self.params)):
            beam = await (await ByteBeamState.initial(lm, params)).prefill(b"abca")
            assert len(beam.prune()) == 1


class TestManyAtOnce:
    async def test_one_beam_read_by_many_tasks(self, lm, params):
        beam = await read(await ByteBeamState.initial(lm, params), b"ab")
        want = [(await read(beam, bytes([b]))).logZ for b in b"abc"]
        found = await asyncio.gather(*(read(beam, bytes([b])) for b in b"abc" * 5))
        assert [f.logZ for f in found] == pytest.approx(want * 5)

    async def test_a_step_that_ran_out_of_time(self, params):
        """The beam that it was made on goes on as if nothing had been asked."""

        class Sleepy(ToyLM):
            asleep = False

            async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> torch.Tensor:
                if self.asleep:
                    await asyncio.get_running_loop().create_future()  # for ever
                return await super().next_token_logprobs(token_ids, lora_name)

        model = Sleepy(TOY, seed=3)
        beam = await read(await ByteBeamState.initial(model, params), b"a")
        for step in (read(beam, b"b"), beam.prefill(b"bc"), beam.logp_next(), beam.greedy(b"b", 2)):
            model.asleep = True
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(step, 0.001)
        model.asleep = False
        plain = await read(await ByteBeamState.initial(ToyLM(TOY, seed=3), params), b"ab")
        assert (await read(beam, b"b")).logZ == pytest.approx(plain.logZ)

    def test_one_model_in_many_threads(self, lm, params):
        found: list[float] = []

        def work() -> None:
            async def go() -> None:
                found.append((await (await ByteBeamState.initial(lm, params)).prefill(b"abca")).logZ)

            asyncio.run(go())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == pytest.approx([found[0]] * 4)
