"""Results as numpy arrays in one `.npz`: figures of all texts end to end, and where each text begins.

| array | dtype | |
|---|---|---|
| `id` | str | `[texts]` |
| `offset` | int64 | `[texts + 1]`, where each text begins in the next two |
| `text` | uint8 | `[bytes]` |
| `logprob` | float64 | `[bytes]`, natural, of each byte given all before it |
| `end` | float64 | `[texts]`, natural, of each end; nan if it was not asked for |
| `slack` | float64 | `[texts]` |
| `above_one` | int64 | `[texts]`, how many of these figures are above probability 1 |
| `error` | float64 | `[texts]`, by how many nats each text's log-probability may be off |
| `column_<name>` | str | `[texts]`, each column carried along |
| `region_text` | int64 | `[regions]`, the number of its text; these with words or spans only |
| `region_start`, `region_end` | int64 | `[regions]`, in characters |
| `region_surprisal`, `region_naive` | float64 | `[regions]`, to the base asked for |
| `region_above_one` | int64 | `[regions]` |
| `region_error` | float64 | `[regions]`, by how much each surprisal may be off |
| `region_entropy`, `region_rank`, … | float64 | `[regions]`, where these were asked for |

While texts are scored, each adds a line to a file beside: JSON with its part of each array in base64, so that
every bit is kept. The `.npz` is made of it array by array; memory holds one text's part of one.
"""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Shaped

from genlm.bytes.cli.scoring.rows import cell, line, visible
from genlm.bytes.cli.scoring.totals import Totals
from genlm.bytes.escaping import safe_text
from genlm.bytes.score import ScoredText

__all__ = ["begun", "spooled", "write"]

Array = Shaped[np.ndarray, " n"]

INTEGERS = {"offset", "above_one", "region_text", "region_start", "region_end", "region_above_one"}
REGION = ("start", "end", "surprisal", "naive", "above_one", "error")


def begun() -> bytes:
    """The first line of the file beside: the first text begins at 0."""
    return _packed({"offset": [0]})


def spooled(result: ScoredText, before: Totals, fields: Sequence[str], columns: Sequence[str]) -> bytes:
    """A text's line of the file beside, with the columns carried along and those asked for of its regions,
    after others with these sums."""
    record, score = result.record, result.score
    found: dict[str, Any] = {
        "id": [visible(record.id)],
        "offset": [before.bytes + len(record.text)],
        "text": np.frombuffer(record.text, np.uint8),
        "logprob": score.logprobs,
        "end": [np.nan if score.end is None else score.end],
        "slack": [score.slack],
        "above_one": [score.above_one],
        "error": [score.error],
    }
    for name in fields:  # a zip's names end at a zero byte, and are UTF-8
        found[f"column_{safe_text(name, keep='')}"] = [visible(cell(record.fields.get(name)))]
    if result.regions is not None:
        found["region_text"] = [before.texts] * len(result.regions)
        names = (*REGION, *columns)
        found |= {f"region_{name}": [getattr(r, name) for r in result.regions] for name in names}
    return _packed(found)


def write(spool: Path, file: BinaryIO) -> None:
    """Make the `.npz` of the file beside."""
    lengths: dict[str, int] = {}
    kinds: dict[str, np.dtype[Any]] = {}
    for row in _rows(spool):
        for name in row:
            part = _part(row, name)
            lengths[name] = lengths.get(name, 0) + len(part)
            kinds[name] = np.promote_types(kinds.get(name, part.dtype), part.dtype)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name, kind in kinds.items():
            # Not the time of day: the same run makes the same bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            header = {"descr": kind.str, "fortran_order": False, "shape": (lengths[name],)}
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call, unused-ignore]
                for row in _rows(spool):
                    if name in row:
                        member.write(_part(row, name).astype(kind).tobytes())


def _packed(found: dict[str, Any]) -> bytes:
    """Arrays of types that every machine writes in the same way, also where there are no values."""
    packed = {}
    for name, values in found.items():
        own = name in ("id", "text") or name.startswith("column_")
        array = np.asarray(values, None if own else "<i8" if name in INTEGERS else "<f8")
        packed[name] = [array.dtype.str, base64.b64encode(array.tobytes()).decode()]
    return line(packed)


def _rows(spool: Path) -> Iterator[dict[str, Any]]:
    with spool.open("rb") as file:
        yield from map(json.loads, file)


def _part(row: dict[str, Any], name: str) -> Array:
    kind, text = row[name]
    return np.frombuffer(base64.b64decode(text), kind)
