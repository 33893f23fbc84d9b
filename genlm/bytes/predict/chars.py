"""The next character of a symbol set: for keyboards on which every symbol must stay within reach.

A symbol stands for one string or several: both cases of a letter, all white space. Their probabilities are
read off distributions of the next byte, strings that begin alike together. They are shared out over the set,
and each gets a floor: `p (1 - floor k) + floor` for `k` symbols, which sums to 1 again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from genlm.bytes.errors import DeadEndError, bad_type, bad_value
from genlm.bytes.predict.places import Place, look
from genlm.bytes.util import utf8
from genlm.bytes.util.gather import gather

__all__ = ["ALPHABET", "CharPredictions", "Symbols", "predict_chars"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz' "
"""The symbols unless others are given."""

LIGHT = 1e-7
"""Bytes that begin several strings are not read on below this probability. What follows counts as nothing."""

_Tree = dict[int, Any]
"""Strings by their first byte: a symbol where that is all, or such a dictionary."""


class CharPredictions(Mapping[str, float]):
    """Natural log-probabilities of the symbols, likeliest first. They sum to 1.

    Attributes:
        outside: the probability, before it was shared out, that none of the symbols comes next.
    """

    def __init__(self, logprobs: Mapping[str, float], outside: float) -> None:
        self._logprobs = dict(sorted(logprobs.items(), key=lambda item: -item[1]))
        self.outside = outside

    def __getitem__(self, symbol: str) -> float:
        return self._logprobs[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self._logprobs)

    def __len__(self) -> int:
        return len(self._logprobs)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        symbols = [
            {"symbol": symbol, "logprob": logp if logp > -math.inf else None, "probability": math.exp(logp)}
            for symbol, logp in self.items()
        ]
        return {"symbols": symbols, "outside": self.outside}

    def __repr__(self) -> str:
        return f"CharPredictions({', '.join(f'{s!r} {math.exp(p):.4f}' for s, p in self.items())})"


class Symbols:
    """A symbol set, checked.

    Args:
        alphabet: the symbols: a string of characters, or strings.
        space: the symbol that stands for white space (space, tab, line end); None for none that does more
            than for itself.
        fold: whether a symbol stands for its other case too.
        floor: the least probability of each.

    Raises:
        ValueError: no symbol, one twice, one that begins another; a floor that so many cannot have.
        TypeError: an argument of the wrong type.
    """

    def __init__(self, alphabet: Any, space: Any = None, fold: Any = True, floor: Any = 0.0) -> None:
        if isinstance(alphabet, bytes) or not isinstance(alphabet, Iterable):
            raise bad_type("alphabet", alphabet, "must be a string, or strings")
        self.names = list(alphabet)
        for name in self.names:
            if not isinstance(name, str) or not name:
                raise bad_type("alphabet", name, "each symbol must be a string of at least a character")
        if not self.names:
            raise bad_value("alphabet", alphabet, "must be at least one symbol")
        if not isinstance(fold, bool):
            raise bad_type("fold", fold, "must be True or False")
        if space is not None and not isinstance(space, str):
            raise bad_type("space", space, "must be a symbol of the alphabet, or None")
        if space is not None and space not in self.names:
            raise bad_value("space", space, "must be a symbol of the alphabet", f"Add {space!r} to it.")
        if isinstance(floor, bool) or not isinstance(floor, int | float):
            raise bad_type("floor", floor, "must be a number of at least 0")
        if not 0.0 <= floor * len(self.names) <= 1.0:
            rule = f"must be from 0 to 1/{len(self.names)}, one by the number of symbols"
            raise bad_value("floor", floor, rule)
        self.floor = float(floor)
        self.tree: _Tree = {}
        for name in self.names:
            for string in _strings(name, name == space, fold):
                self._add(string, name)

    def _add(self, string: str, name: str) -> None:
        try:
            *before, last = string.encode()
        except UnicodeEncodeError:
            raise bad_value("alphabet", name, "is no text: half a surrogate pair") from None
        node: Any = self.tree
        for byte in before:
            node = node.setdefault(byte, {})
            if isinstance(node, str):
                raise self._same(name, node)
        if last in node:
            raise self._same(name, node[last] if isinstance(node[last], str) else "another")
        node[last] = name

    def _same(self, name: str, other: str) -> Exception:
        rule = f"and {other!r} are the same or begin alike, so that the next character may be both"
        return bad_value("alphabet", name, rule, "Leave one out; fold=False tells cases apart.")


def _strings(name: str, space: bool, fold: bool) -> list[str]:
    if space:
        return [" ", "\t", "\n", "\r"]
    cases = [name, name.lower(), name.upper(), name.title()] if fold else [name]
    # No letter stands for two: the capital of "ß" is "SS".
    return list(dict.fromkeys(case for case in cases if len(case) == len(name)))


async def predict_chars(beam: Any, text: bytes, symbols: Symbols) -> CharPredictions:
    """Which of some symbols comes next.

    Args:
        beam: the beam after the context, or an ensemble.
        text: the context; a character that it ends inside is the next one.

    Raises:
        DeadEndError: none can, and there is no floor.
    """
    found = dict.fromkeys(symbols.names, 0.0)

    async def follow(place: Place, tree: _Tree) -> None:
        beam = await place.reached()
        probs = await look(beam)
        if probs is None:
            return
        further = []
        for byte, rest in tree.items():
            mass = place.mass * float(probs[byte])
            if isinstance(rest, str):
                found[rest] += mass
            elif mass > LIGHT:
                further.append(follow(Place(mass, "", b"", beam, byte), rest))
        await gather(further)

    tree = symbols.tree
    for byte in utf8.unfinished(text):
        tree = tree.get(byte, {})
    await follow(Place(1.0, "", b"", beam.prune()), tree)
    total, count = math.fsum(found.values()), len(found)
    if total <= 0.0 and not symbols.floor:
        raise DeadEndError(
            "none of the symbols of `alphabet` can come next. Give a `floor`, or more symbols."
        )
    least, scale = symbols.floor, (1.0 - symbols.floor * count) / total if total > 0.0 else 0.0
    if total <= 0.0:
        least = 1.0 / count
    logs = {name: _log(p * scale + least) for name, p in found.items()}
    return CharPredictions(logs, max(1.0 - total, 0.0))


def _log(p: float) -> float:
    return math.log(p) if p > 0.0 else -math.inf
