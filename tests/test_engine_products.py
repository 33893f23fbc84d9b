"""Faster ways to multiply and to attend: the same results, chosen by measuring, nobody else's business."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_engine_slots import SUPPORTED, TOKENS, check
from torch.nn.functional import linear

from genlm.bytes.backends.hf_tree import forward, small_matmul
from genlm.bytes.backends.hf_tree.attention import Attention
from genlm.bytes.backends.hf_tree.forward import TreeModel
from genlm.bytes.backends.hf_tree.grouped_query import NAME
from genlm.bytes.backends.hf_tree.small_matmul import TransposedMatmul, faster_transposed
from genlm.bytes.engine import Engine

GROUPED = ["llama", "mistral", "gemma3", "qwen2", "qwen3", "phi3", "mixtral"]


@pytest.fixture
def turned(monkeypatch):
    """Every product over two to four rows is turned; a list of how many rows each had."""
    rows_seen = []
    way = small_matmul._transposed
    monkeypatch.setattr(
        small_matmul, "_transposed", lambda rows, w: rows_seen.append(len(rows)) or way(rows, w)
    )
    monkeypatch.setattr(forward, "faster_transposed", lambda model: frozenset({2, 3, 4}))
    return rows_seen


class TestTurnedProducts:
    @given(
        shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
        outer=st.integers(1, 9),
        inner=st.integers(1, 9),
        bias=st.sampled_from(["none", "left out", "some"]),
        seed=st.integers(0, 10**6),
    )
    def test_the_same_products(self, shape, outer, inner, bias, seed):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(*shape, inner, generator=generator)
        weight = torch.randn(outer, inner, generator=generator)
        rest = {"none": [None], "left out": [], "some": [torch.randn(outer, generator=generator)]}[bias]
        with TransposedMatmul({2, 3, 4}):
            found = linear(rows, weight, *rest)
        assert found.is_contiguous() and found.shape == (*shape, outer)
        torch.testing.assert_close(found, linear(rows, weight, *rest), rtol=1e-5, atol=1e-5)

    def test_only_what_it_is_for(self, turned):
        def rows(*shape, **how):
            return torch.ones(*shape, 8, **how)

        weight = torch.ones(3, 8)
        with TransposedMatmul({2, 4}):
            linear(rows(1, 2), weight), linear(rows(2, 2), weight)
            assert turned == [2, 4]
            linear(rows(1, 1), weight), linear(rows(3), weight), linear(rows(2, 3), weight)
            linear(rows(1, 2), weight, bias=None)  # nobody's modules call it so
            linear(rows(2, dtype=torch.float64), weight.double())
            linear(rows(2, device="meta"), weight.to("meta"))
            threads = [threading.Thread(target=linear, args=(rows(1, 2), weight))]
            threads[0].start(), threads[0].join()
        linear(rows(1, 2), weight)
        assert turned == [2, 4]

    @pytest.mark.parametrize("kind", SUPPORTED)
    def test_forwards_with_them(self, kind, turned):
        """Two to four new nodes, beside each other and below each other, against plain forwards."""
        llm = tiny.transformer(kind)
        engine, rng = Engine(llm), np.random.default_rng(1)
        turned.clear()
        trunk = engine.node(rng.integers(3, TOKENS, 9).tolist())
        engine._logprobs_sync([trunk])
        assert not turned
        for count in (2, 3, 4):
            nodes = [trunk.child(int(token)) for token in rng.choice(TOKENS, count, replace=False)]
            nodes[-1:] = [nodes[0].child(5)] if count > 2 else nodes[-1:]
            check(llm, nodes, engine._logprobs_sync(nodes))
            trunk = nodes[0]
        if kind not in ("gpt2", "mixtral"):  # the one has products of another kind, the other's are batched
            assert set(turned) == {2, 3, 4}

    def test_not_where_results_are_to_be_deterministic(self, turned):
        engine = Engine(tiny.transformer("llama"))
        turned.clear()
        engine.deterministic = True
        engine._logprobs_sync([engine.node([3]), engine.node([4])])
        assert not turned and engine.deterministic and engine.reproducible
        engine.deterministic = False
        engine._logprobs_sync([engine.node([5]), engine.node([6])])
        assert turned and not engine.deterministic


class TestTheChoice:
    @pytest.fixture
    def model(self):
        return torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(20)])

    @pytest.mark.parametrize(("seconds", "found"), [((1.0, 0.8), {2, 3, 4}), ((1.0, 0.9), set())])
    def test_by_the_clock(self, model, monkeypatch, seconds, found):
        """The best of several rounds counts, and it has to be clearly better."""
        rounds = iter([0, seconds[0], 0, 5, 0, 2, 0, seconds[1], 0, 9, 0, 3] * 3)
        monkeypatch.setattr(small_matmul.time, "perf_counter", lambda: next(rounds))
        assert faster_transposed(model) == found

    def test_of_its_own_weights(self, model, monkeypatch):
        """As many as fill the cache; it reads and does not change them."""
        timed = []
        monkeypatch.setattr(small_matmul, "_is_faster", lambda count, weights: timed.append((count, weights)))
        before = [weight.clone() for weight in model.parameters()]
        assert faster_transposed(model) == frozenset()
        assert [(count, len(weights)) for count, weights in timed] == [(2, 16), (3, 16), (4, 16)]
        assert all(map(torch.equal, before, model.parameters()))

    def test_what_is_left_alone(self, model, monkeypatch):
        monkeypatch.setattr(small_matmul, "_is_faster", lambda *_: True)
        assert faster_transposed(model) == {2, 3, 4}
        assert not faster_transposed(torch.nn.Linear(100, 100)), "a small one"
        assert not faster_transposed(model.bfloat16()), "other numbers"
        model.float().compile(backend="eager")
        assert not faster_transposed(model), "a compiled one"


OURS = Attention(NAME, "boolean")


class TestGroupedHeads:
    @pytest.mark.parametrize("kind", GROUPED)
    def test_used_by_those_who_share_keys(self, kind, monkeypatch):
        """Keys are handed to the product once a group, under a mask; and only then."""
        llm = tiny.transformer(kind)
        engine = Engine(llm)
        seen = []
        product = torch.nn.functional.scaled_dot_product_attention
        monkeypatch.setattr(
            torch.nn.functional,
            "scaled_dot_product_attention",
            lambda q, k, *args, **kw: seen.append((q.shape[1], k.shape[1])) or product(q, k, *args, **kw),
        )
        nodes = [engine.node([3, 4, 5, 6]), engine.node([3, 4, 7]), engine.node([8])]
        check(llm, nodes, engine._logprobs_sync(nodes))
        assert (2, 2) in seen, "four heads in two groups"
        seen.clear()
        engine._logprobs_sync([engine.node([30, 31, 32])])  # one after the other from the root: no mask
        assert set(seen) == {(4, 2)}
        assert llm.model.config._attn_implementation == "sdpa"

    @pytest.mark.parametrize("kind", ["llama", "gemma3"])
    def test_others_may_come_in_between(self, kind):
        """A plain forward while the name is ours: padded, batched, causal, one token after the other."""
        model = tiny.model(kind)
        ids = torch.arange(3, 23).reshape(2, 10)
        mask = torch.ones_like(ids)
        mask[0, :4] = 0
        with torch.no_grad():
            for given in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
                want = model(**given).logits
                with OURS.used(model.config):
                    assert model.config._attn_implementation == NAME
                    found = model(**given).logits
                torch.testing.assert_close(found[1], want[1], rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(found[0, 4:], want[0, 4:], rtol=1e-4, atol=1e-4)
            with OURS.used(model.config):
                made = model.generate(ids[:1], max_new_tokens=5, do_sample=False, pad_token_id=0)
            assert torch.equal(
                made, model.generate(ids[:1], max_new_tokens=5, do_sample=False, pad_token_id=0)
            )

    def test_the_name_is_given_back(self):
        model = tiny.model("llama")
        with pytest.raises(RuntimeError, match="lost"), OURS.used(model.config):
            raise RuntimeError("device lost")
        assert model.config._attn_implementation == "sdpa"

    def test_a_model_that_cannot(self, monkeypatch):
        """It knows no attention of that name, and goes on as it was."""
        monkeypatch.setattr("genlm.bytes.backends.hf_tree.grouped_query.NAME", "nobody has registered this")
        llm = tiny.transformer("llama")
        engine = Engine(llm)
        nodes = [engine.node([3, 4]), engine.node([3, 5, 6])]
        check(llm, nodes, engine._logprobs_sync(nodes))

    def test_only_where_keys_are_shared(self):
        names = [tiny.model("gpt_neox"), tiny.model("llama", attention="eager"), tiny.model("llama")]
        assert [TreeModel(one, 10**6).attention.name for one in names] == ["sdpa", "eager", NAME]
