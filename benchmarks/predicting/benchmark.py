"""Five next words: after 500 bytes, and after each letter typed on; beside one forward of the model."""

from __future__ import annotations

import statistics
import sys

from common.alternate import Worker
from common.machine import machine
from common.model_folders import model_folder
from common.options import Options
from common.peers import HERE
from common.results import Report, Table

__all__ = ["run"]

START, LETTERS, WORDS = 500, 120, 5
FORWARDS = 12
TEXTS = ("texts/english.txt", "texts/paragraphs/letter.txt", "texts/heldout/clinic.txt")


def run(options: Options) -> Report:
    """Type the texts, letter by letter."""
    table = Table(["", "ms, the first", "ms a letter", "ms a forward", "forwards a letter", "keys saved"])
    found = Report(f"The {WORDS} likeliest next words", [], table, [], [])
    letters = max(5, round(LETTERS * options.scale))
    forwards = list[int]()
    with Worker(sys.executable, "predicting.worker") as side:
        side.ask("load", folder=str(model_folder(options.model)))
        found.machine = machine(side.ask("versions").facts)
        for name in TEXTS:
            text = " ".join((HERE / name).read_text(encoding="utf-8").split())
            start = text.rindex(" ", 0, min(START, len(text) - letters)) + 1
            before = side.ask("forward", text=text[:start]).median
            typed = side.ask("type_on", text=text[: start + letters], start=start, n=WORDS)
            after = side.ask("forward", text=text[:start]).median
            each, ms = typed.facts["forwards"], typed.facts["milliseconds"]
            forwards += each
            table.rows.append(
                [
                    name.removeprefix("texts/"),
                    f"{ms[0]:.0f}",
                    f"{statistics.median(ms):.0f}",
                    f"{1e3 * (before + after) / 2:.0f}",
                    f"{statistics.median(each):g} (at most {max(each)})",
                    f"{1 - typed.facts['keys'] / letters:.0%}",
                ]
            )
    middle = statistics.median(forwards)
    passed = middle <= FORWARDS
    found.missed += [] if passed else ["forwards a letter"]
    found.notes += [
        f"forwards a letter, the median over all: {middle:g}, target ≤ {FORWARDS}: "
        + ("pass" if passed else "FAIL"),
        f"{letters} letters of each text after its first {START} bytes, typed one by one; the first: the "
        "context has been read, warm. One forward: one token more, before and after the typing",
        f"keys saved: a suggestion among the {WORDS} is taken by one key, which writes the space too",
    ]
    return found
