"""One model on three backends, in turns: Hugging Face in float32 and bfloat16, llama.cpp in Q4_1.

Each runs in a process of its own, and all are asked in rounds, the order turned round each time. Times are
medians over rounds; a ratio is of these. `complete` and the backend's own generating are compared by the
seconds that a byte takes, since they need not stop at the same one.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from common.alternate import Reply, Worker, take_turns
from common.machine import machine
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from reading.row import in_seconds

__all__ = ["run"]

SIDES = {"float32": "HF float32", "bfloat16": "HF bfloat16", "llamacpp": "llama.cpp Q4_1"}
ROUNDS = 3
WRITING, COMPLETE, MEMORY = 4.0, 0.85, 1 / 3
"""Targets: times as fast as HF float32; times as fast as its own generating; of HF float32's memory."""

_Found = dict[str, dict[str, list[Reply]]]


def run(options: Options) -> Report:
    """Measure all rows, on the sides that `--rows` names: all, if it names none."""
    wanted = [name.strip() for name in options.rows.split(",") if name.strip()] or list(SIDES)
    if unknown := set(wanted) - SIDES.keys():
        raise SystemExit(f"--rows {','.join(sorted(unknown))}: sides are {', '.join(SIDES)}")
    scale, text = options.scale, (HERE / "texts" / "english.txt").read_text(encoding="utf-8")
    text = " ".join(text.split())
    size, prompt = max(8, int(200 * scale)), text[2000:2200]
    prompts = [text[i * 300 : i * 300 + 60] for i in range(16)]
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "reading 1,000 bytes": ("reading", {"text": text[: max(20, int(1000 * scale))]}),
        "writing 200 bytes, a look at each": ("writing", {"context": prompt, "steps": size}),
        "first byte after 200 bytes": ("first_byte", {"context": prompt}),
        "16 prompts at once, 40 bytes each": ("together", {"prompts": prompts, "size": size // 5}),
        "complete, 200 bytes": ("complete", {"prompt": prompt, "size": size}),
        "its own generate, 200 bytes": ("own", {"prompt": prompt, "size": size}),
    }
    found: _Found = {}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(Worker(sys.executable, "backends.worker")) for name in wanted}
        found["load"] = {name: [side.ask("load", kind=name)] for name, side in sides.items()}
        for label, (name, arguments) in cases.items():
            asks = {s: _asking(side, name, arguments) for s, side in sides.items()}
            rounds = take_turns(asks, options.rounds or ROUNDS)
            found[label] = {s: [reply for r in rounds for reply in r[s]] for s in sides}
            print(label, {s: round(_seconds(found[label][s]), 3) for s in sides}, flush=True)
        apart = _apart(sides, text[: int(600 * scale)])
        versions = sides[wanted[0]].ask("versions").facts
    report = _report(found, wanted, versions)
    report.notes += apart
    return report


def _apart(sides: dict[str, Worker], text: str) -> list[str]:
    """How far the distributions of the next token are from those in float32."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, side in sides.items():
            side.ask("rows", text=text, path=f"{folder}/{name}.npy")
            found[name] = np.load(f"{folder}/{name}.npy")
    want = found.pop("float32", None)
    if want is None:
        return []
    variation = {name: np.abs(rows - want).sum(1) / 2 for name, rows in found.items()}
    return [
        f"{SIDES[name]}: total variation of the next token from HF float32 {each.mean():.3f} on average, "
        f"{each.max():.3f} at most, over {len(text)} bytes"
        for name, each in variation.items()
    ]


def _asking(side: Worker, name: str, arguments: dict[str, Any]) -> Callable[[], Reply]:
    return lambda: side.ask(name, **arguments)


def _seconds(replies: list[Reply]) -> float:
    return statistics.median(reply.median for reply in replies)


def _a_byte(replies: list[Reply]) -> float:
    return statistics.median(reply.median / max(1, reply.facts["bytes"]) for reply in replies)


def _peak(found: _Found, side: str) -> float:
    return float(max(reply.facts.get("peak", 0) for row in found.values() for reply in row[side]))


def _report(found: _Found, sides: list[str], versions: dict[str, str]) -> Report:
    rows, missed, both = [], [], {"float32", "llamacpp"} <= set(sides)
    for label, replies in found.items():
        own = {side: _seconds(replies[side]) for side in sides}
        ratio = own["float32"] / own["llamacpp"] if both else math.nan
        target = WRITING if label.startswith("writing") and both else None
        times = map(in_seconds, own.values())
        rows.append([label, *times, f"{ratio:.1f}×", *_verdict(ratio, target)])
        missed += [label] if target and ratio < target else []
    ours, theirs = found["complete, 200 bytes"], found["its own generate, 200 bytes"]
    generated = {side: _a_byte(theirs[side]) / _a_byte(ours[side]) for side in sides}
    mine = generated.get("llamacpp", math.inf)
    cells = (f"{ratio:.2f}×" for ratio in generated.values())
    rows.append(["complete against its own generate", *cells, "", *_verdict(mine, COMPLETE)])
    missed += ["complete"] if mine < COMPLETE else []
    peaks = {side: _peak(found, side) for side in sides}
    share = peaks["llamacpp"] / peaks["float32"] if both else math.nan
    verdict = [f"≤ {MEMORY:.2f}", "FAIL" if share > MEMORY else "pass"]
    cells = (f"{peak / 1e6:,.0f} MB" for peak in peaks.values())
    rows.append(["memory, at most", *cells, f"{share:.2f}", *verdict])
    missed += ["memory"] if share > MEMORY else []
    return Report(
        title="One model on three backends",
        machine=machine(versions),
        table=Table(["", *(SIDES[side] for side in sides), "float32 / llama.cpp", "target", ""], rows),
        notes=[
            "SmolLM2-135M-Instruct at the default tolerance, in turns; medians; each case cold. Loading has "
            "importing in it. Memory is the most resident: Python, torch, rows and mapped pages included",
        ],
        missed=missed,
    )


def _verdict(ratio: float, target: float | None) -> list[str]:
    return ["", ""] if target is None else [f"≥ {target:g}×", "pass" if ratio >= target else "FAIL"]
