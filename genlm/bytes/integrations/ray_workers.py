"""What runs on the machines of a Ray cluster: one model an actor, one group of texts at a time.

These classes are what Ray Data's `map_batches` makes an actor of. They know nothing of each other: a group's
figures depend on the group alone (`front/groups.py`). So a group whose actor has died is worked again, by
whichever actor there is, and comes out the same.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlm.bytes.errors import GenlmBytesError, bad_type, bad_value
from genlm.bytes.front import ByteLM
from genlm.bytes.front.groups import Asked, score_group
from genlm.bytes.integrations.ray_tally import Attempts

__all__ = ["ColumnScorer", "GroupScorer", "Load", "loader", "pack"]

Load = Callable[[], ByteLM]

OF_TEXTS = ("logprob", "end", "bytes", "chars", "bits", "bits_per_byte", "bits_per_char", "slack")
OF_WORDS = ("index", "kind", "word", "start", "end", "surprisal", "naive", "difference")


def loader(model: Any) -> Load:
    """What makes the model on the machine that it is to run on.

    Args:
        model: a name or a folder, as of `ByteLM.from_pretrained`; or a function that returns a `ByteLM`.

    Raises:
        TypeError: anything else. A `ByteLM` itself cannot be sent to another machine.
    """
    if model is None or isinstance(model, str | os.PathLike):
        return _Named(model)
    if not callable(model):
        instead = "functools.partial(ByteLM.from_pretrained, name, params) is such a function."
        raise bad_type("model", model, "must be a name, or a function that returns a ByteLM", instead)
    found: Load = model
    return found


@dataclass(frozen=True)
class _Named:
    """A class, so that only its name and the model's are sent: Ray sends methods with all they refer to."""

    model: str | os.PathLike[str] | None

    def __call__(self) -> ByteLM:
        return ByteLM.from_pretrained(self.model, progress=False)


class _Worker:
    def __init__(
        self, load: Load, asked: Asked, threads: int | None = None, tally: Any = None, retries: int = 0
    ) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)
        self.lm = load()
        self.asked = asked
        self.attempts = Attempts.on(tally, retries)


class GroupScorer(_Worker):
    """From packed groups to their packed results, or to what scoring them raised.

    Args:
        load: makes the model.
        asked: what is asked.
        threads: of torch; None leaves that to the environment.
        tally: see `Attempts.on`.
        retries: see `Attempts`.
    """

    def __call__(self, batch: Any) -> Any:
        """A table with columns `first` and `items`, to one with a column `results`."""
        import pyarrow

        firsts, items = (batch.column(name).to_pylist() for name in ("first", "items"))
        found = [self._one(*group) for group in zip(firsts, items, strict=True)]
        return pyarrow.table({"results": pyarrow.array(found, pyarrow.binary())})

    def _one(self, first: int, items: bytes) -> bytes:
        group = pickle.loads(items)
        try:
            with self.attempts.of(str(first), f"texts {first} to {first + len(group) - 1}"):
                return pickle.dumps(score_group(self.lm, group, self.asked, first))
        except Exception as error:  # the caller's mistake as a rule: raised there, in its turn
            return pack(error)


def pack(error: Exception) -> bytes:
    """An exception in bytes; where it cannot be restored from them, one with its message."""
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)
    except Exception:
        return pickle.dumps(GenlmBytesError(f"{type(error).__name__}: {error}"))
    return packed


class ColumnScorer(_Worker):
    """From a table with texts to the same with figures.

    Args:
        common: as for `GroupScorer`.
        columns: the column of each part of an item: `text`, `context`, `words`, `spans`.
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
        absent = [name for name in self.columns.values() if name not in names]
        if absent:
            raise bad_value("column", absent[0], f"is not among the dataset's: {', '.join(sorted(names))}")
        parts = {part: batch.column(name).to_pylist() for part, name in self.columns.items()}
        items = [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
        found: list[Any] = self._scored(items) if items else []
        if self.what == "words":
            of = [i for i, rows in enumerate(found) for _ in rows]
            batch = batch.take(pyarrow.array(of, pyarrow.int64()))
            rows = [row for rows in found for row in rows]
            return _with(batch, OF_WORDS, [[getattr(row, name) for name in OF_WORDS] for row in rows])
        values = [_figures(score, self.what == "bytes") for score in found]
        return _with(batch, (*OF_TEXTS, "logprobs") if self.what == "bytes" else OF_TEXTS, values)

    def _scored(self, items: list[dict[str, Any]]) -> list[Any]:
        key = hashlib.blake2b(pickle.dumps(items), digest_size=16).hexdigest()
        with self.attempts.of(key, f"the group of texts that begins with {str(items[0]['text'])[:40]!r}"):
            return score_group(self.lm, items, self.asked)


def _figures(score: Any, bytewise: bool) -> list[Any]:
    sizes = [len(score), len(score.chars)]
    rates = [score.bits, score.bits_per_byte, score.bits_per_char, score.slack]
    return [score.logprob, score.end, *sizes, *rates, *([score.logprobs.tolist()] if bytewise else [])]


def _with(table: Any, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A table with further columns; they have their types even where there are no rows."""
    import pyarrow

    kinds = {
        **dict.fromkeys(("bytes", "chars", "index", "start"), pyarrow.int64()),
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
