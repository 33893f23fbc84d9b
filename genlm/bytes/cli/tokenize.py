"""`genlm-bytes tokenize`: the ways to cut texts into tokens, by what the model gives to each."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genlm.bytes.cli.output import bytes_json, number, on_terminal, stdout_console, write_json
from genlm.bytes.cli.pages import Overwrite, PageFile, check_page, write_page
from genlm.bytes.cli.scoring.texts import Texts, not_empty
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import argument_bytes
from genlm.bytes.escaping import safe_text

if TYPE_CHECKING:
    from genlm.bytes import ByteLM
    from genlm.bytes.score import TextRecord, Tokenizations

__all__ = ["tokenize"]

AT_ONCE = 16
COLUMNS = ("text", "bytes", "tokens", "cuts", "own_share", "entropy", "missing", "likeliest")


def tokenize(
    texts: Texts,
    shared: Shared,
    context: Annotated[str, typer.Option(help="Text that stands before each text.", show_default=False)] = "",
    most: Annotated[int, typer.Option(min=1, help="How many cuts to show.")] = 10,
    html: PageFile = None,
    overwrite: Overwrite = False,
) -> None:
    """How the model would cut a text: the tokenizer's own share, the others.

    A star marks the tokenizer's own cut; what others do not share with it
    stands out. Of many texts (--lines, --column, --field) there is a row
    each. Entropies are in nats. A small --tolerance finds more cuts.

    Examples:

    genlm-bytes tokenize "The capital of France"
    genlm-bytes tokenize "unbelievably" --most 5 --tolerance 0.00001 --json
    genlm-bytes tokenize --file notes.txt --lines --html cuts.html
    """
    if html is not None:
        check_page(html, overwrite)
    elif overwrite:
        raise typer.BadParameter("needs --html", param_hint="--overwrite")
    shared.single("each model has tokens of its own: give one")
    sources = texts.sources()
    with ExitStack() as ending:
        for source in sources:
            ending.callback(source.close)
        with shared.working("Starting"):
            shared.params()
            first, records = not_empty(texts.records(sources, shared.warn), end=False)
        lm = ending.enter_context(shared.model())
        found = _found(lm, records, argument_bytes(context), shared)
        if html is not None:
            _write(html, [one for _, one in found], first, most, shared)
        elif shared.as_json:
            for record, one in found:
                write_json(_json(record, one, most))
        elif texts.lines or texts.in_tables or len(sources) > 1:
            _rows(found)
        else:
            _draw(found, most)


def _found(
    lm: ByteLM, records: Iterator[TextRecord], context: bytes, shared: Shared
) -> Iterator[tuple[TextRecord, Tokenizations]]:
    while some := list(islice(records, AT_ONCE)):
        with shared.working(f"Reading {sum(len(record.text) for record in some):,} bytes"):
            found: Any = lm.tokenizations([record.text for record in some], context)
        yield from zip(some, found, strict=True)


def _draw(found: Iterator[tuple[TextRecord, Tokenizations]], most: int) -> None:
    from genlm.bytes.viz import cuts_summary, draw_cuts

    for _, one in found:
        console = stdout_console()
        console.print(draw_cuts(one, most))
        console.print(cuts_summary(one), markup=False, highlight=False)


def _rows(found: Iterator[tuple[TextRecord, Tokenizations]]) -> None:
    """A row for each text; at the end the means."""
    shares, entropies, agree = list[float](), list[float](), 0
    for at, (record, one) in enumerate(found):
        if not at:  # with the first text: where it cannot be read, nothing is written
            sys.stdout.write("\t".join(COLUMNS) + "\n")
        own = one.canonical
        likeliest = bool(len(one)) and one[0].canonical
        figures = (one.canonical_share, one.entropy, one.missing)
        row = [
            safe_text(record.id, keep=""),
            str(len(one.text)),
            "" if own is None else str(len(own.token_ids)),
            str(len(one)),
            *("" if math.isnan(x) else f"{x:.6g}" for x in figures),
            str(likeliest),
        ]
        sys.stdout.write("\t".join(row) + "\n")
        if own is not None:
            shares.append(one.canonical_share)
            entropies.append(one.entropy)
            agree += likeliest
    if shares:
        means = f"own share {sum(shares) / len(shares):.4f}, entropy {sum(entropies) / len(shares):.4f} nats"
        said = f"{len(shares)} texts: mean {means}; the likeliest cut of {agree}"
        sys.stdout.write(f"{'' if on_terminal() else '# '}{said}\n")


def _write(html: Path, found: list[Tokenizations], first: TextRecord, most: int, shared: Shared) -> None:
    from genlm.bytes.viz import cuts_page, one_line

    title = one_line(first.text[:60]) + ("…" if len(first.text) > 60 or len(found) > 1 else "")
    page = cuts_page(found, title, most)
    write_page(html, page)
    shared.remark(f"{html}: {len(found)} texts, {len(page) / 1024:.0f} kB")


def _json(record: TextRecord, found: Tokenizations, most: int) -> dict[str, Any]:
    own = found.canonical
    cuts = [
        {
            "tokens": [
                {"id": i, **bytes_json(piece)} for i, piece in zip(cut.token_ids, cut.pieces, strict=True)
            ],
            "logprob": number(cut.logprob),
            "posterior": cut.posterior,
            "own": cut.canonical,
            "differs": [] if own is None or cut.canonical else cut.differs(own),
        }
        for cut in found[:most]
    ]
    return {
        "id": record.id,
        **bytes_json(found.text),
        "logprob": number(found.logprob),
        "cuts": len(found),
        "own_share": number(found.canonical_share),
        "entropy": found.entropy,
        "missing": number(found.missing),
        "boundaries": found.boundaries.tolist(),
        "likeliest": cuts,
    }
