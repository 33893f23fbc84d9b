"""What each command writes where stdout is no terminal, and where it can write nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_runner import Run, fine, llm, run  # noqa: F401 — fixtures

from genlm.bytes.cli import app
from genlm.bytes.errors import ModelUnavailableError

ITEMS = "good\tbad\nthe a\tan the\n"
LONG = "the the an " * 2
"""Longer than the narrowest terminal here."""

LINES = {
    "demo": [()],
    "next": [("the",), ("the", "--chars"), ("the", "-m", "a", "-m", "a/" + "b" * 99)],
    "predict": [("the ",), ("the", "--chars")],
    "complete": [("the", "--max-bytes", "4"), ("the", "--max-bytes", "4", "--echo")],
    "chat": [("the", "--max-bytes", "4", "--begin", "an")],
    "info": [()],
    "watch": [("the",), ("the", "--context", LONG)],
    "score": [("the",), ("the an", "--words"), ("the", "--bytes"), ("the", "an", "--json")],
    "pairs": [("items.tsv", "--good", "good", "--bad", "bad")],
    "tokenize": [(LONG,), ("--file", "items.tsv", "--lines")],
}
"""Of each command some lines to type."""
EACH = [(name, *line) for name, lines in LINES.items() for line in lines]

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("items.tsv").write_text(ITEMS)


def test_every_command_is_here() -> None:
    assert {*LINES, "serve"} == {*app.COMMANDS}  # which writes no results


@pytest.mark.parametrize("line", EACH)
def test_lines_are_whole(run: Run, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...]) -> None:  # noqa: F811
    """However wide the terminal is that is not there; and no blanks fill them up."""

    def shown(columns: str) -> list[str]:
        monkeypatch.setenv("COLUMNS", columns)
        text = fine(run(*line)).decode()
        return [row for row in text.split("\n") if "per_second" not in row and "bytes/s" not in row]

    narrow = shown("20")
    assert narrow == shown("500")
    if line[0] not in ("complete", "chat"):  # a model's own text, byte for byte
        assert narrow == [row.rstrip(" ") for row in narrow] and any(narrow)


@pytest.mark.parametrize("line", EACH)
@pytest.mark.parametrize("start", [False, True])
def test_without_a_model_nothing_is_written(
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    line: tuple[str, ...],
    start: bool,
) -> None:
    """Whether there is none, or it has no such token to begin after: no head line either, and no file."""

    class Absent:
        def __getattr__(self, name: str) -> Any:
            raise ModelUnavailableError("there is no such model.")

    done = run(*line, "--start", "<|nosuch|>") if start else run(*line, model=Absent())
    assert (done.code, done.out) == (1, b"") and done.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["items.tsv"]
