"""A benchmark's report: printed, and kept in its section of RESULTS.md."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

__all__ = ["Report", "Table", "keep", "show"]

HEAD = "# Results\n\nEach section is written by the command it names, and replaced when that runs again.\n"


@dataclass
class Table:
    """A table of strings. The first column is left-aligned, the others right."""

    header: list[str]
    rows: list[list[str]] = field(default_factory=list)


@dataclass
class Report:
    """What one benchmark found. `missed` names the targets that were not met.

    `variant` tells sections of one benchmark apart, e.g. `-cuda`. `more`: further tables.
    """

    title: str
    machine: list[str]
    table: Table
    notes: list[str]
    missed: list[str]
    variant: str = ""
    more: list[Table] = field(default_factory=list)

    @property
    def tables(self) -> list[Table]:
        """Those that have a row."""
        return [table for table in (self.table, *self.more) if table.rows]


def show(report: Report) -> None:
    """Print a report."""
    console = Console(width=None if sys.stdout.isatty() else 190)
    for i, table in enumerate(report.tables):
        console.print(_coloured(table, "" if i else report.title))
    for line in [*report.machine, *report.notes]:
        console.print(f"· {line}", highlight=False, markup=False)
    console.print(f"Targets missed: {', '.join(report.missed) or 'none'}", markup=False)


def _coloured(table: Table, title: str) -> RichTable:
    found = RichTable(title=title)
    for i, name in enumerate(table.header):
        found.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in table.rows:
        colour = {"pass": "green", "FAIL": "bold red"}.get(row[-1])
        found.add_row(*row[:-1], f"[{colour}]{row[-1]}[/]" if colour else row[-1])
    return found


def keep(report: Report, name: str, command: str, path: Path) -> None:
    """Write a report into its section of a Markdown file, between its markers."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n## {report.title}\n\n{_markdown(report, command)}\n{end}"
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    old = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text = old.sub(lambda _: section, text) if old.search(text) else f"{text}\n{section}\n"
    path.write_text(text, encoding="utf-8")


def _markdown(report: Report, command: str) -> str:
    tables = "\n\n".join(map(_markdown_table, report.tables))
    notes = "\n".join(f"- {line}" for line in [*report.machine, *report.notes])
    return f"`{command}`\n\n{tables}\n\n{notes}\n"


def _markdown_table(table: Table) -> str:
    rows = [table.header, ["---", *["---:"] * (len(table.header) - 1)], *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
