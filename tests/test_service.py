"""The async service: batches alike requests, isolates failures, belongs to no event loop."""

from __future__ import annotations

import asyncio
import gc
import threading

import numpy as np
import pytest
import torch
from toy import EOS_STRING, TOY, ToyLM

from genlm.bytes import AsyncTokenByteTrie
from genlm.bytes.trie import TrieMode

WITH = TrieMode.WITH_EOS


@pytest.fixture
def service():
    lm = ToyLM(TOY)
    return AsyncTokenByteTrie.from_vocab(
        lm.byte_vocab, eos_byte_strings=[EOS_STRING], device="cpu", max_batch_size=4
    )


@pytest.fixture
def calls(service, monkeypatch):
    """The sizes of the batches that are worked."""
    sizes = []
    for name in ("batch_weight_sum", "batch_weight_max"):
        real = getattr(service.trie, name)

        def spy(ws, *mode, real=real, name=name):
            sizes.append((name, len(ws), *mode))
            return real(ws, *mode)

        monkeypatch.setattr(service.trie, name, spy)
    return sizes


rows = np.random.default_rng(0).random((10, 7))


async def test_batches_by_operation_and_mode(service, calls):
    got = await asyncio.gather(
        *(service.weight_sum(r) for r in rows[:3]),
        *(service.weight_sum(r, WITH) for r in rows[:2]),
        *(service.weight_max(r) for r in rows[:2]),
        service.weight_sum(rows[3], TrieMode.WITHOUT_EOS),
    )
    assert sorted(c[:2] for c in calls) == [
        ("batch_weight_max", 2),
        ("batch_weight_sum", 2),
        ("batch_weight_sum", 4),
    ]
    for row, sums in zip(rows[:3], got, strict=False):
        torch.testing.assert_close(sums, service.trie.weight_sum(row))
    torch.testing.assert_close(got[3], service.trie.weight_sum(rows[0], WITH))
    torch.testing.assert_close(got[5], service.trie.weight_max(rows[0]))


async def test_no_batch_above_the_limit(service, calls):
    await asyncio.gather(*(service.weight_sum(r) for r in rows))
    assert [c[1] for c in calls] == [4, 4, 2]


async def test_a_bad_request_fails_alone(service):
    good, bad = await asyncio.gather(
        service.weight_sum(rows[0]), service.weight_sum(np.ones(3)), return_exceptions=True
    )
    assert isinstance(bad, ValueError) and good.shape == (17,)


async def test_a_failing_batch_fails_its_callers_only(service, monkeypatch):
    def broken(ws):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(service.trie, "batch_weight_max", broken)
    good, *bad = await asyncio.gather(
        service.weight_sum(rows[0]),
        service.weight_max(rows[0]),
        service.weight_max(rows[1]),
        return_exceptions=True,
    )
    assert isinstance(good, torch.Tensor) and all("out of memory" in str(b) for b in bad)
    assert (await service.weight_sum(rows[0])).shape == (17,)


async def test_cancelling_one_caller_harms_no_other(service, calls):
    tasks = [asyncio.ensure_future(service.weight_sum(r)) for r in rows[:3]]
    await asyncio.sleep(0)  # requests are made
    tasks[1].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], asyncio.CancelledError)
    torch.testing.assert_close(done[2], service.trie.weight_sum(rows[2]))
    assert calls == [("batch_weight_sum", 2, TrieMode.WITHOUT_EOS), ("batch_weight_sum", 1)][:1]


async def test_cleanup_waits_and_leaves_it_usable(service):
    task = asyncio.ensure_future(service.weight_sum(rows[0]))
    await asyncio.sleep(0)
    await service.cleanup()
    assert task.done() or not task.cancelled()
    assert (await task).shape == (17,)
    async with service as same:
        same.start()
        assert (await same.weight_sum(rows[0])).shape == (17,)
    assert (await service.weight_sum(rows[0])).shape == (17,)


async def test_shutdown_cancels_what_waits(service):
    task = asyncio.ensure_future(service.weight_sum(rows[0]))
    await asyncio.sleep(0)
    service.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await service.weight_sum(rows[0])).shape == (17,)


def test_one_loop_after_another(service):
    for row in rows[:3]:
        got = asyncio.run(service.weight_sum(row))
        torch.testing.assert_close(got, service.trie.weight_sum(row))
    service.shutdown()  # loops that are closed have nothing waiting
    gc.collect()


def test_a_loop_closed_with_requests_waiting_harms_no_other(service):
    async def abandon():
        pending.append(asyncio.ensure_future(service.weight_sum(rows[0])))
        await asyncio.sleep(0)

    pending = []
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(abandon())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    service.shutdown()
    assert asyncio.run(service.weight_sum(rows[1])).shape == (17,)


def test_loops_in_several_threads(service):
    results = {}

    def work(i):
        async def many():
            return await asyncio.gather(*(service.weight_sum(rows[i]) for _ in range(20)))

        results[i] = asyncio.run(many())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        for got in results[i]:
            torch.testing.assert_close(got, service.trie.weight_sum(rows[i]))


def test_repr(service):
    assert repr(service) == "AsyncTokenByteTrie(TokenByteTrie(7 tokens, 17 nodes, cpu))"
