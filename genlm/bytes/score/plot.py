"""Surprisals as pictures: bars by word, and the text itself coloured, for papers (PNG, SVG, PDF)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlm.bytes.errors import optional
from genlm.bytes.util.numbers import whole_number

if TYPE_CHECKING:
    from genlm.bytes.score.table import WordSurprisal

__all__ = ["plot_bars", "plot_heat"]

HOTTEST = 20.0
"""Bits of the hottest colour, as in the heat maps of the command line."""

LETTER, LINE = 0.6, 1.6
"""How wide a letter of a fixed-width font is, and how far apart lines are, in font sizes."""


def plot_bars(rows: Sequence[WordSurprisal], unit: str, ax: Any = None) -> Any:
    """A bar for each region, in order; an impossible one has none. Returns the matplotlib axes."""
    if ax is None:
        # Not through pyplot, which would keep the figure and may open a window.
        figures = _matplotlib()
        ax = figures.Figure(figsize=(max(4.0, 0.5 * len(rows)), 3.0), layout="constrained").subplots()
    heights = [row.surprisal if math.isfinite(row.surprisal) else 0.0 for row in rows]
    ax.bar(range(len(rows)), heights)
    ax.set_xticks(range(len(rows)), [_shown(row.word) for row in rows], rotation=45, ha="right")
    ax.set_ylabel(f"surprisal ({unit})")
    return ax


def plot_heat(
    text: str,
    rows: Sequence[WordSurprisal],
    base: float,
    path: str | os.PathLike[str] | None,
    width: int,
    size: float = 10.0,
) -> Any:
    """A text with its regions on ground as warm as they are surprising. Returns the matplotlib figure."""
    most = whole_number("width", width, 1) or 1
    figures = _matplotlib()
    colours = optional("matplotlib", "`heat`", "'genlm-bytes[plot]'").colormaps["YlOrRd"]
    heat = {
        at: row.surprisal * math.log(base) / math.log(2) / HOTTEST
        for row in rows
        for at in range(row.start, row.end)
    }
    places = _places(text, most)
    lines = max((line for line, _ in places), default=0) + 1
    inch = size / 72
    figure = figures.Figure(figsize=((most + 1) * LETTER * inch, (lines + 0.5) * LINE * inch))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-0.5, most + 0.5), ylim=(lines + 0.25, -0.25))
    ax.axis("off")
    for at, (line, column) in enumerate(places):
        if at in heat and math.isfinite(heat[at]):
            colour = colours(0.75 * min(max(heat[at], 0.0), 1.0))  # light enough for black letters
            ax.add_patch(_rectangle((column, line), colour))
        if not text[at].isspace():
            ax.text(
                column + 0.5,
                line + 0.5,
                _shown(text[at]),
                family="monospace",
                size=size,
                ha="center",
                va="center",
            )
    if path is not None:
        figure.savefig(Path(path), dpi=200)
    return figure


def _places(text: str, width: int) -> list[tuple[int, int]]:
    """The line and the column of each character; lines break after spaces, which overhang, where they can."""
    found, line, column = list[tuple[int, int]](), 0, 0
    for at, char in enumerate(text):
        rest = len(text[at:].split(None, 1)[0]) if at and text[at - 1].isspace() and not char.isspace() else 1
        if column and column + min(rest, width) > width + char.isspace():
            line, column = line + 1, 0
        found.append((line, column))
        line, column = (line + 1, 0) if char == "\n" else (line, column + 1)
    return found


def _rectangle(corner: tuple[float, float], colour: Any) -> Any:
    patches = optional("matplotlib.patches", "`heat`", "'genlm-bytes[plot]'")
    return patches.Rectangle(corner, 1.0, 0.95, color=colour, linewidth=0)


def _matplotlib() -> Any:
    return optional("matplotlib.figure", "a picture", "'genlm-bytes[plot]'")


def _shown(text: str) -> str:
    # A lone dollar is text: two would begin mathematics.
    shown = text.encode(errors="surrogateescape").decode(errors="replace")
    return "".join(char if char.isprintable() else "\ufffd" for char in shown).replace("$", r"\$")
