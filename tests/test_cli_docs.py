"""The page about the command line: its lines are typed, and its outputs compared."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import genlm.bytes
from genlm.bytes.cli import app, main

REPOSITORY = Path(genlm.bytes.__file__).parents[2]
PAGE = REPOSITORY / "docs" / "command-line.md"
NUMBER = r"-?\d+\.\d+(?:e-\d+)?"
ROUND_OFF = 5e-4
"""Of a figure, so much of it may be another machine's: what forwards of float32 differ by, and no more."""


def blocks() -> list[tuple[str, str]]:
    """Each line to type on the page, and what it says that comes out."""
    if not PAGE.exists():  # as in a source distribution
        return []
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)^```", text, re.MULTILINE)


def without_numbers(text: str) -> list[str]:
    """The words, without what may differ: numbers by round-off, bars and columns; device and speed."""
    return re.sub(rf"{NUMBER}|█+|on (?:cpu|cuda)\S*|[\d,]+ bytes/s", "", text).split()


def as_said(found: str, said: str) -> bool:
    """Whether a figure is the one on the page, however small it is: up to round-off, and its last digit."""
    digits, _, exponent = said.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    most = max(ROUND_OFF * abs(float(said)), 1.01 * unit, 2e-5)
    return abs(float(found) - float(said)) <= most


@pytest.mark.parametrize(
    "found, said, same",
    [
        ("0.9967", "0.9968", True),
        ("19.797953", "19.797964", True),
        ("0.9967", "0.9959", False),
        ("0.00028435293", "0.00056870282", False),
        ("-0.003", "-0.005", False),
        ("3e-07", "6e-07", True),  # below what anyone would miss
        ("-65.261", "-65.3", True),
    ],
)
def test_a_factor_of_two_is_another_figure(found: str, said: str, same: bool) -> None:
    assert as_said(found, said) == same


@pytest.mark.skipif(not PAGE.exists(), reason="no documentation here")
def test_every_command_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(blocks()) > 5
    for name in app.COMMANDS:
        assert f"| `{name}` |" in text


@pytest.mark.real_model
@pytest.mark.parametrize("line, expected", blocks())
def test_outputs_are_real(
    line: str, expected: str, default_llm: Any, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("genlm.bytes.models.load_model", lambda *_, **__: default_llm)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit):
        main()
    out, err = (stream.decode() for stream in capfdbinary.readouterr())
    assert without_numbers(out + err) == without_numbers(expected)
    numbers, named = (re.findall(NUMBER, text) for text in (out + err, expected))
    assert len(numbers) == len(named)
    assert [pair for pair in zip(numbers, named, strict=True) if not as_said(*pair)] == []
