"""Bytes per second against the length of the context, as an SVG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.alternate import Reply
from common.figures import Rounds

__all__ = ["Points", "draw", "points"]

Points = list[tuple[int, float]]
OURS, PLAIN, RELEASE = "#3949ab", "#555555", "#e65100"


def points(rounds: Rounds, side: str, speed: Callable[[Reply], float]) -> Points:
    """`(context length, bytes per second)` of a side, in order of length."""
    return sorted((reply.facts["length"], speed(reply)) for r in rounds for reply in r.get(side, ()))


def draw(reading: dict[str, Points], writing: dict[str, Points], title: str, unit: str, path: Path) -> None:
    """Draw two panels: series by name, ours first, then the plain model, then the release."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "reading",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        _panel(axes[0], reading, "reading a text of this many bytes")
        _panel(axes[1], writing, "writing after a context of this many bytes")
        axes[0].set_ylabel(unit)
        figure.suptitle(title, fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _panel(axes: Any, series: dict[str, Points], what: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    plain_number = FuncFormatter(lambda value, _: f"{value:,.10g}")
    for (name, found), colour in zip(series.items(), (OURS, PLAIN, RELEASE), strict=False):
        if found:
            axes.plot(*zip(*found, strict=True), marker="o", markersize=4, color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    lengths = sorted({length for found in series.values() for length, _ in found})
    axes.set_xticks(lengths)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(plain_number)
    axes.yaxis.set_major_formatter(plain_number)
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel(what)
    low, high = axes.get_ylim()
    axes.set_ylim(low / (high / low) ** 0.3, high)  # room for the legend below the lines
    axes.legend(frameon=False, fontsize=8, loc="lower left")
