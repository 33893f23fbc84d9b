"""`genlm-bytes pairs`: of two texts that differ in one thing, which does the model hold for likelier?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from genlm.bytes.cli.output import complain, number, on_terminal, write_json
from genlm.bytes.cli.pair_files import Files, Totals, open_output
from genlm.bytes.cli.scoring.source import open_sources
from genlm.bytes.cli.scoring.tables import json_rows, table_rows
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import argument_bytes
from genlm.bytes.errors import bad_value
from genlm.bytes.escaping import safe_text

if TYPE_CHECKING:
    from genlm.bytes.score import Pair, PairTotals, ScoredPair

__all__ = ["pairs"]

FORM = 1
"""Raise this where the same run would write other bytes."""


def pairs(
    file: Annotated[Path, typer.Argument(show_default=False, help="A .tsv, .csv or .jsonl file of pairs.")],
    shared: Shared,
    good: Annotated[str, typer.Option(help="The column or key of the better text.")] = "sentence_good",
    bad: Annotated[str, typer.Option(help="That of the worse one.")] = "sentence_bad",
    group: Annotated[
        list[str] | None,
        typer.Option(help="A column to count by, UID say; may be given several times.", show_default=False),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="The column that names the pairs.", show_default=False)
    ] = None,
    context: Annotated[str, typer.Option(help="Text that stands before both.", show_default=False)] = "",
    context_column: Annotated[
        str | None, typer.Option(help="The column of that text, for each pair.", show_default=False)
    ] = None,
    normalise: Annotated[
        Literal["length", "unconditional"] | None,
        typer.Option(help="Compare by byte; or less what each is worth without the context."),
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="Count each text's end too.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write x.tsv or x.jsonl; again to go on.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away what is there.")] = False,
) -> None:
    """Minimal pairs: how often the better text is the likelier, by how much.

    The columns' names are those of BLiMP. A tie counts as wrong. Margins
    are in nats. With --out there is a row for each pair, and the same
    line goes on where an interrupted one stopped.

    Examples:

    genlm-bytes pairs blimp.jsonl --group UID
    genlm-bytes pairs items.tsv --good yes --bad no --out found.tsv
    genlm-bytes pairs items.tsv --context-column before --normalise length --json
    """
    if overwrite and out is None:
        raise typer.BadParameter("needs --out", param_hint="--overwrite")
    if context and context_column is not None:
        raise typer.BadParameter("give --context or --context-column, not both", param_hint="--context")
    if good == bad:
        raise typer.BadParameter(f"{bad!r} is the column of --good, too: name another", param_hint="--bad")
    before = argument_bytes(context)
    asked = _Asked(file, good, bad, tuple(group or ()), id_column, before, context_column, end)
    with ExitStack() as ending:
        with shared.working("Starting"):
            from genlm.bytes.score import score_pairs

            shared.params()
            count = sum(1 for _ in asked.pairs())  # what is wrong in a table is said before hours of work
            settings = {
                "command": "genlm-bytes pairs",
                "form": FORM,
                "model": shared.name,
                "dtype": shared.dtype,
                "start": repr(shared.start),
                "params": repr(shared.params()),
                "columns": [good, bad, *asked.groups, id_column, context_column],
                "context": repr(before),
                "normalise": normalise,
                "end": end,
            }
        files = None if out is None else Files(open_output(out, asked.groups, settings, overwrite))
        if files is not None:
            ending.enter_context(closing(files.growing))
        remaining = asked.pairs() if files is None else files.remaining(asked.pairs())
        done = 0 if files is None else files.resumed
        if done:
            shared.remark(f"{done:,} pairs are there already.")
        totals = Totals() if files is None else files.totals
        if done < count:
            with shared.model() as lm:
                found = score_pairs(lm, remaining, normalise, end=end, on_impossible="inf")
                try:
                    for one in _watched(found, count, done, shared.remarks):
                        totals.add(one) if files is None else files.add(one)
                except KeyboardInterrupt:
                    if out is not None:
                        complain("stopped; the same command goes on from the last whole batch.")
                    raise
        if files is not None:
            files.finish()
    _show(totals, shared)


class _Asked:
    """Where the pairs are."""

    def __init__(
        self,
        file: Path,
        good: str,
        bad: str,
        groups: tuple[str, ...],
        id_column: str | None,
        context: bytes,
        context_column: str | None,
        end: bool,
    ) -> None:
        (self._source,) = open_sources([], [file])
        if str(file) == "-":
            raise typer.BadParameter("pairs are read twice: give a file", param_hint="FILE")
        self._good, self._bad, self.groups, self._id = good, bad, groups, id_column
        self._context, self._context_column, self._end = context, context_column, end
        self._json = file.suffix.lower() in (".jsonl", ".json", ".ndjson")

    def pairs(self) -> Iterator[Pair]:
        """The pairs, read as they are taken."""
        from genlm.bytes.score import Pair

        read = json_rows if self._json else table_rows
        before = self._context_column
        more = [(self._bad, "bad"), *((column, "group") for column in self.groups)]
        more += [] if before is None else [(before, "context_column")]
        for row, record in enumerate(
            read(self._source, self._good, self._id, "", option="good", more=more), 1
        ):
            fields = {**record.fields, self._good: record.text.decode()}
            fields |= {} if self._id is None else {self._id: record.id}

            def text(column: str, fields: Mapping[str, Any] = fields) -> str:
                cell = getattr(fields[column], "cell", None)
                return str(fields[column] if cell is None else cell())

            context = self._context if before is None else text(before).encode()
            pair = Pair(
                record.id, record.text, text(self._bad).encode(), context, {c: text(c) for c in self.groups}
            )
            for option, column, side in (("good", self._good, pair.good), ("bad", self._bad, pair.bad)):
                if not side and not self._end:
                    rule = f"is empty in pair {row} of {self._source.shown}, which says nothing"
                    raise bad_value(option, column, rule, "Leave the pair out, or count ends: --end.")
            yield pair


def _watched(found: Iterable[ScoredPair], count: int, done: int, shown: bool) -> Iterator[ScoredPair]:
    """The results as they come, with a bar on stderr for whoever watches."""
    columns = (TextColumn("Comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=count, completed=done)
        for one in found:
            yield one
            bar.advance(task)


def _show(totals: Totals, shared: Shared) -> None:
    """Accuracy and margins, in all and by group."""
    if shared.as_json:
        by = {c: {name: _figures(one) for name, one in groups.items()} for c, groups in totals.by.items()}
        write_json({**_figures(totals.every), "groups": by})
        return
    rows = [("all", totals.every)]
    for column, groups in totals.by.items():
        several = f"{column}: " if len(totals.by) > 1 else ""
        rows += [(f"{several}{name}", one) for name, one in sorted(groups.items())]
    cells = [
        (
            safe_text(name, keep=""),
            f"{one.pairs}",
            f"{one.accuracy:.4f}",
            f"{one.ties}",
            f"{one.mean_margin:.3f}",
        )
        for name, one in rows
    ]
    head = ("group", "pairs", "accuracy", "ties", "margin, nats")
    if not on_terminal():
        sys.stdout.write("".join("\t".join(row) + "\n" for row in (head, *cells)))
        return
    table = Table(box=None, header_style="bold")
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left")
    for row in cells:
        table.add_row(*row)
    Console().print(table, markup=False)


def _figures(one: PairTotals) -> dict[str, Any]:
    accuracy, margin = number(one.accuracy), number(one.mean_margin)
    return {
        "pairs": one.pairs,
        "correct": one.correct,
        "ties": one.ties,
        "accuracy": accuracy,
        "margin": margin,
    }
