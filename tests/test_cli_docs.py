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


def blocks() -> list[tuple[str, str]]:
    """Each line to type on the page, and what it says that comes out."""
    if not PAGE.exists():  # as in a source distribution
        return []
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)^```", text, re.MULTILINE)


def without_numbers(text: str) -> list[str]:
    """The words, without what may differ: numbers by round-off, bars and columns; device and speed."""
    return re.sub(rf"{NUMBER}|█+|on (?:cpu|cuda)\S*|[\d,]+ bytes/s", "", text).split()


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
    numbers, named = ([float(x) for x in re.findall(NUMBER, text)] for text in (out + err, expected))
    assert numbers == pytest.approx(named, abs=0.01)
