"""How far off a beam's answers are, and what they cost: paragraphs of eight kinds, several settings.

Each paragraph is read byte by byte, with the distribution at every byte, and compared with a near-exact
reading; held-out texts are read at the default tolerance only. The figures are kept paragraph by paragraph
under `figures/accuracy.json`; the tables and the plot are drawn from there. The targets are those of the
default tolerance, on the paragraphs.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from dataclasses import asdict
from typing import Any

import torch
from accuracy.reading import Errors, Reading, compare
from accuracy.report import PREFILL, PREFILL_BYTES, WITH_RELEASE, cells, plot, report, row_name
from accuracy.session import Session
from accuracy.settings import DEFAULT, RELEASE, SETTINGS
from accuracy.texts import HELD_OUT, TEXTS
from common.figures import Figures, pack
from common.machine import hardware
from common.options import Options
from common.peers import HERE
from common.results import Report
from common.worker import Clock
from common.worker import versions as package_versions

__all__ = ["run"]

ROUNDS = 3


def run(options: Options) -> Report:
    """Measure what was asked for; report all that is known."""
    figures = Figures(HERE / "figures" / "accuracy.json")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with Session() as session:
        asyncio.run(_measure(session, figures, options))
    plot(figures)
    return report(figures)


async def _measure(session: Session, figures: Figures, options: Options) -> None:
    wanted = [name.strip() for name in options.rows.split(",") if name.strip()]
    choices = {*TEXTS, *SETTINGS, PREFILL}
    if unknown := {*wanted} - choices:
        raise SystemExit(f"--rows {','.join(sorted(unknown))}: rows are {', '.join(sorted(choices))}")
    settings = [s for s in SETTINGS if s in wanted] or list(SETTINGS)
    everything = not wanted or {*wanted} <= {*SETTINGS}
    for name in TEXTS if everything else [name for name in TEXTS if name in wanted]:
        asked = [s for s in settings if s == DEFAULT or name not in HELD_OUT]
        left = [s for s in asked if not (options.resume and _known(figures, session, name, s))]
        if left:
            await _paragraph(session, figures, name, left)
        if options.release:
            await _release(session, figures, name, [s for s in asked if s in RELEASE], options.resume)
    if (everything or PREFILL in wanted) and not (options.resume and PREFILL in figures):
        rounds = await session.prefill(PREFILL_BYTES, options.rounds or ROUNDS)
        figures.put(PREFILL, {"rounds": pack(rounds), "conditions": _conditions()})


def _known(figures: Figures, session: Session, name: str, setting: str) -> bool:
    row = row_name(name, setting)
    return row in figures and figures[row]["text"] == session.digest(name)


async def _paragraph(session: Session, figures: Figures, name: str, settings: list[str]) -> None:
    text = session.text(name)
    tokens = await session.tokens(text)
    reference, looser = await session.reference(name)  # first: the others find its contexts cached
    readings = await session.readings(name, settings)
    doubt = compare(reference, looser, text)
    for setting, (reading, cold) in readings.items():
        row = _figures(session, name, tokens, reading, compare(reference, reading, text, doubt.worst_tv))
        row["doubt"] = asdict(doubt)
        if cold is not None:
            same = (cold.contexts, cold.forwards) == (reading.contexts, reading.forwards)
            row["seconds"], row["counts agree"] = cold.seconds, same
        figures.put(row_name(name, setting), row)
        print(" ".join(cells(TEXTS[name], [row])), SETTINGS[setting].words, flush=True)


async def _release(session: Session, figures: Figures, name: str, settings: list[str], resume: bool) -> None:
    text = session.text(name)
    for setting in settings:
        row = row_name(name, WITH_RELEASE + setting)
        if resume and row in figures and figures[row]["text"] == session.digest(name):
            continue
        reading = session.released(name, SETTINGS[setting])
        reference, _ = await session.reference(name)
        found = _figures(
            session, name, await session.tokens(text), reading, compare(reference, reading, text)
        )
        figures.put(row, {**found, "seconds": reading.seconds})


def _figures(session: Session, name: str, tokens: int, reading: Reading, errors: Errors) -> dict[str, Any]:
    return {
        "text": session.digest(name),
        "bytes": len(session.text(name)),
        "tokens": tokens,
        "contexts": reading.contexts,
        "forwards": reading.forwards,
        "candidates": reading.candidates,
        "waiting": reading.waiting,
        "logZ": float(reading.logZ[-1]),
        "upper": float(reading.upper[-1]),
        "errors": asdict(errors),
        "conditions": _conditions(),
    }


def _conditions() -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "versions": package_versions(Clock()),
    }
