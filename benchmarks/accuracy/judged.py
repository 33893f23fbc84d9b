"""How far off the scores of known texts are, with and without hindsight, and what they cost.

28 short texts of many kinds were written for this (`texts/judged`): nine to choose constants on, the others
to report. Each is read byte by byte at several tolerances, and each byte's log-probability compared with that
of a near-exact reading: as the beam has it at once, and with hindsight. Each is read twice: where a text
begins by default, which is after the marker of a chat, and as a document. Contexts and forwards are for each
token of the tokenizer's own tokenization; what a setting needs is counted as if nothing had been computed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from accuracy.counter import counting
from accuracy.plot import Point, draw
from accuracy.session import Session
from accuracy.settings import Setting
from accuracy.texts import FOLDER
from common.figures import Figures
from common.machine import hardware, versions
from common.options import Options
from common.peers import HERE, ROOT
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.score.byte_scores import stated_error
from genlm.bytes.score.hindsight import Hindsight
from genlm.bytes.score.window import read_sliding
from genlm.bytes.trie import TrieMode

__all__ = ["DEFAULT", "REPORT", "digest", "measured", "run", "texts"]

SETTINGS = {
    f"{tolerance:g}": Setting(f"tolerance {tolerance:g}", {"tolerance": tolerance})
    for tolerance in (3e-3, 1e-3, 5e-4, 1e-4)
}
DEFAULT = "0.0005"
REFERENCE = Setting("tolerance 2e-5 and 1e-3 a byte", {"tolerance": 2e-5}, 1e-3)
"""What stands in for the truth; the finest of the settings says how far off it may be itself."""
TRUTHS = HERE / "figures" / "judged-truths.npz"
"""Its natural log-probabilities of the bytes, by text: kept, since they take two thirds of an hour."""
PLOT = ROOT / "docs" / "assets" / "judged.svg"
CHOOSE, REPORT = "choose", "report"
STARTS = {"<|im_start|>": "", "<|endoftext|>": " as a document"}
"""The tokens that texts are read after, and what is added to a text's name."""


Measure = Callable[[Session, Figures, list[str], bool], Coroutine[Any, Any, None]]
"""Measures the texts of some names, all if there are none, or those that are not known."""


@dataclass(frozen=True)
class Read:
    """A reading: natural log-probabilities of each byte, at once and with hindsight; what is expected to be
    missing before each and after the last; and what it cost."""

    at_once: np.ndarray
    hindsight: np.ndarray
    unfound: np.ndarray
    contexts: int = 0
    forwards: int = 0


async def read(llm: Any, params: BeamParams, text: bytes, first: int, *, drafts: bool) -> Read:
    """Read a text after a token, byte by byte or with drafts."""
    start = await ByteBeamState.initial(llm, params, initial_context=[first])
    hindsight, at_once = Hindsight(start, len(text)), np.zeros(len(text))

    def hear(at: int, before: ByteBeamState, after: ByteBeamState) -> None:
        at_once[at] = after.logZ - before.logZ
        hindsight.hear(at, before, after)

    if drafts:
        await read_sliding(start, list(text), None, TrieMode.WITH_EOS, hear)
    else:
        beam = start
        for at, byte in enumerate(text):
            before = beam.prune()
            beam = await before.advance(byte, pruned=at + 1 < len(text))
            hear(at, before, beam)
    return Read(at_once, hindsight.logprobs(), hindsight.unfound())


def errors(text: bytes, found: Read, truth: np.ndarray) -> dict[str, Any]:
    """How far off a reading is; of words, the true and the stated error."""
    at_once, off = found.at_once - truth, found.hindsight - truth
    words = [(m.start(), m.end()) for m in re.finditer(rb"\S+", text)] or [(0, len(text))]
    return {
        "mean at once": float(np.abs(at_once).mean()),
        "worst at once": float(np.abs(at_once).max()),
        "mean": float(np.abs(off).mean()),
        "worst": float(np.abs(off).max()),
        "lost": int(((found.hindsight < np.log(1e-6)) & (truth > np.log(1e-3))).sum()),
        "logZ": float(off.sum()),
        "contexts": found.contexts,
        "forwards": found.forwards,
        "words": [
            [float(abs(off[start:end].sum())), float(found.unfound[start]), float(found.unfound[end])]
            for start, end in words
        ],
        "sentence": [float(abs(off.sum())), float(found.unfound[0]), float(found.unfound[-1])],
    }


def texts() -> dict[str, tuple[str, bytes]]:
    """By name, the part and the text."""
    found = sorted((FOLDER / "judged").glob("*/*.txt"))
    return {path.stem: (path.parent.name, path.read_bytes()) for path in found}


def measured(name: str, measure: Measure, options: Options) -> Figures:
    """The figures of a name, with those measured that were asked for."""
    figures = Figures(HERE / "figures" / f"{name}.json")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    wanted = [name.strip() for name in options.rows.split(",") if name.strip()]
    with Session() as session:
        asyncio.run(measure(session, figures, wanted, options.resume))
    return figures


def run(options: Options) -> Report:
    """Measure what was asked for; report all that is known."""
    figures = measured("judged", _measure, options)
    plot(figures)
    return report(figures)


async def _measure(session: Session, figures: Figures, wanted: list[str], resume: bool) -> None:
    for name, (part, text) in texts().items():
        for start, suffix in STARTS.items():
            known = name + suffix in figures and figures[name + suffix]["text"] == digest(text)
            if (wanted and name not in wanted) or (resume and known):
                continue
            row = await _row(session, name + suffix, text, session.llm.tokenizer.convert_tokens_to_ids(start))
            figures.put(name + suffix, {"part": part, **row})
            one = row[DEFAULT]
            means = f"{one['mean at once']:.1e} {one['mean']:.1e} {one['worst']:.3f} {one['logZ']:.3f}"
            print(name + suffix, means, flush=True)
            session.engine.clear_cache()


async def _row(session: Session, name: str, text: bytes, first: int) -> dict[str, Any]:
    """All settings' readings of a text after a token."""
    truth = await _truth(session, name, text, first)
    row = {"text": digest(text), "bytes": len(text), "tokens": await session.tokens(text)}
    for setting, words in SETTINGS.items():
        counter = counting(session.engine)
        found = await read(counter, words.beam_params(), text, first, drafts=False)
        counts = {"contexts": counter.backend.contexts, "forwards": counter.backend.forwards}
        row[setting] = errors(text, Read(**{**vars(found), **counts}), truth)
    return row


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:12]


async def _truth(session: Session, name: str, text: bytes, first: int) -> np.ndarray:
    """The natural log-probability of each byte, by the reference with hindsight."""
    known = dict[str, np.ndarray]()
    if TRUTHS.exists():
        with np.load(TRUTHS) as kept:
            known = dict(kept)
    key = f"{name}, {REFERENCE.words}, {digest(text)}"
    if key not in known:
        found = await read(session.engine, REFERENCE.beam_params(), text, first, drafts=True)
        known[key] = found.hindsight.astype(np.float32)
        np.savez_compressed(TRUTHS, **known)
    return known[key].astype(np.float64)


def report(figures: Figures) -> Report:
    """The frontier, and each text at the default, of the texts that have been read."""
    frontier = Table(["part, setting", *COLUMNS])
    each = [Table([f"at the default, after {start}", *COLUMNS]) for start in STARTS]
    verdicts = dict[str, bool]()
    for table, (start, suffix) in zip(each, STARTS.items(), strict=True):
        known = {name: figures[name + suffix] for name in texts() if name + suffix in figures}
        for part in (CHOOSE, REPORT):
            rows = [row for row in known.values() if row["part"] == part]
            for setting, words in SETTINGS.items() if rows else ():
                title = f"{len(rows)} to {part}, after {start}, {words.words}"
                frontier.rows.append([title, *_mean(rows, setting)])
            if part == REPORT and rows:
                verdicts |= {f"after {start}: {words}": met for words, met in _targets(rows).items()}
        table.rows += [[f"{name} ({row['part']})", *_cells(row, DEFAULT)] for name, row in known.items()]
    return Report(
        title="Scores of known texts, with and without hindsight",
        machine=[f"{hardware()}; {versions(package_versions(Clock()))}"],
        table=frontier,
        more=each,
        notes=[
            f"SmolLM2-135M-Instruct; against {REFERENCE.words}, with hindsight",
            "|Δ log p| a byte: the means over texts of each text's mean, with the largest of these after it, "
            "and the worst byte of all; log Z less the reference's, for 100 bytes, the mean and the lowest",
            "covered: words whose true error is below the stated one (`Score.error`)",
            *(f"{words}: {'reached' if met else 'missed'}" for words, met in verdicts.items()),
        ],
        missed=[words for words, met in verdicts.items() if not met],
    )


def plot(figures: Figures) -> None:
    """The frontier on the texts to report: medians over texts."""
    series = dict[str, list[Point]]()
    for start, suffix in STARTS.items():
        names = [name + suffix for name, (part, _) in texts().items() if part == REPORT]
        rows = [figures[name] for name in names if name in figures]
        for key, words in (("mean at once", "at once"), ("mean", "with hindsight")) if rows else ():
            points = []
            for setting in SETTINGS:
                each = [(row[setting]["contexts"] / row["tokens"], row[setting][key]) for row in rows]
                contexts, error = np.median(np.array(each), axis=0)
                points.append(Point(setting, float(contexts), float(error), each))
            series[f"after {start}, {words}"] = points
    title = "19 judged texts: tolerances, medians over texts, and each text"
    draw(series, title, "mean |Δ log p| a byte, nats", PLOT)


COLUMNS = (
    "at once",
    "worst",
    "hindsight",
    "worst",
    "log Z / 100 bytes",
    "lost",
    "contexts",
    "forwards",
    "covered",
)


def _cells(row: dict[str, Any], setting: str) -> list[str]:
    return _mean([row], setting)


def _mean(rows: list[dict[str, Any]], setting: str) -> list[str]:
    one = [row[setting] for row in rows]

    def spread(name: str) -> str:
        values = [found[name] for found in one]
        return f"{np.mean(values):.1e}" + (f", {max(values):.0e}" if len(rows) > 1 else "")

    logZ = [100.0 * found["logZ"] / row["bytes"] for found, row in zip(one, rows, strict=True)]
    return [
        spread("mean at once"),
        f"{max(found['worst at once'] for found in one):.3f}",
        spread("mean"),
        f"{max(found['worst'] for found in one):.3f}",
        f"{np.mean(logZ):.3f}" + (f", {min(logZ):.2f}" if len(rows) > 1 else ""),
        str(sum(found["lost"] for found in one)),
        f"{np.mean([found['contexts'] / row['tokens'] for found, row in zip(one, rows, strict=True)]):.1f}",
        f"{np.mean([found['forwards'] / row['tokens'] for found, row in zip(one, rows, strict=True)]):.2f}",
        f"{100 * _covered(one):.0f} %",
    ]


def _covered(found: list[dict[str, Any]]) -> float:
    """The share of words whose true error is below the stated one."""
    words = [word for row in found for word in row["words"]]
    return float(np.mean([true <= stated_error(before, after) for true, before, after in words]))


def _falls(rows: list[dict[str, Any]]) -> float:
    """By how much a finer tolerance found less of a text than the next coarser one, at most."""
    finer = list(pairwise(SETTINGS))
    return max(row[coarse]["logZ"] - row[fine]["logZ"] for row in rows for coarse, fine in finer)


def _targets(rows: list[dict[str, Any]]) -> dict[str, bool]:
    one = [row[DEFAULT] for row in rows]
    logZ = [100.0 * found["logZ"] / row["bytes"] for found, row in zip(one, rows, strict=True)]
    contexts = np.mean([found["contexts"] / row["tokens"] for found, row in zip(one, rows, strict=True)])
    forwards = np.mean([found["forwards"] / row["tokens"] for found, row in zip(one, rows, strict=True)])
    return {
        "mean of a text at most 5e-4 on four fifths": np.mean([f["mean"] <= 5e-4 for f in one]) >= 0.8,
        "mean of each at most 3e-3": all(f["mean"] <= 3e-3 for f in one),
        "worst byte at most 0.05 on four fifths": np.mean([f["worst"] <= 0.05 for f in one]) >= 0.8,
        "no byte lost": not any(f["lost"] for f in one),
        "log Z within 0.3 nats a hundred bytes": min(logZ) >= -0.3,
        "log Z falls by at most 0.1 nats where the tolerance is finer": _falls(rows) <= 0.1,
        "at most 8 contexts a token": bool(contexts <= 8.0),
        "at most 2.3 forwards a token": bool(forwards <= 2.3),
        "the stated error of a word is above the true one in 95 %": _covered(one) >= 0.95,
    }
