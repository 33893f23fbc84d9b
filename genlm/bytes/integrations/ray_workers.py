"""What runs on the machines of a Ray cluster: one model an actor, one group of texts at a time.

These classes are what Ray Data's `map_batches` makes an actor of. They know nothing of each other: a group's
figures depend on the group alone (`score/groups.py`). So a group whose actor has died is worked again, by
whichever actor there is, and comes out the same.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genlm.bytes.api import ByteLM
from genlm.bytes.byte_lm import BeamParams
from genlm.bytes.ensemble import operation
from genlm.bytes.errors import GenlmBytesError, bad_type, bad_value
from genlm.bytes.integrations.ray_tally import Attempts
from genlm.bytes.score import ScoredText, Scoring, TextRecord
from genlm.bytes.score.groups import score_group
from genlm.bytes.score.scorer import texts_of

__all__ = ["ColumnScorer", "GroupScorer", "Load", "Pretrained", "PretrainedEnsemble", "loader"]

Load = Callable[[], ByteLM]

OF_TEXTS = (
    "logprob",
    "end",
    "bytes",
    "chars",
    "bits",
    "bits_per_byte",
    "bits_per_char",
    "slack",
    "above_one",
    "error",
)
OF_WORDS = ("index", "kind", "word", "start", "end", "surprisal", "naive", "difference", "above_one", "error")


def loader(model: Any) -> Load:
    """What makes the model on the machine that it is to run on.

    Args:
        model: a name or a folder, as of `ByteLM.from_pretrained`; or a function that returns a `ByteLM`.

    Raises:
        TypeError: anything else. A `ByteLM` itself cannot be sent to another machine.
    """
    if model is None or isinstance(model, str | os.PathLike):
        return Pretrained(model)
    if not callable(model):
        instead = "`Pretrained(name, params)` is such a function."
        raise bad_type("model", model, "must be a name, or a function that returns a ByteLM", instead)
    found: Load = model
    return found


@dataclass(frozen=True)
class Pretrained:
    """`ByteLM.from_pretrained` with its arguments, made where it is called.

    A class, so that only names and settings are sent: Ray sends methods with all that they refer to.

    Args:
        name_or_path: see `ByteLM.from_pretrained`, as for the others.
        params: the beam's settings.
        device: where the model runs.
        dtype: of its weights.
        backend: who runs it.
        options: of the backend's model class.
    """

    name_or_path: str | os.PathLike[str] | None = None
    params: BeamParams | None = None
    device: str | None = None
    dtype: str | None = None
    backend: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> ByteLM:
        """The model."""
        return ByteLM.from_pretrained(
            self.name_or_path,
            self.params,
            device=self.device,
            dtype=self.dtype,
            backend=self.backend,
            progress=False,
            **self.options,
        )


@dataclass(frozen=True)
class PretrainedEnsemble:
    """`ByteLM.ensemble` with its arguments, made where it is called.

    Args:
        members: of each what `loader` takes: a name, a `Pretrained`, a function. What stands there twice is
            loaded once.
        op: see `ByteLM.ensemble`, as for the others.
        weights: one for each member.
        contexts: what stands before the text for each.
        floor: of each member's distribution.
    """

    members: Sequence[Any]
    op: str | float = "prod"
    weights: Sequence[float] | None = None
    contexts: Sequence[Any] | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        operation(self.op, len(self.members), self.weights)  # before anything is sent
        for member in self.members:
            loader(member)

    def __call__(self) -> ByteLM:
        """The model."""
        made = list[tuple[Any, ByteLM]]()
        for member in self.members:
            if all(one != member for one, _ in made):
                made.append((member, loader(member)()))
        found = [next(lm for one, lm in made if one == member) for member in self.members]
        return ByteLM.ensemble(found, self.op, self.weights, contexts=self.contexts, floor=self.floor)


class _Worker:
    def __init__(
        self, load: Load, scoring: Scoring, threads: int | None = None, tally: Any = None, retries: int = 0
    ) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)
        self.lm = load()
        self.scoring = scoring
        self._attempts = Attempts.on(tally, retries)

    def scored(self, records: list[TextRecord]) -> tuple[list[ScoredText], GenlmBytesError | None]:
        """The results of a group up to its first mistake, and this; see `score_group`."""
        key = hashlib.blake2b(pickle.dumps(records), digest_size=16).hexdigest()
        try:
            with self._attempts.of(key, f"texts {records[0].id!r} to {records[-1].id!r}"):
                return score_group(self.lm, records, self.scoring)
        except GenlmBytesError as error:
            return [], error


class GroupScorer(_Worker):
    """From packed groups to their packed results, or to what scoring them raised.

    Args:
        threads: of torch; None leaves that to the environment.
    """

    def __call__(self, batch: Any) -> Any:
        """A table with a column `group`, to one with a column `results`."""
        import pyarrow

        groups = map(pickle.loads, batch.column("group").to_pylist())
        found = [pickle.dumps(self.scored(group)) for group in groups]
        return pyarrow.table({"results": pyarrow.array(found, pyarrow.binary())})


class ColumnScorer(_Worker):
    """From a table with texts to the same with figures.

    Args:
        columns: the column of each part of a record: `text`, `words`, `spans`, `context`.
        what: `"texts"`, `"bytes"` or `"words"`; see `score_dataset`.
    """

    def __init__(self, *common: Any, columns: Mapping[str, str], what: str) -> None:
        super().__init__(*common)
        self.columns = dict(columns)
        self.what = what

    def __call__(self, batch: Any) -> Any:
        """A table with one group, to one with a row for each text or word."""
        import pyarrow

        names = set(batch.column_names)
        unknown = [name for name in self.columns.values() if name not in names]
        if unknown:
            raise bad_value("column", unknown[0], f"is not among the dataset's: {', '.join(sorted(names))}")
        parts = batch.select(list(self.columns.values())).rename_columns(list(self.columns))
        records = [_record(i, row) for i, row in enumerate(parts.to_pylist())]
        found, error = self.scored(records) if records else ([], None)
        if error is not None:
            raise error
        if self.what != "words":
            values = [_figures(one.score, self.what == "bytes") for one in found]
            return _with(batch, (*OF_TEXTS, "logprobs") if self.what == "bytes" else OF_TEXTS, values)
        of = [i for i, one in enumerate(found) for _ in one.regions or ()]
        asked = self.scoring.regions
        figures = (*OF_WORDS, *(asked.columns if asked is not None else ()))
        rows = [[getattr(row, name) for name in figures] for one in found for row in one.regions or ()]
        return _with(batch.take(pyarrow.array(of, pyarrow.int64())), figures, rows)


def _record(number: int, parts: Mapping[str, Any]) -> TextRecord:
    text = texts_of([parts["text"]], f"text of row {number} of its block")[0][0]
    words, spans = parts.get("words"), parts.get("spans")
    return TextRecord(
        str(number),
        text,
        words=None if words is None else tuple(words),
        spans=None if spans is None else tuple((int(start), int(end)) for start, end in spans),
        context=parts.get("context"),
    )


def _figures(score: Any, bytewise: bool) -> list[Any]:
    sizes = [len(score), len(score.chars)]
    rates = [score.bits, score.bits_per_byte, score.bits_per_char, score.slack, score.above_one, score.error]
    return [score.logprob, score.end, *sizes, *rates, *([score.logprobs.tolist()] if bytewise else [])]


def _with(table: Any, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A table with further columns; they have their types even where there are no rows."""
    import pyarrow

    kinds = {
        **dict.fromkeys(("bytes", "chars", "index", "start", "above_one"), pyarrow.int64()),
        **dict.fromkeys(("kind", "word"), pyarrow.string()),
        "logprobs": pyarrow.list_(pyarrow.float64()),
        "end": pyarrow.int64() if "word" in names else pyarrow.float64(),
    }
    for i, name in enumerate(names):
        if name in table.column_names:
            instead = "Rename or drop it first: `dataset.rename_columns`, `dataset.drop_columns`."
            raise bad_value("dataset", name, "has a column of this name, which is needed", instead)
        kind = kinds.get(name, pyarrow.float64())
        table = table.append_column(name, pyarrow.array([row[i] for row in rows], kind))
    return table
