"""The engine's thread: the event loop stays free, requests gather, no one is harmed, nothing is left."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import tiny
import torch

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.engine import Engine, adopt

LLAMA = tiny.transformer("llama")


class Held:
    """The model, held at the door: each forward says that it has come, and waits to be let in."""

    def __init__(self, model):
        self.model = model
        self.come, self.let_in = threading.Event(), threading.Event()
        self.error = None
        self.sizes = []
        self.threads = set()

    def __call__(self, input_ids, **kwargs):
        self.threads.add(threading.current_thread())
        self.sizes.append(input_ids.shape[1])
        self.come.set()
        self.let_in.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.model(input_ids=input_ids, **kwargs)


@pytest.fixture
def engine():
    engine = Engine(LLAMA)
    engine.backend.runner.model = Held(LLAMA.model)
    yield engine
    engine.backend.runner.model.let_in.set()  # whatever a failing test has left waiting


async def until(condition):
    while not condition():  # noqa: ASYNC110 — some of what is waited for happens on other threads
        await asyncio.sleep(0)


async def started(engine, *contexts):
    """Tasks that ask for contexts, once the forward over these has begun."""
    held = engine.backend.runner.model
    held.come.clear()
    tasks = [asyncio.ensure_future(engine.next_token_logprobs(ids)) for ids in contexts]
    await until(held.come.is_set)
    return tasks


def handed_over(engine, count):
    """Whether so many contexts wait for the next batch, and no loop is expected to bring more."""
    loops = list(engine._batcher._loops.values())
    return all(loop.settled for loop in loops) and count == sum(len(loop.waiting) for loop in loops)


@torch.no_grad()
def plain(ids):
    return torch.log_softmax(LLAMA.model(torch.tensor([ids]), use_cache=False).logits[0, -1].float(), -1)


def check(contexts, found):
    for ids, logps in zip(contexts, found, strict=True):
        assert (logps - plain(ids)).abs().max() < 5e-4


async def test_the_loop_is_free_while_a_forward_runs(engine):
    (task,) = await started(engine, [1, 2, 3])
    seen = [await asyncio.sleep(0, i) for i in range(5)]
    assert seen == [0, 1, 2, 3, 4] and not task.done()
    engine.backend.runner.model.let_in.set()
    check([[1, 2, 3]], [await task])
    assert engine.backend.runner.model.threads.isdisjoint({threading.current_thread()})


async def test_requests_gather_while_a_forward_runs(engine):
    held = engine.backend.runner.model
    first = await started(engine, [1, 2, 3])
    later = [asyncio.ensure_future(engine.next_token_logprobs([i, 9])) for i in range(4)]
    await until(lambda: handed_over(engine, 4))
    later += [asyncio.ensure_future(engine.next_token_logprobs([i, 9])) for i in range(3, 7)]
    await until(lambda: handed_over(engine, 7))
    held.let_in.set()
    check([[1, 2, 3], *([i, 9] for i in (0, 1, 2, 3, 3, 4, 5, 6))], await asyncio.gather(*first, *later))
    # [1, 9] begins as [1, 2, 3] does; the others bring two nodes each.
    assert held.sizes == [3, 2 * 7 - 1]


async def test_tasks_that_are_answered_join_those_who_wait(engine):
    """Two groups of tasks, one asking while the other's forward runs, are one group from then on."""
    held = engine.backend.runner.model

    async def walk(start, steps):
        ids = [start]
        for step in range(steps):
            (await asyncio.gather(engine.next_token_logprobs(ids)))  # as a beam asks
            ids = [*ids, step]

    one = asyncio.ensure_future(walk(1, 4))
    await until(held.come.is_set)
    other = asyncio.ensure_future(walk(2, 3))
    await until(lambda: handed_over(engine, 1))
    held.let_in.set()
    await asyncio.gather(one, other)
    assert held.sizes == [1, 2, 2, 2]


async def test_cancelled_while_its_forward_runs(engine):
    tasks = await started(engine, [1, 9], [2, 9], [2, 9])
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    engine.backend.runner.model.let_in.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    check([[1, 9], [2, 9]], [found[0], found[2]])


async def test_cancelled_before_it_is_taken(engine):
    held = engine.backend.runner.model
    tasks = await started(engine, [1, 9])
    tasks += [asyncio.ensure_future(engine.next_token_logprobs([i, 9])) for i in (2, 3)]
    await until(lambda: handed_over(engine, 2))
    tasks[1].cancel()
    held.let_in.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError) and held.sizes == [2, 2]
    check([[1, 9], [3, 9]], [found[0], found[2]])


@pytest.mark.parametrize("error", [RuntimeError("device lost"), StopIteration()])
async def test_an_error_reaches_exactly_those_in_its_forward(engine, error):
    held = engine.backend.runner.model
    held.error = error
    failing = await started(engine, [1, 2], [3])
    fine = [asyncio.ensure_future(engine.next_token_logprobs(ids)) for ids in ([1, 2, 4], [5])]
    await until(lambda: handed_over(engine, 2))
    held.let_in.set()
    check([[1, 2, 4], [5]], await asyncio.gather(*fine))
    found = await asyncio.gather(*failing, return_exceptions=True)
    # A coroutine cannot raise StopIteration: Python makes it the cause of another error.
    assert all(got is error or got.__cause__ is error for got in found)


def test_what_would_end_a_thread_is_an_error_like_others(engine):
    held = engine.backend.runner.model
    held.let_in.set()
    held.error = SystemExit(3)
    with pytest.raises(SystemExit):
        engine.next_token_logprobs_sync([1, 2])
    check([[1, 2]], [engine.next_token_logprobs_sync([1, 2])])


async def test_adapters_fail_apart(engine):
    """A batch is evaluated under one set of weights after another; an unknown one harms no other."""
    engine.backend.runner.model.let_in.set()
    good, bad = await asyncio.gather(
        engine.next_token_logprobs([1, 2]),
        engine.next_token_logprobs([1, 2], lora_name="nobody's"),
        return_exceptions=True,
    )
    check([[1, 2]], [good])
    assert isinstance(bad, ValueError) and "nobody's" in str(bad)


def test_a_loop_closed_while_its_forward_runs(engine, caplog):
    async def leave():
        return await started(engine, [1, 2, 3])

    tasks = asyncio.run(leave())  # which cancels what is left
    assert tasks[0].cancelled()
    del tasks
    engine.backend.runner.model.let_in.set()
    check([[1, 2, 3], [4]], engine.batch_next_token_logprobs_sync([[1, 2, 3], [4]]))
    assert engine.backend.runner.model.sizes == [3, 1]
    assert not engine._batcher._loops
    assert not caplog.records


def test_a_loop_closed_before_it_could_hand_over(engine):
    engine.backend.runner.model.let_in.set()
    loop = asyncio.new_event_loop()
    asking = engine._batcher.ask([engine.node([1, 2])])
    loop.call_soon(lambda: asking.send(None))
    loop.call_soon(loop.stop)
    loop.run_forever()
    asking.close()
    loop.close()
    gone = weakref.ref(loop)
    del loop
    check([[1, 2]], [asyncio.run(engine.next_token_logprobs([1, 2]))])
    gc.collect()
    assert gone() is None


async def test_several_loops_share_a_forward(engine):
    held = engine.backend.runner.model
    first = await started(engine, [1, 2, 3])
    others = [
        asyncio.ensure_future(
            asyncio.to_thread(lambda i=i: asyncio.run(engine.next_token_logprobs([i, 9]))),
        )
        for i in range(3)
    ]
    await until(lambda: len(engine._batcher._loops) == 4 and handed_over(engine, 3))
    held.let_in.set()
    check([[1, 2, 3], [0, 9], [1, 9], [2, 9]], await asyncio.gather(*first, *others))
    assert held.sizes == [3, 5] and len(held.threads) == 1


async def test_without_waiting(engine):
    """`*_sync` on the thread of a running loop, and on others while that loop waits for a forward."""
    engine.backend.runner.model.let_in.set()
    check([[7, 8]], [engine.next_token_logprobs_sync([7, 8])])
    engine.backend.runner.model.let_in.clear()
    tasks = await started(engine, [1, 2, 3])
    tasks += [
        asyncio.ensure_future(asyncio.to_thread(engine.batch_next_token_logprobs_sync, [[i], [9], [i]]))
        for i in range(2)
    ]
    await until(lambda: len(engine._batcher._blocked) == 4)
    engine.backend.runner.model.let_in.set()
    one, zero, two = await asyncio.gather(*tasks)
    check([[1, 2, 3], [0], [9], [0], [1], [9], [1]], [one, *zero, *two])
    assert engine.backend.runner.model.sizes == [2, 3, 3]


def test_nothing_is_left_behind(engine):
    """The model, the engine and its thread go when they are dropped, whatever happened before."""
    llm = tiny.transformer("gpt2")
    mine = Engine(llm)
    answered = mine.next_token_logprobs_sync([1, 2])
    with pytest.raises(ValueError):
        mine.next_token_logprobs_sync([1], lora_name="x")
    beam = asyncio.run(_read(llm))
    assert len(answered) and len(beam)
    for idle in [one._batcher.run for one in (mine, adopt(llm))]:
        idle(int)  # an answer comes before its thread has let go of the worker
    del idle
    threads = list(mine._batcher._thread._threads)
    gone = [weakref.ref(llm.model), weakref.ref(mine), weakref.ref(mine._batcher)]
    del llm, mine, beam
    gc.collect()
    assert [g() for g in gone] == [None] * 3
    for thread in threads:
        thread.join()


async def _read(llm):
    return await (await ByteBeamState.initial(llm, BeamParams(2))).prefill(b"the ")


SCRIPT = """
import asyncio, os, sys, threading
import tiny
from genlm.bytes.engine import Engine

engine = Engine(tiny.transformer("llama"))
want = engine.next_token_logprobs_sync([1, 2])
child = os.fork() if hasattr(os, "fork") else None
if child == 0:
    got = engine.next_token_logprobs_sync([1, 2, 3])
    os._exit(0 if len(got) == len(want) else 1)
assert child is None or os.waitpid(child, 0)[1] == 0

come, inside = threading.Event(), engine.backend.runner.model
def slow(**kwargs):
    come.set()
    return inside(**kwargs)
engine.backend.runner.model = slow

async def leave():
    task = asyncio.ensure_future(engine.next_token_logprobs([4, 5, 6]))
    while not come.is_set():
        await asyncio.sleep(0)

asyncio.run(leave())
print("left")
"""


@pytest.mark.slow
def test_the_interpreter_exits_during_a_forward():
    """Also: a forked child has an engine that works."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
