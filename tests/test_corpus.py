"""Scoring a corpus: order, batches, what fails and what is kept then."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, ToyLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import ImpossibleByteError, InvalidTypeError, InvalidValueError
from genlm.bytes.score import RegionOptions, Scoring, TextRecord, score_records
from genlm.bytes.score.corpus import BYTES, TEXTS, batches

EXACT = BeamParams(exact=True, eos_byte_strings=[EOS_STRING])


@pytest.fixture
def toy() -> Iterator[ByteLM]:
    with ByteLM(ToyLM(TOY, seed=3), EXACT) as lm:
        yield lm


def records(*texts: bytes) -> list[TextRecord]:
    return [TextRecord(str(i), text) for i, text in enumerate(texts)]


class TestBatches:
    @given(sizes=st.lists(st.integers(0, 9)), texts=st.integers(1, 4), most=st.integers(1, 12))
    def test_all_in_order_and_within_bounds(self, sizes: list[int], texts: int, most: int) -> None:
        given = records(*(b"x" * size for size in sizes))
        found = list(batches(given, texts, most))
        assert [record for batch in found for record in batch] == given
        for batch, following in zip(found, [*found[1:], None], strict=False):
            size = sum(len(record.text) for record in batch)
            assert 1 <= len(batch) <= texts and (size <= most or len(batch) == 1)
            if following is not None:  # and as large as they may be
                assert len(batch) == texts or size + len(following[0].text) > most

    def test_texts_are_taken_as_they_are_needed(self, toy: ByteLM) -> None:
        taken = []

        def endless() -> Iterator[TextRecord]:
            while True:
                taken.append(None)
                yield TextRecord("", b"a")

        results = score_records(toy, endless(), Scoring())
        assert next(results).score.text == b"a"
        assert len(taken) <= TEXTS + 1 < BYTES
        results.close()


class TestScoring:
    @pytest.mark.parametrize("end", [False, True])
    def test_is_score(self, toy: ByteLM, end: bool) -> None:
        texts = [b"abc", b"", b"ca"] * 30  # more than a batch
        found = list(score_records(toy, records(*texts), Scoring(b"b", end)))
        assert [result.record for result in found] == records(*texts)
        for result, expected in zip(found, toy.score(texts, "b", end=end), strict=True):
            np.testing.assert_allclose(result.score.logprobs, expected.logprobs, atol=1e-9)
            assert result.score.end == pytest.approx(expected.end) and result.regions is None

    @pytest.mark.parametrize(
        "given, arguments",
        [
            (None, {"sep": "b"}),
            ("words", {"words": [["a"], [], ["c", "a"]], "sep": "b", "boundary": "none"}),
            ("spans", {"spans": [[(0, 2)], [], [(1, 2)]]}),
        ],
    )
    def test_is_word_surprisal(self, toy: ByteLM, given: str | None, arguments: dict[str, Any]) -> None:
        texts = [b"abca", b"", b"ca"]
        made = [
            TextRecord(str(i), text, {}, tuple(words), tuple(spans))
            for i, (text, words, spans) in enumerate(
                zip(texts, arguments.get("words", [()] * 3), arguments.get("spans", [()] * 3), strict=True)
            )
        ]
        regions = RegionOptions(given, arguments.get("sep", " "), arguments.get("boundary"))
        found = Scoring(base=2.0, regions=regions).of(toy, made)
        expected = toy.word_surprisal(texts, **arguments)
        assert [row for result in found for row in result.regions or ()] == list(expected)
        for result, score, plain in zip(found, expected.scores, toy.score(texts), strict=True):
            np.testing.assert_allclose(result.score.logprobs, plain.logprobs, atol=1e-9)
            np.testing.assert_allclose(score.logprobs, plain.logprobs, atol=1e-9)

    def test_can_be_sent_elsewhere(self, toy: ByteLM) -> None:
        scoring = pickle.loads(pickle.dumps(Scoring(end=True)))
        (result,) = pickle.loads(pickle.dumps(scoring.of(toy, records(b"ab"))))
        assert result.score.logprob == toy.score(b"ab", end=True).logprob

    @pytest.mark.parametrize(
        "options, word",
        [
            ({"on_impossible": "skip"}, "on_impossible"),
            ({"base": 1.0}, "base"),
            ({"window": 2}, "window"),
            ({"overlap": 0}, "overlap"),
            ({"regions": RegionOptions(), "end": True}, "end"),
            ({"regions": RegionOptions("lines")}, "given"),
            ({"regions": RegionOptions(sep="")}, "sep"),
            ({"regions": RegionOptions("words", "", "trailing")}, "boundary"),
        ],
    )
    def test_mistakes_are_found_at_once(self, options: dict[str, Any], word: str) -> None:
        with pytest.raises(InvalidValueError, match=f"`{word}`"):
            Scoring(**options)

    def test_punctuation_of_another_type(self) -> None:
        with pytest.raises(InvalidTypeError, match="punctuation"):
            Scoring(regions=RegionOptions(punctuation=b"."))


class TestFailing:
    def test_what_is_before_comes_and_the_text_is_named(self, toy: ByteLM) -> None:
        results = score_records(toy, records(b"a", b"b", b"az", b"c"), Scoring())
        assert [next(results).record.id for _ in range(2)] == ["0", "1"]
        with pytest.raises(
            InvalidValueError, match=r"^text '2': `text` has byte 0x7a .* at offset 1"
        ) as caught:
            next(results)
        assert isinstance(caught.value.__cause__, ImpossibleByteError)

    def test_infinite_where_asked(self, toy: ByteLM) -> None:
        found = list(score_records(toy, records(b"az", b"a"), Scoring(on_impossible="inf")))
        assert found[0].score.logprob == -np.inf and np.isfinite(found[1].score.logprob)

    def test_regions_that_are_not_there(self, toy: ByteLM) -> None:
        made = [TextRecord("x", b"abc", spans=((0, 4),))]
        with pytest.raises(InvalidValueError, match=r"text 'x': `spans.0.` is .* out of range"):
            list(score_records(toy, made, Scoring(regions=RegionOptions("spans"))))
