"""Where the engine keeps contexts, and what it shows the model of them; neither changes a result."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tiny
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from tiny import WINDOW

from genlm.bytes.backends.hf_tree import backend, kv_cache
from genlm.bytes.backends.hf_tree.forward import FULL, TreeModel
from genlm.bytes.backends.hf_tree.kv_view import make_view
from genlm.bytes.contexts.tree import ContextTree
from genlm.bytes.engine import Engine
from genlm.bytes.errors import ModelOutputError

SUPPORTED = [k for k in tiny.KINDS if k not in ("mamba", "bloom")]
TOKENS = len(tiny.tokenizer())
LLAMA = tiny.transformer("llama")


@torch.no_grad()
def plain(llm, node):
    logits = llm.model(torch.tensor([node.tokens()]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.float(), -1)


def check(llm, nodes, got, tolerance=5e-4):
    for node, logps in zip(nodes, got, strict=True):
        assert (logps - plain(llm, node)).abs().max() < tolerance, node


@pytest.fixture
def shown(monkeypatch):
    """How each forward saw its slots: new nodes, holes, whether gathered, and the masks."""
    seen = []
    masks = TreeModel._masks

    def noted(self, new, paths):
        found, view = masks(self, new, paths), self.cache.view
        given = list(found.values()) if isinstance(found, dict) else [found]
        holes = view.length - len(view.old) - len(new)
        seen.append((len(new), holes, len(view.old) > 0 and view.start is None, given))
        return found

    monkeypatch.setattr(TreeModel, "_masks", noted)
    return seen


@pytest.mark.parametrize(
    ("kind", "attention"), [*((kind, None) for kind in SUPPORTED), ("llama", "eager"), ("gemma3", "eager")]
)
def test_decoding_with_holes_and_without(kind, attention, shown):
    """One path token by token, past a sliding window; then with siblings among it; then from far away."""
    llm = tiny.transformer(kind, attention=attention)
    engine, rng = Engine(llm), np.random.default_rng(0)
    shown.clear()

    def step(nodes):
        check(llm, nodes, engine._logprobs_sync(nodes))

    node = engine.node(rng.integers(0, TOKENS, 3).tolist())
    step([node])
    for _ in range(WINDOW + 2):
        node = node.child(int(rng.integers(TOKENS)))
        step([node])
    assert all(holes == 0 and not gathered for _, holes, gathered, _ in shown)
    full = FULL in engine.backend.runner.kinds  # else all layers have a window
    assert all(any(mask is None for mask in masks) for *_, masks in shown[:3])
    assert any(mask is None for mask in shown[-1][3]) is full

    shown.clear()
    for _ in range(4):
        siblings = [node.child(int(token)) for token in rng.choice(TOKENS, 3, replace=False)]
        step(siblings)
        node = siblings[-1]
    step([node.child(1)])
    assert any(holes > 0 for _, holes, *_ in shown) and not any(gathered for *_, gathered, _ in shown)

    shown.clear()
    step([engine.node(rng.integers(0, TOKENS, 60).tolist())])
    step([node.child(2), engine.node([7, 8])])  # its slots are further on
    chain = node.child(2).child(3)
    step([chain.child(4), chain])
    assert any(gathered for *_, gathered, _ in shown)


@given(st.data())
@examples(40)
def test_columns_name_the_slots(data):
    """Gathered or as a stretch, a slot's column is where the forward sees it."""
    capacity = data.draw(st.integers(4, 60))
    slots = data.draw(st.permutations(range(capacity)))
    new = np.array(slots[: data.draw(st.integers(1, 3))])
    paths = [
        np.array(data.draw(st.lists(st.sampled_from(slots), unique=True, max_size=20)), np.int64)
        for _ in range(data.draw(st.integers(0, 3)))
    ]
    shown = make_view(new, paths, capacity)
    if shown.start is None:
        order = [*shown.old, *shown.new]
    else:
        order = list(range(shown.start, shown.start + shown.length))
    assert len(order) == shown.length
    for some in (*paths, new):
        assert [order[column] for column in shown.columns(some)] == some.tolist()
    needed = {*new.tolist(), *(slot for path in paths for slot in path.tolist())}
    assert {*shown.old, *shown.new} == needed and not {*shown.old} & {*new.tolist()}
    assert shown.solid == (shown.length == len(needed))


@given(st.data(), st.sampled_from([20_000, 30_000, 80_000]))
@examples(15)
def test_ancestors_of_what_is_kept_are_kept(data, most_bytes):
    """Whatever is evicted, and when a forward fails in between; and all slots hold numbers."""
    engine = Engine(LLAMA, max_cache_bytes=most_bytes)
    model, alive = engine.backend.runner.model, [engine.node([5])]

    def broken(**_):
        raise RuntimeError("device lost")

    for _ in range(10):
        # By place: a set of nodes has no order that a second run would repeat.
        places = data.draw(st.sets(st.integers(0, len(alive) - 1)))
        grown = [alive[place].child(data.draw(st.integers(0, 3))) for place in sorted(places)]
        if data.draw(st.booleans()):
            grown.append(engine.node(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=20))))
        if not grown:
            continue
        if fails := data.draw(st.integers(0, 4)) == 0:
            engine.backend.runner.model = broken
        found = asyncio.run(engine.outcomes(grown))
        engine.backend.runner.model = model
        if not fails:
            check(LLAMA, grown, found)
        for layer in engine.backend.runner.cache.layers:
            if layer.is_initialized:  # what no mask shows is multiplied by 0 all the same, and 0 x nan is nan
                assert bool(layer.keys.isfinite().all()) and bool(layer.values.isfinite().all())
        for node in engine.backend.runner.cache._held():
            assert node.parent.parent is None or node.parent.slot is not None
            path = engine.backend.runner.cache._table.of(node)
            at = node
            for slot in reversed(path.tolist()):
                assert engine.backend.runner.cache._holders[slot] is at
                at = at.parent
            assert at.parent is None
        alive = [*alive[-3:], *grown]


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_what_lies_strewn_is_put_together(kind, monkeypatch, shown):
    """Two branches grow beside contexts that nobody comes back to: hardly a forward gathers slots, and
    buffers grow with what is kept, not with the moves."""
    monkeypatch.setattr(kv_cache, "WORTH_MOVING", 8)
    llm = tiny.transformer(kind)
    engine, rng = Engine(llm), np.random.default_rng(2)
    cache, gathered = engine.backend.runner.cache, 0
    trunk = engine.node(rng.integers(3, TOKENS, 20).tolist())
    ends = [trunk, trunk]
    engine._logprobs_sync([trunk])
    for step in range(60):
        ends = [end.child(int(rng.integers(3, TOKENS))) for end in ends]
        dead = [ends[0].parent.child(token) for token in range(step % 5)]
        shown.clear()
        nodes = list(dict.fromkeys([*dead, *ends]))
        check(llm, nodes, engine._logprobs_sync(nodes))
        gathered += shown[0][2]
        held = [node.slot for node in cache._held()]
        assert sorted(held) == np.flatnonzero(~cache._free).tolist() and len(set(held)) == cache.used
        assert cache.capacity <= max(64, 4 * cache.used)
    assert cache.used > 200 and gathered < 6


@pytest.mark.parametrize("how", ["raises", "finds no number"])
def test_what_cannot_be_trusted_spoils_nothing(how, monkeypatch):
    """A hole that holds an undefined number would spoil every context whose stretch it lies in."""
    engine = Engine(LLAMA)
    trunk = engine.node(range(3, 13))
    engine._logprobs_sync([trunk])
    cache = engine.backend.runner.cache
    layer = LLAMA.model.model.layers[1]

    def spoiled(module, args, output):
        for held in cache.layers:
            if held.is_initialized:
                held.keys[:, :, cache.new] = held.values[:, :, cache.new] = float("nan")
        if how == "raises":
            raise RuntimeError("device lost")
        return output * float("nan")

    hook = layer.register_forward_hook(spoiled)
    bad = [trunk.child(20), trunk.child(19), trunk.child(18)]
    if how == "raises":
        with pytest.raises(RuntimeError, match="device lost"):
            engine._logprobs_sync(bad)
    else:
        with pytest.raises(ModelOutputError, match="LlamaForCausalLM gave nan"):
            engine._logprobs_sync(bad)
    hook.remove()
    assert [node.slot for node in bad] == [None] * 3
    alone = [trunk.child(23)]  # which takes one of their slots, and leaves two as holes
    check(LLAMA, alone, engine._logprobs_sync(alone))
    for held in cache.layers:
        assert held.keys.isfinite().all() and held.values.isfinite().all()
    siblings = [trunk.child(21), trunk.child(22)]
    check(LLAMA, siblings, engine._logprobs_sync(siblings))
    after = [siblings[1].child(4)]
    check(LLAMA, after, engine._logprobs_sync(after))
    for held in cache.layers:
        assert held.keys.isfinite().all() and held.values.isfinite().all()


def test_what_is_run_together_shares_its_weights(monkeypatch):
    trees = [ContextTree(), ContextTree("one"), ContextTree("two")]
    nodes = [tree.find([token]) for token in range(4) for tree in trees]
    monkeypatch.setattr(backend, "MOST_NEW", 3)
    found = list(Engine(LLAMA)._parts(nodes))
    assert sorted(map(id, nodes)) == sorted(id(node) for part in found for node in part)
    assert all(len({node.tree for node in part}) == 1 and len(part) <= 3 for part in found)


class TestManyAtOnce:
    async def test_one_forward_in_their_order(self):
        engine = Engine(LLAMA)
        nodes = [engine.node(ids) for ids in ([1, 2], [1], [1, 2, 3], [1, 2])]
        before = engine.statistics()
        found = await engine.logprobs_many(nodes)
        check(LLAMA, nodes, found)
        again = await engine.logprobs_many([*nodes, engine.node([1, 2, 4])])
        assert all(torch.equal(one, other) for one, other in zip(found, again, strict=False))
        after = engine.statistics()
        assert (after.forwards - before.forwards, after.tokens_run - before.tokens_run) == (2, 4)
        assert await engine.logprobs_many([]) == []

    async def test_a_failing_one_harms_no_other(self):
        engine = Engine(LLAMA)
        nodes = [engine.node([1, 2]), engine.node([1] * (tiny.LONGEST + 1)), engine.node([3])]
        good, bad, other = await engine.outcomes(nodes)
        check(LLAMA, [nodes[0], nodes[2]], [good, other])
        assert isinstance(bad, ValueError) and "reads at most" in str(bad)
        before = engine.statistics()
        with pytest.raises(ValueError, match="reads at most"):
            await engine.logprobs_many(nodes)
        assert engine.statistics() == before

    async def test_cancelled(self):
        engine = Engine(LLAMA)
        nodes = [engine.node([9, i]) for i in range(3)]
        task = asyncio.ensure_future(engine.logprobs_many(nodes))
        other = asyncio.ensure_future(engine.logprobs(nodes[1]))
        await asyncio.sleep(0)
        task.cancel()
        check(LLAMA, [nodes[1]], [await other])
        assert task.cancelled() and nodes[0].logps is None
