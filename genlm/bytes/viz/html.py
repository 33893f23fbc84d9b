"""A beam as HTML: a piece for a notebook, or a page of its own that steps through a text.

The templates escape all they are given. Nothing is fetched from anywhere: styles, and the page's few lines
of script, are inside. Colours are translucent over whatever stands behind, so the same drawing serves on
light and on dark ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from genlm.bytes.escaping import one_line, safe_text
from genlm.bytes.viz.terminal import next_byte_name, notes, share_text, tail
from genlm.bytes.viz.together import EnsembleView
from genlm.bytes.viz.view import BeamView

__all__ = ["beam_html", "page_html", "page_opening", "templates"]


def beam_html(view: BeamView | EnsembleView) -> str:
    """One beam, or ensemble, to stand inside a page or a notebook."""
    return str(templates().get_template("beam.html").render(views=[view]))


def page_html(views: Sequence[BeamView | EnsembleView], title: str) -> str:
    """A page of its own with a beam at each of several places; all of them show where scripts do not run."""
    return str(templates().get_template("page.html").render(views=views, title=safe_text(title, keep="")))


def page_opening() -> str:
    """How all our pages begin, and no others."""
    return str(templates().get_template("head.html").render(title="")).partition("<title>")[0]


@cache
def templates() -> Any:
    """The templates: they escape all they are given."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("genlm.bytes.viz"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"line": one_line, "tail": tail, "share": share_text}
    made.filters |= {"notes": notes, "next_byte_name": next_byte_name}
    made.filters["safe_name"] = lambda name: safe_text(name, keep="")
    return made
