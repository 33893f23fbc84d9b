"""Figures above probability 1: none that this library makes (`test_hindsight.py`), and none goes unsaid."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.cli.scoring import heat, rows
from genlm.bytes.cli.scoring.formats import Html, format_of
from genlm.bytes.cli.scoring.parts import Unit
from genlm.bytes.cli.scoring.results import _figures
from genlm.bytes.cli.scoring.rows import Asked
from genlm.bytes.cli.scoring.totals import Totals
from genlm.bytes.integrations.ray_workers import OF_TEXTS, OF_WORDS
from genlm.bytes.integrations.ray_workers import _figures as ray_figures
from genlm.bytes.score import Score, ScoredText, TextRecord, WordSurprisal, WordSurprisals

WORDS = [bytes(word) for n in (1, 2, 3) for word in itertools.product(b"ab", repeat=n)]
SCORING = Path(__file__).parents[1] / "docs" / "scoring.md"
LATE = Score(b"a\xc3\xa9b", np.array([-1.0, 0.5, 0.25, -2.0]), end=0.125)


def result(regions: bool = True) -> ScoredText:
    found = [
        WordSurprisal(0, 0, "word", "a", 0, 1, 1.0, 1.5, 0.5, 0),
        WordSurprisal(0, 1, "word", "é", 1, 2, -0.75, 0.5, 1.25, 2),
    ]
    return ScoredText(TextRecord("t", LATE.text), LATE, tuple(found) if regions else None)


def toy(seed: int, tolerance: float) -> ByteLM:
    """A vocabulary in which much is found late."""
    llm = ToyLM([*WORDS, b"c", EOS_STRING], seed=seed)
    return ByteLM(llm, BeamParams(tolerance=tolerance), eos=[EOS_STRING])


class TestScores:
    def test_counted(self) -> None:
        assert LATE.above_one == 3 and LATE[:2].above_one == LATE.chars[1:2][:1].above_one == 1
        assert "3 of them above probability 1" in repr(LATE) and "above" not in repr(LATE[:1])
        assert LATE.logprob == pytest.approx(-2.125)

    @pytest.mark.parametrize("seed", range(29, 33))
    def test_none_goes_unsaid(self, seed: int) -> None:
        lm, text = toy(seed, 0.3), "aabbcaabb"
        score = lm.score(text, end=True)
        assert score.above_one == (score.logprobs > 0.0).sum() + (score.end > 0.0)
        spans = [(i, i + 1) for i in range(len(text))]
        rows = lm.word_surprisal(text, spans=spans, base=math.e)
        assert [row.above_one for row in rows] == (score.logprobs > 0.0).tolist()
        assert [row.surprisal for row in rows] == pytest.approx(list(-score.logprobs))
        for row in lm.word_surprisal(text, sep="c"):
            assert row.above_one >= (row.surprisal < 0.0)

    @examples(30)
    @given(vocabularies(), st.text("abc", min_size=1, max_size=8), st.integers(0, 99))
    def test_arithmetic_alone_is_not_late(self, words: list[bytes], text: str, seed: int) -> None:
        """Where nothing is dropped or waits, no byte is above 0 by the rounding of floats."""
        lm = ByteLM(ToyLM(words, seed=seed, zeros=0.5), BeamParams(exact=True), eos=[])
        score = lm.score(text, on_impossible="inf")
        assert score.above_one == 0 and not (score.logprobs > 0.0).any()


class TestOutputs:
    """The same in whatever is written: a number for programs, words for people."""

    @pytest.mark.parametrize(
        ("unit", "counts"),
        [(Unit.text, [3]), (Unit.region, [0, 2]), (Unit.char, [0, 2, 0]), (Unit.byte, [0, 1, 1, 0])],
    )
    def test_tables(self, unit: Unit, counts: list[int]) -> None:
        asked = Asked(unit, (), math.e, True)
        lines = [asked.head, *rows.rows(result(), asked)]
        table = list(csv.DictReader(io.StringIO(rows.tsv(lines).decode()), dialect="excel-tab"))
        assert [int(row["above_one"]) for row in table] == counts

    def test_documents(self) -> None:
        found = json.loads(rows.line(rows.document(result(), Asked(Unit.region, (), 2.0))))
        assert found["above_one"] == 3 and [row["above_one"] for row in found["regions"]] == [0, 2]

    def test_arrays(self, tmp_path: Path) -> None:
        asked = Asked(Unit.region, (), 2.0, False)
        kind = format_of(tmp_path / "x.npz", asked)
        kind.growing.write_bytes(kind.head() + kind.piece(result(), Totals()))
        with kind.path.open("wb") as file:
            kind.made(file)
        with np.load(tmp_path / "x.npz") as arrays:
            assert arrays["above_one"].tolist() == [3] and arrays["region_above_one"].tolist() == [0, 2]
            assert arrays["above_one"].dtype == np.int64

    def test_totals_in_words(self) -> None:
        totals = Totals().after(result())
        assert totals.document(2.0, None)["above_one"] == 3
        assert "; 3 bytes above probability 1, found late" in totals.line(2.0, 9.0)
        assert "above" not in Totals().line(2.0, None)

    def test_colours(self) -> None:
        notes = [piece.note for piece in heat.pieces(result(regions=False), Asked(Unit.char))]
        assert "-0.750 nats, above probability 1: found late" in notes[1] and "above" not in notes[0]
        assert "é -0.75 (above probability 1)" in _figures(result()).plain
        page = Html(Path("x.html"), Asked(Unit.region)).piece(result(), Totals())
        assert b"log-probability" in page

    def test_tables_of_words(self) -> None:
        words = WordSurprisals(result().regions or ())
        assert "'a' 1.000, 'é' -0.750 (above probability 1)" in repr(words)
        assert list(words.to_dataframe().above_one) == [0, 2]
        table = list(csv.DictReader(io.StringIO(words.to_tsv()), dialect="excel-tab"))
        assert [row["above_one"] for row in table] == ["0", "2"]

    def test_datasets(self) -> None:
        assert OF_TEXTS[-2:] == OF_WORDS[-2:] == ("above_one", "error")
        assert ray_figures(LATE, False)[-2] == 3


def test_words_that_look_like_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lines of the page, run as written."""
    monkeypatch.chdir(tmp_path)
    names = ["NA", "null", "nan", "None", "007", "TRUE", "1e5", '"', "a\tb", "N/A", "-"]
    places: list[Any] = [
        WordSurprisal(0, i, "word", name, 0, 1, 1.0, math.nan, math.nan) for i, name in enumerate(names)
    ]
    WordSurprisals(places).to_tsv("surprisals.tsv")
    blocks = re.findall(
        r"^```python\n(.*?)^```", SCORING.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    (block,) = [block for block in blocks if "read_csv" in block]
    found: dict[str, Any] = {}
    exec(compile(block, "scoring.md", "exec", dont_inherit=True), found)
    assert list(found["words"].word) == names
    assert found["words"].naive.isna().all() and found["words"].surprisal.tolist() == [1.0] * len(names)
