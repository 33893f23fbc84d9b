"""Loads of GGUF files that are damaged at random, each in a fork: llama.cpp ends the process for some damage.

    python tests/garbled_gguf.py FILE SEED COUNT

prints, as JSON, how many loaded, how many were refused by an error of ours, and what else came of the rest.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

from genlm.bytes.backends.llama_cpp.library import library
from genlm.bytes.backends.llama_cpp.options import LlamaCppOptions
from genlm.bytes.backends.llama_cpp.session import Session
from genlm.bytes.backends.llama_cpp.tokenizer import LlamaTokenizer
from genlm.bytes.errors import GenlmBytesError

SAMPLE = "the cat and 1 \N{SLIGHTLY SMILING FACE}<|end|>"


def damaged(good: bytes, rng: random.Random) -> bytes:
    """The file with a byte, a bit, a word or a run changed before its weights, or cut."""
    data, at = bytearray(good), rng.randrange(4, good.index(b"blk.0.attn_norm.weight") + 1500)
    match rng.choice(["byte", "bit", "word", "run", "cut"]):
        case "byte":
            data[at] = rng.randrange(256)
        case "bit":
            data[at] ^= 1 << rng.randrange(8)
        case "word":
            data[at : at + 4] = rng.randbytes(4)
        case "run":
            data[at : at + 64] = rng.randbytes(64)
        case _:
            del data[rng.randrange(24, len(data)) :]
    return bytes(data)


def loaded(path: Path) -> str:
    """What comes of loading a file in a process of its own."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            signal.alarm(60)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            session = Session(path, LlamaCppOptions(n_threads=1, n_ctx=256, n_seq_max=4, n_batch=8))
            tokenizer = LlamaTokenizer(session)
            tokenizer.byte_vocab()
            tokenizer.encode(SAMPLE)
            code = 0
        except GenlmBytesError:
            code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "loaded", 1: "refused", 3: "another error"}.get(code, f"ended with {code}")


if __name__ == "__main__":
    path, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    good, rng, tally = path.read_bytes(), random.Random(seed), dict[str, int]()
    library()
    for _ in range(count):
        path.write_bytes(damaged(good, rng))
        came = loaded(path)
        tally[came] = tally.get(came, 0) + 1
    sys.stdout.write(json.dumps(tally))
