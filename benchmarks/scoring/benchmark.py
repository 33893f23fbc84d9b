"""Scoring a hundred sentences with word surprisals: what it costs beside plain scores of tokens, and 0.2.0.

Three sides. Ours: `word_surprisal` of all sentences at default accuracy, cold. Tokens: the log-probability of
each sentence's own tokens by `transformers`, in padded batches; ours and this take turns in one process.
Release 0.2.0: the same sentences by `<<`, one byte after another, of which a few are run and the time is
scaled by bytes. And how far a byte's score is from a near-exact reading, for four kinds of text.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from common.alternate import Comparison, Worker, take_turns
from common.machine import machine
from common.model_folders import model_folder
from common.options import Options
from common.peers import HERE, python_of
from common.results import Report, Table
from reading.row import bracketed, in_seconds
from scoring.accuracy import of_paragraphs, of_sentences

__all__ = ["run"]

WORKER = "scoring.worker"
SENTENCES = HERE / "texts" / "sentences.txt"
ROUNDS = 5
BATCH = 32
RELEASE = ((5, 0.05, 5), (5, 0.0, 2))
"""K, threshold, and how many sentences: its README's fast setting, and one without a threshold."""
TARGETS, RELEASE_TARGET = {"ours": 3.0, "canonical": 2.0}, 20.0


@dataclass
class _Found:
    rows: list[list[str]]
    notes: list[str]
    missed: list[str]


def run(options: Options) -> Report:
    """Measure the rows asked for: `tokens`, `release`, `accuracy`, `sentences`; all if none is named."""
    wanted = [name.strip() for name in options.rows.split(",") if name.strip()]
    known = ("tokens", "release", "accuracy", "sentences")
    if unknown := set(wanted) - {*known, "own"}:
        raise SystemExit(f"--rows {','.join(sorted(unknown))}: rows are own, {', '.join(known)}")
    wanted = [
        name for name in known if not wanted or name in wanted or ("own" in wanted and name != "release")
    ]
    every = SENTENCES.read_text(encoding="ascii").splitlines()
    sentences = every[: max(2, round(len(every) * options.scale))]
    found = _Found([], [], [])
    with ExitStack() as stack:
        ours = _worker(sys.executable, options, stack)
        seconds = _against_tokens(ours, sentences, options, found)
        print(*found.rows, *found.notes, sep="\n", flush=True)
        theirs = None
        if "release" in wanted:
            theirs = _worker(python_of("release"), options, stack)
            _against_release(ours, theirs, sentences, seconds, found)
        versions = [side.ask("versions").facts for side in (ours, theirs) if side is not None]
    more = []
    for name, measured in (("accuracy", of_paragraphs), ("sentences", of_sentences)):
        if name in wanted:
            table, note = asyncio.run(measured(sentences))
            more.append(table)
            found.notes.append(note)
    return Report(
        title=f"{len(sentences)} sentences of about 100 bytes, with word surprisals",
        machine=machine(*versions),
        table=Table(["", "ours", "theirs", "ratio (quartiles)", "target", ""], found.rows),
        notes=found.notes,
        missed=found.missed,
        more=more,
        variant="" if options.device == "cpu" else f"-{options.device}",
    )


def _worker(python: Any, options: Options, stack: ExitStack) -> Worker:
    side = stack.enter_context(Worker(python, WORKER))
    side.ask("load", folder=str(model_folder(options.model)), device=options.device)
    return side


def _against_tokens(ours: Worker, sentences: list[str], options: Options, found: _Found) -> float:
    """The row against scores of tokens; returns our median seconds."""
    asks = {
        "ours": lambda: ours.ask("words", sentences=sentences, canonical=False),
        "canonical": lambda: ours.ask("words", sentences=sentences, canonical=True),
        "tokens": lambda: ours.ask("tokens", sentences=sentences, batch=BATCH),
        "scores": lambda: ours.ask("scores", sentences=sentences),
    }
    rounds = take_turns(asks, options.rounds or ROUNDS)
    first = {side: replies[0] for side, replies in rounds[0].items()}
    names = {"ours": "word surprisals", "canonical": "canonical ones alone", "scores": "bytes alone"}
    for side, name in names.items():
        result = Comparison(*([r[s][0].median for r in rounds] for s in (side, "tokens")))
        target = TARGETS.get(side)
        met = target is None or 1 / result.ratio <= target
        found.rows.append(
            [
                f"{name}; plain scores of tokens",
                in_seconds(result.our_median),
                in_seconds(result.their_median),
                bracketed(result, 1 / result.ratio),
                "" if target is None else f"≤ {target:g}×",
                "" if target is None else "pass" if met else "FAIL",
            ]
        )
        if not met:
            found.missed.append(f"{name} against scores of tokens")
    facts, tokens = first["ours"].facts, first["tokens"].facts
    apart = [a - b for a, b in zip(first["scores"].facts["logp"], tokens["logp"], strict=True)]
    size = sum(len(sentence) for sentence in sentences)
    alone, canonical = first["scores"].facts, first["canonical"].facts
    found.notes += [
        f"{size:,} bytes, {tokens['tokens']:,} tokens, {facts['words']:,} words; ours ran "
        f"{facts['contexts']:,} contexts in {facts['forwards']} forwards, "
        f"{facts['contexts'] / tokens['tokens']:.2f} a token; "
        f"canonical {canonical['contexts']:,} in {canonical['forwards']}; "
        f"bytes alone {alone['contexts']:,} in {alone['forwards']}",
        f"tokens: padded batches of {BATCH} of like length, `log_softmax`, `gather`; in turns with ours, in "
        "one process. It finds the probability of one tokenization: ours is larger by "
        f"{statistics.median(apart):.3f} nats a sentence (median), at most {max(apart):.2f}, at least "
        f"{min(apart):.4f}",
    ]
    return statistics.median(r["ours"][0].median for r in rounds)


def _against_release(
    ours: Worker, theirs: Worker, sentences: list[str], seconds: float, found: _Found
) -> None:
    size = sum(map(len, sentences))
    for K, threshold, count in RELEASE:
        some = sentences[:count]
        reply = theirs.ask("shifts", sentences=some, K=K, threshold=threshold)
        part = sum(map(len, some))
        whole = sum(reply.seconds) * size / part
        met = whole / seconds >= RELEASE_TARGET
        what = f"word surprisals; release 0.2.0, bytes by `<<`, K={K}, threshold {threshold:g}"
        found.rows.append(
            [
                what,
                in_seconds(seconds),
                in_seconds(whole),
                f"{whole / seconds:.1f}×",
                f"≥ {RELEASE_TARGET:g}×",
                "pass" if met else "FAIL",
            ]
        )
        if not met:
            found.missed.append(what)
        exact = ours.ask("scores", sentences=some).facts["logp"]
        apart = [
            "no candidate left" if b is None else f"{b - a:+.2f}"
            for a, b in zip(exact, reply.facts["logp"], strict=True)
        ]
        found.notes.append(
            f"0.2.0 with threshold {threshold:g}: the first {len(some)} sentences ({part} bytes in "
            f"{sum(reply.seconds):.0f} s), scaled by bytes, until no candidate is left; bytes only: the "
            "distributions that words' ends take are not asked for. Its log-probabilities less ours: "
            f"{', '.join(apart)}"
        )
