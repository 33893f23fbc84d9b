"""`genlm-bytes watch`: a beam on its way through a text, byte by byte."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.text import Text

from genlm.bytes.cli.output import bytes_json, number, on_terminal, stdout_console, write_json
from genlm.bytes.cli.pages import Overwrite, PageFile, check_page, write_page
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import TextInput, argument_bytes

if TYPE_CHECKING:
    from genlm.bytes import ByteLM
    from genlm.bytes.viz import BeamView, EnsembleView

    View = BeamView | EnsembleView

__all__ = ["browse", "watch"]

ON, BACK = (
    {" ", "\r", "\n", "l", "\x1b[C", "\x1bOC", "\xe0M"},
    {"h", "\x7f", "\x08", "\x1b[D", "\x1bOD", "\xe0K"},
)
FIRST, LAST, QUIT = {"g", "0", "\x1b[H", "\x1bOH"}, {"G", "$", "\x1b[F", "\x1bOF"}, {"q", "\x1b", "\x04"}
KEYS = "← → one byte    g G first, last    q quit"


def watch(
    text: TextInput,
    shared: Shared,
    context: Annotated[
        str, typer.Option(help="Text that is read before, and not shown byte by byte.", show_default=False)
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="How many hypotheses to show.")] = 10,
    top: Annotated[int, typer.Option(min=0, help="How many next bytes to show.")] = 5,
    html: PageFile = None,
    overwrite: Overwrite = False,
    step: Annotated[
        bool | None,
        typer.Option("--step/--all", help="Step through with the keys: the default on a terminal."),
    ] = None,
) -> None:
    """Watch the beam read a text: hypotheses, weights, what they share.

    Each hypothesis is a way to cut the text into tokens. A bar stands
    between tokens; the last, in green, is still open. With --json there is
    a line for each byte. Of several models it is shown what each says.

    Examples:

    genlm-bytes watch "The capital of Fra"
    genlm-bytes watch --context "The capital of France is Par" "is" --most 5
    genlm-bytes watch "The capital of Fra" --html beam.html
    genlm-bytes watch --all "An ap" --K 5 --threshold 0.05
    genlm-bytes watch "The cap" --model some/folder --model another
    """
    if html is not None:
        check_page(html, overwrite)
    elif overwrite:
        raise typer.BadParameter("needs --html", param_hint="--overwrite")
    source = text.read()
    with shared.model() as lm:
        with shared.working("Reading"):
            beam = lm.beam(argument_bytes(context), method="tokenize")
        views = _views(lm, beam, source, most, top, shared.names or ())
        if html is not None:
            _write_page(html, list(_progress(views, len(source) + 1, shared)), source, shared)
        elif shared.as_json:
            for view in views:
                write_json(_json(view))
        elif on_terminal() and (step or step is None) and sys.stdin.isatty():
            browse(views, len(source) + 1, Console(), typer.getchar)
        else:
            _print_all(views, stdout_console())


def browse(views: Iterator[View], number: int, console: Console, key: Callable[[], str]) -> None:
    """Step through beams with the keys; the terminal is as before at the end, however it comes."""
    seen: list[View] = [next(views)]
    at = 0
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_screen(seen[at], at, number), refresh=True)
            pressed = key()
            if pressed in QUIT:
                return
            at = _place(pressed, at, number)
            while len(seen) <= at:
                seen.append(next(views))


def _place(pressed: str, at: int, number: int) -> int:
    if pressed in ON:
        return min(at + 1, number - 1)
    if pressed in BACK:
        return max(at - 1, 0)
    return 0 if pressed in FIRST else number - 1 if pressed in LAST else at


def _screen(view: View, at: int, number: int) -> Group:
    from genlm.bytes.viz import draw_beam

    return Group(draw_beam(view), Text(""), Text(f"{at} / {number - 1}    {KEYS}", style="dim"))


def _print_all(views: Iterator[View], console: Console) -> None:
    from genlm.bytes.viz import draw_beam

    for i, view in enumerate(views):
        if i:
            console.print()
        console.print(draw_beam(view))


def _views(
    lm: ByteLM, beam: Any, text: bytes, most: int, top: int, names: Sequence[str] = ()
) -> Iterator[View]:
    from genlm.bytes.viz import walk

    steps = walk(beam, text, most=most, top=top, names=names)

    async def following() -> View | None:
        return await anext(steps, None)

    while (view := lm.run(following())) is not None:
        yield view


def _progress(views: Iterator[View], number: int, shared: Shared) -> Iterator[View]:
    with Progress(console=Console(stderr=True), transient=True, disable=not shared.remarks) as bar:
        yield from bar.track(views, total=number, description="Reading")


def _write_page(path: Path, views: list[View], text: bytes, shared: Shared) -> None:
    from genlm.bytes.viz import one_line, page_html

    page = page_html(views, one_line(text[:60]) + ("…" if len(text) > 60 else ""))
    write_page(path, page)
    shared.remark(f"{path}: {len(views)} beams, {len(page) / 1024:.0f} kB")


def _json(view: View) -> dict[str, Any]:
    from genlm.bytes.viz import EnsembleView

    head = {**bytes_json(view.text), "logprob": number(view.logp)}
    next_bytes = [
        {**({"eos": True} if one.byte is None else bytes_json(one.byte)), "probability": one.p}
        for one in view.following
    ]
    if not isinstance(view, EnsembleView):
        return {**head, **_hypotheses(view), "next": next_bytes}
    members = [
        {
            "model": member.name,
            "share": member.share,
            "alive": member.alive,
            **(
                {}
                if member.beam is None
                else {"logprob": number(member.beam.logp), **_hypotheses(member.beam)}
            ),
            "probabilities": list(member.says),
        }
        for member in view.members
    ]
    return {**head, "members": members, "next": next_bytes}


def _hypotheses(view: BeamView) -> dict[str, Any]:
    return {
        "shared": [bytes_json(token) for token in view.shared],
        "candidates": [
            {
                "share": row.share,
                "logprob": number(row.logp),
                "tokens": [bytes_json(token) for token in row.tokens],
                "partial": bytes_json(row.partial),
                "ended": row.ended,
                "canonical": row.canonical,
            }
            for row in view.rows
        ],
        "others": {"number": view.others[0], "share": view.others[1]},
        "deferred": view.deferred,
        "missing": view.missing,
    }
