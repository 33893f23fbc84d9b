"""Scored texts as pieces of a heat map: characters, or words and spans where these were asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.cli.scoring.rows import Asked, char_surprisals
from genlm.bytes.cli.scoring.totals import unit_name
from genlm.bytes.score import ScoredText
from genlm.bytes.viz import HeatPiece, one_line

__all__ = ["pieces", "scale_end"]

HOTTEST = {Unit.region: 20.0}
"""Bits of the hottest colour; 8 for characters: as many as a byte holds."""


def scale_end(asked: Asked) -> str:
    """What the hottest colour stands for."""
    return f"{HOTTEST.get(asked.unit, 8.0) * math.log(2) / math.log(asked.base):.3g} {unit_name(asked.base)}"


def pieces(result: ScoredText, asked: Asked) -> Iterator[HeatPiece]:
    """The parts of a text in order."""
    return _chars(result, asked) if result.regions is None else _regions(result, asked)


def _chars(result: ScoredText, asked: Asked) -> Iterator[HeatPiece]:
    chars = result.score.chars
    costs = char_surprisals(result, asked).tolist()
    for char, offset, cost in zip(chars.text, chars.offsets, costs, strict=False):
        where = f"{one_line(char.encode(errors='surrogateescape'))} at byte {offset:,}"
        yield HeatPiece(char, _heat(cost, asked, 8.0), f"{where}: {_said(cost, asked)}")


def _regions(result: ScoredText, asked: Asked) -> Iterator[HeatPiece]:
    text, at = result.score.chars.text, 0
    for region in result.regions or ():
        if at < region.start:
            yield HeatPiece(text[at : region.start], None)
        by_tokens = f"; by tokens {region.naive:.3f}" if math.isfinite(region.naive) else ""
        heat = _heat(region.surprisal, asked, HOTTEST[Unit.region])
        yield HeatPiece(text[region.start : region.end], heat, f"{_said(region.surprisal, asked)}{by_tokens}")
        at = region.end
    if at < len(text):
        yield HeatPiece(text[at:], None)


def _said(cost: float, asked: Asked) -> str:
    if math.isnan(cost):
        return "unknown: it follows the impossible"
    if math.isinf(cost):
        return "impossible"
    said = "above probability 1: found late" if cost < 0.0 else f"probability {asked.base**-cost:.3g}"
    return f"{cost:.3f} {unit_name(asked.base)}, {said}"


def _heat(cost: float, asked: Asked, most: float) -> float:
    return cost * math.log(asked.base) / math.log(2) / most
