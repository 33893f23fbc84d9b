"""What several models cost together beside each alone, prompts on one beside one, particles beside one and
beside `genlm-control`'s on release 0.2.0; and what ensembles of real models are worth."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from common.alternate import Reply, Worker, take_turns
from common.machine import machine
from common.model_folders import model_folder
from common.options import Options
from common.peers import HERE, python_of
from common.results import Report, Table
from reading.row import in_seconds, times

__all__ = ["run"]

ROUNDS, BYTES, RELEASE_BYTES = 5, 100, 4
PARTS = ("own", "real", "control")
PROMPTS = ["The first thing I saw was", "In a small town by the sea there"]
RATIOS = (
    ("two models together; the sum of each alone", "together", ("one", "other"), 1.15),
    ("one model three times after 1,000 bytes, 20 new; once", "same", ("once",), 1.3),
    ("three texts that share 1,000 bytes, the first new byte; one", "ends", ("begun",), 1.3),
    ("three prompts that share nothing; one (no target)", "prompts", ("one",), None),
    ("10 particles under a regular expression; one", "10", ("1",), 4.0),
)
TITLES = {
    "real": "Several models as one, on real models",
    "control": "Several models as one, beside genlm-control on release 0.2.0",
}
FASTER = 8.0
SEEDS = {1: [1, 2, 3], 10: [1]}
"""What one particle costs depends on what it writes: the median of three."""


def run(options: Options) -> Report:
    """Measure the parts that `--rows` names, or all; cases take turns, the order turned round each time."""
    wanted = [name.strip() for name in options.rows.split(",") if name.strip()] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        raise SystemExit(f"--rows {','.join(sorted(unknown))}: parts are {', '.join(PARTS)}")
    found = Report("", [], Table(["", "ours", "beside", "ratio", "target", ""]), [], [])
    if options.rows:
        found.variant = "-" + "-".join(wanted)
    folder = str(model_folder(options.model))
    if set(wanted) != {"real"}:
        with Worker(sys.executable, "ensembles.worker") as side:
            side.ask("load", folder=folder)
            found.machine = machine(side.ask("versions").facts)
            if "own" in wanted:
                _own(options, side, found)
            if "control" in wanted:
                _control(options, side, found, folder)
    if "real" in wanted:
        _real(options, found, folder)
    found.title = f"Several models as one: {_length(options)} new bytes, one by one"
    if len(wanted) == 1:
        found.title = TITLES.get(wanted[0], found.title)
    return found


def _length(options: Options) -> int:
    return max(5, round(BYTES * options.scale))


def _own(options: Options, side: Worker, found: Report) -> None:
    length = _length(options)
    text = " ".join((HERE / "texts" / "english.txt").read_text(encoding="utf-8").split())
    before = text[: max(100, round(1000 * options.scale))]
    asks: dict[str, Any] = {
        name: (lambda name=name: side.ask("write", name=name, length=length))
        for name in ("one", "other", "together", "prompts")
    }
    for name, members, same, new in (
        ("once", 1, True, length // 5),
        ("same", 3, True, length // 5),
        ("begun", 1, True, 1),
        ("ends", 3, False, 1),
    ):
        asked = {"before": before, "members": members, "same": same, "length": new}
        asks[name] = lambda asked=asked: side.ask("shared", **asked)
    for count in (1, 10):
        asked = {"count": count, "seeds": SEEDS[count], "length": length}
        asks[f"{count}"] = lambda asked=asked: side.ask("particles", **asked)
    rounds, by_cpu = take_turns(asks, options.rounds or ROUNDS), list[str]()
    seconds = {name: [one[name][0].median for one in rounds] for name in asks}
    cpu = {name: [statistics.median(one[name][0].cpu) for one in rounds] for name in asks}
    for title, ours, theirs, target in RATIOS:
        sums = [sum(values) for values in zip(*(seconds[name] for name in theirs), strict=True)]
        ratio = statistics.median(a / b for a, b in zip(seconds[ours], sums, strict=True))
        worked = [sum(values) for values in zip(*(cpu[name] for name in theirs), strict=True)]
        by_cpu.append(times(statistics.median(a / b for a, b in zip(cpu[ours], worked, strict=True))))
        both = [in_seconds(statistics.median(values)) for values in (seconds[ours], sums)]
        said = ["", ""] if target is None else [f"≤ {target:g}×", "pass" if ratio <= target else "FAIL"]
        found.table.rows.append([title, *both, times(ratio), *said])
        found.missed += [title] if said[1] == "FAIL" else []
    facts = {name: rounds[0][name][0].facts for name in ("1", "10")}
    found.notes += [
        "each case cold; medians over rounds in which the cases take turns",
        f"the same ratios in processor time: {', '.join(by_cpu)}",
        f"the ten particles wrote {facts['10']['different'][0]} different texts, of {length} bytes each. "
        + "; ".join(
            f"{name}: {statistics.median(of['contexts']):g} contexts, "
            f"{statistics.median(of['forwards']):g} forwards"
            for name, of in facts.items()
        ),
    ]


def _control(options: Options, side: Worker, found: Report, folder: str) -> None:
    length, K = max(2, round(RELEASE_BYTES * options.scale)), options.K
    seeds = range(1, options.release_rounds + 1)
    asked = {"prompts": PROMPTS, "count": 10, "length": length, "K": K}
    ours, theirs = list[Reply](), list[Reply]()
    with Worker(python_of("control"), "ensembles.control") as other:
        other.ask("load", folder=folder)
        for seed in seeds:
            ours.append(side.ask("product", **asked, seed=seed))
            theirs.append(other.ask("ensemble", **asked, seed=seed, threshold=0.0))
        try:
            died = f"is {other.ask('ensemble', **asked, seed=1, threshold=0.05).facts['log_ml']:.2f}"
        except RuntimeError as error:
            died = f"is not to be had: {str(error).strip().splitlines()[-1][:100]}"
    more = [side.ask("product", **asked, seed=seed).facts["log_ml"] for seed in range(100, 110)]
    default = side.ask("product", **{**asked, "K": None}, seed=1).facts["log_ml"]
    ratio = statistics.median(b.median / a.median for a, b in zip(ours, theirs, strict=True))
    by_cpu = statistics.median(b.cpu[0] / a.cpu[0] for a, b in zip(ours, theirs, strict=True))
    passed = ratio >= FASTER
    title = f"10 particles, two prompts, {length} bytes, K={K}; genlm-control 0.4.1 on 0.2.0"
    both = [in_seconds(statistics.median(r.median for r in replies)) for replies in (ours, theirs)]
    found.table.rows.append([title, *both, times(1 / ratio), f"≤ 1/{FASTER:g}", "pass" if passed else "FAIL"])
    found.missed += [] if passed else [title]
    sides = [", ".join(f"{r.facts['log_ml']:.2f}" for r in replies) for replies in (ours, theirs)]
    spread = statistics.stdev(more)
    found.notes += [
        f"against genlm-control in processor time: {times(1 / by_cpu)}",
        f"log marginal likelihoods, a seed each: ours {sides[0]}; theirs {sides[1]}; ours, ten more seeds: "
        f"{statistics.mean(more):.2f} ± {spread:.2f}; by the default beam {default:.2f}",
        f"at threshold 0.05 theirs {died}",
    ]


def _real(options: Options, found: Report, folder: str) -> None:
    sentences = (HERE / "texts" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    count = max(1, round(8 * options.scale))
    texts, learned = sentences[-count:], sentences[: -max(count, 8)]
    learned.append((HERE / "texts" / "english.txt").read_text(encoding="utf-8"))
    table = Table(["bits a byte", "alone", "prod", "sum", "mixture"])
    with Worker(sys.executable, "ensembles.real") as side:
        found.machine = found.machine or machine(side.ask("versions").facts)
        loaded = side.ask("load", folder=folder, texts=learned).facts

        def bits(members: list[str], prompts: list[int], op: str = "prod", weights: Any = None) -> str:
            asked = {"members": members, "prompts": prompts, "op": op, "weights": weights, "texts": texts}
            return f"{side.ask('bits', **asked).facts['bits']:.3f}"

        for title, members, prompts, weights in (
            ("float32 after nothing and two prompts", ["float32"] * 3, [0, 1, 2], None),
            ("float32, GGUF Q4_1", ["float32", "GGUF Q4_1"], [0, 0], None),
            (
                "float32, n-grams of another tokenizer, 0.8 and 0.2",
                ["float32", "n-grams"],
                [0, 0],
                [0.8, 0.2],
            ),
        ):
            if "GGUF Q4_1" in members and loaded["without gguf"]:
                table.rows.append([f"{title}: {loaded['without gguf']}", *["-"] * 4])
                continue
            alone = ", ".join(bits([name], [at]) for name, at in zip(members, prompts, strict=True))
            ops = [bits(members, prompts, op, weights) for op in ("prod", "sum", "mixture")]
            table.rows.append([title, alone, *ops])
    found.more.append(table)
    found.notes.append(
        f"bits a byte of {count} sentences; the n-grams were trained on {sum(map(len, learned)):,} "
        f"characters of others in {loaded['trained']:.1f} s"
    )
