"""Beams, texts and scores for people to look at: in a terminal, as HTML, in one line."""

from genlm.bytes.escaping import one_line, safe_text
from genlm.bytes.viz.cuts import cuts_html, cuts_page, cuts_summary, draw_cuts
from genlm.bytes.viz.heat import (
    HeatPiece,
    draw_heat,
    draw_scale,
    heat_foot,
    heat_head,
    heat_section,
)
from genlm.bytes.viz.html import beam_html, page_html, page_opening
from genlm.bytes.viz.terminal import draw_beam, share_text
from genlm.bytes.viz.together import EnsembleView, MemberView, view_ensemble
from genlm.bytes.viz.view import BeamView, NextByte, Row, likeliest, view_beam
from genlm.bytes.viz.walk import walk

__all__ = [
    "BeamView",
    "EnsembleView",
    "HeatPiece",
    "MemberView",
    "NextByte",
    "Row",
    "beam_html",
    "cuts_html",
    "cuts_page",
    "cuts_summary",
    "draw_beam",
    "draw_cuts",
    "draw_heat",
    "draw_scale",
    "heat_foot",
    "heat_head",
    "heat_section",
    "likeliest",
    "one_line",
    "page_html",
    "page_opening",
    "safe_text",
    "share_text",
    "view_beam",
    "view_ensemble",
    "walk",
]
