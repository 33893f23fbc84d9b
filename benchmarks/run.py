"""Run benchmarks, print what they find, and keep it in RESULTS.md.

    .venv/bin/python benchmarks/run.py            # all of them
    .venv/bin/python benchmarks/run.py trie --rounds 15

Run it with the interpreter that has our side installed. The exit status is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import importlib

from peers import HERE
from results import keep, show

BENCHMARKS = {"trie": "building the token trie, its sums and its memory, against release 0.2.0"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run benchmarks and keep their results in benchmarks/RESULTS.md.",
        epilog="; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument(
        "--rounds", type=int, default=9, help="rounds in which the sides alternate (%(default)s)"
    )
    parser.add_argument("--no-keep", action="store_true", help="print only, leave RESULTS.md as it is")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown or options.rounds < 1:
        parser.error(f"no benchmark {unknown}" if unknown else "--rounds must be at least 1")
    missed = []
    for name in options.names or BENCHMARKS:
        report = importlib.import_module(name).run(options.rounds)
        show(report)
        missed += report.missed
        if not options.no_keep:
            command = f".venv/bin/python benchmarks/run.py {name} --rounds {options.rounds}"
            keep(report, name, command, HERE / "RESULTS.md")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
