"""`genlm-bytes score`: how surprising texts are, in whole, by words, by spans, by characters, by bytes."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from genlm.bytes.cli.output import complain, on_terminal, write_json
from genlm.bytes.cli.scoring.parts import Given, Parts
from genlm.bytes.cli.scoring.texts import Texts, not_empty
from genlm.bytes.cli.scoring.watching import Pace
from genlm.bytes.cli.scoring.where import Where
from genlm.bytes.cli.scoring.word_tables import WordTable, WordTables
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import argument_bytes

if TYPE_CHECKING:
    from genlm.bytes.cli.scoring.check import Check
    from genlm.bytes.cli.scoring.files import Files
    from genlm.bytes.cli.scoring.rows import Asked
    from genlm.bytes.cli.scoring.source import Source
    from genlm.bytes.score import Scoring, TextRecord

__all__ = ["score"]


def score(
    texts: Texts,
    parts: Parts,
    word_tables: WordTables,
    where: Where,
    shared: Shared,
    context: Annotated[str, typer.Option(help="Text that stands before each text.", show_default=False)] = "",
    end: Annotated[bool, typer.Option("--end", help="Count each text's end too.")] = False,
    bits: Annotated[bool, typer.Option("--bits", help="Surprisals to base 2, not in nats.")] = False,
    base: Annotated[float | None, typer.Option(help="Surprisals to this base.", show_default=False)] = None,
    on_impossible: Annotated[
        Literal["error", "inf"], typer.Option(help="What a byte that the model cannot write is.")
    ] = "error",
    window: Annotated[
        int | None,
        typer.Option(help="Tokens seen of a long text; all that the model reads if not given."),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Tokens kept when that window slides; half if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write x.tsv, x.jsonl or x.npz; again to go on.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page coloured by surprisal that needs nothing else.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away what is there.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read again with a fifth of the tolerance; say what moves.")
    ] = False,
) -> None:
    """How surprising texts are: whole, by words, spans, characters, bytes.

    On a terminal a text is coloured by surprisal; into a pipe go
    tab-separated rows. Totals come last. With --out the same line goes on
    where an interrupted one stopped.

    Figures are in nats unless --bits or --base is given, words' too; in
    Python and over HTTP words' surprisals are in bits.

    Examples:

    genlm-bytes score "The chef who won the award cooked dinner."
    genlm-bytes score --words --check "The chef cooked dinner."
    genlm-bytes score --file notes.txt --lines --out lines.tsv
    genlm-bytes score --file notes.txt --html page.html
    genlm-bytes score --file rts.tsv --word-column word --id item --position zone --out out.tsv
    genlm-bytes score --file corpus.txt --lines --ray --out corpus.jsonl
    printf 'item\\ttext\\n7\\tThe chef\\n' | genlm-bytes score - --column text --json
    """
    _check(shared, out, html, overwrite)
    where.check()
    finer = _finer(shared, where) if check else None
    unit, chosen = parts.unit, _base(bits, base)
    word_tables.check(parts.word_column)
    sources = texts.sources(parts.word_column is not None)
    _apart(sources, out, html, [parts.spans, parts.word_list, word_tables.texts_file])
    with ExitStack() as ending:
        for source in sources:
            ending.callback(source.close)
        with shared.working("Starting"):  # mistakes are found before the seconds that a model takes to load
            from genlm.bytes.cli.scoring.rows import Asked
            from genlm.bytes.score import Scoring

            shared.params()
            options = parts.options()
            before = argument_bytes(context)
            scoring = Scoring(before, end, chosen, options, on_impossible, window, overlap)
            given = parts.table()
            if given is not None:
                for source in sources:
                    source.keep()
            table = None
            if parts.word_column is not None:
                sep = None if options is None else options.sep
                table = word_tables.read(sources, parts.word_column, texts, sep, parts.columns, shared.warn)
            every = texts.records(sources, shared.warn) if table is None else table.records
            first, records = not_empty(every, end)
            records = records if given is None else given.attach(records)
            asked = Asked(unit, tuple(first.fields), chosen, end, parts.columns)
            files = _files(asked, out, html, overwrite, _settings(shared, scoring, asked, table), table)
        if files is not None:
            ending.enter_context(closing(files))
        if (
            table is None
            and (given is not None or texts.in_tables)
            and all(source.again for source in sources)
        ):
            # What is wrong at the end of a long file is said before hours of work, not after.
            tsv = not shared.as_json if files is None else out is not None and out.suffix.lower() == ".tsv"
            with shared.working("Checking"):
                _check_records(records, scoring, given, asked.fields if tsv else None)
            records = texts.records(sources)
            records = records if given is None else given.attach(records)
            for source in sources:
                source.consumed = 0
        _run(records, files, asked, scoring, shared, where, sources, table, finer)
        if given is not None:
            given.check_all_met()


def _check_records(
    records: Iterator[TextRecord], scoring: Scoring, given: Given | None, columns: tuple[str, ...] | None
) -> None:
    """That all texts can be read and have what is asked for, and columns for what they carry along."""
    from genlm.bytes.cli.scoring.rows import check_fields

    for record in records:
        if given is not None:
            scoring.check(record)
        if columns is not None:
            check_fields(record, columns)
    if given is not None:
        given.check_all_met()


def _run(
    records: Iterator[TextRecord],
    files: Files | None,
    asked: Asked,
    scoring: Scoring,
    shared: Shared,
    where: Where,
    sources: list[Source],
    table: WordTable | None,
    finer: Check | None,
) -> None:
    if files is not None:
        records = files.remaining(records)
        if files.resumed:
            shared.remark(f"{files.resumed:,} texts are there already.")
        if files.unlocked is not None:
            said = f"The file system of {str(files.unlocked)!r} has no locks: let no other run write there."
            shared.warn(said)
    from genlm.bytes.cli.scoring.results import show, write

    chosen = scoring.base
    pace = Pace(sources, shared.remarks and (files is not None or not on_terminal()))
    scored = where.score(records, shared, scoring, pace.start, finer)
    with closing(scored), closing(pace.follow(scored)) as followed:
        if files is None:
            totals = show(followed, asked, shared.as_json, table)
        else:
            try:
                totals = write(followed, files)
            except KeyboardInterrupt:
                if files.keep:
                    done = f"{files.totals.texts:,} texts"
                    complain(f"stopped after {done}; the same command goes on from there.")
                raise
    if shared.as_json:
        write_json(
            totals.document(chosen, pace.rate) | ({} if finer is None else {"check": finer.document(chosen)})
        )
    else:
        comment = "" if files is not None or on_terminal() else "# "
        sys.stdout.write(f"{comment}{totals.line(chosen, pace.rate)}\n")
        if finer is not None:
            sys.stdout.write(f"{comment}{finer.line(chosen)}\n")


def _check(shared: Shared, out: Path | None, html: Path | None, overwrite: bool) -> None:
    if shared.as_json and (out is not None or html is not None):
        raise typer.BadParameter("is for stdout: give --out x.jsonl, or --json", param_hint="--json")
    if overwrite and out is html is None:
        raise typer.BadParameter("needs --out or --html", param_hint="--overwrite")


def _finer(shared: Shared, where: Where) -> Check:
    from genlm.bytes.cli.scoring.check import Check

    given = ((where.ray, "--ray"), (len(shared.every_name) > 1, "several models"))
    for is_given, name in given:
        if is_given:
            said = f"reads again with a finer tolerance: not with {name}"
            raise typer.BadParameter(said, param_hint="--check")
    if shared.tolerance is None and (shared.K, shared.threshold) != (None, None):
        # Either takes the place of the default tolerance: there is none that could be finer.
        name = "--threshold" if shared.K is None else "--K"
        said = f"reads again with a finer tolerance, and {name} without --tolerance has none: give one"
        raise typer.BadParameter(said, param_hint="--check")
    return Check()


def _base(bits: bool, base: float | None) -> float:
    if bits and base is not None:
        raise typer.BadParameter("give --bits or --base, not both", param_hint="--base")
    return 2.0 if bits else math.e if base is None else base


def _apart(sources: list[Source], out: Path | None, html: Path | None, more: list[Path | None]) -> None:
    """That nothing is written over what is read, nor twice to one file."""
    read = [source.path for source in sources] + more
    taken = {os.path.realpath(path) for path in read if path is not None}
    known = [os.stat(path) for path in taken if os.path.exists(path)]
    with suppress(OSError):
        known.append(os.fstat(0))  # `< file`; a terminal or a pipe is no output
    for option, path in (("--out", out), ("--html", html)):
        if path is None:
            continue
        same = os.path.exists(path) and any(os.path.samestat(os.stat(path), other) for other in known)
        # Beside an output may stand a file that grows, and its manifest.
        beside = {os.path.realpath(f"{path}{end}") for end in ("", ".part", ".manifest.jsonl")}
        if same or taken & beside:
            raise typer.BadParameter(f"{path} is another file of this command line", param_hint=option)
        taken.add(os.path.realpath(path))


def _settings(shared: Shared, scoring: Scoring, asked: Asked, table: WordTable | None) -> dict[str, Any]:
    """What decides the figures and their form: files made by others are not gone on with."""
    params = shared.params()
    return {
        "command": "genlm-bytes score",
        "model": shared.name,
        "dtype": shared.dtype,
        "K": params.K,
        "threshold": params.prune_threshold,
        "tolerance": params.tolerance,
        "start": shared.start,
        **({"canonical": True} if params.canonical else {}),
        **asdict(scoring),
        "context": repr(scoring.context),
        "rows": str(asked.unit),
        "columns": list(asked.fields),
        "figures": list(asked.figures),
        "table": None if table is None else table.digest,
    }


def _files(
    asked: Asked,
    out: Path | None,
    html: Path | None,
    overwrite: bool,
    settings: dict[str, Any],
    table: WordTable | None,
) -> Files | None:
    from genlm.bytes.cli.scoring.files import Files
    from genlm.bytes.cli.scoring.formats import Html, format_of

    outputs = [] if out is None else [format_of(out, asked, table)]
    if html is not None:
        outputs.append(Html(html, asked))
    # A page alone is made anew each time.
    return Files(outputs, settings, overwrite, keep=out is not None) if outputs else None
