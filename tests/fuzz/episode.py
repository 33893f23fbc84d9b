"""One episode of the fuzzer: a world, some beams, and random operations on them, each checked.

An episode is decided by its seed; `play.py` plays one alone.

What is checked after each operation:

- The beam's log prefix probability is at most the truth (`truth.py`), equal to it where nothing is dropped,
  and the truth is within `bounds()`; `slack` holds the error of both.
- The next-byte distribution sums to 1 and is within its slack of the truth.
- Beams that were there before are the values that they were.
- The only exceptions are ours, where they belong; no operation asks for more than some thousand contexts.

And now and then: the same history on a fresh model, without any look, gives the same beam; a text read in
parts is the text read in one; `score`, `complete`, `word_surprisal` and `next` agree with the truth.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fuzz.truth import Symbol, Truth
from fuzz.worlds import VOCABULARIES, make_model, make_params

from genlm.bytes import AsyncByteLM, ByteBeamState
from genlm.bytes.byte_lm.symbols import split_symbols
from genlm.bytes.errors import BudgetExceededError, EmptyBeamError, ImpossibleByteError
from genlm.bytes.trie import EOS, TrieMode

__all__ = ["Episode"]

MODES = {True: TrieMode.WITHOUT_EOS, False: TrieMode.WITH_EOS}
LONGEST, MOST_BEAMS = 7, 6
Operation = tuple[Any, ...]


@dataclass(frozen=True)
class Entry:
    """A beam, how it came about, and what is true of it."""

    beam: Any
    recipe: tuple[Operation, ...]
    truth: Truth | None
    plain: bool = False  # whether what comes next is read as text
    whole: bool = True  # whether nothing can have been dropped
    ended: bool = False

    @property
    def length(self) -> int:
        return sum(len(op[1]) if op[0] == "prefill" else op[0] == "read" for op in self.recipe)


class Episode:
    """Args: the seed; a function that is told of each operation, by name."""

    def __init__(self, seed: int, tell: Callable[[str], None] = lambda _: None) -> None:
        self.rng = random.Random(seed)
        self.tell = tell
        self.name = self.rng.choice(sorted(VOCABULARIES))
        self.vocabulary = VOCABULARIES[self.name]
        make = make_model(self.rng, self.vocabulary)
        self.make = lambda: make()[0]
        self.params = make_params(self.rng, self.vocabulary)
        self.units = [unit for unit in self.vocabulary.units if self.rng.random() < 0.8]
        self.trie_opts = {"atomic_byte_strings": self.units} if self.units else None
        self.eos = sorted(self.params.eos_byte_strings or ())
        self.llm, counts = make()
        self.counts = counts if self.params.canonical else None
        self.precise = 1e-9 if type(self.llm).__name__ == "Plain" else 3e-5  # the latter keeps float32
        self.entries: list[Entry] = []
        tell(f"{self.name}, {type(self.llm).__name__} {self.llm.temper}, {self.params}, units {self.units}")

    async def play(self, operations: int) -> int:
        """Random operations; how many."""
        first = await self.begin(self.llm)
        self.entries = [Entry(first, (), self.nothing_read(), whole=self.params.exact)]
        for _ in range(operations):
            await self.operation()
        return operations

    def nothing_read(self) -> Truth:
        return Truth.begin(self.llm, self.eos, self.units, self.counts)

    async def begin(self, llm: Any) -> Any:
        return await ByteBeamState.initial(llm, self.params, self.trie_opts)

    # -- operations -----------------------------------------------------------------------------------

    async def operation(self) -> None:
        self.llm.asked_now = 0
        before = [(entry, fingerprint(entry.beam)) for entry in self.entries]
        entry = self.rng.choice(self.entries)
        kind = self.rng.choices([self.grow, self.look, self.front, self.again], [10, 5, 2, 2])[0]
        await kind(entry)
        for entry, was in before:
            assert fingerprint(entry.beam) == was, f"a beam was changed: {entry.recipe}"

    async def grow(self, entry: Entry) -> None:
        """A new beam from one that is there."""
        op = self.choose(entry)
        self.tell(f"{entry.recipe} then {op}")
        after = self.foretell(entry, op)
        try:
            beam = await apply(entry.beam, op)
        except ImpossibleByteError as error:
            assert op[0] == "prefill"
            self.check_impossible(entry, op, error)
            return
        except BudgetExceededError:
            assert self.params.exact
            return
        after = replace(after, beam=beam)
        self.check(after)
        if after.length <= LONGEST and not after.ended and len(beam):
            self.entries.append(after)
            if len(self.entries) > MOST_BEAMS:
                self.entries.pop(self.rng.randrange(len(self.entries)))

    def choose(self, entry: Entry) -> Operation:
        rng = self.rng
        kind = rng.choices(["read", "prefill", "prune", "mode", "end"], [8, 5, 2, 1, 1])[0]
        if kind == "read":
            return "read", self.symbol(), rng.random() < 0.7
        if kind == "end":
            return "read", EOS, rng.random() < 0.5
        if kind == "prefill":
            text = self.text(rng.choice([0, 1, 2, 2, 3, 5]))
            method = rng.choice(["beam", "beam", "tokenize", "heal"])
            symbols = split_symbols(text, entry.beam.states[0].trie) if rng.random() < 0.5 else list(text)
            return "prefill", tuple(symbols), method
        return ("mode", rng.random() < 0.5) if kind == "mode" else ("prune",)

    def symbol(self) -> Symbol:
        if self.units and self.rng.random() < 0.2:
            return self.rng.choice(self.units)
        return self.rng.choice(self.vocabulary.letters)

    def text(self, length: int) -> bytes:
        if self.vocabulary.eos and self.rng.random() < 0.15:
            return self.rng.choice(self.vocabulary.eos)
        if self.name == "long tokens" and self.rng.random() < 0.1:
            return b"ab" * self.rng.randrange(3)
        return bytes(self.rng.choices(self.vocabulary.letters, k=length))

    def foretell(self, entry: Entry, op: Operation) -> Entry:
        """What will be true of the beam after an operation."""
        truth, plain, ended = entry.truth, entry.plain, False
        pruned = op[0] == "prune" or (op[0] == "read" and op[2])
        # What weighs nothing, inside an end that was read as text, is given up where a beam is pruned.
        whole = entry.whole and not (pruned and any(s.weight == -math.inf for s in entry.beam.states))
        if op[0] == "prefill":
            truth = truth and truth.reads(op[1], True)
            whole = whole and op[2] == "beam"
            plain = plain if not op[1] else False
        elif op[0] == "read" and op[1] == EOS:
            ended = True
        elif op[0] == "read":
            truth = truth and truth.then(op[1], plain)
        elif op[0] == "mode":
            plain = op[1]
        return Entry(None, (*entry.recipe, op), truth, plain, whole, ended)

    # -- looks ----------------------------------------------------------------------------------------

    async def look(self, entry: Entry) -> None:
        """Things that may change nothing."""
        kind = self.rng.choice(["next", "next", "next", "repr", "bounds", "tokenizations", "extend"])
        self.tell(f"{entry.recipe} look: {kind}")
        beam = entry.beam
        if kind == "next":
            await self.check_next(entry)
        elif kind == "repr":
            assert "Z:" in repr(beam)
            beam._repr_html_()
        elif kind == "bounds":
            self.check(entry)
        elif kind == "extend":
            for state in await beam.extend(beam.logZ):
                assert state.materialized
        else:
            found = beam.tokenizations()
            if beam.logZ > -math.inf:
                assert math.isclose(sum(t.posterior for t in found), 1.0, rel_tol=1e-9)

    # -- checks ---------------------------------------------------------------------------------------

    def true_probability(self, entry: Entry) -> float | None:
        if entry.truth is None:
            return None
        if entry.ended:
            return 0.0 if entry.plain else entry.truth.ended()
        return entry.truth.prefix(entry.plain)

    def check(self, entry: Entry) -> None:
        beam, p = entry.beam, self.true_probability(entry)
        lower, upper = beam.bounds()
        assert lower <= upper <= self.precise and not math.isnan(lower)
        slack = beam.slack
        assert 0.0 <= slack.expected <= slack.bound <= 1.0 + 1e-12
        assert [s.weight for s in beam] == sorted((s.weight for s in beam), reverse=True)
        if p is None:
            return
        got, high = math.exp(beam.logZ), math.exp(upper)
        assert got <= p * (1 + self.precise) + 1e-300, f"{entry.recipe}: {got} is above the truth {p}"
        assert p <= high * (1 + self.precise), f"{entry.recipe}: the truth {p} is above the bound {high}"
        if entry.whole:
            assert got >= p * (1 - self.precise), f"{entry.recipe}: {got}, and the truth is {p}"
        if p > 0.0:
            assert 1.0 - got / p <= slack.bound + 10 * self.precise

    def check_impossible(self, entry: Entry, op: Operation, error: ImpossibleByteError) -> None:
        """What no candidate could read has probability 0, where none had been dropped."""
        symbols, at = op[1], 0
        lengths = np.cumsum([0, *(len(s) if isinstance(s, bytes) else 1 for s in symbols)]).tolist()
        assert error.offset in lengths[:-1], f"{entry.recipe} {op}: no symbol begins at {error.offset}"
        at = lengths.index(error.offset)
        assert error.byte == symbols[at], f"{entry.recipe} {op}: {error.byte} is not {symbols[at]}"
        truth = entry.truth and entry.truth.reads(symbols[: at + 1], True)
        if entry.whole and op[2] == "beam" and truth:
            assert truth.prefix(True) == 0.0, f"{entry.recipe} {op}: {error}, and it is possible"

    async def check_next(self, entry: Entry) -> None:
        beam = entry.beam
        try:
            logp = await beam.logp_next()
        except EmptyBeamError:
            want = entry.truth and entry.truth.next(entry.plain)
            assert not (entry.whole and want and entry.truth.prefix(entry.plain) > 0.0), entry.recipe
            return
        total = float(np.exp(logp.ps).sum()) + sum(math.exp(x) for x in logp.units.values())
        assert math.isclose(total, 1.0, abs_tol=1e-9), f"{entry.recipe}: the distribution sums to {total}"
        assert logp.ps[256] == -math.inf
        want = None if entry.truth is None or self.rng.random() < 0.5 else entry.truth.next(entry.plain)
        if want is None or self.name == "byte fallback":
            return
        found = {s: logp.units.get(s, -math.inf) if isinstance(s, bytes) else logp.ps[s] for s in want}
        off = 0.5 * sum(abs(math.exp(found[symbol]) - p) for symbol, p in want.items())
        most = 10 * self.precise if entry.whole else logp.slack.bound + 10 * self.precise
        assert off <= most, f"{entry.recipe}: the distribution is off by {off}, at most {most}"

    # -- now and then ---------------------------------------------------------------------------------

    async def again(self, entry: Entry) -> None:
        """The same history on a fresh model without looks; and its text in one, if it was read in parts."""
        self.tell(f"{entry.recipe} again")
        beam = await self.begin(self.make())
        for op in entry.recipe:
            beam = await apply(beam, op)
        assert_same(beam, entry.beam, entry.recipe, self.precise)
        parts = [op for op in entry.recipe if op[0] == "prefill"]
        if len(parts) == len(entry.recipe) > 0 and all(op[2] == "beam" for op in parts):
            text = [symbol for op in parts for symbol in op[1]]
            with contextlib.suppress(ImpossibleByteError, BudgetExceededError):
                whole = await (await self.begin(self.make())).prefill(text)
                if whole.logZ > -math.inf:
                    assert_same(whole, entry.beam, f"in one: {text}", self.precise)
            one = (await self.begin(self.make())).with_mode(TrieMode.WITHOUT_EOS)
            for symbol in text:
                one = await (one.prune() << symbol)
            if one.logZ > -math.inf and len(entry.beam):
                assert_same(one.with_mode(TrieMode.WITH_EOS), entry.beam, f"one by one: {text}", self.precise)

    async def front(self, entry: Entry) -> None:
        """The short way in."""
        context, text = self.text(self.rng.choice([0, 1, 3])), self.text(self.rng.choice([1, 2, 4]))
        lm = AsyncByteLM(self.llm, self.params, eos=self.eos, trie_opts=self.trie_opts)
        trie = entry.beam.states[0].trie
        kind = self.rng.choice(["score", "complete", "words", "next"])
        self.tell(f"{kind}: {context!r} {text!r}")
        begun = self.nothing_read()
        # A text that spells the beginning of the sequence does not get a second one.
        first = trie.trie.spelling_of_id[begun.world.start()[0]] if begun.world.start() else b""
        read = begun.reads(split_symbols(context.removeprefix(first), trie), True)
        after = read and read.reads(split_symbols(text, trie), False)
        try:
            if kind == "score":
                score = await lm.score(text, context, on_impossible="inf")
                self.check_score(score.logprob, read, after)
            elif kind == "complete":
                await self.complete(lm, context, read)
            elif kind == "next":
                logp = await lm.next(context, method="beam")
                assert math.isclose(np.exp(logp.ps).sum() + sum(map(math.exp, logp.units.values())), 1.0)
            else:
                await lm.word_surprisal(text, sep="c", context=context, on_impossible="inf")
        except (ImpossibleByteError, EmptyBeamError):
            if kind != "complete" and self.params.exact and read:
                assert read.prefix(True) == 0.0 or read.prefix(False) == 0.0, f"{context!r} is possible"
        except BudgetExceededError:
            assert self.params.exact

    def check_score(self, logprob: float, read: Truth | None, after: Truth | None) -> None:
        assert not math.isnan(logprob)
        if not self.params.exact or self.params.heal or read is None or after is None:
            return
        before = read.prefix(False)
        want = after.prefix(False) / before if before else 0.0
        assert math.isclose(math.exp(logprob), want, rel_tol=10 * self.precise, abs_tol=1e-12), (
            logprob,
            want,
        )

    async def complete(self, lm: AsyncByteLM, context: bytes, read: Truth | None) -> None:
        rng = self.rng
        unit = rng.choice(["byte", "token"])
        limit = {"max_bytes": 3} if unit == "byte" else {"max_tokens": 2, "max_bytes": 40}
        drawn = {"temperature": 1.0, "seed": rng.randrange(99)} if rng.random() < 0.5 else {}
        stop = self.text(1) or b"a"
        method = rng.choice(["beam", "tokenize"])
        utf8 = rng.random() < 0.5
        found: Any = await lm.complete(
            context, unit=unit, stop=stop, method=method, valid_utf8=utf8, **drawn, **limit
        )
        assert found.logprob <= 1e-6 and not math.isnan(found.logprob)
        assert stop not in found.bytes and len(found.bytes) <= limit["max_bytes"]
        if utf8:
            (context + found.bytes).decode("utf-8", "replace")


async def apply(beam: Any, op: Operation) -> Any:
    if op[0] == "read":
        return await ((beam.prune() if op[2] else beam) << op[1])
    if op[0] == "prefill":
        return await beam.prefill(list(op[1]), method=op[2])
    return beam.prune() if op[0] == "prune" else beam.with_mode(MODES[op[1]])


def fingerprint(beam: Any) -> Any:
    """All that a beam is, to the last bit."""
    states = [(id(s), s.weight, s.node, s.mode, s.terminated, tuple(s.lm_state.context)) for s in beam.states]
    return (
        states,
        beam.logZ,
        beam.deferred.weights,
        beam.deferred.history.length,
        beam.dropped,
        id(beam.params),
    )


def assert_same(one: Any, other: Any, why: Any, precise: float) -> None:
    """Two beams of the same candidates, of which one that was looked at may have evaluated more."""
    kept = [by_tokens(beam) for beam in (one, other)]
    least = max(max(k.values(), default=-math.inf) for k in kept) - 25.0
    for key in kept[0].keys() | kept[1].keys():
        a, b = (k.get(key, -math.inf) for k in kept)
        same = max(a, b) < least or math.isclose(a, b, abs_tol=10 * precise)
        assert same or waits(one if key not in kept[0] else other, key[0]), f"{why}: {key} weighs {a}, {b}"


def waits(beam: Any, tokens: tuple[int, ...]) -> bool:
    """Whether a candidate is deferred, or one that it comes from."""
    deferred = (tuple(w.state.lm_state.context) for w in beam.deferred)
    return any(tokens[: len(context)] == context for context in deferred)


def by_tokens(beam: Any) -> dict[Any, float]:
    return {
        (tuple(s.lm_state.context), bytes(s.partial), s.node, s.mode, s.terminated): s.weight
        for s in beam.states
    }
