"""Cases of the trie benchmark. Runs under both sides: only the documented names are used.

Whatever is particular to our side is behind `OURS`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.worker import Clock, case, serve
from genlm.backend.tokenization import Token

from genlm.bytes import TokenByteTrie

try:
    from genlm.bytes.trie.arrays import TrieArrays
except ImportError:
    OURS = False
else:
    OURS = True

builds = 0


def count_builds() -> None:
    """Count how often our arrays are really built: identical vocabularies in use are shared."""
    build = TrieArrays.build

    def counted(*args: Any, **options: Any) -> Any:
        global builds
        builds += 1
        return build(*args, **options)

    TrieArrays.build = counted


if OURS:
    count_builds()


@cache
def tokens(path: str) -> list[Token]:
    return [Token(i, s) for i, s in enumerate(pickle.loads(Path(path).read_bytes()))]


@cache
def kept_trie(path: str) -> TokenByteTrie:
    return TokenByteTrie(tokens(path), device="cpu")


@case
def build(clock: Clock, vocabulary: str, calls: int) -> dict[str, Any]:
    """Build the trie anew, `calls` times. Tries of earlier calls are gone before each."""
    decode = tokens(vocabulary)
    before = builds
    for _ in range(calls):
        gc.collect()
        with clock:
            trie = TokenByteTrie(decode, device="cpu")
        root = trie.root
        del trie
    assert not OURS or builds - before == calls, "a trie was shared, not built"
    return {"root": int(root), "tokens": len(decode)}


@case
def sums(clock: Clock, vocabulary: str, weights: str, rows: int, calls: int) -> None:
    """`batch_weight_sum` of the first `rows` rows. Each result is dropped before the next is asked for."""
    trie = kept_trie(vocabulary)
    ws = torch.from_numpy(np.load(weights)[:rows])
    trie.batch_weight_sum(ws)  # our first call compiles, or reads what was compiled; theirs warms torch
    for _ in range(calls):
        with clock:
            result = trie.batch_weight_sum(ws)
        del result


@case
def values(clock: Clock, vocabulary: str, weights: str, into: str) -> dict[str, int]:
    """Sums of the root, of every leaf and of 2,000 inner prefixes, for the other side to agree with."""
    trie, decode = kept_trie(vocabulary), tokens(vocabulary)
    result = trie.batch_weight_sum(torch.from_numpy(np.load(weights))).numpy()
    leaves = [trie.word2leaf[bytes(token.byte_string), token.token_id] for token in decode]
    inner = []
    for token in random.Random(0).sample([t for t in decode if len(t.byte_string) > 1], 2000):
        node = trie.root
        for byte in bytes(token.byte_string)[: 1 + token.token_id % (len(token.byte_string) - 1)]:
            node = trie.children[node][byte]
        inner.append(node)
    np.save(into, result[:, [trie.root, *leaves, *inner]])
    return {"compared": 1 + len(leaves) + len(inner)}


@case
def memory(clock: Clock, vocabulary: str) -> dict[str, Any]:
    """Growth of the resident set by one trie that is ready for sums, in a process that did nothing else.

    The token list, and all that a first trie and a first sum load or compile, are there before.
    """
    decode = tokens(vocabulary)
    small = TokenByteTrie([Token(i, bytes([i])) for i in range(256)], device="cpu")
    small.batch_weight_sum(torch.ones(1, 256))
    del small
    before = resident()
    trie = TokenByteTrie(decode, device="cpu")
    trie.batch_weight_sum(torch.ones(1, len(decode)))
    grown = resident() - before
    facts: dict[str, Any] = {"bytes": grown, "nbytes": getattr(trie, "nbytes", None)}
    # Their dictionaries are part of the trie; ours are made when first read: say what that adds.
    assert trie.word2leaf[bytes(decode[-1].byte_string), decode[-1].token_id] is not None
    facts["bytes_with_word2leaf"] = resident() - before
    return facts


def resident() -> int:
    """Bytes of memory in use, once all that is free has gone back to the system (Linux with glibc)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


serve()
