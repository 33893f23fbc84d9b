"""What a text's probability is, by all ways to cover it with tokens, in float64; symbol by symbol.

As `brute.py`, but each symbol was read in a mode of its own: a token that ends a sequence is text where all
its symbols were read as text. `None` stands for too many ways to count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from genlm.bytes.vocab import start_context

__all__ = ["Truth"]

MOST = 3000

Symbol = int | bytes
Cover = tuple[tuple[int, ...], float]
Counts = Callable[[tuple[int, ...]], bool]


class World:
    """A model's tokens as symbols; `counts` says which covers do, where not all."""

    def __init__(
        self, llm: Any, eos: Collection[bytes], units: Collection[bytes], counts: Counts | None
    ) -> None:
        self.llm = llm
        self.counts = counts
        known = {t.token_id: bytes(t) for t in llm.byte_vocab if len(bytes(t)) and t.token_id < llm.size}
        self.eos = {i for i, spelling in known.items() if spelling in set(eos)}
        self.spelling: dict[int, tuple[Symbol, ...]] = {
            i: ((s,) if s in set(units) else tuple(s)) for i, s in known.items()
        }
        self.by_symbols: dict[tuple[Symbol, ...], list[int]] = {}
        self.longer: dict[tuple[Symbol, ...], list[int]] = {}
        for i, symbols in self.spelling.items():
            self.by_symbols.setdefault(symbols, []).append(i)
            for n in range(1, min(len(symbols), 60)):
                self.longer.setdefault(symbols[:n], []).append(i)
        self.symbols: list[Symbol] = sorted(
            {b for b in range(256) if any(b in bytes(s) for s in known.values())}
        )
        self.symbols += sorted(units)

    def start(self) -> tuple[int, ...]:
        return tuple(start_context(self.llm))

    def counting(self, context: tuple[int, ...], ids: Sequence[int]) -> Sequence[int]:
        """Those of some tokens that may come next."""
        return ids if self.counts is None else [i for i in ids if self.counts((*context, i))]


@dataclass(frozen=True)
class Truth:
    """A text that has been read.

    Attributes:
        world: the model.
        text: its symbols.
        plain: of each, whether it was read as text.
        covers: those that end after 0, 1, 2 … symbols: their tokens and probabilities.
    """

    world: World
    text: tuple[Symbol, ...]
    plain: tuple[bool, ...]
    covers: tuple[tuple[Cover, ...], ...]

    @classmethod
    def begin(
        cls, llm: Any, eos: Collection[bytes], units: Collection[bytes], counts: Counts | None = None
    ) -> Truth:
        world = World(llm, eos, units, counts)
        return cls(world, (), (), (((world.start(), 1.0),),))

    def then(self, symbol: Symbol, plain: bool) -> Truth | None:
        """After one more symbol."""
        world, text, plains = self.world, (*self.text, symbol), (*self.plain, plain)
        found: list[Cover] = []
        for at, covers in enumerate(self.covers):
            ids = [i for i in world.by_symbols.get(text[at:], ()) if all(plains[at:]) or i not in world.eos]
            for context, p in covers if ids else ():
                probs = world.llm.probs(context)
                able = world.counting(context, [i for i in ids if probs[i] > 0.0])
                found += [((*context, i), p * float(probs[i])) for i in able]
            if len(found) > MOST:
                return None
        return Truth(world, text, plains, (*self.covers, tuple(found)))

    def reads(self, text: Sequence[Symbol], plain: bool) -> Truth | None:
        """After several."""
        now: Truth | None = self
        for symbol in text:
            now = now and now.then(symbol, plain)
        return now

    def prefix(self, plain: bool = False) -> float:
        """The probability of beginning with the text, where what follows is read as text or not."""
        world, total = self.world, sum(p for _, p in self.covers[-1])
        for at, covers in enumerate(self.covers[:-1]):
            text = plain and all(self.plain[at:])
            ids = [i for i in world.longer.get(self.text[at:], ()) if text or i not in world.eos]
            for context, p in covers if ids else ():
                total += p * float(world.llm.probs(context)[world.counting(context, ids)].sum())
        return total

    def ended(self) -> float:
        """The probability of the text and then the end."""
        ids, world = sorted(self.world.eos), self.world
        return sum(
            p * float(world.llm.probs(context)[world.counting(context, ids)].sum())
            for context, p in self.covers[-1]
        )

    def next(self, plain: bool = False) -> dict[Symbol, float] | None:
        """The distribution of the next symbol, 257 being the end; None where nothing may follow."""
        mass: dict[Symbol, float] = {}
        for symbol in self.world.symbols:
            after = self.then(symbol, plain)
            if after is None:
                return None
            mass[symbol] = after.prefix(plain)
        mass[257] = 0.0 if plain else self.ended()
        total = sum(mass.values())
        return {symbol: p / total for symbol, p in mass.items()} if total > 0.0 else None
