"""The attack: random operations over awkward vocabularies; cancellations, failing models, killed runs.

What is checked is said in `episode.py` and `harm.py`. A seed that fails is named, and played alone by

    PYTHONPATH=tests python -m fuzz.play SEED

`make test` plays some hundred operations, `make thorough` a hundred thousand; both count them at their end.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fuzz.harm import cancelled, failing
from fuzz.play import OPERATIONS, operations
from fuzz.worlds import VOCABULARIES

CHUNKS = 20
Count = Callable[[str, int], None]


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Count:
    """Adds to the figures at the end of the run; see `conftest.py`."""
    return lambda what, number: record_property(f"fuzz: {what}", number)


def play(what: Callable[[int], Awaitable[int]], seeds: range) -> int:
    """All seeds; the first that fails is named."""

    async def every() -> int:
        done = 0
        for seed in seeds:
            try:
                done += await what(seed)
            except Exception as error:
                error.add_note(f"PYTHONPATH=tests python -m fuzz.play {seed}")
                raise
        return done

    return asyncio.run(every())


def test_operations(count: Count) -> None:
    count("operations", play(operations, range(12)))


def test_cancellations(count: Count) -> None:
    count("cancellations", play(cancelled, range(12)))


def test_failing_models(count: Count) -> None:
    count("failing models", play(failing, range(20)))


@pytest.mark.thorough
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_operations(chunk: int, count: Count) -> None:
    """Every fifth part with annotations enforced, which takes three times as long; the others without."""
    each = 100_000 // OPERATIONS // CHUNKS
    seeds = range(1000 + chunk * each, 1000 + (chunk + 1) * each)
    if chunk % 5 == 0:
        count("operations", play(operations, seeds))
        return
    program = [sys.executable, "-W", "error", "-m", "fuzz.play", str(seeds.start), str(seeds.stop)]
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    count("operations", int(done.stdout.split()[0]))


@pytest.mark.thorough
@pytest.mark.parametrize("chunk", range(4))
def test_many_cancellations(chunk: int, count: Count) -> None:
    count("cancellations", play(cancelled, range(1000 + 250 * chunk, 1250 + 250 * chunk)))


@pytest.mark.thorough
def test_many_failing_models(count: Count) -> None:
    count("failing models", play(failing, range(1000, 1800)))


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is killed in a fork")
@pytest.mark.parametrize("seed", range(4))
def test_killed_runs(seed: int, tmp_path: Path, count: Count) -> None:
    program = [sys.executable, str(Path(__file__).parent / "killed.py"), str(tmp_path), "5", str(seed)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count("killed runs", int(done.stdout.split()[-1]))


def test_every_vocabulary_is_played() -> None:
    from fuzz.episode import Episode

    assert {Episode(seed).name for seed in range(200)} == set(VOCABULARIES)
