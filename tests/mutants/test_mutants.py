"""Faults put into the library on purpose: each must make a test fail.

A mutant is one small change to one file, of the kind that a tired programmer makes: a term forgotten, an
index off by one, a bound on the wrong side. `catalogue.toml` lists them, with the tests that should notice.
Each is applied to a copy of the package, and those tests run on the copy until one fails. A mutant that
survives says that a property of the library is held by no test; one that no longer applies, that the code has
moved on and the mutant has to follow.

    python -m pytest tests/mutants -m thorough                  all of them
    python -m pytest tests/mutants -m thorough -k step-bar      one
"""

from __future__ import annotations

import compileall
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mutants.forked import Forked, Ran

REPOSITORY = Path(__file__).resolve().parents[2]
CATALOGUE = Path(__file__).with_name("catalogue.toml")

SLOW = ("tests/test_states.py::TestPrefill::test_ten_thousand_arbitrary_bytes",)
"""Left out: what takes as long as all else in its file, and notices nothing more."""

pytestmark = pytest.mark.thorough


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        name: unique, for `-k`.
        file: below `genlm/bytes/`.
        old: what stands there, exactly once.
        new: what the mutant puts in its place.
        tests: what should fail, as arguments of pytest.
        open: why it is not run: nothing is known to notice it yet. Each is a hole, or a fault that is none.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    open: str | None = None

    def apply(self, package: Path) -> None:
        """Change the copy of the package at `package`."""
        path = package / self.file
        source = path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            pytest.fail(f"{self.name}: {self.old!r} stands {source.count(self.old)} times in {self.file}")
        path.write_text(source.replace(self.old, self.new), encoding="utf-8")


def catalogue() -> list[Mutant]:
    """All mutants. A group of them shares a file and the tests that should notice."""
    found = []
    for group in tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["group"]:
        for entry in group["mutant"]:
            tests = tuple(entry.get("tests", group["tests"]))
            change = entry["old"], entry["new"]
            file = entry.get("file", group["file"])
            found.append(Mutant(entry["name"], file, *change, tests, entry.get("open")))
    return found


MUTANTS = catalogue()


def copied(tmp_path: Path) -> Path:
    """A copy of the package below `tmp_path`, with what is compiled: it holds for files of the same date."""
    package = tmp_path / "genlm" / "bytes"
    shutil.copytree(REPOSITORY / "genlm" / "bytes", package)
    return package


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    compileall.compile_dir(REPOSITORY / "genlm" / "bytes", quiet=2)
    with Forked(REPOSITORY) as process:
        yield process


def run(forked: Forked, tmp_path: Path, tests: tuple[str, ...]) -> Ran:
    """Those of `tests` that need neither the real model nor long, with the package found below `tmp_path`."""
    chosen = "not real_model and not thorough and not release"
    # A fault that makes a test wait for ever is noticed by the time limit.
    options = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "--assert=plain", "--timeout=120")
    options = (*options, "-m", chosen)
    return forked.run(tmp_path, *options, *(f"--deselect={test}" for test in SLOW), *tests)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_noticed(mutant: Mutant, forked: Forked, tmp_path: Path) -> None:
    mutant.apply(copied(tmp_path))
    if mutant.open:
        pytest.skip(mutant.open)
    ran = run(forked, tmp_path, mutant.tests)
    assert ran.code == 1, f"no test noticed (pytest ended with {ran.code}):\n{ran.output[-3000:]}"


@pytest.mark.timeout(1200)
def test_the_unchanged_copy_passes(forked: Forked, tmp_path: Path) -> None:
    """What fails for a mutant fails for its fault, and not because a copy is tested."""
    package = copied(tmp_path)
    ran = run(
        forked,
        tmp_path,
        tuple(sorted({test for mutant in MUTANTS if not mutant.open for test in mutant.tests})),
    )
    assert ran.code == 0, ran.output[-3000:]
    (package / "__init__.py").write_text("raise RuntimeError('this is the copy')")
    assert "this is the copy" in run(forked, tmp_path, ("tests/test_util.py",)).output
