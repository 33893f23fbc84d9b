"""How far some outputs are, as a value: lengths, digests, totals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from genlm.bytes.cli.scoring.totals import Totals

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText, TextRecord

__all__ = ["State", "identity"]


@dataclass(frozen=True)
class State:
    """What is in the files for good: a value, so that it is never half of one.

    Attributes:
        lengths: of the outputs, in bytes.
        digests: of that much of them.
        texts: a digest of the texts.
        totals: sums over the texts.
    """

    lengths: tuple[int, ...]
    digests: tuple[Any, ...]
    texts: Any
    totals: Totals

    @classmethod
    def new(cls, outputs: int) -> State:
        """The state before anything is written."""
        return cls(
            (0,) * outputs, tuple(hashlib.sha256() for _ in range(outputs)), hashlib.sha256(), Totals()
        )

    def longer(self, pieces: Sequence[bytes]) -> State:
        """The state when each output has one more piece."""
        lengths = tuple(length + len(piece) for length, piece in zip(self.lengths, pieces, strict=True))
        return replace(self, lengths=lengths, digests=tuple(map(_updated, self.digests, pieces)))

    def after(self, result: ScoredText, pieces: Sequence[bytes]) -> State:
        """The state with one more text."""
        texts = _updated(self.texts, identity(result.record))
        return replace(self.longer(pieces), texts=texts, totals=self.totals.after(result))

    def checkpoint(self) -> dict[str, Any]:
        """The state as a line of the manifest."""
        both = zip(self.lengths, self.digests, strict=True)
        return {
            "texts": self.totals.texts,
            "sha256_of_texts": self.texts.hexdigest(),
            "totals": self.totals.json(),
            "outputs": [{"bytes": length, "sha256": digest.hexdigest()} for length, digest in both],
        }


def _updated(digest: Any, piece: bytes) -> Any:
    digest = digest.copy()
    digest.update(piece)
    return digest


def identity(record: TextRecord) -> bytes:
    """A text and all that is carried along, as bytes that no other text has."""
    parts = [record.id, dict(record.fields), record.words, record.spans]
    described = json.dumps(parts, sort_keys=True).encode()
    return b"%d %d %b%b" % (len(record.text), len(described), record.text, described)
