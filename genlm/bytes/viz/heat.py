"""Text coloured by how surprising its parts are: in a terminal through rich, and as a page.

The page is written piece by piece (a head, a section for each text, a foot), so that its length is bounded by
the disk and not by memory. It loads nothing; hovering over a part shows its figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from genlm.bytes.escaping import safe_text
from genlm.bytes.viz.html import templates

__all__ = ["HeatPiece", "draw_heat", "draw_scale", "heat_foot", "heat_head", "heat_section"]

LEVELS = 10
SCALE = ((255, 255, 217), (254, 178, 76), (227, 54, 38))
"""From what was expected to what was not, all light enough for black letters."""
NEWLINE = "⏎\n"
"""A line end costs something too, and has to be seen to have a colour."""


@dataclass(frozen=True)
class HeatPiece:
    """A part of a text.

    Attributes:
        heat: from 0 to 1, how hot it is; nan where nothing is known; None for what stands between parts.
    """

    text: str
    heat: float | None
    note: str = ""

    @property
    def level(self) -> int | None:
        """The heat in steps from 0 to 10; None for no colour."""
        if self.heat is None or math.isnan(self.heat):
            return None
        return round(LEVELS * min(max(self.heat, 0.0), 1.0))

    @property
    def shown(self) -> str:
        """The part, with what a terminal would obey escaped, and its line ends to be seen."""
        return safe_text(self.text).replace("\n", NEWLINE if self.heat is not None else "\n")


def draw_heat(pieces: Iterable[HeatPiece]) -> Text:
    """The pieces in colours, black on light, in one flow."""
    drawn = Text()
    for piece in pieces:
        drawn.append(piece.shown, None if piece.level is None else f"#000000 on {_colour(piece.level)}")
    return drawn


def draw_scale(most: str) -> Text:
    """What the colours mean: from 0 to `most` and beyond."""
    drawn = Text.assemble(("0 ", "dim"))
    for level in range(LEVELS + 1):
        drawn.append(" ", f"on {_colour(level)}")
    return drawn.append(f" {most} and more", "dim")


def heat_head(title: str, most: str) -> str:
    """The beginning of a page."""
    # Translucent, so that the page serves on light and on dark ground.
    colours = [(level, f"{0.85 * level / LEVELS:.3f}") for level in range(LEVELS + 1)]
    said = {"title": safe_text(title, keep=""), "most": safe_text(most, keep="")}
    return str(templates().get_template("heat_head.html").render(**said, colours=colours))


def heat_section(name: str, figures: str, pieces: Sequence[HeatPiece]) -> str:
    """A text of a page."""
    template = templates().get_template("heat_section.html")
    said = {"name": safe_text(name, keep=""), "figures": safe_text(figures, keep="")}
    shown = [replace(piece, note=safe_text(piece.note, keep="")) for piece in pieces]
    return str(template.render(**said, pieces=shown))


def heat_foot(figures: str) -> str:
    """The end of a page: totals over its texts."""
    return str(templates().get_template("heat_foot.html").render(figures=safe_text(figures, keep="")))


def _colour(level: int) -> str:
    at = level / LEVELS * (len(SCALE) - 1)
    low = min(int(at), len(SCALE) - 2)
    mixed = [a + (b - a) * (at - low) for a, b in zip(SCALE[low], SCALE[low + 1], strict=True)]
    return "#" + "".join(f"{round(x):02x}" for x in mixed)
