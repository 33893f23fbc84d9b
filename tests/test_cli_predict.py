"""`predict` on a small model: what the methods say, and mistakes in a line."""

from __future__ import annotations

import math

import pytest
from cli_runner import Run, document, fine

from genlm.bytes import ByteLM


class TestPredict:
    def test_words_are_what_the_model_says(self, run: Run, lm: ByteLM) -> None:
        found = document(run("predict", "the an", "-n", "3", "--budget", "20", "--json"))
        said = lm.predict_words("the an", 3, budget=20).to_dict()
        assert [word["word"] for word in found["words"]] == [word["word"] for word in said["words"]]
        assert found["prefix"] == "an" and len(found["words"]) == 3
        total = sum(word["probability"] for word in found["words"]) + found["remainder"]
        assert total == pytest.approx(1.0, abs=1e-9)

    def test_characters(self, run: Run, lm: ByteLM) -> None:
        line = ("predict", "the", "--chars", "--alphabet", "ab_", "--floor", "0.1", "-n", "2", "--json")
        found = document(run(*line))["symbols"]
        said = lm.predict_chars("the", "ab_", 0.1)
        assert [one["symbol"] for one in found] == list(said)[:2]
        assert [one["logprob"] for one in found] == pytest.approx(list(said.values())[:2], abs=1e-4)
        assert min(one["probability"] for one in found) >= 0.1 - 1e-9 and math.isfinite(found[0]["logprob"])

    def test_for_people(self, run: Run) -> None:
        lines = fine(run("predict", "the", "-n", "2", "--budget", "5")).decode().splitlines()
        assert lines[0].split() == ["word", "probability", "logprob"] and len(lines) > 2
        assert lines[-1].startswith("others")
        assert "character" in fine(run("predict", "the", "--chars", "--top", "2")).decode()

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            (["a", "--alphabet", "ab"], "--chars"),
            (["a", "--floor", "0.1"], "--chars"),
            (["a", "--chars", "--prefix", "a"], "--prefix"),
            (["a", "--word", "("], "regular expression"),
            (["a", "--prefix", "b"], "how the context ends"),
            (["a", "--chars", "--alphabet", "aa"], "begin alike"),
        ],
        ids=str,
    )
    def test_mistakes_are_a_line(self, run: Run, line: list[str], says: str) -> None:
        done = run("predict", *line)
        assert done.code in (1, 2) and says in done.err and "Traceback" not in done.err
