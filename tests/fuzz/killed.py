"""Runs of `score --out` that are killed at a random moment, and gone on with: what files they leave.

A program of its own, since a process that is to be killed must be forked before anything runs in threads:

    python tests/fuzz/killed.py FOLDER COUNT SEED

A moment is a number of calls, of Python's and of C's, after which the process kills itself: nothing is timed,
and a seed gives the same moments again. A run may be killed several times before it is let go on to its end,
which must leave the files of a run that nobody killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import numpy as np  # noqa: E402
from toy import TOY, ToyLM  # noqa: E402

import genlm.bytes.models  # noqa: E402
import genlm.bytes.score  # noqa: E402 — imported before forking, as what follows
import genlm.bytes.viz.html  # noqa: E402
from genlm.bytes.cli import main  # noqa: E402
from genlm.bytes.cli.scoring import files  # noqa: E402

TEXTS = b"ab\nabc\n\nca b\ncab\nbb\na\nabcab\nc\nb a\n" * 2
KINDS = {
    "tsv": ["--out", "x.tsv"],
    "words": ["--out", "x.tsv", "--words", "--html", "x.html"],
    "jsonl": ["--out", "x.jsonl", "--end"],
    "npz": ["--out", "x.npz"],
}


def run(folder: Path, kind: str, kill_at: int | None) -> tuple[int, int]:
    """A run in a process of its own: its exit code (minus a signal's number), and how many calls it made."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _run(folder, kind, kill_at, send)
        finally:
            os._exit(99)
    os.close(send)
    told = os.read(receive, 64)
    os.close(receive)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(told or b"0")


def _run(folder: Path, kind: str, kill_at: int | None, send: int) -> None:
    os.chdir(folder)
    (folder.parent / f"{folder.name}.texts").write_bytes(TEXTS)
    os.dup2(os.open(folder.parent / f"{folder.name}.texts", os.O_RDONLY), 0)
    log = os.open(folder.parent / f"{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdin = open(0, closefd=False)
    files.EVERY = 2
    os.fsync = lambda _: None  # no power fails here, and it is most of the time
    llm = ToyLM([*TOY[:-1], b" ", b"<e>"], seed=3, eos=7)
    genlm.bytes.models.load_model = lambda *_, **__: llm  # type: ignore[assignment]
    calls = [0]

    def count(frame: Any, event: str, argument: Any) -> None:
        calls[0] += 1
        if calls[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.argv[1:] = ["score", "--lines", "--tolerance", "1e-9", *KINDS[kind]]
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        main()
    except SystemExit as end:
        sys.setprofile(None)
        os.write(send, str(calls[0]).encode())
        os._exit(int(end.code or 0))


def contents(folder: Path) -> dict[str, Any]:
    """What the outputs hold; of arrays their values, since a zip holds the time."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = {name: (arrays[name].dtype, arrays[name].tobytes()) for name in arrays}
        elif not path.name.endswith((".manifest.jsonl", ".lock")):
            found[path.name] = path.read_bytes()
    return found


def attack(folder: Path, count: int, seed: int) -> int:
    """So many kills; how many there were."""
    rng = random.Random(seed)
    whole: dict[str, tuple[dict[str, Any], int]] = {}
    kills = 0
    for number in range(10 * count):
        kind = rng.choice(list(KINDS))
        if kind not in whole:
            (folder / f"whole-{kind}").mkdir()
            code, calls = run(folder / f"whole-{kind}", kind, None)
            assert code == 0, f"{kind}: ends with {code}"
            whole[kind] = contents(folder / f"whole-{kind}"), calls
        want, calls = whole[kind]
        here = folder / f"{number}"
        here.mkdir()
        moments = [rng.randrange(1, calls) for _ in range(rng.choice([1, 1, 2, 3]))]
        for moment in moments:
            code, _ = run(here, kind, moment)
            assert code in (0, -signal.SIGKILL), f"{kind}, killed at {moments}: ends with {code}"
            kills += code != 0
        code, _ = run(here, kind, None)
        log = (folder / f"{number}.log").read_text()
        assert code == 0, f"{kind}, killed at {moments}: going on ends with {code}: {log}"
        assert contents(here) == want, f"{kind}, killed at {moments}: other files than an uninterrupted run's"
        if kills >= count:
            break
    return kills


if __name__ == "__main__":
    sys.stdout.write(f"{attack(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))}\n")
