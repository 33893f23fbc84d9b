"""Scoring a corpus so that the figures of a batch depend on nothing but the batch.

What shares a forward decides its round-off, some 1e-6 nats, and seldom whether a tokenization just counts.
So the same text scored among others, or after others, may differ in its last digits. Here each batch is
scored by a model that has read nothing before (`AsyncByteLM.forget`). Batches can then be scored in any
order, by any of several machines of one kind, twice if need be, and come out as one machine has them. The
price: a context that all texts share is read once a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from genlm.bytes.errors import GenlmBytesError
from genlm.bytes.score.corpus import BYTES, TEXTS, ScoredText, Scoring, TextRecord, batches, score_records

__all__ = ["score_group", "score_groups"]


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
    for batch in batches(records, texts, most):
        found, error = score_group(lm, batch, scoring)
        yield from found
        if error is not None:
            raise error


def score_group(
    lm: Any, records: Sequence[TextRecord], scoring: Scoring
) -> tuple[list[ScoredText], GenlmBytesError | None]:
    """The results for one batch up to the first text that cannot be scored, and what is wrong with that."""
    lm.forget(deterministic=True)
    try:
        return scoring.of(lm, records), None
    except GenlmBytesError:
        found: list[ScoredText] = []
    for record in records:
        lm.forget()
        try:
            found += score_records(lm, [record], scoring)
        except GenlmBytesError as error:
            return found, error
    return found, None
