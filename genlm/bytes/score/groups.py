"""Scoring a corpus batch by batch, also so that the figures of a batch depend on nothing but the batch.

What shares a forward decides its round-off, some 1e-6 nats, and seldom whether a tokenization just counts.
So the same text scored among others, or after others, may differ in its last digits. In groups, each batch is
scored by a model that has read nothing before (`AsyncByteLM.forget`). Batches can then be scored in any
order, by any of several machines of one kind, twice if need be, and come out as one machine has them. The
price: a context that all texts share is read once a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from genlm.bytes.errors import GenlmBytesError
from genlm.bytes.score.corpus import BYTES, TEXTS, ScoredText, Scoring, TextRecord, batches, named

__all__ = ["score_group", "score_groups", "score_records"]


def score_records(lm: Any, records: Iterable[TextRecord], scoring: Scoring) -> Iterator[ScoredText]:
    """Score texts of any number, in order; no more are held than a batch.

    Args:
        lm: a `ByteLM`.
        records: the texts; taken as they are needed.
        scoring: what is asked of each.

    Raises:
        ValueError: a text that cannot be scored, by its name. Those before it have been yielded.
    """
    return _scored(lm, batches(records), scoring, forget=False)


def score_groups(
    lm: Any, records: Iterable[TextRecord], scoring: Scoring, texts: int = TEXTS, most: int = BYTES
) -> Iterator[ScoredText]:
    """`score_records`, in every digit the same whoever scores a batch.

    Args:
        lm: a `ByteLM`; what it has read before is forgotten.
        records: the texts; taken as they are needed.
        scoring: what is asked of each.
        texts: see `batches`.
        most: see `batches`.

    Raises:
        ValueError: a text that cannot be scored, by its name. Those before it have been yielded.
    """
    return _scored(lm, batches(records, texts, most), scoring, forget=True)


def _scored(
    lm: Any, groups: Iterable[list[TextRecord]], scoring: Scoring, forget: bool
) -> Iterator[ScoredText]:
    for batch in groups:
        found, error = score_group(lm, batch, scoring, forget)
        yield from found
        if error is not None:
            raise error


def score_group(
    lm: Any, records: Sequence[TextRecord], scoring: Scoring, forget: bool = True
) -> tuple[list[ScoredText], GenlmBytesError | None]:
    """The results for one batch up to the first text that cannot be scored, and what is wrong with that."""
    if forget:
        lm.forget(deterministic=True)
    try:
        return scoring.of(lm, records), None
    except GenlmBytesError as failed:
        if len(records) == 1:
            return [], named(records[0], failed)
    found: list[ScoredText] = []
    for record in records:
        one, error = score_group(lm, [record], scoring, forget)
        found += one
        if error is not None:
            return found, error
    return found, None
