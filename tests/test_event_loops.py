"""Where clients' event loops come from: `asyncio.run` again and again, one that stays, one of a thread,
pytest-asyncio's of each scope, a notebook's. One model, its trie, its engine and its beams serve them all.

Sessions that pytest and Jupyter would run are run as such, in processes and kernels of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import genlm.control
import numpy as np
import pytest
from tiny import transformer
from toy import TOY, ToyLM

import genlm.bytes
from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.util import LazyByteProbs

REPOSITORY = Path(genlm.bytes.__file__).parents[2]
TEXT = b"abcab"
Runner = Callable[[Coroutine[Any, Any, Any]], Any]


def fresh() -> Runner:
    """A new loop for each call, as in a script that calls `asyncio.run` twice."""
    return asyncio.run


def of_threads() -> Runner:
    """A new loop in a new thread for each call."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(coroutine)))
        thread.start()
        thread.join()
        return found[0]

    return run


@pytest.fixture
def lasting():
    """One loop that stays, run on this thread."""
    with asyncio.Runner() as runner:
        yield lambda: runner.run


@pytest.fixture
def background():
    """One loop that runs on a thread for good, as in applications with a synchronous face."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda: lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(params=["fresh", "of_threads", "lasting", "background", "changing"])
def runner(request, lasting, background) -> Runner:
    """Each step of a test is run by it. `changing`: by each of the others in turn."""
    every = {"fresh": fresh(), "of_threads": of_threads(), "lasting": lasting(), "background": background()}
    if request.param != "changing":
        return every[request.param]
    turns = iter(list(every.values()) * 10)
    return lambda coroutine: next(turns)(coroutine)


@pytest.fixture(params=["toy", "engine"])
def model(request) -> Any:
    return ToyLM(TOY, seed=3) if request.param == "toy" else transformer("llama")


async def _read(beam: ByteBeamState, byte: int) -> ByteBeamState:
    return await (beam.prune() << byte)  # `run` takes coroutines; this makes one of `<<`


def test_a_beam_goes_from_loop_to_loop(runner, model):
    """Every step in the loop that `runner` gives it: the result is that of one loop for all."""
    params = BeamParams(K=10)

    async def at_once() -> tuple[float, np.ndarray]:
        beam = await ByteBeamState.initial(model, params)
        for byte in TEXT:
            beam = await _read(beam, byte)
        return beam.logZ, (await beam.logp_next()).ps

    logZ, ps = asyncio.run(at_once())
    beam = runner(ByteBeamState.initial(model, params))
    for byte in TEXT:
        beam = runner(_read(beam, byte))
        runner(beam.cleanup())  # the beam, and others on its model, work after it
        runner(beam.cleanup())
    assert beam.logZ == pytest.approx(logZ, abs=1e-4)
    looked: LazyByteProbs = runner(beam.logp_next())
    assert np.exp(looked.ps) == pytest.approx(np.exp(ps), abs=1e-4)
    again = runner(runner(ByteBeamState.initial(model, params)).prefill(TEXT))
    assert again.logZ == pytest.approx(logZ, abs=1e-4)


def test_potentials_and_smc_go_from_loop_to_loop(runner, model):
    """`ByteLLM` keeps beams of a loop that may be closed by the next question."""
    params = BeamParams(K=5)
    alone = genlm.control.ByteLLM(model, params)
    kept = genlm.control.ByteLLM(model, params)
    for potential in (alone, kept):
        potential.set_prompt_from_str("ab")
    context = [b"a", b"b"]
    want = asyncio.run(alone.prefix(context))
    sampler = genlm.control.direct_token_sampler(kept)
    for _ in range(3):
        found = runner(sampler.smc(n_particles=10, ess_threshold=0.5, max_tokens=3))
        assert len(found) == 10 and np.isfinite(found.log_ml) | np.isneginf(found.log_ml)
        assert runner(kept.prefix(context)) == pytest.approx(want, abs=1e-4)
        runner(kept.cleanup())


def test_particles_that_come_together_all_read_the_prompt(runner, model):
    """`ByteLLM` keeps its first beam before that has read the prompt; who comes then takes it as it is. Those
    who come together, or a few passes apart, do not: `initial` gives each of them a beam of its own."""

    async def ask(potential: Any, late: int) -> np.ndarray:
        for _ in range(late):
            await asyncio.sleep(0)
        return np.exp(np.asarray((await potential.logw_next([])).weights, np.float64))

    async def gather() -> list[np.ndarray]:
        potential = genlm.control.ByteLLM(model, BeamParams(K=5))
        potential.set_prompt_from_str("ab")
        return await asyncio.gather(*(ask(potential, late % 4) for late in range(10)))

    for _ in range(2):  # the second time, an engine knows what the first beam needs
        first, *others = runner(gather())
        beam = runner(runner(ByteBeamState.initial(model, BeamParams(K=5))).prefill(b"ab"))
        want = np.exp(runner(beam.logp_next()).ps[:256])
        assert first[:256] == pytest.approx(want, abs=1e-4)
        assert all(other == pytest.approx(first, abs=1e-4) for other in others)


def test_loops_at_the_same_time(model):
    """Threads with a loop each, on one model: none waits for another, all get the same."""
    params, found = BeamParams(K=10), [None] * 4

    async def read(i: int) -> None:
        beam = await (await ByteBeamState.initial(model, params)).prefill(TEXT)
        found[i] = beam.logZ

    threads = [threading.Thread(target=asyncio.run, args=(read(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == pytest.approx([found[0]] * 4, abs=1e-4)
    assert found[0] is not None


SUITE = """
import pytest, pytest_asyncio
from genlm.bytes import BeamParams, ByteBeamState
from genlm.control import ByteLLM, direct_token_sampler
from toy import EOS_STRING, TOY, ToyLM

PARAMS = BeamParams(K=5, eos_byte_strings=[EOS_STRING])

@pytest.fixture(scope="session")
def llm():
    return ToyLM(TOY, seed=3)

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_beam(llm):
    beam = await ByteBeamState.initial(llm, PARAMS)
    yield await beam.prefill(b"ab")
    await beam.cleanup()

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_model(llm):
    async with ByteLLM(llm, PARAMS) as model:
        model.set_prompt_from_str("ab")
        yield model

async def check(beam):
    after = await (beam.prune() << ord("c"))
    assert (await after.logp_next()).ps.shape == (258,)

async def check_model(model):
    assert await model.prefix([b"c"]) < 0
    found = await direct_token_sampler(model).smc(n_particles=10, ess_threshold=0.5, max_tokens=3)
    assert len(found) == 10

@pytest.mark.asyncio(loop_scope="function")
async def test_function(llm):
    await check(await ByteBeamState.initial(llm, PARAMS))

@pytest.mark.asyncio(loop_scope="module")
async def test_module(module_model):
    await check_model(module_model)

@pytest.mark.asyncio(loop_scope="module")
async def test_module_again(module_model):
    await check_model(module_model)

@pytest.mark.asyncio(loop_scope="session")
async def test_session(session_beam, module_model):
    await check(session_beam)
    await check_model(module_model)

@pytest.mark.asyncio(loop_scope="function")
async def test_of_another_loop(session_beam, module_model):
    await check(session_beam)
    await check_model(module_model)
"""


def environment() -> dict[str, str]:
    """That of this process, with this library and the toys first on the path."""
    path = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    quiet = "ignore:IProgress not found"  # tqdm asks notebooks for ipywidgets
    more = {"PYTHONPATH": os.pathsep.join(path), "PYTHONWARNINGS": quiet, "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **more}


@pytest.mark.thorough
def test_a_pytest_asyncio_suite_with_loops_of_every_scope(tmp_path):
    """As a client's: two files, so that modules change; every warning an error; nothing left running."""
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "."]
    said = subprocess.run(run, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "10 passed" in said.stdout
    assert "never awaited" not in said.stderr and "destroyed" not in said.stderr, said.stderr


CELLS = [
    "from genlm.bytes import BeamParams, ByteBeamState\n"
    "from genlm.control import AWRS, BoolFSA, ByteLLM\n"
    "from toy import EOS_STRING, TOY, ToyLM\n"
    "llm = ToyLM(TOY, seed=3)\n"
    "beam = await ByteBeamState.initial(llm, BeamParams(K=5, eos_byte_strings=[EOS_STRING]))",
    "beam = await beam.prefill(b'ab')\nbeam",
    "(await beam.logp_next()).pretty().top(3)",
    "model = ByteLLM(llm, beam.params)\nmodel.set_prompt_from_str('ab')",
    "import warnings; warnings.simplefilter('ignore', RuntimeWarning)  # the toy's vocabulary is small\n"
    "found = await AWRS(model, BoolFSA.from_regex('(a|b)*').coerce(model, f=b''.join)).smc(10, 0.5, 4)\n"
    "len(found)",
    "await model.cleanup(); await beam.cleanup()\n(await (beam << ord('c'))).logZ < beam.logZ",
    "import asyncio, threading\n"  # a notebook's loop runs already: what must not, runs in a thread
    "t = threading.Thread(target=lambda: asyncio.run(beam.prefill(b'c'))); t.start(); t.join()\n'done'",
]


RUN_NOTEBOOK = """
import json, sys, nbclient, nbformat
made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in json.load(sys.stdin)])
nbclient.NotebookClient(made, timeout=200, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in made.cells]))
"""


@pytest.mark.thorough
def test_a_notebook_run_top_to_bottom(tmp_path):
    """And a second time in the same kernel, as people do."""
    pytest.importorskip("nbclient")  # comes with what builds the documentation
    run = [sys.executable, "-c", RUN_NOTEBOOK]
    cells = json.dumps([*CELLS, *CELLS])
    said = subprocess.run(run, cwd=tmp_path, env=environment(), input=cells, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    outputs = json.loads(said.stdout.splitlines()[-1])
    assert not [o for cell in outputs for o in cell if o["output_type"] in ("error", "stream")]
    for cells in (outputs[: len(CELLS)], outputs[len(CELLS) :]):
        assert "text/html" in cells[1][0]["data"]  # a beam draws itself
        assert [cells[i][0]["data"]["text/plain"] for i in (4, 5, 6)] == ["10", "True", "'done'"]
