"""`ByteBeamState`: a beam of tokenizations that together give the probability of a byte string.

The probability that a token model writes a text beginning with the bytes `b` is a sum over the ways in
which tokens can cover `b`. Each way that the beam keeps is a `LazyTrieState`; their weights are log
probabilities of disjoint events, so `logZ`, the log of their sum, is a lower bound of the truth, and
equal to it while nothing has been dropped. The distribution of the next byte is the candidates' mixture.

Reading a byte: a candidate inside a token moves on in the trie; one at a token's end also commits the
token and starts the next. Committing costs a model call, all other work is arithmetic on the trie.
(Phan et al., arXiv 2410.09303; Vieira et al., arXiv 2412.03719.)

Which extensions are worth that call: with a `prune_threshold`, those above it, and the others are gone for
good; with a `tolerance`, those above it, and the others wait (`waiting.py`). What was dropped or waits is
kept account of, so that a beam can say how far off its answers may be.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm.account import Bounds, Dropped, Mixture, Slack, ceiling
from genlm.bytes.byte_lm.heal import TokenHealer
from genlm.bytes.byte_lm.lm_state import Context, StatefulByteLM, StatefulTokenizedLM
from genlm.bytes.byte_lm.params import BeamParams
from genlm.bytes.byte_lm.prefill import read_context
from genlm.bytes.byte_lm.progress import ReadingProgress
from genlm.bytes.byte_lm.step import Ask, Opened, Step, drive, open_beam, read_symbol, wake
from genlm.bytes.byte_lm.subclass import makeable
from genlm.bytes.byte_lm.tokenization import Tokenization, tokenizations_of
from genlm.bytes.byte_lm.trail import Trail
from genlm.bytes.byte_lm.trie_state import LazyTrieState, check_symbol
from genlm.bytes.byte_lm.waiting import WaitingRoom
from genlm.bytes.errors import BudgetExceededError, EmptyBeamError, bad_type
from genlm.bytes.trie.modes import EOS, Mode, TrieMode, as_mode
from genlm.bytes.trie.service import AsyncTokenByteTrie
from genlm.bytes.util import LazyByteProbs, escape, logsumexp
from genlm.bytes.vocab import shared_trie

__all__ = ["BeamParams", "ByteBeamState"]

FLOOR = 1e-3
"""The part of the waiting candidates' expected share that is spread over all bytes: enough that none is
impossible, too little to be drawn by chance."""

TURNS = 8
"""Passes of the event loop that `initial` takes at least. Clients keep their first beam and then have it read
a prompt (`genlm-control`'s `ByteLLM`); a task that comes in between takes that beam for one that has read it.
Particles come together, or a few passes apart where they gather in gathers: while the first of them is in
`initial`, also where the model need not be asked, each of the others makes a beam of its own."""

logger = logging.getLogger(__name__)


class ByteBeamState(StatefulByteLM):
    """A beam of candidates after some bytes. A value: every operation makes a new beam.

    Args:
        states: the candidates; kept in order of descending weight.
        params: the settings.

    Attributes:
        states: the candidates, the heaviest first.
        params: the settings.
        waiting: the candidates that wait, where the settings have a tolerance.
        dropped: account of the candidates that were given up.

    Typical use, in a notebook or a coroutine:

        beam = await ByteBeamState.initial(llm)
        beam = await beam.prefill(b"An apple a day keeps the ")
        (await beam.logp_next()).pretty().top(5)
    """

    def __init__(self, states: Sequence[LazyTrieState], params: BeamParams) -> None:
        if not isinstance(params, BeamParams):
            raise bad_type("params", params, "must be BeamParams", "Pass e.g. BeamParams(K=5).")
        self.states = sorted(states, key=lambda state: -state.weight)
        self.params = params
        self.waiting = WaitingRoom(Trail())
        self.dropped = Dropped()
        # Log factor by which a guess of `prefill` is heavier than what it knows; 0 for every other beam.
        self.absent = 0.0
        self._opened_before: Opened | None = None
        self._begun = 0  # tokens of the initial context
        # Of a beam without candidates, which those who wait may still go on: those of the beam it came from.
        self._trie = self.states[0].trie if self.states else None
        self._mode = self.states[0].mode if self.states else TrieMode.WITH_EOS

    @classmethod
    async def initial(
        cls,
        llm: Any,
        params: BeamParams | None = None,
        trie_opts: Mapping[str, Any] | None = None,
        *,
        initial_context: Sequence[int] | None = None,
        engine: bool = True,
        lora_name: str | None = None,
        max_context_length: int | None = None,
    ) -> Self:
        """A beam that has read nothing: one materialized candidate at the root.

        The trie of the model's vocabulary is built at the first call and shared by all later beams.

        Args:
            llm: a `genlm.backend` `AsyncLM`, or anything with its interface.
            params: the settings; None means `BeamParams()`, with a tolerance.
            trie_opts: keyword arguments of `AsyncTokenByteTrie.from_vocab`; never changed.
            initial_context: token ids that precede the text; None means the tokenizer's
                beginning-of-sequence token (see `StatefulTokenizedLM.initial`).
            engine: run a `genlm-backend` `AsyncTransformer` through `genlm.bytes.engine`, which shares
                its weights and computes no context twice. False runs the model as it is.
            lora_name: the LoRA adapter to use, as loaded by the model's `add_new_lora`; None is the model
                without one.
            max_context_length: ask the model about the latest so many tokens only, `initial_context`
                included, and forget those before; None keeps all. A context longer than the model can
                read is otherwise a `ValueError` where it is first needed.

        Raises:
            ValueError: an EOS string is not in the vocabulary; the model knows no such adapter;
                `max_context_length` below 1; with `canonical=True`, an `initial_context` that begins no
                canonical tokenization.
            UnsupportedModelError: `canonical=True`, and what the model's tokenizer does cannot be followed.
            TypeError: `llm` is no model, or `params` are no `BeamParams`.
        """
        beam = cls([], BeamParams() if params is None else params)
        trie = shared_trie(llm, beam.params.eos_byte_strings or (), trie_opts)
        canonical = None
        if beam.params.canonical:
            from genlm.bytes.byte_lm.canonical import CanonicalContext  # a dozen modules few need

            canonical = CanonicalContext.initial(llm, trie.trie, initial_context)
        if engine:
            from genlm.bytes.engine import adopt  # brings transformers, which importing us should not

            llm = adopt(llm)
        checks = beam.params.check_model
        lm = StatefulTokenizedLM.initial(
            llm, initial_context, max_context_length, lora_name, check_model=checks
        )
        state = LazyTrieState.initial(lm, trie, canonical=canonical)
        beam._begun = len(lm.context)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return beam.with_states([await state.materialize()])

    # -- looking --------------------------------------------------------------------------------------

    @property
    def trie(self) -> AsyncTokenByteTrie:
        """The trie of the candidates' vocabulary.

        Raises:
            EmptyBeamError: a beam that was made without candidates has none.
        """
        if self._trie is None:
            raise EmptyBeamError(self._why_empty())
        return self._trie

    @property
    def mode(self) -> TrieMode:
        """How the candidates read end-of-sequence tokens from now on."""
        return self._mode

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be read any more: no candidate is left, and nobody waits."""
        return not self.states and not len(self.waiting)

    def __iter__(self) -> Iterator[LazyTrieState]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)

    @cached_property
    def logZ(self) -> float:
        """Natural log of the candidates' total weight: the log prefix probability of the bytes read.

        A lower bound while candidates have been dropped; minus infinity for an empty beam.
        """
        return logsumexp([state.weight for state in self.states])

    @property
    def slack(self) -> Slack:
        """The share of the prefix probability that waits or was dropped: as expected, and at most."""
        return Slack.of(self.logZ, self.waiting, self.dropped)

    def bounds(self) -> Bounds:
        """Natural logs between which the log prefix probability of the bytes read lies. Certified.

        The lower is `logZ`. The upper adds the weights of all who wait, and of all that were dropped, as they
        were then; it is tight for short texts, and for `BeamParams(exact=True)` the two are equal, unless a
        beam was pruned where its prompt ends inside an end-of-sequence string (`docs/exactness.md`).
        """
        upper = logsumexp([self.logZ, *self.waiting.weights, self.dropped.weight])
        return Bounds(self.logZ, max(min(upper, 0.0), self.logZ))  # round-off takes a sure text above 0

    def tokenizations(self, most: int | None = None) -> list[Tokenization]:
        """The candidates as tokenizations of the bytes read, with their posteriors, the likeliest first.

        The share of the tokenizer's own is `sum(t.posterior for t in beam.tokenizations() if t.canonical)`.

        Args:
            most: how many of them; None for all. Posteriors are shares of all.
        """
        return tokenizations_of(self.states, self._begun, most)

    def _repr_html_(self) -> str:
        """The ten heaviest candidates, in a notebook."""
        from genlm.bytes.show.html import beam_html  # brings jinja2, which importing us should not
        from genlm.bytes.show.view import view_beam

        return beam_html(view_beam(self))

    def __repr__(self) -> str:
        lines = [f"\x1b[1mZ: {self.logZ:.6g}\x1b[0m", "\x1b[1mCandidates:\x1b[0m"]
        for state in self.states:
            share = math.exp(state.weight - self.logZ) if self.logZ > -math.inf else 0.0
            colour = 32 if share >= 1 / max(2, len(self)) else 31
            here = "\x1b[1mEOS" if state.terminated else f"\x1b[32m{escape(state.partial_bytes)}"
            tokens = f"\x1b[35m{state.lm_state!r}\x1b[0m|{here}\x1b[0m"
            lines.append(f"(\x1b[{colour}m{share:.4f}\x1b[0m) {state.weight:.2f}: {tokens}")
        if len(self.waiting):
            lines.append(
                f"\x1b[1mWaiting:\x1b[0m {len(self.waiting)}, expected share {self.slack.expected:.2g}"
            )
        return "\n".join(lines)

    # -- one step -------------------------------------------------------------------------------------

    async def __lshift__(self, a: int | bytes) -> Self:
        """The beam after one more symbol. Nothing is pruned: write `await (beam.prune() << a)`.

        Args:
            a: a byte 0..255, 257 for the end of the sequence, or an atomic unit of the trie.

        Returns:
            A beam; an empty one if no candidate can read the symbol and healing finds no other.

        Raises:
            ValueError: an integer that is no such symbol, or bytes that are no atomic unit.
            TypeError: something else.
        """
        if self.is_empty:
            return self
        return await self.advance(check_symbol(a, self.trie))

    async def advance(self, symbol: int | bytes, *, pruned: bool = False) -> Self:
        """`<<` of a checked symbol.

        Args:
            symbol: what to read.
            pruned: the caller prunes next. Then extensions that pruning is bound to discard are not
                evaluated, and the beam after that `prune()` is the same.
        """
        if not self.trie.trie.may_read(symbol, self.mode):
            after = self._given_up([])  # no candidate could, evaluated or healed in whatever way
        else:
            await self.materialize()
            after = await drive(self.reading(symbol, pruned=pruned))
            if not after.states:
                after = after._given_up(await self._heal(symbol) if self.params.heal else [])
        if self.params.verbose:
            logger.info("after %r: %r", symbol, after)
        return after

    def reading(self, symbol: int | bytes, *, pruned: bool = False) -> Step[Self]:
        """`advance` without healing, as a step (`step.py`), of materialized candidates."""
        if self.params.tolerance is not None:
            opened = self._opened_before or (yield from open_beam(self, symbol))
            states, room = yield from read_symbol(opened, self, symbol)
            return self._after(states, room, self.dropped.aged(), opened.absent)
        read = [after for state in self.states if (after := state << symbol) is not None]
        total = logsumexp([state.weight for state in read])
        kept = self.extensions(total)
        able, unable = list[LazyTrieState](), list[LazyTrieState]()  # the latter have probability 0
        for extension in kept:
            (able if extension.may_read([symbol]) else unable).append(extension)
        if pruned:
            kept = [*unable, *(yield from self._extend_in_reach(able, read, symbol))]
        else:
            got = yield Ask(able)
            read += [after for state in got if (after := state << symbol) is not None]
        if self.params.exact and len(read) > self.params.max_candidates:
            raise BudgetExceededError(
                f"{len(read)} candidates after {symbol!r}; `max_candidates` is {self.params.max_candidates}. "
                "Exact reading keeps every tokenization, and their number grows exponentially: read less, "
                "raise `max_candidates`, or use a tolerance: BeamParams(tolerance=1e-4)."
            )
        return self.with_states(read, self._without(kept, total).aged())

    def _extend_in_reach(
        self, extensions: list[LazyTrieState], read: list[LazyTrieState], symbol: int | bytes
    ) -> Step[list[LazyTrieState]]:
        """Evaluate the extensions that can be among the K heaviest; put what they become into `read`.

        Reading makes no candidate heavier. So one that is not heavier now than K others are after the
        symbol will not be kept. With a threshold too, who is kept depends on the weight of all.

        Returns:
            The extensions evaluated, or asked for in vain.
        """
        K = self.params.K
        if K is None or self.params.log_prune_threshold > -math.inf:
            first = extensions
        else:
            first = sorted(_in_reach(extensions, read, K), key=lambda state: -state.weight)[:K]
        got = yield Ask(first)
        read += [after for state in got if (after := state << symbol) is not None]
        if first is extensions or K is None or len(got) < len(first):
            return first
        asked = {id(state) for state in first}
        rest = [e for e in _in_reach(extensions, read, K) if id(e) not in asked]
        got = yield Ask(rest)
        read += [after for state in got if (after := state << symbol) is not None]
        return [*first, *rest]

    def _without(self, kept: Sequence[LazyTrieState], total: float) -> Dropped:
        """The account after extensions other than `kept` have been dropped."""
        if self.params.tolerance is not None or self.params.exact:
            return self.dropped  # they wait; nothing is below no threshold
        ids = {id(state) for state in kept}
        gone = [e.weight for state in self.states for e in state.extend_all() if id(e) not in ids]
        return self.dropped.more(gone, logsumexp([total, *(state.weight for state in kept)]))

    async def extend(self, logZ: float) -> list[LazyTrieState]:
        """The candidates that commit a token which ends here, materialized.

        An extension is kept if its share of `logZ` and all extensions together exceeds
        `prune_threshold`.

        Args:
            logZ: natural log of the weight that the extensions are compared with.
        """
        kept = self.extensions(logZ)
        await asyncio.gather(*(state.materialize() for state in kept))
        return kept

    def extensions(self, logZ: float) -> list[LazyTrieState]:
        """What `extend` will materialize."""
        found = [extension for state in self.states for extension in state.extend_all()]
        total = logsumexp([logZ, *(extension.weight for extension in found)])
        return [e for e in found if e.weight - total > self.params.log_prune_threshold]

    async def logp_next(self) -> LazyByteProbs:
        """Natural log-probabilities of the next byte and of the end of the sequence, `[258]`.

        They sum to 1 over bytes and EOS (and atomic units, where the trie has any). What tokens that
        end here and were not extended would contribute is left out, unless nothing else is left: then
        the heaviest of them is extended. The result's `slack` says how far off it may be.

        Where candidates wait, no byte that a token contains has probability 0: whoever waits may go on
        with any, and a thousandth of their expected share is spread over all.

        Raises:
            EmptyBeamError: no candidate is left, or all have read the end of the sequence.
        """
        await self.materialize()
        if self.params.tolerance is not None:
            opened = await self._open()
            states, waiting = opened.states, opened.room
        else:
            extensions = await self.extend(self.logZ)
            states, waiting = [*self.states, *extensions], self.waiting
        found = Mixture.of(states)
        if not found.total > 0.0:
            found = Mixture.of(await self._last_resort())
        if not found.total > 0.0:
            raise EmptyBeamError(self._why_empty())
        left_out = self._without(states, self.logZ)
        slack = Slack.of(found.log_total, waiting, left_out, of_next=True)
        return found.normalised(self._anything(slack, found.units) if len(waiting) else None, slack)

    async def _open(self) -> Opened:
        if self._opened_before is not None:
            return self._opened_before
        opened = await drive(open_beam(self, None))
        self._opened_before = opened
        return opened

    def _anything(self, slack: Slack, units: Collection[bytes]) -> Float64[np.ndarray, " symbols"]:
        """A small share for every symbol that some token is read by: 258, then the atomic units."""
        trie = self.trie.trie
        possible = np.zeros(258 + len(units))
        possible[sorted(trie.readable(self.mode))] = 1.0
        possible[258:] = 1.0
        if self.mode is TrieMode.WITH_EOS and len(trie.eos_leaves):
            possible[EOS] = 1.0
        possible *= FLOOR * slack.expected / possible.sum()
        return possible

    async def _last_resort(self) -> list[LazyTrieState]:
        """The heaviest extension, where all candidates are at a token's end and pruning left none."""
        extensions = [extension for state in self.states for extension in state.extend_all()]
        heaviest = sorted(extensions, key=lambda state: -state.weight)[:1]
        return [await state.materialize() for state in heaviest]

    def _why_empty(self) -> str:
        if not self.states:
            canonical = ", or canonical=False" if self.params.canonical else ""
            return (
                "the beam is empty: no candidate could read the bytes so far. Read them with heal=True, a "
                f"larger K or a smaller prune_threshold{canonical}."
            )
        if all(state.terminated for state in self.states):
            return "the beam has read the end of the sequence: nothing follows it. Stop at EOS (257)."
        return (
            "no candidate of the beam has a next byte of positive probability. Use a smaller prune_threshold."
        )

    async def materialize(self) -> None:
        """Ask the model for what the candidates need, in one forward, if it has not been asked yet."""
        waiting = [state for state in self.states if not state.materialized]
        if waiting:
            await asyncio.gather(*(state.materialize() for state in waiting))

    async def _heal(self, symbol: int | bytes) -> list[LazyTrieState]:
        params = self.params
        healer = TokenHealer(params.heal_max_backoff, params.heal_max_splits, params.verbose)
        for state in self.states:
            healed = await healer.try_heal(state, symbol)
            if healed is not None:
                return [healed]
        return []

    # -- the beam as a whole --------------------------------------------------------------------------

    def prune(self) -> Self:
        """The candidates whose share of the beam exceeds `prune_threshold`, at most K of them.

        With a tolerance: those, and those who wait, that are expected to be worth a millionth of it.
        """
        total = self.logZ + self.absent
        least = self.params.log_least_share
        kept = [state for state in self.states if state.weight - total > least][: self.params.K]
        held = logsumexp([state.weight for state in kept]) + self.absent
        dropped = self.dropped.more([ceiling(state) for state in self.states[len(kept) :]], held)
        if self.params.tolerance is None:
            return self._after(kept, self.waiting, dropped, self.absent)
        gone, waiting = self.waiting.drop(total + least)
        return self._after(kept, waiting, dropped.more(gone.weights, held, gone.expected()), self.absent)

    def with_mode(self, mode: Mode) -> Self:
        """The same beam, reading end-of-sequence tokens in the given mode from now on.

        Bytes stay as they were read: see `LazyTrieState.with_mode`.
        """
        # Who waits will read in the mode that each symbol was read in, and goes on in that of the others.
        after = self.with_states([state.with_mode(mode) for state in self.states])
        after._mode = as_mode(mode, TrieMode.WITH_EOS)
        return after

    async def relieved(self) -> Self:
        """The beam with some of those who wait evaluated, if no candidate has any probability.

        So it is where all stand inside an end-of-sequence string that was read as text and that nothing else
        goes on with: in the other mode they are no text.
        """
        if self.logZ > -math.inf or not len(self.waiting):
            return self
        states, room = await drive(wake(self, self.states, self.waiting, self.absent, 0.0))
        return self._after(states, room, self.dropped, self.absent)

    async def prefill(
        self, bs: Context, *, method: str = "beam", progress: bool | ReadingProgress = False
    ) -> Self:
        """Read known bytes, with end-of-sequence strings as ordinary text, pruning before each byte.

        The result reads end-of-sequence tokens specially again.

        Args:
            bs: bytes; an atomic unit of the trie is read as one symbol wherever its spelling occurs. Or
                a sequence of byte values and units, which is read as it stands.
            method: `"beam"` gives what reading byte by byte gives. `"tokenize"` reads along the tokenizer's
                own path up to the last word, and the rest with the beam: the price of one plain forward,
                for the weight of all other tokenizations of that part. `"heal"` reads along that path up
                to the last token, of which it keeps the bytes without committing it, and heals where the
                next byte does not fit. Where `bs` holds atomic units, or no path spells it, all are
                `"beam"`.
            progress: show a bar on stderr; or a function that is told the bytes read and their number.

        Raises:
            ImpossibleByteError: a byte that no candidate can read, with its offset.
            ValueError: a `method` that is none of these.
            TypeError: `bs` is neither.
        """
        return await read_context(self, bs, method, progress)

    async def cleanup(self) -> None:
        """Wait for what the beam's trie still works on. The trie is shared by other beams and stays."""
        if self.states:
            await self.states[0].cleanup()

    def with_states(self, states: Sequence[LazyTrieState], dropped: Dropped | None = None) -> Self:
        """A beam of other candidates under the same settings."""
        return self._after(states, self.waiting, dropped or self.dropped, self.absent)

    @property
    def begun(self) -> int:
        """How many tokens precede the text."""
        return self._begun

    def rebased(self, states: Sequence[LazyTrieState]) -> Self:
        """The same text with candidates that see other contexts from now on. Those who wait are dropped."""
        waiting = self.waiting
        dropped = self.dropped.more(waiting.weights, self.logZ, waiting.expected())
        return self._after(states, WaitingRoom(Trail(waiting.trail.at)), dropped, self.absent)

    def restarted(self, state: LazyTrieState, at: int) -> Self:
        """A beam of one candidate that stands where `at` symbols have been read; nobody waits."""
        return self._after([state], WaitingRoom(Trail(at)), self.dropped, 0.0)

    def _after(
        self, states: Sequence[LazyTrieState], waiting: WaitingRoom, dropped: Dropped, absent: float
    ) -> Self:
        after = makeable(type(self), 2)(states, self.params)
        after.waiting, after.dropped, after.absent = waiting, dropped, absent
        after._begun = self._begun
        if not states:
            after._trie, after._mode = self._trie, self._mode
        return after

    def _given_up(self, states: Sequence[LazyTrieState]) -> Self:
        """Healed candidates, or none, in place of all who wait."""
        waiting, total = self.waiting, logsumexp([state.weight for state in states])
        dropped = self.dropped.more(waiting.weights, total, waiting.expected())
        return self._after(states, WaitingRoom(Trail(waiting.trail.at)), dropped, self.absent)


def _in_reach(
    extensions: Sequence[LazyTrieState], read: Sequence[LazyTrieState], K: int
) -> list[LazyTrieState]:
    """The extensions heavier than the K-th heaviest that has been read."""
    weights = sorted((state.weight for state in read), reverse=True)
    least = weights[K - 1] if len(weights) >= K else -math.inf
    return [extension for extension in extensions if extension.weight > least]
