"""Virtual environments of what we are compared with.

`python_of("release")` is the interpreter of an environment that holds the peer, made on first use under
`benchmarks/.venvs/`. An environment variable names another that holds it already:

    BENCH_RELEASE_PYTHON=/elsewhere/bin/python python benchmarks/run.py trie

`"control"` is one of `genlm-control` on that release.

As a program it makes those that it is given by name: `python benchmarks/common/peers.py release`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HERE", "PEERS", "ROOT", "VENVS", "Peer", "python_of"]

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parent
VENVS = HERE / ".venvs"


@dataclass(frozen=True)
class Peer:
    """A peer: requirements to install, one `pip install` after another."""

    steps: tuple[str, ...]


PEERS = {
    # torch first and exact: an exact version is what makes pip take the CPU build where one is offered.
    "release": Peer(("torch==2.13.0", "genlm-bytes==0.2.0")),
    "control": Peer(("torch==2.13.0", "genlm-bytes==0.2.0", "genlm-control==0.4.1")),
}


def python_of(name: str) -> Path:
    """The interpreter that has the peer `name`."""
    given = os.environ.get(f"BENCH_{name.upper()}_PYTHON")
    if given:
        if not Path(given).exists():
            raise SystemExit(f"BENCH_{name.upper()}_PYTHON={given}: there is no such interpreter")
        return Path(given)
    folder = VENVS / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    made = folder / ".made"  # written last: an interrupted installation is begun again
    wanted = "\n".join(PEERS[name].steps)
    if not (python.exists() and made.exists() and made.read_text() == wanted):
        _make(folder, python, PEERS[name])
        made.write_text(wanted)
    return python


def _make(folder: Path, python: Path, peer: Peer) -> None:
    print(f"Making {folder.relative_to(ROOT)} with {' '.join(peer.steps)} (minutes, once)")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    for requirement in peer.steps:
        _install(python, requirement)


def _install(python: Path, requirement: str) -> None:
    """Install with our own exact versions where the peer accepts them, else with the peer's choice."""
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", requirement]
    constraints = ROOT / "constraints.txt"
    if constraints.exists() and subprocess.run([*command, "-c", str(constraints)]).returncode == 0:
        return
    if subprocess.run(command).returncode != 0:
        raise SystemExit(f"could not install {requirement}: see pip's message above, then run this again")


if __name__ == "__main__":
    for peer in sys.argv[1:]:
        print(python_of(peer))
