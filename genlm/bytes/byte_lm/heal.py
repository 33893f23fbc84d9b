"""Token healing: another way to split the last bytes, for a candidate that cannot read the next one.

A candidate inside a token may be stuck: no token goes on with the next byte, or none the model gives
any probability. Then the bytes since its last boundary, `partial`, are split anew: a token that spells
`partial[:k]` is committed, for the longest `k` first, the rest is read again from the root, and where
that is stuck in turn, further tokens are committed, the longest first.

Which splits fit the vocabulary is worked out beforehand without the model: `needed[i]`, the fewest
further commitments with which the bytes from `i` on can be read, from the back to the front. So the
search never enters a branch that the vocabulary closes, and finds a split whenever one exists within
the limits; the model is asked once for each token committed. Only tokens of probability zero make it
turn back, at most `MAX_TRIED` times.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

from genlm.bytes.byte_lm.symbols import check_symbol
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.errors import bad_value
from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.modes import EOS, TrieMode
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["MAX_TRIED", "TokenHealer"]

MAX_TRIED = 1000
"""Commitments tried before giving up: dead ends by zero probabilities could be exponentially many."""

logger = logging.getLogger(__name__)


class TokenHealer:
    """Finds another tokenization of the last bytes under which the next byte can be read.

    Args:
        max_backoff: how many bytes before the end of `partial` the first new boundary may lie; None
            allows any.
        max_splits: how many further tokens may be committed after the first; None allows any.
        verbose: log what is tried, at level INFO.

    Raises:
        ValueError: a limit that is negative or not an integer.
    """

    def __init__(
        self, max_backoff: int | None = None, max_splits: int | None = None, verbose: bool = False
    ) -> None:
        self.max_backoff = check_limit("max_backoff", max_backoff)
        self.max_splits = check_limit("max_splits", max_splits)
        self.verbose = verbose

    async def try_heal(self, state: LazyTrieState, next_byte: int | bytes) -> LazyTrieState | None:
        """The first split found that reads `next_byte`.

        Args:
            state: a materialized candidate.
            next_byte: a byte, 257 for the end of the sequence, or an atomic unit.

        Returns:
            A materialized candidate that has read `next_byte`, its weight computed as for any other
            candidate with the same tokens; or None if there is none within the limits.
        """
        symbols = [*state.symbols, check_symbol(next_byte, state.trie)]
        if state.terminated or len(symbols) == 1:
            return None
        mode, state = state.mode, state.with_mode(state.read_in)  # bytes are read again as they were read
        splits = _Splits(state.trie.trie, symbols)
        nearest = len(symbols) - 1 - (math.inf if self.max_backoff is None else self.max_backoff)
        most = math.inf if self.max_splits is None else self.max_splits
        tried = 0
        # One iterator a commitment made so far: depth-first search without recursion.
        search = [splits.commitments(state, 0, nearest, most)]
        while search:
            step = next(search[-1], None)
            if step is None:
                search.pop()
                continue
            tried += 1
            if tried > MAX_TRIED:
                break
            committed, at = step
            self._log("trying %r, with %r to read", committed, symbols[at:])
            await committed.materialize()
            if splits.needed[at] == 0:
                healed = _read(committed, symbols[at:], mode)
                if healed is not None:
                    self._log("healed: %r", healed)
                    return healed
            search.append(splits.commitments(committed, at, at, most - len(search)))
        self._log("no split of %r reads %r after %d tries", symbols[:-1], symbols[-1], tried)
        return None

    def _log(self, message: str, *args: object) -> None:
        if self.verbose:
            logger.info(message, *args)


class _Splits:
    """The ways in which a vocabulary can split some symbols, whatever the model thinks of them."""

    def __init__(self, trie: TokenByteTrie, symbols: Sequence[int | bytes]) -> None:
        self.trie = trie
        self.symbols = symbols
        self.needed: list[float] = [math.inf] * len(symbols)
        for start in reversed(range(len(symbols))):
            ends, readable = self._walk(start)
            further = min((self.needed[end] for end, _ in ends), default=math.inf)
            self.needed[start] = 0 if readable else 1 + further

    def commitments(
        self, state: LazyTrieState, start: int, nearest: float, most: float
    ) -> Iterator[tuple[LazyTrieState, int]]:
        """States with one more token committed from `start` on, and where that token ends.

        The longest token comes first, of equal spellings the likeliest; no boundary before `nearest`,
        none after which more than `most` further commitments are needed.
        """
        ends, _ = self._walk(start)
        for end, node in reversed(ends):
            if end >= nearest and self.needed[end] <= min(most, len(self.symbols)):  # never infinitely many
                for committed in state.commit(node):
                    yield committed, end

    def _walk(self, start: int) -> tuple[list[tuple[int, int]], bool]:
        """Read from the root from `start` on: where tokens end, at which node; whether all was read."""
        arrays, node = self.trie.arrays, ROOT
        ends: list[tuple[int, int]] = []
        for at in range(start, len(self.symbols)):
            symbol = self.symbols[at]
            if symbol == EOS:
                return ends, node == ROOT
            node = arrays.child(node, symbol)
            if node < 0:
                return ends, False
            if arrays.ends[node] and at + 1 < len(self.symbols):
                ends.append((at + 1, node))
        return ends, True


def _read(state: LazyTrieState, symbols: Sequence[int | bytes], mode: TrieMode) -> LazyTrieState | None:
    """The state after some symbols, of which the last is read in `mode`."""
    *again, last = symbols
    for symbol in again:
        after = state << symbol
        if after is None:
            return None
        state = after
    return state.with_mode(mode) << last


def check_limit(name: str, limit: int | None) -> int | None:
    """A limit that is None or an integer of at least 0."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise bad_value(name, limit, "must be an integer of at least 0, or None for no limit")
    return limit
