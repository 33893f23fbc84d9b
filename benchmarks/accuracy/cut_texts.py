"""What a cut costs in texts that people wrote: the log-probability of how the text really goes on.

Each text is cut between two characters, or inside one, at places drawn evenly. What is compared is the log-
probability of the same next bytes: after the cut text read with healing, as `complete` reads a prompt;
after the tokenizer's tokens of the cut text, taken as closed, which is what token-level generation starts
from (its continuations counted in all their tokenizations); and in the text read through, without any cut.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from common.machine import hardware, versions
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions

from genlm.bytes import ByteLM
from genlm.bytes.models import load_default_model
from genlm.bytes.prompt import parse_context

__all__ = ["run"]

KINDS = ("english", "chinese", "japanese", "german", "finnish", "code")
CUTS = 40
NEXT = 16
"""Bytes whose log-probability is compared, rounded up to whole characters."""
BEFORE = 30
"""Bytes at least before a cut: the very beginning of a text is hard for reasons of its own."""
PLACES = ("inside a token", "between tokens", "inside a character")
SHORT = 200
"""Bytes read of a text where `--scale` is below 1: reading texts through takes most of the time."""
TARGET = 0.05
"""Nats by which healing may be off, in the mean of absolute values: gains do not make up for losses."""


@dataclass(frozen=True)
class Cut:
    """A cut and what the text's own continuation costs there, in nats."""

    kind: str
    place: str
    healing: float
    beam: float
    plain: float
    uncut: float

    @property
    def lost(self) -> float:
        """What plain tokens lose, in nats."""
        return self.uncut - self.plain

    @property
    def healed(self) -> float:
        """What healing loses."""
        return self.uncut - self.healing

    @property
    def by_beam(self) -> float:
        """What is lost where the prompt is read with the beam."""
        return self.uncut - self.beam


def run(options: Options) -> Report:
    """Cut every text, and compare."""
    asked = [name for name in options.rows.split(",") if name]
    if unknown := set(asked) - set(KINDS):
        raise SystemExit(f"no texts {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    llm = load_default_model(progress=False)
    with ByteLM(llm) as lm:
        count = max(2, round(CUTS * options.scale))
        length = None if options.scale >= 1.0 else SHORT
        kinds = [kind for kind in KINDS if kind in (asked or KINDS)]
        cuts = [cut for kind in kinds for cut in _cuts(lm, llm, kind, count, length)]
    rows = [_row(kind, ours) for kind in KINDS if (ours := [c for c in cuts if c.kind == kind])]
    rows += [_row(f"— {place}", ours) for place in PLACES if (ours := [c for c in cuts if c.place == place])]
    beam = fmean(abs(c.by_beam) for c in cuts)
    met = fmean(abs(c.healed) for c in cuts) <= TARGET
    share = fmean(c.healed for c in cuts) / fmean(c.lost for c in cuts)
    rows.append([*_row("all", cuts)[:-1], "pass" if met else "FAIL"])
    head = ["", "cuts", "inside a token", "uncut", "healing", "plain tokens"]
    lost = ["healing loses", "off by", "by beam", "plain loses", "median", "≥ 1000 times", "nothing"]
    return Report(
        title=f"Texts that people wrote, cut at {len(cuts)} places: log-probability of how they go on",
        machine=[f"{hardware()}; {versions(package_versions(Clock()))}"],
        table=Table([*head, *lost, f"off by ≤ {TARGET}"], rows),
        notes=[
            "SmolLM2-135M-Instruct, float32, default settings; texts in `texts/cut/`; the next "
            f"{NEXT} bytes, in whole characters; means of natural log-probabilities",
            'healing: `score(…, method="tokenize")`, as `complete` reads prompts. Plain tokens: the prompt '
            "closed by the tokenizer. Uncut: the same bytes in the text read through",
            "loses: against the uncut text, in nats, on average, and plain tokens at the median; off by: the "
            "mean of healing's absolute differences, for which the target is; then how "
            "often the true continuation is at least 1000 times less likely by plain tokens, and how often "
            "at most 0.1 nats less likely, or more likely: there healing does not help",
            'what healing loses is the prompt\'s other tokenizations, which method="tokenize" leaves out; '
            'by beam: off by how much with method="beam", by which a prompt is read as the uncut text is: '
            f"{beam:.3f} over all",
            f"on average healing loses {share:.1%} of what plain tokens lose (gains count against losses)",
        ],
        missed=[] if met else [f"healing off by {TARGET} nats on average"],
        variant=f"-{'-'.join(asked)}" if asked else "",
    )


def _row(name: str, cuts: list[Cut]) -> list[str]:
    lost = [c.lost for c in cuts]
    return [
        name,
        str(len(cuts)),
        f"{fmean(c.place == 'inside a token' for c in cuts):.0%}",
        *(f"{fmean(getattr(c, way) for c in cuts):.2f}" for way in ("uncut", "healing", "plain")),
        f"{fmean(c.healed for c in cuts):.2f}",
        f"{fmean(abs(c.healed) for c in cuts):.2f}",
        f"{fmean(abs(c.by_beam) for c in cuts):.3f}",
        f"{fmean(lost):.2f}",
        f"{median(lost):.2f}",
        f"{fmean(x >= math.log(1000) for x in lost):.0%}",
        f"{fmean(x <= 0.1 for x in lost):.0%}",
        "",
    ]


def _cuts(lm: ByteLM, llm: Any, kind: str, count: int, length: int | None) -> list[Cut]:
    whole = (HERE / "texts" / "cut" / f"{kind}.txt").read_text(encoding="utf-8").rstrip("\n")
    parts = [part.encode() for part in whole.split("\n\n" if kind != "code" else "\n\n\n")]
    if length is not None:
        parts = [parts[0][:length].decode(errors="ignore").encode()]
    found = []
    for number, text in enumerate(parts):
        ours = count * (number + 1) // len(parts) - count * number // len(parts)
        logprobs = lm.score(text).logprobs
        ends = _token_ends(llm, text)
        for at in _places(text, ours):
            end = _whole(text, at + NEXT)
            rest, prompt = text[at:end], text[:at]
            healing = lm.score(rest, prompt, method="tokenize").logprob
            trie = lm.asynchronous._open_trie()
            closed = parse_context(llm, trie, prompt).closed(llm, trie)
            plain = lm.score(rest, closed).logprob
            beam = lm.score(rest, prompt).logprob
            uncut = float(logprobs[at:end].sum())
            found.append(Cut(kind, _place(text, at, ends), healing, beam, plain, uncut))
    return found


def _places(text: bytes, count: int) -> list[int]:
    """Places drawn evenly among characters; of ten one inside its character, where it has an inside."""
    draw = random.Random(len(text))
    starts = [i for i in range(BEFORE, len(text) - NEXT) if text[i] & 0xC0 != 0x80]
    places = draw.sample(starts, count)
    return [at + (i % 10 == 0 and text[at] >= 0xC0) for i, at in enumerate(sorted(places))]


def _whole(text: bytes, at: int) -> int:
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return min(at, len(text))


def _place(text: bytes, at: int, ends: set[int]) -> str:
    if text[at] & 0xC0 == 0x80:
        return "inside a character"
    return "between tokens" if at in ends else "inside a token"


def _token_ends(llm: Any, text: bytes) -> set[int]:
    """Where the tokenizer cuts the whole text."""
    at, ends = 0, {0}
    for token in llm.tokenizer.encode(text.decode(), add_special_tokens=False):
        at += len(bytes(llm.byte_vocab[token].byte_string))
        ends.add(at)
    return ends
