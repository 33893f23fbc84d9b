"""`genlm-bytes info`: what a model's vocabulary holds, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from genlm.bytes.cli.output import bytes_json, stdout_console, write_json
from genlm.bytes.cli.shared import Shared
from genlm.bytes.escaping import safe_text

if TYPE_CHECKING:
    from genlm.bytes.models import ModelFacts

__all__ = ["info"]

MOST = 12
"""How many entries of a long list a person is shown; --json has all."""


def info(shared: Shared) -> None:
    """Tell about a model: tokenizer, vocabulary, bytes without tokens.

    Examples:

    genlm-bytes info
    genlm-bytes info --json
    """
    with shared.model() as lm:
        from genlm.bytes.models import DEFAULT_MODEL, describe_model, is_embedded

        typed = shared.single("one model at a time is told about")
        name = DEFAULT_MODEL if typed is None or is_embedded(typed) else typed
        facts = describe_model(lm.llm)
        if (begins := lm.asynchronous._begins) is not None:
            facts = replace(facts, start=tuple(begins))
    if shared.as_json:
        write_json({"model": name, **_json(facts)})
    else:
        stdout_console().print(_table(name, facts))


def _json(facts: ModelFacts) -> dict[str, Any]:
    found = dict(vars(facts))
    found["without_token"], found["absent"] = list(facts.without_token), list(facts.absent)
    found["duplicates"] = [{**bytes_json(spelling), "ids": ids} for spelling, ids in facts.duplicates]
    found["special"] = dict(facts.special)
    found["ends"] = [bytes_json(end) for end in facts.ends]
    return found


def _table(name: str, facts: ModelFacts) -> Table:
    from genlm.bytes.viz import one_line

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    where = ", ".join(part for part in (facts.dtype, facts.device and f"on {facts.device}") if part)
    millions = "" if facts.parameters is None else f", {facts.parameters / 1e6:,.1f} million parameters"
    duplicates = (f"{one_line(s)} ({', '.join(map(str, ids))})" for s, ids in facts.duplicates)
    special = (f"{safe_text(n, keep='')} ({i})" for n, i in facts.special)
    logits = "" if facts.logits is None else f", {facts.logits:,} logits"
    rows = [
        ("model", safe_text(name, keep="")),
        ("architecture", f"{facts.architecture}{millions}{', ' + where if where else ''}"),
        ("context", "not said" if facts.context_length is None else f"{facts.context_length:,} tokens"),
        ("tokenizer", f"{facts.family} ({facts.tokenizer})"),
        ("vocabulary", f"{facts.tokens:,} tokens{logits}; the longest spells {facts.longest} bytes"),
        ("bytes without a token", _some(len(facts.without_token), map("{:02x}".format, facts.without_token))),
        ("bytes in no token", _some(len(facts.absent), map("{:02x}".format, facts.absent))),
        ("duplicate spellings", _some(len(facts.duplicates), duplicates)),
        ("tokens that spell nothing", _some(len(facts.empty), map(str, facts.empty))),
        ("special tokens", _some(len(facts.special), special)),
        ("a text starts after", ", ".join(map(str, facts.start)) or "nothing"),
        ("a sequence ends with", ", ".join(map(one_line, facts.ends)) or "nothing"),
        ("chat template", "yes" if facts.chat_template else "no"),
    ]
    for heading, value in rows:
        table.add_row(heading, Text(value))
    return table


def _some(number: int, entries: Iterable[str]) -> str:
    if not number:
        return "none"
    shown = [entry for entry, _ in zip(entries, range(MOST), strict=False)]
    return f"{number}: {', '.join(shown)}{' …' if number > MOST else ''}"
