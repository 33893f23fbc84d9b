"""Scoring a corpus: texts come one after another, results go out in the same order, memory holds a batch.

`Scoring` says what is asked of every text, and can be sent to another process; `Scoring.of` asks it of some
texts at once. `score_records` (`groups.py`) does so batch by batch with one model. Whoever has more than one
model puts another function of the same shape in its place: texts in, results out, in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genlm.bytes.errors import GenlmBytesError, InvalidValueError, bad_value
from genlm.bytes.score.byte_scores import CharScores, Score
from genlm.bytes.score.reading import check_policy
from genlm.bytes.score.regions import Region, find_regions
from genlm.bytes.score.scorer import ScoringOptions
from genlm.bytes.score.table import WordSurprisal
from genlm.bytes.score.uncertainty import Uncertain, uncertainty_columns
from genlm.bytes.score.words import Rule
from genlm.bytes.util.numbers import whole_number

__all__ = ["Filling", "RegionOptions", "ScoredText", "Scoring", "TextRecord", "batches", "named"]

TEXTS = 64
"""Texts a batch: twice those that are read at the same time, so that forwards stay full."""
BYTES = 1 << 17
"""Bytes a batch, at most, if it has more than one text: what a batch costs when it has to be done again."""


@dataclass(frozen=True)
class TextRecord:
    """A text of a corpus.

    Attributes:
        id: what it is called.
        text: its bytes.
        fields: what else is known of it; carried along.
        words: the words to look at, where these are given.
        spans: the pairs of character offsets to look at, or regions, where these are given.
        context: what stands before it; None for the context of all texts.
    """

    id: str
    text: bytes
    fields: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] | None = None
    spans: tuple[tuple[int, int] | Region, ...] | None = None
    context: str | bytes | None = None


@dataclass(frozen=True)
class ScoredText:
    """A text and what was asked of it.

    Attributes:
        record: the text.
        score: the log-probabilities of its bytes.
        regions: the surprisals of its words or spans; None if they were not asked for.
    """

    record: TextRecord
    score: Score
    regions: tuple[WordSurprisal, ...] | None = None


@dataclass(frozen=True)
class RegionOptions:
    """Which regions are looked at; see `ByteLM.word_surprisal`.

    Attributes:
        given: `"words"` or `"spans"` if the records say which; None to find words by `sep`.
        sep: what stands between words; None for any white space.
        boundary: `"trailing"`, `"leading"`, `"none"`, or None for the default.
        punctuation: True, False or a string: whether marks are regions of their own, or which.
        entropy: True, False, `"byte"` or `"char"`.
        rank: whether words have ranks.
        budget: contexts of the model for each word's entropy and rank.
    """

    given: str | None = None
    sep: str | None = " "
    boundary: str | None = None
    punctuation: Any = False
    entropy: Any = False
    rank: bool = False
    budget: int | None = 256

    @property
    def columns(self) -> tuple[str, ...]:
        """What regions have that they have not always."""
        default = "none" if self.given == "spans" or self.sep == "" else "trailing"
        return uncertainty_columns(self.entropy, self.rank, (self.boundary or default) == "trailing")


@dataclass(frozen=True)
class Scoring:
    """What is asked of every text of a corpus.

    Args:
        context: what stands before each text; see `ByteLM.score`.
        end: whether the end of each text counts too.
        base: of the logarithm of the regions' surprisals.
        regions: whether to look at words or spans.
        on_impossible: see `ByteLM.score`.
        window: see `ByteLM.score`.
        overlap: see `ByteLM.score`.

    Raises:
        ValueError: an option out of range; regions together with `end`.
        TypeError: an option of the wrong type.
    """

    context: Any = b""
    end: bool = False
    base: float = math.e
    regions: RegionOptions | None = None
    on_impossible: str = "error"
    window: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        check_policy(self.on_impossible)
        whole_number("window", self.window, 8)
        whole_number("overlap", self.overlap, 1)
        regions = self.regions
        if regions is None:
            Rule.of("none", None, False, self.base, spans=False)
            return
        if self.end:
            rule = "does not go with regions, whose boundary says which ends count"
            raise bad_value("end", self.end, rule, 'Use boundary="trailing" instead.')
        if regions.given not in (None, "words", "spans"):
            raise bad_value("given", regions.given, "must be 'words', 'spans' or None")
        if regions.given is None and regions.sep == "":
            raise bad_value("sep", "", "finds no words", "Give the words, or spans, or a separator.")
        self._rule(regions)

    def _rule(self, regions: RegionOptions) -> Rule:
        by_spans = regions.given == "spans"
        rule = Rule.of(regions.boundary, regions.sep, regions.punctuation, self.base, by_spans)
        Uncertain.of(regions.entropy, regions.rank, regions.budget, rule.trailing, rule.base)
        return rule

    def check(self, record: TextRecord) -> None:
        """That the regions asked for are in a text; no model is needed to know.

        Raises:
            ValueError: they are not; the text's name is said.
        """
        if self.regions is None:
            return
        given, rule = self.regions.given, self._rule(self.regions)
        spans = record.spans or () if given == "spans" else None
        text = CharScores(Score(record.text, np.zeros(len(record.text)))).text
        words = list(record.words or ()) if given == "words" else None
        try:
            for region in find_regions(text, words, spans, rule.sep, rule.marks):
                if rule.wants_end(region):
                    rule.own_end(text, region)
        except GenlmBytesError as error:
            raise named(record, error) from error

    def of(self, lm: Any, records: Sequence[TextRecord]) -> list[ScoredText]:
        """What is asked, of some texts at once.

        Raises:
            ImpossibleByteError: a byte that the model cannot write.
            ValueError: regions that are not in their text.
        """
        texts = [record.text for record in records]
        own = [self.context if record.context is None else record.context for record in records]
        context = self.context if all(record.context is None for record in records) else own
        options = ScoringOptions(on_impossible=self.on_impossible, window=self.window, overlap=self.overlap)
        if self.regions is None:
            scores = lm.score(texts, context, end=self.end, **options)
            return [ScoredText(record, score) for record, score in zip(records, scores, strict=True)]
        given = self.regions.given
        rows = lm.word_surprisal(
            texts,
            words=[list(record.words or ()) for record in records] if given == "words" else None,
            spans=[list(record.spans or ()) for record in records] if given == "spans" else None,
            sep=self.regions.sep,
            boundary=self.regions.boundary,
            base=self.base,
            context=context,
            punctuation=self.regions.punctuation,
            entropy=self.regions.entropy,
            rank=self.regions.rank,
            budget=self.regions.budget,
            **options,
        )
        regions: list[list[WordSurprisal]] = [[] for _ in records]
        for row in rows:
            regions[row.text].append(row)
        return [
            ScoredText(record, score, tuple(ours))
            for record, score, ours in zip(records, rows.scores, regions, strict=True)
        ]


def batches(
    records: Iterable[TextRecord], texts: int = TEXTS, most: int = BYTES
) -> Iterator[list[TextRecord]]:
    """Texts in groups that are scored together.

    Args:
        texts: how many a group has at most.
        most: how many bytes; a text with more is a group of its own.
    """
    batch: list[TextRecord] = []
    filling = Filling(texts, most)
    for record in records:
        if filling.begins(len(record.text)) and batch:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


class Filling:
    """Where batches begin: it depends on the lengths of the texts from the first on, and on nothing else.

    So whoever goes on in the middle knows which texts were, or would have been, scored together.
    """

    def __init__(self, texts: int = TEXTS, most: int = BYTES) -> None:
        self.texts, self.most = texts, most
        self._count = self._size = 0

    def begins(self, length: int) -> bool:
        """Take the next text, of so many bytes; whether a batch begins with it."""
        full = self._count == self.texts or self._size + length > self.most
        if not self._count or full:
            self._count, self._size = 1, length
            return True
        self._count, self._size = self._count + 1, self._size + length
        return False


def named(record: TextRecord, error: GenlmBytesError) -> GenlmBytesError:
    """An error in a text, with the text's name."""
    kind = InvalidValueError if isinstance(error, ValueError) else GenlmBytesError
    told = kind(f"text {record.id!r}: {error}")
    told.__cause__ = error
    return told
