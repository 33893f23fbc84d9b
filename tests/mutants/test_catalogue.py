"""What can be said of mutants without running them: code that moves takes its mutants along."""

from __future__ import annotations

from pathlib import Path

from mutants.test_mutants import MUTANTS, REPOSITORY


def test_each_applies_in_one_place() -> None:
    sources = {
        file: (REPOSITORY / "genlm" / "bytes" / file).read_text() for file in {m.file for m in MUTANTS}
    }
    lost = [(m.name, m.file) for m in MUTANTS if sources[m.file].count(m.old) != 1]
    assert not lost, f"no longer applies, or in several places: {lost}"


def test_each_is_looked_for_by_tests_that_exist() -> None:
    files = {test.partition("::")[0] for m in MUTANTS for test in m.tests}
    assert not [file for file in sorted(files) if not Path(REPOSITORY / file).exists()]


def test_no_two_share_a_name() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))
