"""Distributions over next bytes on disk, in shards: for distillation, restartable.

A folder holds `manifest.json`, which says what was asked of which texts, and one file for every so many
texts. A file is written under another name and renamed when it is whole. So what is there after a crash is
right, and the same call again goes on where the first one stopped. Another call into the same folder (other
texts, other settings) is refused.

A shard has, for each of its texts, the `[n, 257]` float32 array `logprobs_<number>` and the bytes
`text_<number>`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.score.table import write_whole
from genlm.bytes.util.numbers import whole_number

__all__ = ["FORMATS", "Shards", "read_shards"]

Distributions = Float32[np.ndarray, "_ 257"]
"""Natural log-probabilities of the next byte, or of the end, before each byte of a text."""

FORMATS = ("npz", "safetensors")
MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)


class Shards:
    """The folder that some texts' distributions go to.

    Args:
        folder: the folder; made if it is not there.
        texts: all texts.
        kind: `"npz"`, compressed, or `"safetensors"`.
        size: texts a shard.
        settings: what else decides the numbers; JSON values.

    Raises:
        ValueError: the folder holds something else; a format that is none of the two.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        texts: Sequence[bytes],
        kind: str,
        size: int,
        settings: Mapping[str, Any],
    ) -> None:
        if kind not in FORMATS:
            raise bad_value("format", kind, f"must be one of {', '.join(map(repr, FORMATS))}")
        if not isinstance(folder, str | os.PathLike):
            raise bad_type("out", folder, "must be the path of a folder")
        if size is None:
            raise bad_type("texts_per_shard", size, "must be an integer")
        self.folder, self.texts, self.kind = Path(folder), texts, kind
        self.size = size = whole_number("texts_per_shard", size, 1) or 1
        digest = hashlib.sha256()
        for text in texts:
            digest.update(len(text).to_bytes(8, "little") + text)
        asked = {
            "format": kind,
            "texts": len(texts),
            "texts_per_shard": size,
            "sha256_of_texts": digest.hexdigest(),
            **settings,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            why = error.strerror if isinstance(error, OSError) else error
            raise bad_value("out", str(folder), f"cannot be made a folder: {why}") from None
        self._agree(asked)

    def _agree(self, asked: dict[str, Any]) -> None:
        path = self.folder / MANIFEST
        if path.exists():
            there = json.loads(path.read_text())
            differ = sorted(key for key in {*there, *asked} if there.get(key) != asked.get(key))
            if differ:
                rule = f"holds the results of another call: {', '.join(differ)} differ"
                raise bad_value("out", str(self.folder), rule, "Give another folder, or delete this one.")
            return
        if any(self.folder.iterdir()):
            rule = "is a folder with other things in it, and without a manifest"
            raise bad_value("out", str(self.folder), rule, "Give a new folder.")
        write_whole(path, (json.dumps(asked, indent=1) + "\n").encode())

    def __len__(self) -> int:
        return -(-len(self.texts) // self.size)

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{shard:05d}.{self.kind}"

    def members(self, shard: int) -> range:
        """The numbers of its texts."""
        return range(shard * self.size, min((shard + 1) * self.size, len(self.texts)))

    def missing(self) -> Iterator[int]:
        """The shards that are still to be written; one that cannot be read is taken for missing."""
        for shard in range(len(self)):
            path = self.path(shard)
            if not path.exists():
                yield shard
            elif not _whole(path, [f"logprobs_{i}" for i in self.members(shard)]):
                logger.warning("%s is damaged and is made again", path)
                yield shard

    def write(self, shard: int, arrays: Sequence[Distributions]) -> Path:
        """Write a shard.

        Args:
            shard: its number.
            arrays: one for each of its texts.
        """
        content: dict[str, Any] = {}
        for i, array in zip(self.members(shard), arrays, strict=True):
            content[f"logprobs_{i}"] = array
            content[f"text_{i}"] = np.frombuffer(self.texts[i], np.uint8)
        path = self.path(shard)
        if self.kind == "safetensors":
            from safetensors.numpy import save

            write_whole(path, save(content))
        else:
            out = io.BytesIO()
            np.savez_compressed(out, allow_pickle=False, **content)
            write_whole(path, out.getvalue())
        return path


def _whole(path: Path, names: Sequence[str]) -> bool:
    try:
        return set(names) <= set(_load(path))
    except (OSError, ValueError, zipfile.BadZipFile, _safetensors_error()):
        return False


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    error: type[Exception] = SafetensorError
    return error


def _load(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    with path.open("rb") as file, np.load(file, allow_pickle=False) as shard:
        return {name: shard[name] for name in shard.files}


def read_shards(folder: str | os.PathLike[str]) -> Iterator[tuple[bytes, Distributions]]:
    """Each text and its `[n, 257]` array, in order, from a folder that `byte_logprobs` has written.

    Args:
        folder: the folder.

    Raises:
        ValueError: it has no manifest, or a shard is still missing.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise bad_value("folder", str(folder), f"has no {MANIFEST}", "Write it with `byte_logprobs`.")
    asked = json.loads(path.read_text())
    kind, size, count = asked["format"], asked["texts_per_shard"], asked["texts"]
    for start in range(0, count, size):
        shard = Path(folder) / f"shard-{start // size:05d}.{kind}"
        if not shard.exists():
            raise bad_value("folder", str(folder), f"lacks {shard.name}", "Run the same call again.")
        arrays = _load(shard)
        for i in range(start, min(start + size, count)):
            yield arrays[f"text_{i}"].tobytes(), arrays[f"logprobs_{i}"]
