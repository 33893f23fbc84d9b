"""Run benchmarks, print what they find, and keep it in RESULTS.md.

    .venv/bin/python benchmarks/run.py            # all of them
    .venv/bin/python benchmarks/run.py trie --rounds 15
    .venv/bin/python benchmarks/run.py reading --rows own

Run it with the interpreter that has our side installed. The exit status is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import importlib

from common.options import Options
from common.peers import HERE
from common.results import keep, show

BENCHMARKS = {
    "trie": ("trie.benchmark", "building the token trie, its sums and its memory, against release 0.2.0"),
    "boundary": ("accuracy.boundary", "how often a text that is cut goes on as it would have"),
    "cuts": ("accuracy.cut_texts", "what a cut costs in texts that people wrote, in five languages and code"),
    "reading": (
        "reading.benchmark",
        "reading known bytes and writing new ones, against release 0.2.0 and transformers",
    ),
    "scoring": (
        "scoring.benchmark",
        "sentences scored with word surprisals, against plain scoring by tokens and 0.2.0",
    ),
    "predicting": ("predicting.benchmark", "next words: milliseconds, forwards, keystrokes saved"),
    "serving": (
        "serving.benchmark",
        "a server under 64 clients, some of them rude: right answers, memory, latencies",
    ),
    "ensembles": ("ensembles.benchmark", "several models as one, and particles, beside one model"),
    "backends": ("backends.benchmark", "one model on Hugging Face and on llama.cpp: speed, memory, loading"),
    "window": ("accuracy.window", "what a sliding window loses against the full context"),
    "canonical": ("accuracy.canonical", "what canonical tokenizations cost"),
    "judged": ("accuracy.judged", "how far off the scores of known texts are, with and without hindsight"),
    "oracle": ("accuracy.oracle", "how few contexts a search that knew what each is worth would need"),
    "accuracy": (
        "accuracy.benchmark",
        "how far off the distributions of the next byte are, and what they cost",
    ),
}
"""The module that has `run`, and what it measures."""


def main() -> int:
    names, no_keep, options = _arguments()
    missed = []
    for name in names or BENCHMARKS:
        report = importlib.import_module(BENCHMARKS[name][0]).run(options)
        show(report)
        missed += report.missed
        if not no_keep and options.scale == 1.0:
            # Rows that have a section of their own.
            rows = f" --rows {options.rows}" if report.variant and options.rows else ""
            command = f".venv/bin/python benchmarks/run.py {name}{rows}{options.words}"
            keep(report, name + report.variant, command, HERE / "RESULTS.md")
    return 1 if missed else 0


def _arguments() -> tuple[list[str], bool, Options]:
    parser = argparse.ArgumentParser(
        description="Run benchmarks and keep their results in benchmarks/RESULTS.md.",
        epilog="; ".join(f"{name}: {what}" for name, (_, what) in BENCHMARKS.items()),
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    add("--rounds", type=int, help="rounds in which the sides alternate (default: 9 for trie, 3 for reading)")
    add("--no-keep", action="store_true", help="print only, leave RESULTS.md as it is")
    reading = parser.add_argument_group("reading").add_argument
    reading("--release-rounds", type=int, default=1, help="rounds of the rows against 0.2.0 (%(default)s)")
    reading(
        "--rows",
        default="",
        help="some rows only, by name, separated by commas; `release`: those "
        "against 0.2.0; `own`: the others",
    )
    reading("--resume", action="store_true", help="keep rows that an earlier run has finished")
    reading(
        "--keep-release",
        action="store_true",
        help="measure our side anew and compare it with the figures of 0.2.0 that an earlier run has kept",
    )
    reading("--device", default="cpu", help="cpu, cuda or simulated (%(default)s)")
    reading("--model", default="smollm2", help="smollm2, random-large or random-small (%(default)s)")
    reading("--K", type=int, default=5, help="the beam's width (%(default)s)")
    reading(
        "--scale",
        type=float,
        default=1.0,
        help="multiply all lengths, to try the benchmark itself; the results are not kept",
    )
    add = parser.add_argument_group("accuracy (and --rows, --resume, --rounds)").add_argument
    add("--release", action="store_true", help="run 0.2.0 itself too, at its three settings: hours")
    add = parser.add_argument_group("boundary (and --rows, --scale)").add_argument
    add("--over-http", action="store_true", help="ask `genlm-bytes serve` for the same, and compare")
    given = vars(parser.parse_args())
    names, no_keep = given.pop("names"), given.pop("no_keep")
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown}")
    if (given["rounds"] or 1) < 1 or given["release_rounds"] < 1 or given["K"] < 1 or given["scale"] <= 0:
        parser.error("--rounds, --release-rounds, --K and --scale must be above 0")
    return names, no_keep, Options(**given)


if __name__ == "__main__":
    raise SystemExit(main())
