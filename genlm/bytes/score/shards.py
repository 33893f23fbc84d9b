"""Distributions over next bytes on disk, in shards: for distillation, restartable.

A folder holds one file for every so many texts, and `manifest.jsonl` (`genlm.bytes.resumable`): what was
asked of which texts, then length and digest of each shard that is there. The same call again makes the
shards that are missing, damaged or not ours, and no others. Each is made by a model that has read nothing
before, so it is the same, to the last byte, wherever a run was ended. A call for other texts, or with other
settings, is refused.

A shard has, for each of its texts, the `[n, 257]` float32 array `logprobs_<number>` and the bytes
`text_<number>`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.resumable import Locks, Manifest, saying, write_whole
from genlm.bytes.util.numbers import whole_number

__all__ = ["FORMATS", "Shards", "read_shards"]

Distributions = Float32[np.ndarray, "_ 257"]
"""Natural log-probabilities of the next byte, or of the end, before each byte of a text."""

FORMATS = ("npz", "safetensors")
MANIFEST = "manifest.jsonl"
FORM = 1
"""Raise this where the same call would write other bytes: folders of other releases are not gone on with."""

logger = logging.getLogger(__name__)


class Shards:
    """The folder that some texts' distributions go to. It is locked until `close`.

    Args:
        folder: the folder; made if it is not there.
        kind: `"npz"`, compressed, or `"safetensors"`.
        settings: what else decides the numbers; JSON values.

    Raises:
        ValueError: the folder holds something else, cannot be written, or is being written by another run; a
            format that is none of the two.
        TypeError: a folder that is no path, a size that is no number.
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
        self.size = whole_number("texts_per_shard", size, 1) or 1
        digest = hashlib.sha256()
        for text in texts:
            digest.update(len(text).to_bytes(8, "little") + text)
        asked = {
            "command": "byte_logprobs",
            "form": FORM,
            "format": kind,
            "texts": len(texts),
            "texts_per_shard": self.size,
            "sha256_of_texts": digest.hexdigest(),
            **settings,
        }
        refusal = partial(bad_value, "out", str(folder), instead="Give another folder, or delete this one.")
        path = self.folder / MANIFEST
        with ExitStack() as failing, saying("cannot be a folder of ours", lambda rule, _: refusal(rule)):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except ValueError as error:
                raise refusal(f"is no name of a folder: {error}") from None
            self._locks = Locks({path: "out"})
            failing.callback(self.close)
            self._manifest = Manifest(path)
            if self._manifest.settings is not None:
                self._manifest.compare(asked, refusal)
            elif any(not p.name.startswith(".") and p != path for p in self.folder.iterdir()):
                raise refusal("is a folder with other things in it, and without a manifest")
            else:
                self._manifest.say(asked)
            failing.pop_all()

    def close(self) -> None:
        """Let others write there."""
        self._locks.release()

    def members(self, shard: int) -> range:
        """The numbers of its texts."""
        return range(shard * self.size, min((shard + 1) * self.size, len(self.texts)))

    def missing(self) -> Iterator[int]:
        """The shards that are still to be written; one that is damaged, or not ours, is taken for missing."""
        written = _written(self._manifest)
        for shard in range(-(-len(self.texts) // self.size)):
            path = _path(self.folder, shard, self.kind)
            if _content(path, written) is None:
                if path.exists():
                    logger.warning("%s is damaged, or none of ours, and is made again", path)
                yield shard

    def write(self, shard: int, arrays: Sequence[Distributions]) -> None:
        """Write a shard, of an array for each of its texts."""
        content: dict[str, Any] = {}
        for i, array in zip(self.members(shard), arrays, strict=True):
            content[f"logprobs_{i}"] = array
            content[f"text_{i}"] = np.frombuffer(self.texts[i], np.uint8)
        if self.kind == "safetensors":
            from safetensors.numpy import save

            packed = save(content)
        else:
            out = io.BytesIO()
            np.savez_compressed(out, allow_pickle=False, **content)
            packed = out.getvalue()
        path = _path(self.folder, shard, self.kind)
        record = {"name": path.name, "bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
        again = "The same call goes on from here."
        with saying("cannot be written", lambda rule, _: bad_value("out", str(path), rule, again)):
            write_whole(path, packed)
            self._manifest.say({"files": [record]})


def _path(folder: Path, shard: int, kind: str) -> Path:
    return folder / f"shard-{shard:05d}.{kind}"


def _written(manifest: Manifest) -> dict[str, str]:
    """The digest of each shard, by its name."""
    return {file["name"]: file["sha256"] for _, entry in manifest.entries for file in entry["files"]}


def _content(path: Path, written: Mapping[str, str]) -> bytes | None:
    """What is in a file; None if it is not what was written."""
    content = path.read_bytes() if path.is_file() else b""
    return content if hashlib.sha256(content).hexdigest() == written.get(path.name) else None


def read_shards(folder: str | os.PathLike[str]) -> Iterator[tuple[bytes, Distributions]]:
    """Each text and its `[n, 257]` array, in order, from a folder that `byte_logprobs` has written.

    Args:
        folder: the folder.

    Raises:
        ValueError: it has no manifest; a shard is still missing, damaged, or none of ours.
    """
    manifest = Manifest(Path(folder) / MANIFEST)
    asked, written = manifest.settings or {}, _written(manifest)
    if asked.get("command") != "byte_logprobs":
        raise bad_value("folder", str(folder), f"has no {MANIFEST} of ours", "Write it with `byte_logprobs`.")
    kind, size, count = asked["format"], asked["texts_per_shard"], asked["texts"]
    for start in range(0, count, size):
        path = _path(Path(folder), start // size, kind)
        content = _content(path, written)
        if content is None:
            there = path.exists() and path.name in written
            rule = f"holds {path.name}, which is damaged, or none of ours" if there else f"lacks {path.name}"
            raise bad_value("folder", str(folder), rule, "Run the same call again: it makes that shard.")
        if kind == "safetensors":
            from safetensors.numpy import load

            arrays: Mapping[str, Any] = load(content)
        else:
            arrays = np.load(io.BytesIO(content), allow_pickle=False)
        for i in range(start, min(start + size, count)):
            yield arrays[f"text_{i}"].tobytes(), arrays[f"logprobs_{i}"]
