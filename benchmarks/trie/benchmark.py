"""The token trie against release 0.2.0: building it, summing weights below its nodes, its memory.

Targets: the 49k trie built at least 20× faster, tekken's 131k in under a second; `batch_weight_sum` of
1, 8 and 64 float32 rows at least 20× faster each; at most a tenth of the memory. In the same run both
sides must give the same sums (float32 tolerance).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common.alternate import Comparison, Reply, Worker, alternate, only
from common.machine import machine
from common.options import Options
from common.peers import python_of
from common.results import Report, Table
from common.vocabularies import vocabulary

__all__ = ["run"]

WORKER = "trie.worker"
ROWS = (1, 8, 64)
FASTER, SMALLER, LARGE_SECONDS = 20.0, 10.0, 1.0
ROUNDS = 9
CALLS = 7  # timed sums of each side in each round
MEMORY_ROUNDS = 3  # a pair of fresh processes each

NOTES = (
    "times are medians; a ratio is theirs/ours of the medians over all rounds, in brackets the quartiles "
    "of the rounds' own ratios; the sides alternate, each in a process of its own",
    "building: earlier tries are dropped first, and our side checks that it built rather than shared",
    "sums: float32 softmax rows of the 49k vocabulary, mode None, each result dropped before the next "
    "call; one untimed call first, in which numba compiles ours (seconds, once: then it is cached on disk)",
    "memory: growth of the resident set by a trie that is ready for sums, in a fresh process, free memory "
    "returned first; the list of tokens is not counted",
)


class Line(NamedTuple):
    """A row of the table, and whether its target is met (None: it has none)."""

    cells: list[str]
    met: bool | None


def run(options: Options) -> Report:
    """Run the whole comparison."""
    rounds = options.rounds or ROUNDS
    theirs = python_of("release")
    lines, notes = [], list(NOTES)
    with (
        tempfile.TemporaryDirectory() as folder,
        Worker(sys.executable, WORKER) as a,
        Worker(theirs, WORKER) as b,
    ):
        versions = a.ask("versions").facts, b.ask("versions").facts
        assert versions[1].get("genlm-bytes") == "0.2.0", f"{theirs} holds {versions[1]}"
        for line in _timed(a, b, Path(folder), rounds, notes):
            _progress(line)
            lines.append(line)
    for line in _memory(theirs, notes):
        _progress(line)
        lines.append(line)
    return Report(
        title="The token trie against release 0.2.0",
        machine=machine(*versions),
        table=Table(
            ["", "ours", "0.2.0", "ratio", "target", "met"],
            [[*line.cells, {True: "pass", False: "FAIL", None: ""}[line.met]] for line in lines],
        ),
        notes=[f"{rounds} rounds ({MEMORY_ROUNDS} for memory)", *notes],
        missed=[line.cells[0] for line in lines if line.met is False],
    )


def _timed(a: Worker, b: Worker, folder: Path, rounds: int, notes: list[str]) -> Iterator[Line]:
    """Building and sums, in two long-lived workers."""
    smollm2, sentencepiece, tekken = map(vocabulary, ("smollm2", "sentencepiece", "tekken"))

    def build(side: Worker, path: Path) -> Reply:
        return side.ask("build", vocabulary=str(path), calls=1)

    for name, path, target in (
        ("build, SmolLM2 49,152", smollm2, FASTER),
        ("build, SentencePiece 32,000", sentencepiece, None),
    ):
        for side in (a, b):
            build(side, path)  # untimed: a first run loads code
        yield _compared(
            name, alternate(lambda p=path: build(a, p), lambda p=path: build(b, p), rounds), target
        )
    large = only(lambda: build(a, tekken), rounds)
    slowest, middle = max(large), statistics.median(large)
    met = middle < LARGE_SECONDS
    yield Line(
        [
            "build, tekken 131,072",
            _ms(middle),
            "",
            f"slowest {_ms(slowest)}",
            "< 1 s",
        ],
        met,
    )

    weights = folder / "weights.npy"
    np.save(
        weights, _softmax_rows(max(ROWS), a.ask("build", vocabulary=str(smollm2), calls=1).facts["tokens"])
    )
    notes.append(_agreement(a, b, smollm2, weights, folder))
    for rows in ROWS:

        def sums(side: Worker, rows: int = rows) -> Reply:
            return side.ask("sums", vocabulary=str(smollm2), weights=str(weights), rows=rows, calls=CALLS)

        result = alternate(lambda: sums(a), lambda: sums(b), rounds)
        yield _compared(f"batch_weight_sum, {rows} row{'s' * (rows > 1)}", result, FASTER)


def _softmax_rows(rows: int, tokens: int) -> np.ndarray:
    """Peaked distributions, as a model's are."""
    logits = 4 * np.random.default_rng(0).standard_normal((rows, tokens))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _agreement(a: Worker, b: Worker, path: Path, weights: Path, folder: Path) -> str:
    """Check that both sides give the same sums, and say how closely they agree."""
    found = []
    for name, side in (("ours", a), ("theirs", b)):
        into = folder / f"{name}.npy"
        facts = side.ask("values", vocabulary=str(path), weights=str(weights), into=str(into)).facts
        found.append(np.load(into))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-6)
    apart = np.abs(found[0] - found[1]).max()
    root = np.load(weights).sum(axis=1, dtype=np.float64)
    ours, theirs = (np.abs(sums[:, 0] - root).max() for sums in found)
    return (
        f"both sides gave the same sums within float32: over {len(found[0])} rows × {facts['compared']:,} "
        f"nodes (root, all leaves, 2,000 inner prefixes) they differ by {apart:.0e} at most; at the root "
        f"ours are within {ours:.0e} of the float64 sum, theirs within {theirs:.0e}"
    )


def _memory(theirs: Path, notes: list[str]) -> Iterator[Line]:
    """Memory of one trie, each time in a fresh process."""
    path = str(vocabulary("smollm2"))
    replies: dict[str, list[Reply]] = {"ours": [], "theirs": []}

    def ask(name: str, python: Path | str) -> Reply:
        with Worker(python, WORKER) as side:
            replies[name].append(side.ask("memory", vocabulary=path))
        return replies[name][-1]

    result = alternate(
        lambda: ask("ours", sys.executable),
        lambda: ask("theirs", theirs),
        MEMORY_ROUNDS,
        measure=lambda reply: reply.facts["bytes"],
    )
    cells = ["memory, SmolLM2 49,152", _mb(result.our_median), _mb(result.their_median), _ratio(result)]
    yield Line([*cells, f"≥ {SMALLER:.0f}×"], result.ratio >= SMALLER)
    ours, theirs_then = (
        statistics.median(reply.facts["bytes_with_word2leaf"] for reply in replies[name])
        for name in ("ours", "theirs")
    )
    arrays = replies["ours"][0].facts["nbytes"]
    notes.append(
        f"our arrays are {_mb(arrays)} (`trie.nbytes`); ours makes the dictionary behind `word2leaf` when it "
        f"is first read: after that ours holds {_mb(ours)}, theirs {_mb(theirs_then)} "
        f"({theirs_then / ours:.1f}×)"
    )


def _compared(name: str, result: Comparison, target: float | None) -> Line:
    cells = [name, _ms(result.our_median), _ms(result.their_median), _ratio(result)]
    if target is None:
        return Line([*cells, ""], None)
    return Line([*cells, f"≥ {target:.0f}×"], result.ratio >= target)


def _ratio(result: Comparison) -> str:
    first, third = result.quartiles
    return f"{result.ratio:.1f}× ({first:.1f}–{third:.1f})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _progress(line: Line) -> None:
    print("  ".join(cell for cell in line.cells if cell), flush=True)
