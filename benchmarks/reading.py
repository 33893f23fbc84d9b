"""Reading known bytes and writing new ones: against release 0.2.0, one plain forward, and `generate`.

Every row states its target and checks that both sides gave the same results. What was measured is kept
row by row under `figures/`; the table shows the latest of each row.
"""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from alternate import Reply
from figures import Figures, Rounds, on_cpu, pack, unpack
from machine import hardware, versions
from options import Options
from peers import HERE, ROOT, VENVS
from reading_extra import Curve, Profile, ReleaseCurve, at_length
from reading_own import Forward, Generate, Longer, Memory, Together
from reading_plot import draw, points
from reading_release import Reading, Writing
from reading_row import READ, Row, Session
from results import Report, Table

__all__ = ["run"]

ROUNDS = 3

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


def rows(scale: float) -> list[Row]:
    """All rows: the quick ones first."""

    def n(length: int) -> int:
        return max(2, round(length * scale))

    return [
        Forward("read-1000-forward", n(1000), target=2.0),
        Generate("write-200-generate", n(1000), n(200), target=0.8),
        Longer("longer", n(4000), n(200), n(100), target=1.5),
        Together("together", 16, n(300), n(50), target=4.0),
        Memory("memory", n(8000), limit=512_000_000),
        Reading("read-1000", n(1000), 0.05, target=50.0),
        Writing("write-200", n(1000), n(200), 0.05, target=10.0),
        Writing("write-50-exact", n(1000), n(50), 0.0, target=20.0),
        Reading("read-300-exact", n(300), 0.0, target=25.0),
        Profile("profile", n(1000), n(200)),
        Curve("curve", tuple(map(n, (100, 300, 1000, 2000, 4000, 8000))), n(50)),
        ReleaseCurve("curve-release", tuple(map(n, (100, 300))), n(20)),
    ]


def run(options: Options) -> Report:
    """Measure the rows that were asked for; report all that are known."""
    every = rows(options.scale)
    figures = Figures(_path(options))
    with Session(options) as session:
        for row in _wanted(every, options):
            if row.name not in figures or not (options.resume or _kept(row, options)):
                figures.put(row.name, _measured(row, session, figures))
            for line in row.lines(_rounds(row.name, figures)):
                print("  ".join(cell for cell in line.cells if cell), flush=True)
    known = [row for row in every if row.name in figures]
    _draw(known, figures, options)
    return _report(known, figures, options)


def _variant(options: Options) -> str:
    parts = [options.device] * (options.device != "cpu") + [options.model] * (options.model != "smollm2")
    return "".join(f"-{part}" for part in [*parts, *([f"K{options.K}"] if options.K != 5 else [])])


def _path(options: Options) -> Path:
    folder = HERE / "figures" if options.scale == 1.0 else VENVS / "trial"
    scale = "" if options.scale == 1.0 else f"-{options.scale:g}"
    return folder / f"reading{_variant(options)}{scale}.json"


def _wanted(every: list[Row], options: Options) -> list[Row]:
    names = [name.strip() for name in options.rows.split(",") if name.strip()]
    known = [row.name for row in every]
    if unknown := set(names) - {*known, "release", "own"}:
        raise SystemExit(f"--rows {','.join(sorted(unknown))}: rows are release, own, {', '.join(known)}")
    return [
        row
        for row in every
        if not names or row.name in names or ("release" if row.against_release else "own") in names
    ]


def _kept(row: Row, options: Options) -> bool:
    return options.keep_release and isinstance(row, ReleaseCurve)


def _measured(row: Row, session: Session, figures: Figures) -> dict[str, Any]:
    options = session.options
    session.rounds = options.release_rounds if row.against_release else options.rounds or ROUNDS
    old = figures[row.name] if options.keep_release and row.against_release and row.name in figures else None
    session.release_replies = [reply for r in unpack(old["rounds"]) for reply in r["release"]] if old else []
    session.rounds = len(session.release_replies) or session.rounds
    found = row.measure(session)
    conditions = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "revision": _revision(),
        "ours": session.ours.ask("versions").facts,
        **session.loaded,
    }
    if row.against_release:
        conditions["release"] = old["conditions"]["release"] if old else _of_release(conditions, session)
    return {"rounds": pack(found), "conditions": conditions}


def _cpu_ratios(row: Row, rounds: Rounds, options: Options) -> list[str]:
    """The ratio of each line in processor time; blank where that is unknown or says nothing."""
    spent = on_cpu(rounds) if row.timed and options.device == "cpu" else None
    if spent is None:
        return [""] * len(row.lines(rounds))
    return [line.cells[3] for line in row.lines(spent)]


def _of_release(conditions: dict[str, Any], session: Session) -> dict[str, Any]:
    return {
        **{name: conditions[name] for name in ("date", "threads", "revision")},
        "versions": session.theirs.ask("versions").facts,
    }


def _revision() -> str:
    """The commit of the working tree, with a + where it has been changed since."""
    found = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty=+"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def _report(known: list[Row], figures: Figures, options: Options) -> Report:
    table, notes, missed = (
        Table(["", "ours", "theirs", "ratio", "CPU ratio", "target", "rounds", "run", "met"]),
        [],
        [],
    )
    runs: dict[str, str] = {}  # conditions, each with a letter
    for row in known:
        rounds = _rounds(row.name, figures)
        run = runs.setdefault(_conditions(figures[row.name]["conditions"]), chr(ord("a") + len(runs)))
        for line, of_cpu in zip(row.lines(rounds), _cpu_ratios(row, rounds, options), strict=True):
            met = {True: "pass", False: "FAIL", None: ""}[line.met]
            what, ours, theirs, ratio, target = line.cells
            table.rows.append([what, ours, theirs, ratio, of_cpu, target, str(len(rounds)), run, met])
            missed += [what] * (line.met is False)
        notes += [f"{row.name}: {note}" for note in row.notes(rounds)]
        if (found := row.check(rounds)) is not None:
            notes.append(f"{row.name}: {'same results' if found[0] else 'RESULTS DIFFER'}: {found[1]}")
            missed += [f"{row.name}: results differ"] * (not found[0])
    return Report(
        title=f"Reading and writing bytes: {options.model}, {options.device}, K={options.K}",
        machine=[f"run {letter}: {words}" for words, letter in runs.items()],
        table=table,
        notes=[*NOTES, *notes],
        missed=missed,
        variant=_variant(options),
    )


def _draw(known: list[Row], figures: Figures, options: Options) -> None:
    """The plot, beside the figures; of the usual run also for the docs' performance page."""
    if "curve" not in figures:
        return
    rounds = _rounds("curve", figures)
    title = (
        f"{options.model}, {options.device}, K={options.K}, threshold {READ}, {_threads('curve', figures)}"
    )
    released: Rounds = []
    release = "release 0.2.0"
    for row in known:
        if isinstance(row, ReleaseCurve) or (isinstance(row, Writing) and row.threshold == READ):
            released += _with_length(row, _rounds(row.name, figures))
            release = f"release 0.2.0, {_threads(row.name, figures)}"
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
    path = figures.path.with_suffix(".svg")
    draw(reading, writing, title, path)
    if options.scale == 1.0 and not _variant(options):
        shutil.copyfile(path, ROOT / "docs" / "assets" / path.name)


def _rounds(name: str, figures: Figures) -> Rounds:
    return unpack(figures[name]["rounds"])


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
    return words


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
