"""Whether a file is a model in GGUF, by its first bytes: asked before llama.cpp opens it.

llama.cpp says of most files that "the model could not be loaded", and of some damaged ones it ends the
process: where two tokens are spelled alike, say, as a flipped bit makes them. A GGUF file begins with its
name, version, two counts and then keys with values; the first keys say what the file is (a model, a LoRA
adapter, a projector of images) and of which architecture, and the list of tokens is looked through. What
stands behind it is llama.cpp's business.
"""

from __future__ import annotations

import struct
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

from genlm.bytes.errors import ModelUnavailableError

__all__ = ["check_header", "unreadable"]

_NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 20
"""Bytes of a key or string that is believed; a count above is damage."""

_TOKENS = "tokenizer.ggml.tokens"

_OTHERS = {
    "adapter": "a LoRA adapter, which changes a model: load the model, then `llm.add_new_lora(path)`",
    "mmproj": "a projector of images for another model: give the model's own file",
    "imatrix": "statistics made for quantizing: give the model's own file",
    "vocab": "a vocabulary without a model: give a file with weights",
}


def check_header(path: Path) -> None:
    """Look at what the file says of itself.

    Raises:
        ModelUnavailableError: there is no such file, or it is no model in GGUF.
    """
    try:
        with path.open("rb") as file:
            kind = _read(path, file).get("general.type", "model")
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    except (struct.error, ValueError, OverflowError):
        raise unreadable(path, "it ends, or is damaged, in its header", "Fetch it again.") from None
    if kind != "model":
        raise unreadable(path, f"it holds {_OTHERS.get(kind, f'{kind!r}, which is no model')}")


def unreadable(path: Path, why: str, instead: str = "") -> ModelUnavailableError:
    """The error of a file that is no model which can be run."""
    return ModelUnavailableError(f"Loading {str(path)!r} failed: {why.rstrip('.')}. {instead}".rstrip())


def _read(path: Path, file: BinaryIO) -> dict[str, Any]:
    """What the file says before its list of tokens, by key; arrays are left out."""
    begun = file.read(4)
    if begun != b"GGUF":
        what = "it is empty" if not begun else f"it begins with {begun!r}, and a GGUF file with b'GGUF'"
        raise unreadable(path, what, "Give a model's GGUF file, or the folder of a Hugging Face model.")
    version, _, keys = struct.unpack("<IQQ", file.read(20))
    if not 2 <= version <= 3:
        raise unreadable(path, f"its GGUF version is {version}, and 2 and 3 are read", "Convert it anew.")
    found: dict[str, Any] = {}
    for _ in range(min(keys, 1024)):
        key = _string(file).decode()
        (kind,) = struct.unpack("<I", file.read(4))
        if kind == _ARRAY:
            inner, count = struct.unpack("<IQ", file.read(12))
            if key == _TOKENS and inner == _STRING:
                _check_tokens(path, _strings(file, count))
                break
            if inner == _STRING:
                _strings(file, count)
            elif inner in _NUMBERS:
                file.seek(count * struct.calcsize(_NUMBERS[inner]), 1)
            else:
                break
        else:
            found[key] = _value(file, kind)
    return found


def _check_tokens(path: Path, tokens: list[bytes]) -> None:
    """Refuse a list that llama.cpp ends the process for."""
    if len(set(tokens)) == len(tokens) and b"" not in tokens:
        return
    # It gives empty tokens names of their own.
    named = [token or b"[EMPTY_%d]" % i for i, token in enumerate(tokens)]
    seen = {token: i for i, token in enumerate(named)}
    if len(seen) < len(tokens):
        twice = next(i for i, token in enumerate(named) if seen[token] != i)
        why = f"tokens {twice} and {seen[named[twice]]} are both {named[twice]!r}, and must be distinct"
        raise unreadable(path, why, "If it was not made so, it is damaged: fetch it again.")


def _strings(file: BinaryIO, count: int) -> list[bytes]:
    """The strings of an array; the file is then behind them."""
    length_at, found = struct.Struct("<Q").unpack_from, []
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        at, end = file.tell(), len(data)
        for _ in range(count):
            first = at + 8
            at = first + length_at(data, at)[0]
            if at > end:
                raise ValueError("it ends in a string")
            found.append(data[first:at])
        file.seek(at)
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file).decode("utf-8", "replace")
    if kind not in _NUMBERS:
        raise ValueError(f"no kind of value: {kind}")
    form = _NUMBERS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST:
        raise ValueError(f"a string of {length} bytes")
    found = file.read(length)
    if len(found) < length:
        raise ValueError("it ends in a string")
    return found
