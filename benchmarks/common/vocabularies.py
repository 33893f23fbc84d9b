"""The vocabularies that the benchmarks use, as files that both sides read.

Each is a pickled list of byte strings, position = token id, made once under `benchmarks/.venvs/data/`.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from common.peers import VENVS

__all__ = ["vocabulary"]

DATA = VENVS / "data"
MISTRAL = "mistral-common==1.13.1"


def vocabulary(name: str) -> Path:
    """The file of a vocabulary: `smollm2`, `sentencepiece` or `tekken`."""
    path = DATA / f"{name}.pickle"
    if not path.exists():
        print(f"Making the vocabulary {name}")
        spellings = _MAKERS[name]()
        DATA.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(pickle.dumps(spellings))
        unfinished.replace(path)
    return path


def _smollm2() -> list[bytes]:
    """The embedded model's: byte-level BPE, 49,152 tokens."""
    from genlm.backend.tokenization import decode_vocab
    from transformers import AutoTokenizer

    from genlm.bytes.models import default_model_path

    tokens, _ = decode_vocab(AutoTokenizer.from_pretrained(default_model_path()))
    return [bytes(token.byte_string) for token in tokens]


def _tekken() -> list[bytes]:
    """Mistral's tekken: 1,000 special tokens, then byte-level BPE; 131,072 in all."""
    data = json.loads(_mistral_file("tekken_240911.json"))
    special, size = data["config"]["default_num_special_tokens"], data["config"]["default_vocab_size"]
    words = [base64.b64decode(entry["token_bytes"]) for entry in data["vocab"][: size - special]]
    return [f"<SPECIAL_{i}>".encode() for i in range(special)] + words


def _sentencepiece() -> list[bytes]:
    """Mistral's first: SentencePiece, 32,000 pieces, bytes as `<0xXX>`, blanks as `▁`."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_proto=_mistral_file("tokenizer.model.v1"))
    return [
        bytes([int(piece[3:5], 16)]) if model.is_byte(i) else piece.replace("▁", " ").encode()
        for i, piece in enumerate(map(model.id_to_piece, range(model.vocab_size())))
    ]


_MAKERS: dict[str, Callable[[], list[bytes]]] = {
    "smollm2": _smollm2,
    "tekken": _tekken,
    "sentencepiece": _sentencepiece,
}


def _mistral_file(name: str) -> bytes:
    """A data file of the package mistral-common: from where it is installed, or from its wheel."""
    found = importlib.util.find_spec("mistral_common")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "data" / name
        if path.exists():
            return path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, MISTRAL]
        subprocess.run([*command, "--disable-pip-version-check"], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(f"mistral_common/data/{name}")
