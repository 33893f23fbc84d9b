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
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from genlm.bytes.errors import GenlmBytesError, bad_type, bad_value
from genlm.bytes.generate.options import whole_number
from genlm.bytes.resumable import Locks, Manifest, write_whole

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
        texts: all texts.
        kind: `"npz"`, compressed, or `"safetensors"`.
        size: texts a shard.
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
        refusal = partial(bad_value, "out", str(folder), instead="Give another folder, or delete this one.")
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
        path = self.folder / MANIFEST
        with _saying(str(folder)), ExitStack() as failing:
            self.folder.mkdir(parents=True, exist_ok=True)
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
        self._records = _records(self._manifest)

    def __len__(self) -> int:
        return -(-len(self.texts) // self.size)

    def close(self) -> None:
        """Let others write there."""
        self._locks.release()

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / _name(shard, self.kind)

    def members(self, shard: int) -> range:
        """The numbers of its texts."""
        return range(shard * self.size, min((shard + 1) * self.size, len(self.texts)))

    def missing(self) -> Iterator[int]:
        """The shards that are still to be written; one that is damaged, or not ours, is taken for missing."""
        for shard in range(len(self)):
            path = self.path(shard)
            if not path.exists():
                yield shard
            elif _content(path, self._records.get(path.name)) is None:
                logger.warning("%s is damaged, or none of ours, and is made again", path)
                yield shard

    def write(self, shard: int, arrays: Sequence[Distributions]) -> Path:
        """Write a shard.

        Args:
            shard: its number.
            arrays: one for each of its texts.

        Raises:
            ValueError: it cannot be written.
        """
        content: dict[str, Any] = {}
        for i, array in zip(self.members(shard), arrays, strict=True):
            content[f"logprobs_{i}"] = array
            content[f"text_{i}"] = np.frombuffer(self.texts[i], np.uint8)
        path = self.path(shard)
        if self.kind == "safetensors":
            from safetensors.numpy import save

            packed = save(content)
        else:
            out = io.BytesIO()
            np.savez_compressed(out, allow_pickle=False, **content)
            packed = out.getvalue()
        record = {"name": path.name, "bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
        with _saying(str(path)):
            write_whole(path, packed)
            self._manifest.say({"files": [record]})
        return path


@contextmanager
def _saying(name: str) -> Iterator[None]:
    """What the disk says, as an error of ours."""
    try:
        yield
    except GenlmBytesError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = (error.strerror if isinstance(error, OSError) else "") or error
        rule = f"cannot be written, or is no folder: {why}"
        raise bad_value("out", name, rule, "The same call goes on when it can.") from None


def _name(shard: int, kind: str) -> str:
    return f"shard-{shard:05d}.{kind}"


def _records(manifest: Manifest) -> dict[str, Any]:
    return {record["name"]: record for _, entry in manifest.entries for record in entry["files"]}


def _content(path: Path, record: Mapping[str, Any] | None) -> bytes | None:
    """What is in a file; None if it is not what was written."""
    if record is None or not path.is_file():
        return None
    content = path.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == record["sha256"] else None


def read_shards(folder: str | os.PathLike[str]) -> Iterator[tuple[bytes, Distributions]]:
    """Each text and its `[n, 257]` array, in order, from a folder that `byte_logprobs` has written.

    Args:
        folder: the folder.

    Raises:
        ValueError: it has no manifest; a shard is still missing, damaged, or none of ours.
    """
    manifest = Manifest(Path(folder) / MANIFEST)
    asked = manifest.settings or {}
    if asked.get("command") != "byte_logprobs":
        raise bad_value("folder", str(folder), f"has no {MANIFEST} of ours", "Write it with `byte_logprobs`.")
    kind, size, count = asked["format"], asked["texts_per_shard"], asked["texts"]
    for start in range(0, count, size):
        path, records = Path(folder) / _name(start // size, kind), _records(manifest)
        if not path.exists() or path.name not in records:
            raise bad_value("folder", str(folder), f"lacks {path.name}", "Run the same call again.")
        content = _content(path, records[path.name])
        if content is None:
            rule = f"holds {path.name}, which is damaged, or none of ours"
            raise bad_value("folder", str(folder), rule, "Run the same call again: it makes that shard anew.")
        if kind == "safetensors":
            from safetensors.numpy import load

            arrays: Mapping[str, Any] = load(content)
        else:
            arrays = np.load(io.BytesIO(content), allow_pickle=False)
        for i in range(start, min(start + size, count)):
            yield arrays[f"text_{i}"].tobytes(), arrays[f"logprobs_{i}"]
