"""The files of a run over texts: which texts are in them, and which are still to be scored.

To go on (`genlm.bytes.resumable`), the texts that are in the files are read again, not scored, and compared
by a digest. The run then begins with the batch in which it was cut: what shares a batch decides the last
digits of a figure (`score/groups.py`), and where a run was cut must not. So checkpoints are made where
batches end.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from genlm.bytes.cli.scoring.formats import Format
from genlm.bytes.cli.scoring.totals import Totals
from genlm.bytes.resumable import Growing
from genlm.bytes.score import Filling, ScoredText, TextRecord

__all__ = ["Files"]

EVERY = Filling().texts
"""Texts a batch, and so, at most, from one checkpoint to the next: each costs a wait for the disk."""
FORM = 4
"""Raise this where the same run would write other bytes: files of other releases are not gone on with."""


class Files:
    """The outputs of a run. They are locked until `close`."""

    def __init__(
        self, outputs: Sequence[Format], settings: Mapping[str, Any], overwrite: bool, keep: bool = True
    ) -> None:
        self.outputs, self.keep = list(outputs), keep
        self.totals = Totals()
        """Sums over the texts that are in the files."""
        self.resumed = 0
        """How many texts were there already, and stay."""
        self._texts = hashlib.sha256()
        self._begins: set[int] = set()  # before how many texts the batches begin that are on their way
        # An error left nothing behind that would be other without it.
        lenient = ("on_impossible", "error")
        self._files = Growing(outputs, {**settings, "form": FORM}, overwrite, keep, lenient)
        self.unlocked, self.close = self._files.unlocked, self._files.close

    def remaining(self, records: Iterator[TextRecord]) -> Iterator[TextRecord]:
        """The texts that are still to be scored; those in the files are read and compared."""
        if not self._files.entries:
            return self._passing(records)
        last = self._files.entries[-1]
        ends = {entry["texts"]: entry for entry in self._files.entries if not entry.get("complete")}
        filling, digest, held = Filling(EVERY), hashlib.sha256(), list[Any]()
        start, before, number = 0, digest.copy(), 0
        for record in itertools.islice(records, last["texts"]):
            if filling.begins(len(record.text)) and number in ends:
                start, before, held = number, digest.copy(), []
            held.append(record)
            digest.update(identity(record))
            number += 1
        if number < last["texts"] or digest.hexdigest() != last["sha256_of_texts"]:
            raise self._files.refusal("was made from other texts")
        following = next(records, None)
        if following is None or filling.begins(len(following.text)):
            start, before, held = number, digest, []
        if following is not None:
            held.append(following)
        if held or not self._files.complete:
            self._files.go_on(ends[start])
        self.resumed, self._texts, self.totals = start, before, Totals(**ends[start]["totals"])
        return self._passing(itertools.chain(held, records))

    def _passing(self, records: Iterator[TextRecord]) -> Iterator[TextRecord]:
        """The texts on their way to be scored; where batches begin is noted."""
        filling = Filling(EVERY)
        for number, record in enumerate(records, self.resumed):
            if filling.begins(len(record.text)):
                self._begins.add(number)
            yield record

    def add(self, result: ScoredText) -> None:
        """Write a text's pieces."""
        self._files.begin(self._state())
        self._files.append(lambda output: output.piece(result, self.totals))
        self._texts.update(identity(result.record))
        self.totals = self.totals.after(result)
        if self.totals.texts in self._begins:
            self._begins.discard(self.totals.texts)
            self._files.checkpoint(self._state())

    def finish(self) -> None:
        """Write the ends of the files; a run that was complete is left as it was."""
        if not self._files.complete:
            self._files.begin(self._state())
            self._files.checkpoint(self._state())
            self._files.append(lambda output: output.foot(self.totals))
        self._files.finish(self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "texts": self.totals.texts,
            "sha256_of_texts": self._texts.hexdigest(),
            "totals": asdict(self.totals),
        }


def identity(record: TextRecord) -> bytes:
    """A text and all that is carried along, as bytes that no other text has."""
    parts = [record.id, dict(record.fields), record.words, record.spans, repr(record.context)]
    described = json.dumps(parts, sort_keys=True).encode()
    return b"%d %d %b%b" % (len(record.text), len(described), record.text, described)
