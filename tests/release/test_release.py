"""Every public call of release 0.2.0, made on it and on this tree: the same answers, but for what is meant.

Run by `pytest -m release`. The release gets a virtual environment of its own on first use
(`benchmarks/common/peers.py`; `BENCH_RELEASE_PYTHON` names one that exists), and both run `worker.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from release.compare import REPOSITORY, Pair, Worker
from release.meant import ATTRIBUTES, IMPORTED, MEANT, PYTHONS_OWN, SIGNATURES
from release.programs import Program
from release.scenarios import SCENARIOS

pytestmark = [pytest.mark.release, pytest.mark.xdist_group("release"), pytest.mark.timeout(900)]

EXAMPLES = int(os.environ.get("RELEASE_EXAMPLES", "20"))

MODULES = [
    "genlm.bytes",
    "genlm.bytes.trie",
    "genlm.bytes.util",
    "genlm.bytes.byte_lm",
    "genlm.bytes.byte_lm.beam",
    "genlm.bytes.byte_lm.trie_state",
    "genlm.bytes.byte_lm.lm_state",
    "genlm.bytes.byte_lm.heal",
]


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    peers = REPOSITORY / "benchmarks/common/peers.py"
    if not peers.exists():
        pytest.skip("no benchmarks/ here: it makes the environment of release 0.2.0")
    spec = importlib.util.spec_from_file_location("peers", peers)
    assert spec is not None and spec.loader is not None
    module = sys.modules["peers"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        python = module.python_of("release")
    except SystemExit as why:
        pytest.skip(f"no interpreter with release 0.2.0: {why}")
    both = Pair(Worker(python, None), Worker(sys.executable, REPOSITORY))
    assert both.ours.where.is_relative_to(REPOSITORY / "genlm")
    assert not both.theirs.where.is_relative_to(REPOSITORY / "genlm")
    yield both
    both.theirs.close()
    both.ours.close()


@pytest.fixture(scope="session")
def surfaces(pair: Pair) -> tuple[Any, Any]:
    """What there is to import and to call, on both sides."""
    program = Program()
    program.do("surface", MODULES)
    found = []
    for worker in (pair.theirs, pair.ours):
        (outcome,) = worker.run(program)["outcomes"]
        found.append(json.loads(outcome["value"]["dict"][0][1]["str"]))
    return found[0], found[1]


@pytest.fixture(scope="session")
def compared(pair: Pair) -> Iterator[set[str]]:
    return set()


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_same_answers(pair: Pair, compared: set[str], name: str) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate]
    )  # no shrinking: programs are short
    @given(st.data())
    def check(data: st.DataObject) -> None:
        left = pair.compare(SCENARIOS[name](data.draw), MEANT)
        assert not left, "\n".join(map(str, left))

    check()
    compared.add(name)


def test_every_public_name_is_here(surfaces: tuple[Any, Any]) -> None:
    """Names that a module of the release imports for itself need not be where it imports them."""
    theirs, ours = (surface["names"] for surface in surfaces)
    missing = []
    for name, what in theirs.items():
        _, simple = name.split(":")
        documented = what["own"] or what["plain"] or str(what["module"]).startswith("genlm.bytes")
        if name not in ours and documented and name not in IMPORTED:
            missing.append(name)
        elif name in IMPORTED:
            assert f"{IMPORTED[name]}:{simple}" in ours, f"{name}: nor is it in {IMPORTED[name]}"
    assert not missing
    assert not [name for name in IMPORTED if name not in theirs or name in ours], "entries that nobody needs"


def test_signatures_take_what_they_took(surfaces: tuple[Any, Any]) -> None:
    theirs, ours = surfaces
    pairs = [
        (name, what["signature"], ours["names"].get(name, {}).get("signature"))
        for name, what in theirs["names"].items()
    ]
    for kind, members in theirs["classes"].items():
        pairs += [
            (f"{kind}.{member}", their, ours["classes"][kind].get(member))
            for member, their in members.items()
        ]
    changed = {
        name: what
        for name, their, our in pairs
        if their is not None and our is not None and (what := narrower(their, our))
    }
    assert changed == SIGNATURES


def narrower(theirs: list[Any], ours: list[Any]) -> str:
    """What a signature no longer takes; an empty string if nothing."""
    names = [parameter[0] for parameter in ours]
    if any(kind in ("VAR_POSITIONAL", "VAR_KEYWORD") for _, kind, _, _ in theirs):
        return ""
    for place, (name, kind, optional, default) in enumerate(theirs):
        if name not in names:
            return f"no {name}"
        _, our_kind, our_optional, our_default = ours[names.index(name)]
        if kind == "POSITIONAL_OR_KEYWORD" and (names.index(name) != place or our_kind != kind):
            return f"{name} elsewhere"
        if optional and (not our_optional or default != our_default):
            return f"{name}={our_default} for {default}"
    needed = [name for name, kind, optional, _ in ours if not optional and not kind.startswith("VAR")]
    extra = set(needed) - {name for name, _, _, _ in theirs}
    return f"{sorted(extra)} needed" if extra else ""


def test_every_member_was_compared(pair: Pair, surfaces: tuple[Any, Any], compared: set[str]) -> None:
    """Methods, attributes and functions: each met by a program above, or listed with a reason."""
    if compared != set(SCENARIOS):
        pytest.skip("only some programs ran, or some failed")
    theirs, _ = surfaces
    wanted = {(kind, member) for kind, members in theirs["classes"].items() for member in members}
    wanted |= {(kind, name) for kind, names in pair.attributes.items() for name in names}
    wanted -= {(kind, name) for kind, name in wanted if name in PYTHONS_OWN}
    functions = {tuple(name.split(":")) for name, what in theirs["names"].items() if what["own"]}
    met = {name for _, name in pair.visited}
    missed = {f"{kind}.{name}" for kind, name in wanted - pair.visited}
    missed |= {name for module, name in functions if name not in met}
    assert missed == set(ATTRIBUTES)
    if EXAMPLES >= 20:
        assert {m.reason for m in MEANT} == pair.used, "entries that no program needs"
