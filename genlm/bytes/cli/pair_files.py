"""The output of `genlm-bytes pairs`: a row for each pair, and sums.

The pairs that are in it already are read again, not scored, and compared by a digest; a run goes on after
the last whole batch (`genlm.bytes.resumable`), so its bytes are those of a run without an end.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlm.bytes.cli.output import number
from genlm.bytes.errors import bad_value

if TYPE_CHECKING:
    from genlm.bytes.resumable import Growing
    from genlm.bytes.score import Pair, PairTotals, ScoredPair

__all__ = ["Files", "Totals", "open_output"]

COLUMNS = ("pair", "good", "bad", "margin", "correct")


class Totals:
    """Sums over all pairs, and over those of each group."""

    def __init__(self) -> None:
        from genlm.bytes.score import PairTotals

        self.every = PairTotals()
        self.by: dict[str, dict[str, PairTotals]] = {}

    def add(self, found: ScoredPair) -> None:
        """One more pair."""
        from genlm.bytes.score import PairTotals

        self.every = self.every.after(found)
        for column, name in found.pair.groups.items():
            groups = self.by.setdefault(column, {})
            groups[name] = groups.get(name, PairTotals()).after(found)

    def state(self) -> dict[str, Any]:
        """As JSON."""
        by = {c: {name: asdict(one) for name, one in groups.items()} for c, groups in self.by.items()}
        return {"every": asdict(self.every), "by": by}

    def load(self, state: Mapping[str, Any]) -> None:
        """What `state` has told of."""
        from genlm.bytes.score import PairTotals

        self.every = PairTotals(**state["every"])
        self.by = {c: {n: PairTotals(**one) for n, one in g.items()} for c, g in state["by"].items()}


class Files:
    """The output: which pairs are in it, and which are still to be scored."""

    def __init__(self, growing: Growing) -> None:
        self.growing = growing
        self.totals = Totals()
        self.resumed = 0
        self._digest = hashlib.sha256()

    def remaining(self, every: Iterator[Pair]) -> Iterator[Pair]:
        """The pairs that are still to be scored; those in the output are read and compared.

        Where there are more now than a complete run had, its last batch is scored again, as a whole one.
        """
        from genlm.bytes.score import PAIRS_AT_ONCE

        if not self.growing.entries:
            return every
        last = self.growing.entries[-1]
        there = list(islice(every, last["pairs"]))
        if len(there) < last["pairs"] or self._digested(there) != last["sha256_of_pairs"]:
            raise self.growing.refusal("was made from other pairs")
        more = next(every, None)
        start = last
        if more is not None:
            whole = len(there) - len(there) % PAIRS_AT_ONCE
            start = next(entry for entry in self.growing.entries if entry["pairs"] == whole)
            self._digest = hashlib.sha256()
            self._digested(there[:whole])
        if more is not None or not self.growing.complete:
            self.growing.go_on(start)
        self.resumed = start["pairs"]
        self.totals.load(start["totals"])
        return chain(there[self.resumed :], () if more is None else [more], every)

    def _digested(self, pairs: Iterable[Pair]) -> str:
        for pair in pairs:
            described = [pair.id, pair.good, pair.bad, pair.context, sorted(pair.groups.items())]
            self._digest.update(repr(described).encode())
        return self._digest.hexdigest()

    def add(self, found: ScoredPair) -> None:
        """Write a pair."""
        from genlm.bytes.score import PAIRS_AT_ONCE

        self.growing.begin(self._state())
        self.totals.add(found)
        self._digested([found.pair])
        self.growing.append(lambda output: output.piece(found))
        if self.totals.every.pairs % PAIRS_AT_ONCE == 0:
            self.growing.checkpoint(self._state())

    def finish(self) -> None:
        """Say that nothing is left; a run that was complete is left as it was."""
        if not self.growing.complete:
            self.growing.begin(self._state())
        self.growing.finish(self._state())

    def _state(self) -> dict[str, Any]:
        digest, pairs = self._digest.hexdigest(), self.totals.every.pairs
        return {"pairs": pairs, "sha256_of_pairs": digest, "totals": self.totals.state()}


def open_output(out: Path, groups: tuple[str, ...], settings: dict[str, Any], overwrite: bool) -> Growing:
    """The file that rows go to, by the ending of its name."""
    from genlm.bytes.resumable import Growing, Output

    class Tsv(Output):
        def head(self) -> bytes:
            return _tsv([*groups, *COLUMNS])

        def piece(self, found: ScoredPair) -> bytes:
            return _tsv(["" if x is None else x for x in _row(found).values()])

    class Jsonl(Output):
        def piece(self, found: ScoredPair) -> bytes:
            return json.dumps(_row(found), ensure_ascii=False).encode() + b"\n"

    kinds: dict[str, type[Output]] = {".tsv": Tsv, ".jsonl": Jsonl}
    kind = kinds.get(out.suffix.lower())
    if kind is None:
        raise bad_value("out", str(out), f"must end with {' or '.join(kinds)}", "The ending says the format.")
    return Growing([kind(out)], settings, overwrite)


def _row(found: ScoredPair) -> dict[str, Any]:
    pair = found.pair
    figures = (pair.id, *map(number, (found.good, found.bad, found.margin)), found.correct)
    return {**pair.groups, **dict(zip(COLUMNS, figures, strict=True))}


def _tsv(row: Iterable[Any]) -> bytes:
    out = io.StringIO()
    csv.writer(out, "excel-tab", lineterminator="\n").writerow(row)
    return out.getvalue().encode(errors="surrogateescape")
