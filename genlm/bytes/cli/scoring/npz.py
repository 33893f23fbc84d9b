"""Results as numpy arrays in one `.npz`: figures of all texts end to end, and where each text begins.

| array | dtype | |
|---|---|---|
| `id` | str | `[texts]` |
| `offset` | int64 | `[texts + 1]`, where each text begins in the next two |
| `text` | uint8 | `[bytes]` |
| `logprob` | float64 | `[bytes]`, natural, of each byte given all before it |
| `end` | float64 | `[texts]`, natural, of each end; nan if it was not asked for |
| `slack` | float64 | `[texts]` |
| `column_<name>` | str | `[texts]`, each column carried along |
| `region_text` | int64 | `[regions]`, the number of its text; these with words or spans only |
| `region_start`, `region_end` | int64 | `[regions]`, in characters |
| `region_surprisal`, `region_naive` | float64 | `[regions]`, to the base asked for |

While texts are scored, each adds a line to a file beside: JSON with the arrays in base64, so that every bit
is kept. The `.npz` is made of it array by array; memory holds the regions of one text.
"""

from __future__ import annotations

import base64
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from genlm.bytes.cli.scoring.rows import cell, line, visible
from genlm.bytes.escaping import safe_text

if TYPE_CHECKING:
    from genlm.bytes.score import ScoredText

__all__ = ["spooled", "write"]

Array = Shaped[np.ndarray, "..."]
Piece = Callable[[dict[str, Any]], Array]


def spooled(result: ScoredText) -> bytes:
    """A text's line of the file beside."""
    record, score = result.record, result.score
    found: dict[str, Any] = {
        "id": visible(record.id),
        "fields": {k: cell(v) for k, v in record.fields.items()},
        "text": _packed(np.frombuffer(record.text, np.uint8)),
        "logprob": _packed(score.logprobs.astype("<f8")),
        "scalars": _packed(np.array([np.nan if score.end is None else score.end, score.slack], "<f8")),
    }
    if result.regions is not None:
        places = [(r.start, r.end) for r in result.regions]
        costs = [(r.surprisal, r.naive) for r in result.regions]
        found["places"] = _packed(np.array(places, "<i8"))
        found["costs"] = _packed(np.array(costs, "<f8"))
    return line(found)


def write(spool: Path, out: Path, fields: Sequence[str]) -> None:
    """Make the `.npz`.

    Args:
        spool: the file beside.
        out: the file to make.
        fields: the columns carried along.
    """
    texts = sizes = regions = 0
    longest = dict.fromkeys(["id", *fields], 1)
    has_regions = False
    for row in _rows(spool):
        texts += 1
        sizes += len(_bytes(row))
        has_regions = "places" in row
        regions += len(_places(row)) if has_regions else 0
        for name in longest:
            longest[name] = max(longest[name], len(_named(row, name)))
    with out.open("wb") as file:
        _archive(file, spool, fields, texts, sizes, regions, longest, has_regions)
        file.flush()
        os.fsync(file.fileno())


def _archive(
    file: Any,
    spool: Path,
    fields: Sequence[str],
    texts: int,
    sizes: int,
    regions: int,
    longest: dict[str, int],
    has_regions: bool,
) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        add = _Adder(archive, spool)
        add("id", f"<U{longest['id']}", texts, lambda row: np.array([_named(row, "id")]))
        add.offsets(texts)
        add("text", "|u1", sizes, _bytes)
        add("logprob", "<f8", sizes, lambda row: _unpacked(row["logprob"], "<f8"))
        for i, name in enumerate(("end", "slack")):
            add(name, "<f8", texts, lambda row, i=i: _unpacked(row["scalars"], "<f8")[i : i + 1])  # type: ignore[misc]
        for name in fields:
            kind = f"<U{longest[name]}"
            shown = safe_text(name, keep="")  # a zip's names end at a zero byte, and are UTF-8
            add(f"column_{shown}", kind, texts, lambda row, name=name: np.array([_named(row, name)]))  # type: ignore[misc]
        if has_regions:
            add.region_texts(regions)
            for i, name in enumerate(("start", "end")):
                add(f"region_{name}", "<i8", regions, lambda row, i=i: _places(row)[:, i])  # type: ignore[misc]
            for i, name in enumerate(("surprisal", "naive")):
                add(f"region_{name}", "<f8", regions, lambda row, i=i: _costs(row)[:, i])  # type: ignore[misc]


class _Adder:
    """Adds arrays to an archive, a piece for each text."""

    def __init__(self, archive: zipfile.ZipFile, spool: Path) -> None:
        self.archive, self.spool = archive, spool

    def __call__(self, name: str, dtype: str, length: int, piece: Piece) -> None:
        self._add(name, dtype, length, map(piece, _rows(self.spool)))

    def offsets(self, texts: int) -> None:
        def pieces() -> Iterator[Array]:
            at = 0
            yield np.array([0])
            for row in _rows(self.spool):
                at += len(_bytes(row))
                yield np.array([at])

        self._add("offset", "<i8", texts + 1, pieces())

    def region_texts(self, regions: int) -> None:
        pieces = (np.full(len(_places(row)), i) for i, row in enumerate(_rows(self.spool)))
        self._add("region_text", "<i8", regions, pieces)

    def _add(self, name: str, dtype: str, length: int, pieces: Iterator[Array]) -> None:
        # Not the time of day: the same run makes the same bytes.
        entry = zipfile.ZipInfo(f"{name}.npy")
        entry.compress_type = zipfile.ZIP_DEFLATED
        with self.archive.open(entry, "w", force_zip64=True) as member:
            header = {"descr": dtype, "fortran_order": False, "shape": (length,)}
            np.lib.format.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call, unused-ignore]
            for piece in pieces:
                member.write(piece.astype(dtype).tobytes())


def _rows(spool: Path) -> Iterator[dict[str, Any]]:
    with spool.open("rb") as file:
        yield from map(json.loads, file)


def _named(row: dict[str, Any], name: str) -> str:
    return str(row["id"]) if name == "id" else visible(row["fields"].get(name, ""))


def _bytes(row: dict[str, Any]) -> Array:
    return _unpacked(row["text"], "|u1")


def _places(row: dict[str, Any]) -> Array:
    return _unpacked(row["places"], "<i8").reshape(-1, 2)


def _costs(row: dict[str, Any]) -> Array:
    return _unpacked(row["costs"], "<f8").reshape(-1, 2)


def _packed(array: Array) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _unpacked(text: str, dtype: str) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype)
