"""One model on three backends, in turns: Hugging Face in float32 and bfloat16, llama.cpp in Q4_1.

Each runs in a process of its own, and all are asked in rounds, the order turned round each time. Times are
medians over rounds; a ratio is of these. `complete` and the backend's own generating are compared by the
seconds that a byte takes, since they need not stop at the same one.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

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
    """Measure all rows."""
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
        sides = {name: stack.enter_context(Worker(sys.executable, "backends.worker")) for name in SIDES}
        found["load"] = {name: [side.ask("load", kind=name)] for name, side in sides.items()}
        for label, (name, arguments) in cases.items():
            asks = {s: _asking(side, name, arguments) for s, side in sides.items()}
            rounds = take_turns(asks, options.rounds or ROUNDS)
            found[label] = {s: [reply for r in rounds for reply in r[s]] for s in sides}
            print(label, {s: round(_seconds(found[label][s]), 3) for s in sides}, flush=True)
        versions = sides["llamacpp"].ask("versions").facts
    return _report(found, versions)


def _asking(side: Worker, name: str, arguments: dict[str, Any]) -> Callable[[], Reply]:
    return lambda: side.ask(name, **arguments)


def _seconds(replies: list[Reply]) -> float:
    return statistics.median(reply.median for reply in replies)


def _a_byte(replies: list[Reply]) -> float:
    return statistics.median(reply.median / max(1, reply.facts["bytes"]) for reply in replies)


def _peak(found: _Found, side: str) -> float:
    return float(max(reply.facts.get("peak", 0) for row in found.values() for reply in row[side]))


def _report(found: _Found, versions: dict[str, str]) -> Report:
    rows, missed = [], []
    for label, replies in found.items():
        own = {side: _seconds(replies[side]) for side in SIDES}
        ratio = own["float32"] / own["llamacpp"]
        target = WRITING if label.startswith("writing") else None
        rows.append([label, *map(in_seconds, own.values()), f"{ratio:.1f}×", *_verdict(ratio, target)])
        if target and ratio < target:
            missed.append(label)
    generated = {
        side: _a_byte(found["its own generate, 200 bytes"][side])
        / _a_byte(found["complete, 200 bytes"][side])
        for side in SIDES
    }
    verdict = _verdict(generated["llamacpp"], COMPLETE)
    rows.append(
        ["complete against its own generate", *(f"{r:.2f}×" for r in generated.values()), "", *verdict]
    )
    missed += ["complete"] if generated["llamacpp"] < COMPLETE else []
    peaks = {side: _peak(found, side) for side in SIDES}
    share = peaks["llamacpp"] / peaks["float32"]
    verdict = [f"≤ {MEMORY:.2f}", "pass" if share <= MEMORY else "FAIL"]
    rows.append(
        ["memory, at most", *(f"{p / 1e6:,.0f} MB" for p in peaks.values()), f"{share:.2f}", *verdict]
    )
    missed += ["memory"] if share > MEMORY else []
    return Report(
        title="One model on three backends",
        machine=machine(versions),
        table=Table(["", *SIDES.values(), "float32 / llama.cpp", "target", ""], rows),
        notes=[
            "SmolLM2-135M-Instruct at the default tolerance, in turns; medians; each case cold. Loading has "
            "importing in it. Memory is the most resident, the file's mapped pages, Python and torch included",
        ],
        missed=missed,
    )


def _verdict(ratio: float, target: float | None) -> list[str]:
    return ["", ""] if target is None else [f"≥ {target:g}×", "pass" if ratio >= target else "FAIL"]
