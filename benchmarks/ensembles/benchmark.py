"""What several models cost together beside each alone, prompts on one beside one, particles beside one."""

from __future__ import annotations

import statistics
import sys

from common.alternate import Worker, take_turns
from common.machine import machine
from common.model_folders import model_folder
from common.options import Options
from common.results import Report, Table
from reading.row import in_seconds, times

__all__ = ["run"]

ROUNDS, BYTES = 5, 100


def run(options: Options) -> Report:
    """Measure all rows; in each round every case once, the order turned round each time."""
    length = max(5, round(BYTES * options.scale))
    with Worker(sys.executable, "ensembles.worker") as side:
        side.ask("load", folder=str(model_folder(options.model)))
        asks = {
            name: (lambda name=name: side.ask("write", name=name, length=length))
            for name in ("one", "other", "together", "prompts")
        }
        for count in (1, 10):
            asks[f"{count}"] = lambda count=count: side.ask("particles", count=count, length=length)
        rounds = take_turns(asks, options.rounds or ROUNDS)
        versions = side.ask("versions").facts
    seconds = {name: [found[name][0].median for found in rounds] for name in asks}
    rows, missed = [], []
    for title, ours, theirs, target in (
        ("two models together; the sum of each alone", "together", ("one", "other"), 1.15),
        ("three prompts on one model; one", "prompts", ("one",), 1.3),
        ("10 particles under a regular expression; one", "10", ("1",), 4.0),
    ):
        sums = [sum(values) for values in zip(*(seconds[name] for name in theirs), strict=True)]
        ratio = statistics.median(a / b for a, b in zip(seconds[ours], sums, strict=True))
        met = ratio <= target
        both = [in_seconds(statistics.median(values)) for values in (seconds[ours], sums)]
        rows.append([title, *both, times(ratio), f"≤ {target:g}×", "pass" if met else "FAIL"])
        missed += [] if met else [title]
    last = rounds[0]["10"][0].facts
    return Report(
        title=f"Several models as one: {length} new bytes, one by one",
        machine=machine(versions),
        table=Table(["", "ours", "beside", "ratio", "target", ""], rows),
        notes=[
            "each case cold; medians over rounds in which the cases take turns",
            f"the ten particles wrote {last['different']} different texts",
        ],
        missed=missed,
    )
