"""The tables and the plot of the accuracy benchmark, from its figures.

A row of the figures is a paragraph at a setting (`row_name`), or `PREFILL`.
"""

from __future__ import annotations

import shutil
import statistics
from typing import Any, NamedTuple

from accuracy.plot import Point, draw
from accuracy.reading import LOST, TAKEN
from accuracy.settings import COLD, DEFAULT, LOOSER, OURS, REFERENCE, REFERENCES, RELEASE, SETTINGS
from accuracy.texts import HARD, HELD_OUT, PARAGRAPHS, TEXTS
from common.figures import Figures, Rounds, unpack
from common.machine import versions
from common.peers import ROOT
from common.results import Report, Table

__all__ = ["PREFILL", "PREFILL_BYTES", "WITH_RELEASE", "cells", "plot", "report", "row_name"]

PREFILL, PREFILL_BYTES = "prefill", 1000
WITH_RELEASE = "release-"  # before the name of a setting that 0.2.0 itself ran

NOTES = (
    "every figure but the excess, the seconds and `lost` is a mean over the bytes of a paragraph, or the "
    "worst of them; a line over several paragraphs gives the mean of their means, and the worst of all",
    "`contexts` and `forwards`: token contexts evaluated, and runs of the model, byte by byte and with the "
    "distribution asked for at every byte, per token of the tokenizer's own tokenization. Counted as if "
    "nothing had been computed before; the runs with nothing cached, which give the seconds, check that",
    "`Δ`: |Δ log p| of the byte that follows, nats. `TV`: total variation of the whole distribution, end of "
    "sequence included. `excess`: bits per byte of the text beyond the reference's (below 0: it took the "
    "text for likelier). `log Z`: of the whole paragraph, less the reference's",
    f"`lost`: bytes given less than {LOST:g} that the reference gives more than {TAKEN:g}, over all "
    "distributions",
    "`missing`: the share of the prefix probability that waits or was dropped; `expected`: what "
    "`slack.expected` says it is; in brackets, at how many bytes the true TV was higher than that. `broken`: "
    "bytes at which it was higher than `slack.bound`, which must never be",
    "`K=5, threshold 0.05` and so on: these parameters on our engine, which gives the same results as "
    "release 0.2.0 (the rows `read-1000` and `read-300-exact` of the benchmark `reading` check that)",
    "seconds: processor time with nothing cached, measured for " + ", ".join(SETTINGS[s].words for s in COLD),
)


def row_name(name: str, setting: str) -> str:
    return f"{name}/{setting}"


HEADER = [
    "",
    "contexts",
    "forwards",
    "mean Δ",
    "worst Δ",
    "mean TV",
    "worst TV",
    "excess",
    "log Z",
    "lost",
    "missing",
    "expected",
    "broken",
    "seconds",
]


def report(figures: Figures) -> Report:
    targets, missed = _targets(figures)
    table = Table(HEADER)
    everywhere = list(SETTINGS) + [WITH_RELEASE + s for s in RELEASE]
    groups = [(_words(setting), _rows(figures, setting)) for setting in everywhere]
    groups.insert(0, (f"{_words(DEFAULT)}, held-out texts", _rows(figures, DEFAULT, HELD_OUT)))
    for words, rows in groups:
        if rows:
            table.rows.append(cells(f"**{words}**, mean of {len(rows)}", list(rows.values())))
            table.rows += [cells(TEXTS[name], [row]) for name, row in rows.items()]
    return Report(
        title="Accuracy: distributions of the next byte against a near-exact run",
        machine=_ran_on(figures),
        table=targets,
        notes=[*NOTES, *_reference_notes(figures), *_count_notes(figures)],
        missed=missed,
        more=[table],
    )


def _rows(figures: Figures, setting: str, names: Any = PARAGRAPHS) -> dict[str, dict[str, Any]]:
    return {name: figures[row] for name in names if (row := row_name(name, setting)) in figures}


def _words(setting: str) -> str:
    if setting.startswith(WITH_RELEASE):
        return f"release 0.2.0 itself, {SETTINGS[setting.removeprefix(WITH_RELEASE)].words}"
    return SETTINGS[setting].words


class Target(NamedTuple):
    """What the default tolerance has to reach: a figure, its limit, and how both are shown."""

    words: str
    found: float
    limit: float
    format: str

    def cells(self, counts: bool) -> list[str]:
        met = "pass" if self.met else "FAIL" if counts else "(no)"
        return [self.words, format(self.found, self.format), f"≤ {self.limit:g}", met]

    @property
    def met(self) -> bool:
        return self.found <= self.limit


def _targets(figures: Figures) -> tuple[Table, list[str]]:
    """The targets over the ordinary paragraphs, and without counting them over the hard ones."""
    table, missed = Table(["default tolerance", "found", "target", "met"]), list[str]()
    ordinary = [name for name in PARAGRAPHS if name not in HARD]
    for counts, names in ((True, ordinary), *((False, [name]) for name in HARD)):
        rows = list(_rows(figures, DEFAULT, names).values())
        for target in _accuracy_targets(rows) if rows else ():
            words = target.words if counts else f"{PARAGRAPHS[names[0]]}: {target.words}"
            table.rows.append(target._replace(words=words).cells(counts))
            missed += [words] * (counts and not target.met)
    if PREFILL in figures:
        target = _prefill_target(unpack(figures[PREFILL]["rounds"]))
        table.rows.append(target.cells(True))
        missed += [target.words] * (not target.met)
    return table, missed


def _accuracy_targets(rows: list[dict[str, Any]]) -> list[Target]:
    found = _over(rows)
    most = max(row["contexts"] / row["tokens"] for row in rows)
    return [
        Target("bytes lost", found["lost"], 0, "d"),
        Target("mean Δ", found["mean"], 5e-4, ".1e"),
        Target("worst Δ", found["worst"], 0.02, ".4f"),
        Target("mean TV", found["tv"], 1e-3, ".1e"),
        Target("contexts a token", found["contexts"], 10, ".1f"),
        Target("contexts a token, most of a paragraph", most, 30, ".1f"),
        Target("forwards a token", found["forwards"], 2.5, ".2f"),
        Target("distributions further off than their bound", found["broken"], 0, "d"),
    ]


def _prefill_target(rounds: Rounds) -> Target:
    ours, plain = (statistics.median(r[side][0].cpu[0] for r in rounds) for side in ("ours", "forward"))
    facts, tokens = rounds[0]["ours"][0].facts, rounds[0]["forward"][0].facts["tokens"]
    words = (
        f"prefill of {PREFILL_BYTES:,} bytes of English, {facts['contexts']} contexts in "
        f"{facts['forwards']} forwards and {ours:.1f} s, in plain forwards of its {tokens} tokens"
    )
    return Target(words, ours / plain, 8, ".1f")


MEANS, WORST, SUMS = (
    ("mean", "tv", "excess", "expected", "missing", "logZ"),
    ("worst", "worst_tv"),
    ("lost", "broken", "above_expected"),
)


def _over(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of means and the worst of all, over paragraphs."""
    errors = [row["errors"] for row in rows]

    def mean(values: Any) -> float:
        return statistics.mean(values)

    seconds = [row.get("seconds") for row in rows]
    return {
        "contexts": mean(row["contexts"] / row["tokens"] for row in rows),
        "forwards": mean(row["forwards"] / row["tokens"] for row in rows),
        **{
            key: mean(e[key] for e in errors)
            for key in ("mean", "tv", "excess", "expected", "missing", "logZ")
        },
        **{key: max(e[key] for e in errors) for key in ("worst", "worst_tv")},
        **{key: sum(e[key] for e in errors) for key in ("lost", "broken", "above_expected")},
        "seconds": None if None in seconds else sum(seconds),
    }


def cells(what: str, rows: list[dict[str, Any]]) -> list[str]:
    found = _over(rows)
    return [
        what,
        f"{found['contexts']:.1f}",
        f"{found['forwards']:.2f}",
        f"{found['mean']:.1e}",
        f"{found['worst']:.4f}",
        f"{found['tv']:.1e}",
        f"{found['worst_tv']:.4f}",
        f"{found['excess']:+.1e}",
        f"{found['logZ']:+.4f}",
        f"{found['lost']}",
        f"{found['missing']:.1e}",
        f"{found['expected']:.1e} ({found['above_expected']})",
        f"{found['broken']}",
        "" if found["seconds"] is None else f"{found['seconds']:.0f}",
    ]


def _reference_notes(figures: Figures) -> list[str]:
    rows = {n: r for n, r in _rows(figures, DEFAULT, TEXTS).items() if "doubt" in r}
    if not rows:
        return []
    doubts = ", ".join(
        f"{TEXTS[name]} {row['doubt']['mean']:.0e} ({row['doubt']['worst']:.0e}), "
        f"TV {row['doubt']['tv']:.0e} ({row['doubt']['worst_tv']:.0e})"
        for name, row in rows.items()
    )
    others = "".join(
        f"; {PARAGRAPHS[name]}: {strict.words}, and {looser.words}"
        for name, (strict, looser) in REFERENCES.items()
    )
    return [
        f"the reference is {REFERENCE.words}, without K, and a looser one is {LOOSER.words}{others}. Δ and "
        f"TV between the two are, on average (and at worst): {doubts}"
    ]


def _count_notes(figures: Figures) -> list[str]:
    checked = [row for s in COLD for row in _rows(figures, s).values() if "counts agree" in row]
    agree = sum(row["counts agree"] for row in checked)
    sizes = ", ".join(
        f"{TEXTS[name]} {row['bytes']} bytes, {row['tokens']} tokens"
        for name, row in _rows(figures, DEFAULT, TEXTS).items()
    )
    return [
        f"the counts agree with those of an engine with nothing cached in {agree} of {len(checked)}",
        sizes,
    ]


def _ran_on(figures: Figures) -> list[str]:
    found: dict[str, None] = {}
    for setting in SETTINGS:
        for row in _rows(figures, setting).values():
            c = row["conditions"]
            threads = f"{c['threads']} thread{'s' * (c['threads'] != 1)}"
            found[f"{c['date']}, {c['hardware']}, {threads}; {versions(c['versions'])}"] = None
    return list(found)


def plot(figures: Figures) -> None:
    """The plot, beside the figures and for the docs."""
    names = [name for name in PARAGRAPHS if all(row_name(name, s) in figures for s in SETTINGS)]
    if not names:
        return
    series = {}
    for title, settings in (("a tolerance", OURS), ("K and a threshold, as in release 0.2.0", RELEASE)):
        series[title] = []
        for setting in settings:
            rows = _rows(figures, setting, names)
            points = [(r["contexts"] / r["tokens"], r["errors"]["tv"]) for r in rows.values()]
            found = _over(list(rows.values()))
            series[title].append(Point(SETTINGS[setting].words, found["contexts"], found["tv"], points))
    path = figures.path.with_suffix(".svg")
    title = f"{len(names)} paragraphs, SmolLM2-135M-Instruct"
    draw(series, title, "mean total variation of the next byte", path)
    docs = ROOT / "docs" / "assets" / path.name
    shutil.copyfile(path, docs)
