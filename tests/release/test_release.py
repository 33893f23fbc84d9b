"""Every public call of release 0.2.0, made on it and on this tree: the same answers, but for what is meant."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from release.compare import REPOSITORY, Meant, Pair, Worker
from release.programs import Program
from release.scenarios import SCENARIOS

pytestmark = pytest.mark.release


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    peers = REPOSITORY / "benchmarks/peers.py"
    if not peers.exists():
        pytest.skip("no benchmarks/ here: an interpreter with release 0.2.0 is made by benchmarks/peers.py")
    spec = importlib.util.spec_from_file_location("peers", peers)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module
    spec.loader.exec_module(module)
    try:
        python = module.python_of("release")
    except SystemExit as why:
        pytest.skip(f"no interpreter with release 0.2.0: {why}")
    both = Pair(Worker(python, None), Worker(sys.executable, REPOSITORY))
    assert both.ours.where.is_relative_to(REPOSITORY)
    assert not both.theirs.where.is_relative_to(REPOSITORY / "genlm")
    yield both
    both.theirs.close()
    both.ours.close()


MEANT: list[Meant] = []


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_same_answers(pair: Pair, name: str) -> None:
    @settings(max_examples=int(os.environ.get("N", 30)), deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        program: Program = SCENARIOS[name](data.draw)
        left = pair.compare(program, MEANT)
        assert not left, "\n".join(map(str, left))

    check()
