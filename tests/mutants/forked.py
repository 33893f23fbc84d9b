"""Runs of pytest that do not wait for torch: a process that has imported it forks one child for each.

Importing what the library is built on takes longer than most tests that notice a mutant. So it is imported
once; the library itself is not, each child imports the copy it is to test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Self

PRELOADED = (
    "torch",
    "transformers",
    "tokenizers",
    "pandas",
    "httpx",
    "hypothesis",
    "pytest",
    "genlm.backend",
)
"""Whatever is missing is left out: the children say so where it matters."""


class Ran(NamedTuple):
    """How a run ended: pytest's exit code, and what was printed."""

    code: int
    output: str


class Forked:
    """The process that forks, as seen from the one that asks."""

    def __init__(self, directory: Path) -> None:
        # -P: the repository, where pytest runs, must not come before the copy.
        command = [sys.executable, "-P", "-W", "ignore", __file__]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "ANNOTATIONS_UNCHECKED": "1",
        }
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, path: Path, *arguments: str) -> Ran:
        """Run pytest with what stands below `path` before all else that can be imported."""
        assert self._process.stdin is not None and self._process.stdout is not None
        log = path / "output.txt"
        self._process.stdin.write(json.dumps([str(path), str(log), arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return Ran(int(answer), log.read_text(encoding="utf-8", errors="replace"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class _Unshrunk:
    """Hypothesis's examples as they are found: that there is one is enough, and shrinking takes longer."""

    def pytest_sessionstart(self) -> None:
        """After `conftest.py` has chosen a profile, before the tests are read."""
        from hypothesis import Phase, settings

        found = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", settings(), derandomize=True, database=None, phases=found)
        settings.load_profile("mutants")


def _child(path: str, log: str, arguments: list[str]) -> None:
    """One run, in a process of its own; does not return."""
    code = 99  # none of pytest's
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.path.insert(0, path)
        os.environ["PYTHONPATH"] = path  # for the processes that tests start
        import pytest

        code = int(pytest.main(arguments, plugins=[_Unshrunk()]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Fork a child for each line that comes in, and answer with how it ended."""
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError:
            continue
    assert "genlm.bytes" not in sys.modules
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _child(*json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
