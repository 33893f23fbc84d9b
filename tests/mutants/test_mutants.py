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

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CATALOGUE = Path(__file__).with_name("catalogue.toml")

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
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

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
            found.append(Mutant(entry["name"], group["file"], entry["old"], entry["new"], tests))
    return found


MUTANTS = catalogue()


def copied(tmp_path: Path) -> Path:
    """A copy of the package below `tmp_path`."""
    package = tmp_path / "genlm" / "bytes"
    shutil.copytree(REPOSITORY / "genlm" / "bytes", package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def run(tmp_path: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Those of `tests` that need neither the real model nor long, with the package found below `tmp_path`."""
    # -P: the repository, where pytest runs, must not come before the copy.
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    command += ["-m", "not real_model and not thorough and not release", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CI": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    mutant.apply(copied(tmp_path))
    ran = run(tmp_path, mutant.tests)
    assert ran.returncode == 1, f"no test noticed (pytest ended with {ran.returncode}):\n{ran.stdout[-3000:]}"


def test_no_two_share_a_name() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))


@pytest.mark.timeout(1200)
def test_the_unchanged_copy_passes(tmp_path: Path) -> None:
    """What fails for a mutant fails for its fault, and not because a copy is tested."""
    package = copied(tmp_path)
    ran = run(tmp_path, tuple(sorted({test for mutant in MUTANTS for test in mutant.tests})))
    assert ran.returncode == 0, ran.stdout[-3000:]
    (package / "__init__.py").write_text("raise RuntimeError('this is the copy')")
    assert "this is the copy" in run(tmp_path, ("tests/test_util.py",)).stderr
