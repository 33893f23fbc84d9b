"""The table, the notes and the plot of the reading benchmark, from figures that were kept."""

from __future__ import annotations

import shutil
from collections import defaultdict
from typing import Any

from common.alternate import Reply
from common.figures import Figures, Rounds, on_cpu
from common.machine import versions
from common.options import Options
from common.peers import ROOT
from common.results import Report, Table
from reading.extra import ReleaseCurve, at_length
from reading.plot import draw, points
from reading.release import Writing
from reading.row import READ, Row

__all__ = ["plot", "report", "variant"]

NOTES = (
    "float32; a line names what ours is compared with after the semicolon; times are medians over all "
    "rounds, a ratio is of medians, in brackets the quartiles of the rounds' own ratios; the sides "
    "alternate; against 0.2.0, which takes minutes, our side runs before and after it in every round; `CPU "
    "ratio`: the same in processor time, which other work on the machine changes less",
    "every run is cold: caches of both sides are dropped first, except for the beginning-of-sequence token; "
    "imports, tries and compilation are paid before",
    "`texts/english.txt`, prose written for this, without repetition; contexts are its first bytes",
    "writing: the likeliest byte each time; the context was read before, under threshold 0.05, and is not "
    "counted, except in the lines that say so; 0.2.0 keeps no keys and values, ours those of the context",
    "`generate`: greedy, with its key-value cache, from the tokenizer's own tokens of the same context; "
    "speeds, since its last token may end beyond the last byte asked for",
    "a byte after a long and a short context: the same 100 bytes, read one at a time, with the distribution "
    "of each",
    "memory: growth of the resident set (on a GPU: of what torch holds) at its peak, in a fresh process; "
    "the ratio is the engine's cache at its largest against `max_cache_bytes`",
)


def report(known: list[Row], figures: Figures, options: Options) -> Report:
    """The table of the rows that have been measured, and what there is to say of them."""
    table = Table(["", "ours", "theirs", "ratio", "CPU ratio", "target", "rounds", "run", "met"])
    notes: list[str] = []
    missed: list[str] = []
    runs: dict[str, str] = {}  # conditions, each with a letter
    loads: dict[str, list[float]] = defaultdict(list)
    for row in known:
        rounds = figures.rounds(row.name)
        run = runs.setdefault(_conditions(figures[row.name]["conditions"]), chr(ord("a") + len(runs)))
        loads[run].append(figures[row.name]["conditions"]["load"][0])
        for line, of_cpu in zip(row.lines(rounds), _cpu_ratios(row, rounds, options), strict=True):
            met = {True: "pass", False: "FAIL", None: ""}[line.met]
            what, ours, theirs, ratio, target = line.cells
            table.rows.append([what, ours, theirs, ratio, of_cpu, target, str(len(rounds)), run, met])
            missed += [what] * (line.met is False)
        notes += row.notes(rounds)
        if (found := row.check(rounds)) is not None:
            notes.append(f"{row.name}: {'same results' if found[0] else 'RESULTS DIFFER'}: {found[1]}")
            missed += [f"{row.name}: results differ"] * (not found[0])
    return Report(
        title=f"Reading and writing bytes: {options.model}, {options.device}, K={options.K}",
        machine=[
            f"run {letter}: {words}; load average {min(loads[letter])}–{max(loads[letter])}"
            for words, letter in runs.items()
        ],
        table=table,
        notes=[*NOTES, *notes],
        missed=missed,
        variant=variant(options),
    )


def _cpu_ratios(row: Row, rounds: Rounds, options: Options) -> list[str]:
    """The ratio of each line in processor time; blank where that is unknown or says nothing."""
    spent = on_cpu(rounds) if row.timed and options.device == "cpu" else None
    if spent is None:
        return [""] * len(row.lines(rounds))
    return [line.cells[3] for line in row.lines(spent)]


def _conditions(found: dict[str, Any]) -> str:
    where = "" if found["device"] == "cpu" else f"{found['device']}, "
    words = (
        f"{found['date']}, {where}{found['hardware']}, {_count(found['threads'], 'thread')}; ours, at commit "
        f"{found['revision']}: {versions(found['ours'])}"
    )
    release = found.get("release")
    if release is None:
        return words
    words += f"; theirs: {versions(release['versions'])}"
    if release["revision"] != found["revision"]:
        words += f", kept from a run of {release['date']} with {_count(release['threads'], 'thread')}"
    return words + (f" ({release['note']})" if "note" in release else "")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def plot(known: list[Row], figures: Figures, options: Options) -> None:
    """The plot, beside the figures; of the usual run also for the docs' performance page.

    With one thread on a CPU processor time is drawn: it is the time on a machine that does nothing else.
    """
    if "curve" not in figures:
        return
    one_thread = options.device == "cpu" and figures["curve"]["conditions"]["threads"] == 1
    rounds = figures.rounds("curve")
    released: Rounds = []
    release = "release 0.2.0"
    for row in known:
        if isinstance(row, ReleaseCurve) or (isinstance(row, Writing) and row.threshold == READ):
            released += _with_length(row, figures.rounds(row.name))
            release = f"release 0.2.0, {_threads(row.name, figures)}"
    spent = on_cpu(rounds), on_cpu(released)
    unit = "bytes per second"
    if one_thread and spent[0] is not None and spent[1] is not None:
        (rounds, released), unit = spent, f"{unit} of processor time"
    reading = {
        "GenLM Bytes, prefill": points(rounds, "ours", _reading_speed),
        "one plain forward": points(rounds, "forward", _reading_speed),
        release: points(released, "release", _reading_speed),
    }
    writing = {
        "GenLM Bytes, greedy": points(rounds, "ours", _writing_speed),
        "transformers.generate": points(rounds, "generate", _writing_speed),
        release: points(released, "release", _writing_speed),
    }
    threads = _threads("curve", figures)
    title = f"{options.model}, {options.device}, K={options.K}, threshold {READ}, {threads}"
    path = figures.path.with_suffix(".svg")
    draw(reading, writing, title, unit, path)
    if options.scale == 1.0 and not variant(options):
        shutil.copyfile(path, ROOT / "docs" / "assets" / path.name)


def _threads(name: str, figures: Figures) -> str:
    return _count(figures[name]["conditions"]["threads"], "thread")


def _with_length(row: Row, rounds: Rounds) -> Rounds:
    """The release's replies with the length of their contexts, which those of a `Writing` lack."""
    if not isinstance(row, Writing):
        return rounds
    return [{"release": [at_length(reply, row.context) for reply in r["release"]]} for r in rounds]


def _reading_speed(reply: Reply) -> float:
    return reply.facts["length"] / reply.seconds[0]


def _writing_speed(reply: Reply) -> float:
    return len(reply.facts["made"]) / reply.seconds[1]


def variant(options: Options) -> str:
    """What tells this section of RESULTS.md from that of the usual run."""
    parts = [options.device] * (options.device != "cpu") + [options.model] * (options.model != "smollm2")
    return "".join(f"-{part}" for part in [*parts, *([f"K{options.K}"] if options.K != 5 else [])])
