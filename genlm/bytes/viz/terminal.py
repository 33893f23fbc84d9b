"""A beam as a drawing for a terminal, through rich; as plain text where there are no colours."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from genlm.bytes.escaping import one_line, safe_text
from genlm.bytes.viz.together import EnsembleView, MemberView
from genlm.bytes.viz.view import BeamView, NextByte, Row

__all__ = ["BAR", "bar", "draw_beam", "next_byte_name", "notes", "share_text", "tail"]

BAR = 12
TAIL = 60
"""Of the text behind, so many characters are shown: the end is where the hypotheses differ."""


def draw_beam(view: BeamView | EnsembleView) -> RenderableType:
    """The hypotheses with their shares, what they share, and the likeliest next bytes.

    Of an ensemble these next bytes with what each member gives them, and below the hypotheses of each.
    """
    head = Text(tail(one_line(view.text)) or "(nothing read)", style="bold")
    head.append(f"   {len(view.text)} bytes, logp {view.logp:.2f}", style="dim not bold")
    if isinstance(view, EnsembleView):
        return Group(head, _says(view), *(part for one in view.members for part in _member(one)))
    return Group(head, *_hypotheses(view))


def _hypotheses(view: BeamView) -> list[RenderableType]:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("share", justify="right")
    table.add_column("", min_width=BAR, no_wrap=True)
    table.add_column("logp", justify="right")
    table.add_column("tokens", overflow="fold")
    for row in view.rows:
        table.add_row(share_text(row.share), Text(bar(row.share), "green"), f"{row.logp:.2f}", _cut(row))
    lines: list[RenderableType] = []
    if view.shared:
        shared = tail("│".join(map(one_line, view.shared)))
        lines.append(Text.assemble(("all begin  ", "dim"), shared, "│"))
    lines.append(table)
    lines += [Text(note, style="dim") for note in notes(view)]
    if view.following:
        lines.append(_following(view.following))
    return lines


def _says(view: EnsembleView) -> Table:
    """A column for each of the likeliest next bytes, a row for each member, and one for all."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("member")
    table.add_column("share", justify="right")
    for one in view.following:
        table.add_column(Text(next_byte_name(one.byte), "bold"), justify="right")
    table.add_row(Text("together", "bold"), "", *(Text(share_text(one.p), "bold") for one in view.following))
    for member in view.members:
        said = [share_text(p) for p in member.says] if member.alive else ["-"] * len(view.following)
        share = "" if member.share is None else f"{member.share:.4g}"
        table.add_row(Text(safe_text(member.name, keep="")), share, *said)
    return table


def _member(member: MemberView) -> list[RenderableType]:
    name = Text(safe_text(member.name, keep=""), style="bold")
    if not member.alive:
        return [name.append("   cannot have written this", style="dim not bold")]
    if member.beam is None:
        return []
    return [name.append(f"   logp {member.beam.logp:.2f}", style="dim not bold"), *_hypotheses(member.beam)]


def bar(share: float, width: int = BAR) -> str:
    """A bar for a share of 1; what is there at all has at least one block."""
    return "█" * max(1, round(width * share))


def share_text(share: float) -> str:
    """A share in four places, or, where those would all be 0, its size.

    Examples:
        >>> share_text(0.25), share_text(3.4e-7), share_text(0.0)
        ('0.2500', '3e-07', '0.0000')
    """
    return f"{share:.4f}" if share >= 5e-5 or not share else f"{share:.0e}"


def notes(view: BeamView) -> list[str]:
    """What a drawing of the rows leaves out, in words."""
    number, share = view.others
    found = [f"and {number} more, share {share:.2g}"] if number else []
    if view.deferred:
        found.append(f"{view.deferred} deferred, expected share {view.missing:.2g}")
    elif view.missing:
        found.append(f"dropped: expected share {view.missing:.2g}")
    return found


def next_byte_name(byte: bytes | None) -> str:
    """A next byte in a word: the character, an escape sequence, or `EOS`."""
    return "EOS" if byte is None else one_line(byte)


def tail(text: str) -> str:
    """The end of a long line."""
    return text if len(text) <= TAIL else "…" + text[1 - TAIL :]


def _cut(row: Row) -> Text:
    """The tokens of a hypothesis with bars between; what the next begins with is open at its end."""
    text = Text()
    for token in row.tokens:
        text.append(one_line(token), style="magenta").append("│", style="dim")
    if row.ended:
        text.append("EOS", style="bold")
    elif row.partial:
        text.append(one_line(row.partial), style="green").append("…", style="green")
    if row.canonical and text:
        text.append("  ← agrees with the tokenizer", style="dim")
    return text


def _following(following: tuple[NextByte, ...]) -> Text:
    text = Text("next  ", style="dim")
    for one in following:
        text.append(next_byte_name(one.byte), style="not dim bold").append(f" {share_text(one.p)}   ")
    return text
