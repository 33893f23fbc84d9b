"""What a text's beginning counts for by the vocabulary alone: tokens drawn evenly."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.modes import EOS
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["token_prior"]

_priors: WeakKeyDictionary[TokenByteTrie, OrderedDict[tuple[int | bytes, ...], float]] = WeakKeyDictionary()
_PRIORS_KEPT = 65536


def token_prior(trie: TokenByteTrie, symbols: Iterable[int | bytes]) -> float:
    """Log-probability that tokens drawn evenly from the vocabulary spell a text beginning with `symbols`.

    Summed over all ways to cut them: with `f(i)` the probability that tokens end exactly after `i`
    symbols, it is the sum over `i` of `f(i)` times the share of tokens that reach from there to the end.
    Inside a UTF-8 character, where `symbols[i]` continues one, it is the share among the tokens that do:
    a model knows that much of what it has written. Minus infinity if no tokens spell it.
    """
    key = tuple(symbols)
    known = _priors.setdefault(trie, OrderedDict())
    found = known.get(key)
    if found is None:
        found = known[key] = _token_prior(trie, key)
        if len(known) > _PRIORS_KEPT:
            known.popitem(last=False)
    return found


def _token_prior(trie: TokenByteTrie, symbols: tuple[int | bytes, ...]) -> float:
    arrays, n = trie.arrays, len(symbols)
    every = len(trie.token_ids)
    ends = [1.0] + [0.0] * n
    total = 0.0
    for start in range(n):
        if ends[start] == 0.0:
            continue
        node, tokens = ROOT, _continuing(trie) if _continues(symbols[start]) else every
        for at in range(start, n):
            if symbols[at] == EOS:  # read by a token of its own: where tokens end, it can be
                total += ends[start] * (at == start)
                break
            node = arrays.child(node, symbols[at])
            if node < 0:
                break
            ends[at + 1] += ends[start] * int(arrays.ends[node]) / tokens
        else:
            beyond = int(arrays.hi[node]) - int(arrays.lo[node]) - int(arrays.ends[node])
            total += ends[start] * beyond / tokens
    total += ends[n]
    return math.log(total) if total > 0.0 else -math.inf


def _continues(symbol: int | bytes) -> bool:
    """Whether a symbol is a UTF-8 continuation byte."""
    return isinstance(symbol, int) and 0x80 <= symbol < 0xC0


def _continuing(trie: TokenByteTrie) -> int:
    """The number of tokens that begin with a UTF-8 continuation byte."""
    arrays = trie.arrays
    nodes = [node for byte in range(0x80, 0xC0) if (node := arrays.child(ROOT, byte)) >= 0]
    return sum(int(arrays.hi[node]) - int(arrays.lo[node]) for node in nodes)
