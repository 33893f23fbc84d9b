"""The engine against plain forwards: every kind of model, whatever shares the batch or was evicted."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from tiny import LONGEST, WINDOW

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.backends.hf_tree import logprobs
from genlm.bytes.backends.hf_tree.engine import default_bounds
from genlm.bytes.backends.hf_tree.forward import TreeModel
from genlm.bytes.backends.hf_tree.kv_cache import KVCache
from genlm.bytes.contexts.tree import ContextTree
from genlm.bytes.engine import Engine, Statistics, adopt
from genlm.bytes.errors import GenlmBytesError, UnsupportedModelError
from genlm.bytes.trie import TrieMode

SUPPORTED = [k for k in tiny.KINDS if k not in ("mamba", "bloom")]
TOKENS = len(tiny.tokenizer())


@pytest.fixture(scope="module")
def llms():
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = tiny.transformer(kind)
        return made[kind]

    return get


@pytest.fixture
def llama(llms):
    return llms("llama")


@torch.no_grad()
def plain(llm, ids):
    """The plain forward over one context."""
    return torch.log_softmax(llm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].float(), -1)


def random_contexts(rng, count, longest=20, stem=4):
    """Contexts that share beginnings, as a beam's do."""
    stems = [rng.integers(0, TOKENS, rng.integers(1, longest)).tolist() for _ in range(stem)]
    return [
        [
            *(s := stems[rng.integers(stem)])[: rng.integers(1, len(s) + 1)],
            *rng.integers(0, TOKENS, rng.integers(0, 5)),
        ]
        for _ in range(count)
    ]


def check(llm, contexts, got, tolerance=5e-4):
    for ids, logps in zip(contexts, got, strict=True):
        assert (logps - plain(llm, ids)).abs().max() < tolerance, ids


@pytest.mark.parametrize("kind", SUPPORTED)
async def test_equals_the_plain_forward(llms, kind):
    """Inside and beyond a sliding window, several batches, contexts deepened again and again."""
    llm, rng = llms(kind), np.random.default_rng(1)
    engine = Engine(llm)
    contexts = random_contexts(rng, 12)
    assert max(map(len, contexts)) > 2 * WINDOW
    check(llm, contexts, await engine.batch_next_token_logprobs(contexts))
    for _ in range(3):
        contexts = [[*c, int(rng.integers(TOKENS))] for c in contexts]
        check(llm, contexts, await engine.batch_next_token_logprobs(contexts))
    full = rng.integers(0, TOKENS, LONGEST).tolist()
    check(llm, [full], [await engine.next_token_logprobs(full)])


@pytest.mark.parametrize("kind", ["gemma2", "mistral", "llama"])
async def test_eager_attention(kind):
    llm = tiny.transformer(kind, attention="eager")
    engine, contexts = Engine(llm), random_contexts(np.random.default_rng(2), 8)
    check(llm, contexts, await engine.batch_next_token_logprobs(contexts))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.12), (torch.float16, 0.015)])
async def test_half_precision(llms, kind, dtype, tolerance):
    """As near to the plain forward as round-off lets it be, and as near to full precision as that one is.

    The tolerances are twice what was measured (0.059 and 0.0065). One token less in a context moves the
    log-probabilities by 0.5 and more.
    """
    llm = tiny.transformer(kind, dtype=dtype)
    engine, contexts = Engine(llm), [*random_contexts(np.random.default_rng(3), 12), [1, 2, 3, 4]]
    got = await engine.batch_next_token_logprobs(contexts)
    assert got.dtype == torch.float32
    check(llm, contexts, got, tolerance)
    exact = torch.stack([plain(llms(kind), ids) for ids in contexts])
    halved = torch.stack([plain(llm, ids) for ids in contexts])
    assert (got - exact).abs().max() < 1.5 * (halved - exact).abs().max()
    shortened = [plain(llm, ids[:1] + ids[2:]) for ids in contexts if len(ids) > 2]
    whole = [plain(llm, ids) for ids in contexts if len(ids) > 2]
    assert min((a - b).abs().max() for a, b in zip(shortened, whole, strict=True)) > 2 * tolerance


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_forward_stays_on_its_device(kind, attention):
    """On the meta device nothing can be read back, and nothing be mixed with tensors from elsewhere."""
    on_meta = TreeModel(tiny.model(kind, attention=attention).to("meta"), most_bytes=10**6)
    tree = ContextTree()
    trunk = [tree.find(range(1, n)) for n in range(2, 12)]
    assert on_meta.forward(trunk, [9]).device.type == "meta"
    leaves = [trunk[-1].child(i) for i in range(90)]  # more than there are slots: buffers grow, too
    found = on_meta.forward(leaves, range(90))
    assert found.device.type == "meta" and found.shape == (90, TOKENS)
    assert {layer.keys.device.type for layer in on_meta.cache.layers} == {"meta"}
    on_meta.cache.most_bytes = 20 * on_meta.cache.nbytes // on_meta.cache.capacity
    on_meta.cache.trim()
    assert {layer.values.shape[2] for layer in on_meta.cache.layers} == {20}


def test_layers_on_several_devices():
    """Each layer's slots are found where the layer is, wherever the model's first one may be."""
    cache = KVCache(1, torch.device("cpu"), 10**6)
    tree = ContextTree()
    nodes = [tree.find([1]), tree.find([2]), tree.find([1, 2])]
    cache.prepare(nodes[:2])
    there = torch.zeros(1, 2, 2, 4, device="meta")
    keys, values = cache.layers[0].update(there, there)
    assert keys.device.type == values.device.type == "meta" and keys.shape == there.shape
    cache.prepare(nodes[2:])
    keys, _ = cache.layers[0].update(there[:, :, :1], there[:, :, :1])
    assert keys.device.type == "meta" and keys.shape == (1, 2, 2, 4)


def test_the_default_bound(llama, monkeypatch):
    """An eighth of what is free where each half lives; a quarter of a CUDA device's memory, which holds no
    log-probabilities."""
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=800_000))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4_000_000, 9_000_000))
    assert default_bounds(torch.device("cpu")) == (100_000, 100_000)
    assert default_bounds(torch.device("cuda:1")) == (1_000_000, 100_000)
    engine = Engine(llama)
    assert engine.max_cache_bytes == 200_000
    assert (engine.backend.runner.cache.most_bytes, engine.rows.most_bytes) == (100_000, 100_000)


@given(st.integers(0, 10**6), st.integers(20_000, 60_000), st.integers(1, 12))
@examples(8)
def test_eviction_changes_nothing(seed, most_bytes, count):
    """With room for a few dozen contexts: results as ever, and memory within the bound."""
    llm = _shared("llama")
    engine, rng = Engine(llm, max_cache_bytes=most_bytes), np.random.default_rng(seed)
    for _ in range(3):
        contexts = random_contexts(rng, count, longest=12)
        check(llm, contexts, engine.batch_next_token_logprobs_sync(contexts))
        assert engine.statistics().cache_bytes <= most_bytes
    one = rng.integers(0, TOKENS, 40).tolist()
    check(llm, [one], [engine.next_token_logprobs_sync(one)])
    assert engine.statistics().cache_bytes <= most_bytes


@given(st.data(), st.sampled_from(["llama", "mistral", "gpt2"]), st.sampled_from([1, 3_000, 9_000, 25_000]))
@examples(15)
def test_a_long_run_with_little_memory(data, kind, most_bytes):
    """Candidates that grow, wait, come back or are forgotten, as a beam's do: as if all were kept.

    From no room at all to a dozen log-probabilities and two dozen slots.
    """
    llm = _shared(kind)
    engine = Engine(llm, max_cache_bytes=most_bytes)
    alive = [engine.node([5])]
    for _ in range(12):
        grown = [
            node.child(data.draw(st.integers(0, 3)))
            for node in data.draw(st.lists(st.sampled_from(alive), max_size=4))
        ]
        again = data.draw(st.lists(st.sampled_from(alive), max_size=3))
        asked = [*grown, *again]
        if data.draw(st.booleans()):
            asked += [engine.node(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=30)))]
        found = asyncio.run(_gathered(engine.logprobs(node) for node in asked))
        check(llm, [node.tokens() for node in asked], found)
        assert engine.statistics().cache_bytes <= most_bytes
        alive = [*alive[-3:], *grown] or alive
    held = [node for node in engine.backend.runner.cache._holders if node is not None]
    assert len(held) == engine.statistics().slots == len({node.slot for node in held})
    assert engine.rows.nbytes == sum(node.logps.nbytes for node in engine.rows.contexts)


async def _gathered(requests):
    return await asyncio.gather(*requests)


def test_what_was_evicted_is_computed_again(llama):
    """The log-probabilities alone, the keys and values alone, and both."""
    ids, bytes_a_row, bytes_a_slot = list(range(10, 18)), 4 * TOKENS, 512
    cost = {}
    for rows, slots in ((2, 400), (100, 8), (2, 8)):
        # The bound is shared in halves; each case makes one half tight.
        engine = Engine(llama, max_cache_bytes=10**6)
        engine.rows.most_bytes = rows * bytes_a_row
        engine.backend.runner.cache.most_bytes = slots * bytes_a_slot
        node = engine.node(ids)
        check(llama, [ids], [engine.next_token_logprobs_sync(ids)])
        for other in ([1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11, 12, 13, 14]):
            engine.next_token_logprobs_sync(other)
        before = engine.statistics()
        assert (node.logps is None, node.slot is None) == (rows == 2, slots == 8)
        check(llama, [ids], [engine.next_token_logprobs_sync(ids)])
        check(llama, [[*ids, 3]], [engine.next_token_logprobs_sync([*ids, 3])])
        cost[rows, slots] = engine.statistics().tokens_run - before.tokens_run
    assert cost == {(2, 400): 2, (100, 8): 9, (2, 8): 8 + 1}


def test_contexts_that_do_not_fit_beside_each_other(llama):
    """They are run one after another; what only one forward needed is given back."""
    engine = Engine(llama, max_cache_bytes=2 * 512 * 20)
    contexts = [[i] * 12 for i in range(6)]
    seen = []
    run = engine.backend.runner.run_scored

    def counted(new, wanted, scored):
        found = run(new, wanted, scored)
        seen.append(len(engine.backend.runner.cache.view.old) + len(new))
        return found

    engine.backend.runner.run_scored = counted
    check(llama, contexts, engine.batch_next_token_logprobs_sync(contexts))
    assert seen == [12] * 6
    long = [3] * 30
    check(llama, [long, long[:25]], engine.batch_next_token_logprobs_sync([long, long[:25]]))
    assert seen[6:] == [25, 30] and engine.backend.runner.cache.capacity == 20


_kept = {}


def _shared(kind):
    if kind not in _kept:
        _kept[kind] = tiny.transformer(kind)
    return _kept[kind]


async def test_memory_is_bounded(llama):
    engine, rng = Engine(llama, max_cache_bytes=400_000), np.random.default_rng(0)
    for _ in range(30):
        await engine.batch_next_token_logprobs([rng.integers(0, TOKENS, 12).tolist() for _ in range(5)])
        assert engine.statistics().cache_bytes <= 400_000
    stats = engine.statistics()
    assert stats.evictions > 0 and stats.slots > 0
    engine.clear_cache()
    assert engine.statistics().slots == 0
    gc.collect()
    assert sum(len(tree) for tree in engine._trees.values()) == 0


async def test_nothing_is_computed_twice(llama):
    engine = Engine(llama)
    ids = list(range(10, 30))
    before = engine.statistics()
    nodes = [engine.node(ids[:n]) for n in range(1, 21)]
    await asyncio.gather(*(engine.logprobs(n) for n in nodes))
    await asyncio.gather(*(engine.logprobs(n) for n in nodes))
    assert engine.node(ids) is nodes[-1] and nodes[3].child(ids[4]) is nodes[4]
    assert nodes[-1].tokens() == ids and "depth=20" in repr(nodes[-1])
    after = engine.statistics()
    assert isinstance(after, Statistics)
    assert (after.forwards - before.forwards, after.tokens_run - before.tokens_run) == (1, 20)
    await engine.next_token_logprobs([*ids, 5])
    assert engine.statistics().tokens_run - after.tokens_run == 1
    assert engine.statistics().tokens_reused - after.tokens_reused == 20


async def test_an_interior_node_asked_for_later(llama):
    """Evaluated on the way to a longer context, without log-probabilities; then asked for beside others."""
    engine, ids = Engine(llama), [5, 6, 7, 8, 9]
    await engine.next_token_logprobs(ids)
    contexts = [ids[:2], [*ids, 10], ids[:3]]
    check(llama, contexts, await engine.batch_next_token_logprobs(contexts))


async def test_all_tasks_join_one_forward(llama):
    engine = Engine(llama)

    async def late(ids, passes):
        for _ in range(passes):
            await asyncio.sleep(0)
        return await engine.next_token_logprobs(ids)

    before = engine.statistics().forwards
    contexts = [[i, i + 1] for i in range(10)]
    got = await asyncio.gather(*(late(c, 0) for c in contexts), late([3, 4], 0))
    assert engine.statistics().forwards == before + 1
    check(llama, [*contexts, [3, 4]], got)


async def test_more_than_one_forward_holds(llama, monkeypatch):
    from genlm.bytes.backends.hf_tree import backend as module

    monkeypatch.setattr(module, "MOST_NEW", 7)
    engine, rng = Engine(llama), np.random.default_rng(4)
    contexts = random_contexts(rng, 25)
    check(llama, contexts, await engine.batch_next_token_logprobs(contexts))
    long = rng.integers(0, TOKENS, 60).tolist()
    check(llama, [long], [await engine.next_token_logprobs(long)])


async def test_a_cancelled_request_harms_no_other(llama):
    engine = Engine(llama)
    tasks = [asyncio.ensure_future(engine.next_token_logprobs([i, 9])) for i in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], asyncio.CancelledError)
    check(llama, [[0, 9], [2, 9]], [done[0], done[2]])
    lone = asyncio.ensure_future(engine.next_token_logprobs([1, 9]))
    await asyncio.sleep(0)
    lone.cancel()
    await asyncio.gather(lone, return_exceptions=True)
    check(llama, [[1, 9]], [await engine.next_token_logprobs([1, 9])])


async def test_an_error_reaches_those_who_asked(llama, monkeypatch):
    engine = Engine(llama)
    good = await engine.next_token_logprobs([1, 2])

    def broken(*_, **__):
        raise RuntimeError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr(engine.backend.runner, "model", broken)
        got = await asyncio.gather(
            engine.next_token_logprobs([1, 2]),
            engine.next_token_logprobs([1, 2, 3]),
            engine.next_token_logprobs([4]),
            return_exceptions=True,
        )
    assert torch.equal(got[0], good) and all("device lost" in str(e) for e in got[1:])
    contexts = [[1, 2, 3], [4]]
    check(llama, contexts, await engine.batch_next_token_logprobs(contexts))


def test_one_loop_after_another_and_several_at_once(llama):
    engine, contexts = Engine(llama), random_contexts(np.random.default_rng(5), 12)
    for ids in contexts[:3]:
        check(llama, [ids], [asyncio.run(engine.next_token_logprobs(ids))])
    got = {}

    def work(i):
        got[i] = asyncio.run(engine.batch_next_token_logprobs(contexts[3 * i : 3 * i + 3]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        check(llama, contexts[3 * i : 3 * i + 3], got[i])


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        ([], "at least one token"),
        (list(range(LONGEST + 1)), f"reads at most {LONGEST} tokens.*max_context_length"),
        ([1, TOKENS], "this model's tokens are 0"),
    ],
)
async def test_mistakes(llama, ids, match):
    engine = Engine(llama)
    with pytest.raises(ValueError, match=match) as caught:
        await engine.next_token_logprobs(ids)
    assert isinstance(caught.value, GenlmBytesError)
    with pytest.raises(ValueError, match=match):
        engine.next_token_logprobs_sync(ids)


def test_a_bad_bound(llama):
    with pytest.raises(ValueError, match="`max_cache_bytes` is 0"):
        Engine(llama, max_cache_bytes=0)


class TestAdoption:
    def test_one_engine_a_model(self, llama):
        engine = adopt(llama)
        assert isinstance(engine, Engine) and adopt(llama) is engine and engine.model is llama.model
        assert adopt("anything else") == "anything else"
        assert adopt(engine) is engine

    def test_a_model_is_not_kept_alive(self):
        llm = tiny.transformer("llama")
        assert isinstance(adopt(llm), Engine)
        gone = weakref.ref(llm)
        del llm
        gc.collect()
        assert gone() is None

    @pytest.mark.parametrize("kind", ["mamba", "bloom"])
    async def test_models_that_cannot(self, llms, kind, caplog):
        llm = llms(kind)
        with pytest.raises(UnsupportedModelError):
            Engine(llm)
        with caplog.at_level(logging.WARNING, "genlm.bytes"):
            with pytest.warns(UserWarning, match="without the engine's cache.*as long") as told:
                engine = adopt(llm)
            assert engine is not llm and adopt(llm) is engine and len(told) == 1
        assert caplog.text.count("runs without the engine's cache") == 1
        beam = await (await ByteBeamState.initial(llm, BeamParams(2)) << ord("t"))
        assert beam.states[0].lm_state.model is engine and len(beam)
        before = engine.statistics().forwards
        await engine.batch_next_token_logprobs([[3, 4], [3, 5]])
        asked = engine.statistics().forwards
        await engine.batch_next_token_logprobs([[3, 5], [3, 4]])
        assert engine.statistics().forwards == asked > before, "log-probabilities are remembered"

    def test_other_reasons(self, llama, monkeypatch):
        monkeypatch.setattr(llama.model.config, "layer_types", ["chunked_attention"] * 4, raising=False)
        with pytest.raises(UnsupportedModelError, match="chunked_attention"):
            Engine(llama)

    async def test_opting_out(self, llama):
        params = BeamParams(3, 0.01)
        with_engine = await (await ByteBeamState.initial(llama, params)).prefill(b"the and")
        without = await (await ByteBeamState.initial(llama, params, engine=False)).prefill(b"the and")
        assert without.states[0].lm_state.model is llama
        assert with_engine.logZ == pytest.approx(without.logZ, abs=1e-3)


class TestReadingKnownBytes:
    """Prefill asks ahead, and gives exactly the beam that reading byte by byte gives."""

    TEXTS = (
        b"the cat and the hat in the inn and then there",
        "thé 漢字 and \0\0 thin".encode(),
        b"\xff\xfe the \xe6\xbc",
        b"</s> the <s>and",
    )

    async def both(self, llm, text, K, threshold, cut=0):
        eos = [b"</s>"]
        start = await ByteBeamState.initial(llm, BeamParams(K, threshold, eos_byte_strings=eos))
        start = await start.prefill(text[:cut])
        read = start.with_mode(TrieMode.WITHOUT_EOS)
        for symbol in text[cut:]:
            read = await (read.prune() << symbol)
        start.states[0].lm_state.model.clear_cache()
        return await start.prefill(text[cut:]), read.with_mode(TrieMode.WITH_EOS)

    def same(self, one, other):
        assert [s.lm_state.context for s in one] == [s.lm_state.context for s in other]
        assert [s.node for s in one] == [s.node for s in other]
        assert [s.weight for s in one] == pytest.approx([s.weight for s in other], abs=1e-3)

    @pytest.mark.parametrize("text", TEXTS)
    @pytest.mark.parametrize(("K", "threshold"), [(5, 0.05), (3, 0.0), (10, 0.01)])
    async def test_same_beam(self, llama, text, K, threshold):
        self.same(*await self.both(llama, text, K, threshold, cut=3))

    @given(st.integers(0, 10**6), st.sampled_from(TEXTS))
    @examples(25)
    def test_whatever_is_guessed(self, seed, text):
        """Random guesses, wrong ones included, change what is computed and nothing else."""
        from genlm.bytes.byte_lm import draft

        rng = np.random.default_rng(seed)

        def random_tokens(llm, trie, ahead):
            return rng.integers(2, TOKENS, rng.integers(0, 6)).tolist()

        real = draft.draft_tokens
        draft.draft_tokens = random_tokens
        try:
            self.same(*asyncio.run(self.both(_shared("llama"), text, 4, 0.02)))
        finally:
            draft.draft_tokens = real

    @pytest.mark.slow
    async def test_with_almost_no_memory(self, llama, monkeypatch):
        small = Engine(llama, max_cache_bytes=20_000)
        monkeypatch.setattr(llama, "_genlm_bytes_engine", small, raising=False)
        assert adopt(llama) is small
        self.same(*await self.both(llama, self.TEXTS[0], 3, 0.0))

    async def test_few_forwards(self, llama):
        start = await ByteBeamState.initial(llama, BeamParams(5, 0.05))
        engine = start.states[0].lm_state.model
        engine.clear_cache()
        before = engine.statistics().forwards
        await start.prefill(self.TEXTS[0])
        assert engine.statistics().forwards - before < len(self.TEXTS[0]) / 2


@pytest.mark.parametrize("staged", [1, 40, 10**6])
def test_rows_come_through_memory_that_is_used_again(monkeypatch, staged):
    """A row at a time, three, all: each is itself, has memory of its own, and outlives the next forward's."""
    monkeypatch.setattr(logprobs, "STAGED", staged)
    staging = logprobs._Staging()
    first, second = torch.randn(7, 3), torch.randn(2, 3)
    kept = staging.rows(first)
    staging.rows(second)
    assert torch.equal(torch.stack(kept), first)
    assert len({row.untyped_storage().data_ptr() for row in kept}) == 7
    assert not staging.rows(torch.empty(0, 3))
