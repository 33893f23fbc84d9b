"""Reading known bytes and writing new ones: against release 0.2.0, one plain forward, and `generate`.

Every row states its target and checks that both sides gave the same results. What was measured is kept
row by row under `figures/`; the table shows the latest of each row.
"""

from __future__ import annotations

import datetime
import os
import subprocess
from pathlib import Path
from typing import Any

from common.figures import Figures, pack
from common.machine import hardware
from common.options import Options
from common.peers import HERE, ROOT, VENVS
from common.results import Report
from reading import simulated
from reading.complete import Complete
from reading.extra import Curve, Profile, ReleaseCurve
from reading.own import Forward, Generate, Longer, Memory, Together
from reading.release import Reading, Writing
from reading.report import plot, report, variant
from reading.row import Row, Session

__all__ = ["run"]

ROUNDS = 3


def rows(scale: float) -> list[Row]:
    """All rows: the quick ones first."""

    def n(length: int) -> int:
        return max(2, round(length * scale))

    return [
        Forward("read-1000-forward", n(1000), target=2.0),
        Generate("write-200-generate", n(1000), n(200), target=0.8),
        Complete("complete-200", n(1000), n(200), target=0.9, first_target=2.5),
        Longer("longer", n(4000), n(200), n(100), target=1.5),
        Together("together", 16, n(300), n(50), target=4.0),
        Memory("memory", n(8000), limit=512_000_000),
        Reading("read-1000", n(1000), 0.05, target=50.0),
        Writing("write-200", n(1000), n(200), 0.05, target=10.0),
        Writing("write-50-exact", n(1000), n(50), 0.0, target=20.0),
        Reading("read-300-exact", n(300), 0.0, target=25.0),
        Profile("profile", n(1000), n(200)),
        Curve("curve", tuple(map(n, (100, 300, 1000, 2000, 4000))), n(50)),
        ReleaseCurve("curve-release", tuple(map(n, (100, 300))), n(20)),
    ]


def run(options: Options) -> Report:
    """Measure the rows that were asked for; report all that are known."""
    if options.device == "simulated":
        return simulated.run(options)
    every = rows(options.scale)
    figures = Figures(_path(options))
    with Session(options) as session:
        for row in _wanted(every, options):
            if row.name not in figures or not (options.resume or _kept(row, options)):
                figures.put(row.name, _measured(row, session, figures))
            for line in row.lines(figures.rounds(row.name)):
                print("  ".join(cell for cell in line.cells if cell), flush=True)
    known = [row for row in every if row.name in figures]
    plot(known, figures, options)
    return report(known, figures, options)


def _path(options: Options) -> Path:
    folder = HERE / "figures" if options.scale == 1.0 else VENVS / "trial"
    scale = "" if options.scale == 1.0 else f"-{options.scale:g}"
    return folder / f"reading{variant(options)}{scale}.json"


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
    old = figures[row.name] if options.keep_release and row.against_release and row.name in figures else None
    kept = [reply for r in figures.rounds(row.name) for reply in r["release"]] if old else []
    session.release_replies = kept
    session.rounds = options.release_rounds if row.against_release else options.rounds or ROUNDS
    if kept:
        session.rounds = len(kept)
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


def _of_release(conditions: dict[str, Any], session: Session) -> dict[str, Any]:
    return {
        **{name: conditions[name] for name in ("date", "threads", "revision")},
        "versions": session.theirs.ask("versions").facts,
    }


def _revision() -> str:
    """The commit of the working tree, with a + where the library has been changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "genlm")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + "+" * bool(changed)
