"""The ways to cut a text into tokens, for people: in a terminal, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from genlm.bytes.escaping import one_line, safe_text
from genlm.bytes.score.tokenizations import Cut, Tokenizations, marked
from genlm.bytes.viz.html import templates
from genlm.bytes.viz.terminal import bar, share_text

__all__ = ["cuts_html", "cuts_page", "cuts_summary", "draw_cuts"]

MOST = 10


def cuts_summary(found: Tokenizations) -> str:
    """The figures, in a line."""
    own = "does not spell the text" if found.canonical is None else f"has {share_text(found.canonical_share)}"
    missing = f", {found.missing:.2g} of the probability not looked at" if found.missing > 0.0 else ""
    return f"The tokenizer's own cut {own} of {len(found)} found; entropy {found.entropy:.4f} nats{missing}."


def draw_cuts(found: Tokenizations, most: int = MOST) -> Table:
    """The likeliest cuts with their shares; the tokenizer's own has a star, and where others differ from it
    stands out."""
    table = Table("share", "", "", "tokens", box=None, header_style="bold", pad_edge=False)
    for cut in _shown(found, most):
        drawn = Text(overflow="fold")
        for i, (piece, other) in enumerate(marked(cut, found.canonical)):
            drawn.append("|" if i else "", "dim")
            drawn.append(one_line(piece), "bold magenta" if other else "")
        table.add_row(share_text(cut.posterior), bar(cut.posterior), "*" if cut.canonical else "", drawn)
    return table


def cuts_html(found: Tokenizations, most: int = MOST) -> str:
    """The same, to stand inside a page or a notebook."""
    return str(templates().get_template("cuts.html").render(texts=[_view(found, most)]))


def cuts_page(every: Sequence[Tokenizations], title: str, most: int = MOST) -> str:
    """A page of its own."""
    texts = [_view(found, most) for found in every]
    return str(
        templates().get_template("cuts_page.html").render(texts=texts, title=safe_text(title, keep=""))
    )


def _shown(found: Tokenizations, most: int) -> list[Cut]:
    """The likeliest; and the tokenizer's own in any case, since the others are compared with it."""
    cuts, own = list(found[:most]), found.canonical
    return cuts if own is None or own in cuts else [*cuts, own]


def _view(found: Tokenizations, most: int) -> dict[str, Any]:
    rows = [
        {
            "share": share_text(cut.posterior),
            "width": f"{100 * cut.posterior:.2f}",
            "own": cut.canonical,
            "pieces": [(one_line(piece), other) for piece, other in marked(cut, found.canonical)],
        }
        for cut in _shown(found, most)
    ]
    return {"summary": cuts_summary(found), "rows": rows}
