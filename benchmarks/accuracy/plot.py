"""Contexts a token against how far off a reading is, as an SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Point", "draw"]

COLOURS = ("#3949ab", "#e65100", "#00897b", "#8e24aa")


class Point(NamedTuple):
    """A setting: its middle over all texts, and `(contexts, error)` of each."""

    words: str
    contexts: float
    error: float
    each: list[tuple[float, float]]


def draw(series: dict[str, list[Point]], title: str, error: str, path: Path) -> None:
    """Draw series by name: a line through the settings' middles, and a faint point a text.

    Args:
        error: what the vertical axis shows.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "accuracy",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        for (name, points), colour in zip(series.items(), COLOURS, strict=False):
            line = sorted((p.contexts, p.error) for p in points)
            axes.plot(*zip(*line, strict=True), marker="o", markersize=5, color=colour, label=name)
            for point in points:
                axes.scatter(*zip(*point.each, strict=True), s=8, color=colour, alpha=0.25, linewidths=0)
                axes.annotate(
                    point.words,
                    (point.contexts, point.error),
                    xytext=(6, 5),
                    textcoords="offset points",
                    fontsize=8,
                    color=colour,
                )
        _label(axes, error)
        figure.suptitle(title, fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _label(axes: Any, error: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel("token contexts evaluated, per token of the tokenizer's own tokenization")
    axes.set_ylabel(error)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
