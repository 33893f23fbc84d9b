"""`ByteBeamState`: a beam of tokenizations that together give the probability of a byte string.

The probability that a token model writes a text beginning with the bytes `b` is a sum over the ways in
which tokens can cover `b`. Each way that the beam keeps is a `LazyTrieState`; their weights are log
probabilities of disjoint events, so `logZ`, the log of their sum, is a lower bound of the truth, and
equal to it while nothing has been dropped. The distribution of the next byte is the candidates' mixture.

Reading a byte: a candidate inside a token moves on in the trie; one at a token's end also commits the
token and starts the next. Committing costs a model call, all other work is arithmetic on the trie.
(Phan et al., arXiv 2410.09303; Vieira et al., arXiv 2412.03719.)

Which extensions are worth that call is decided by a search rule (`rule.py`) on the beam's data (`data.py`):
with a `prune_threshold`, those above it, and the others are gone for good; with a `tolerance`, those above
it, and the others are deferred. What was dropped or deferred is kept account of, so that a beam can say how
far off its answers may be. The class here is the documented face of both.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm.data import BeamData, log_sum
from genlm.bytes.byte_lm.deferred import DeferredQueue
from genlm.bytes.byte_lm.error_bounds import Bounds, DroppedMass, Slack
from genlm.bytes.byte_lm.heal import TokenHealer
from genlm.bytes.byte_lm.lm_state import Context, StatefulByteLM, StatefulTokenizedLM
from genlm.bytes.byte_lm.mixture import Mixture
from genlm.bytes.byte_lm.params import BeamParams
from genlm.bytes.byte_lm.prefill import read_context
from genlm.bytes.byte_lm.progress import ReadingProgress
from genlm.bytes.byte_lm.rule import SearchStep, run
from genlm.bytes.byte_lm.subclass import makeable
from genlm.bytes.byte_lm.symbols import check_symbol
from genlm.bytes.byte_lm.threshold import extensions_above
from genlm.bytes.byte_lm.tokenization import Tokenization, tokenizations_of
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.errors import EmptyBeamError, bad_type
from genlm.bytes.trie.modes import EOS, Mode, TrieMode, as_mode
from genlm.bytes.trie.service import AsyncTokenByteTrie
from genlm.bytes.util import LazyByteProbs, escape, logsumexp
from genlm.bytes.vocab import shared_trie

__all__ = ["BeamParams", "ByteBeamState"]

SMOOTHING = 1e-3
"""The part of the deferred candidates' expected share that is spread over all bytes: enough that none is
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
        data: the candidates and what is known of the others, as the search rule has left them.

    Typical use, in a notebook or a coroutine:

        beam = await ByteBeamState.initial(llm)
        beam = await beam.prefill(b"An apple a day keeps the ")
        (await beam.logp_next()).pretty().top(5)
    """

    def __init__(self, states: Sequence[LazyTrieState], params: BeamParams) -> None:
        if not isinstance(params, BeamParams):
            raise bad_type("params", params, "must be BeamParams", "Pass e.g. BeamParams(K=5).")
        ordered = sorted(states, key=lambda state: -state.weight)
        mode = ordered[0].mode if ordered else TrieMode.WITH_EOS
        self.params = params
        self.data: BeamData = params.search_rule.begin(ordered, mode)
        self._begun = 0  # tokens of the initial context
        self._looked = False  # and whoever has looked at it will go on byte by byte
        # Of a beam without candidates, which deferred ones may still go on: that of the beam it came from.
        self._trie = ordered[0].trie if ordered else None

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
            from genlm.bytes.canonical import CanonicalContext  # a dozen modules few need

            canonical = CanonicalContext.initial(llm, trie.trie, initial_context)
        if engine and not isinstance(llm, CachedLM):
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
    def states(self) -> list[LazyTrieState]:
        """The candidates, the heaviest first."""
        return self.data.hypotheses

    @states.setter
    def states(self, states: Sequence[LazyTrieState]) -> None:
        self.data = self.data.after(states)

    @property
    def deferred(self) -> DeferredQueue:
        """The candidates that were not evaluated, where the settings have a tolerance."""
        return self.data.deferred

    @property
    def dropped(self) -> DroppedMass:
        """The mass of the candidates that were given up."""
        return self.data.dropped

    @property
    def mode(self) -> TrieMode:
        """How the candidates read end-of-sequence tokens from now on."""
        return self.data.mode

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be read any more: no candidate is left, and none is deferred."""
        return not self.states and not len(self.deferred)

    def __iter__(self) -> Iterator[LazyTrieState]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def logZ(self) -> float:
        """Natural log of the candidates' total weight: the log prefix probability of the bytes read.

        A lower bound while candidates have been dropped; minus infinity for an empty beam.
        """
        return self.data.log_weight

    @property
    def slack(self) -> Slack:
        """The share of the prefix probability that is deferred or was dropped: as expected, and at most."""
        return self.params.search_rule.missing(self.data)

    def bounds(self) -> Bounds:
        """Natural logs between which the log prefix probability of the bytes read lies. Certified.

        The lower is `logZ`. The upper adds the weights of all deferred candidates, and of all that were
        dropped, as they were then; it is tight for short texts, and for `BeamParams(exact=True)` the two are
        equal, unless a beam was pruned where its prompt ends inside an end-of-sequence string
        (`docs/exactness.md`).
        """
        upper = logsumexp([self.logZ, *self.deferred.weights, self.dropped.weight])
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
        from genlm.bytes.viz.html import beam_html  # brings jinja2, which importing us should not
        from genlm.bytes.viz.view import view_beam

        return beam_html(view_beam(self))

    def __repr__(self) -> str:
        lines = [f"\x1b[1mZ: {self.logZ:.6g}\x1b[0m", "\x1b[1mCandidates:\x1b[0m"]
        for state in self.states:
            share = math.exp(state.weight - self.logZ) if self.logZ > -math.inf else 0.0
            colour = 32 if share >= 1 / max(2, len(self)) else 31
            here = "\x1b[1mEOS" if state.terminated else f"\x1b[32m{escape(state.partial_bytes)}"
            tokens = f"\x1b[35m{state.lm_state!r}\x1b[0m|{here}\x1b[0m"
            lines.append(f"(\x1b[{colour}m{share:.4f}\x1b[0m) {state.weight:.2f}: {tokens}")
        if len(self.deferred):
            lines.append(
                f"\x1b[1mDeferred:\x1b[0m {len(self.deferred)}, expected share {self.slack.expected:.2g}"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        """`repr` without its colours, for files and pipes."""
        return re.sub(r"\x1b\[\d+m", "", repr(self))

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
            after = self._without_deferred([])  # no candidate could, evaluated or healed in whatever way
        else:
            await self.materialize()
            # Of a beam that was looked at, the next one will probably be, too.
            least = self._least if self._looked else None
            after = await run(self.step(symbol, pruned=pruned), least)
            if not after.states and self.data.coming:  # the rules allow it, and the model does not
                after = await run(self.with_coming(()).step(symbol, pruned=pruned), least)
            after._looked = False
            if not after.states:
                after = after._without_deferred(await self._heal(symbol) if self.params.heal else [])
        if self.params.verbose:
            logger.info("after %r: %r", symbol, after)
        return after

    def step(self, symbol: int | bytes, *, pruned: bool = False) -> SearchStep[Self]:
        """`advance` without healing, as a step of materialized candidates that says what it needs."""
        return self._with((yield from self.params.search_rule.read(self.data, symbol, pruned=pruned)))

    async def extend(self, logZ: float) -> list[LazyTrieState]:
        """The candidates that commit a token which ends here, materialized.

        An extension is kept if its share of `logZ` and all extensions together exceeds
        `prune_threshold`.

        Args:
            logZ: natural log of the weight that the extensions are compared with.
        """
        kept = extensions_above(self.states, logZ, self.params.log_prune_threshold)
        await asyncio.gather(*(state.materialize() for state in kept))
        return kept

    async def logp_next(self) -> LazyByteProbs:
        """Natural log-probabilities of the next byte and of the end of the sequence, `[258]`.

        They sum to 1 over bytes and EOS (and atomic units, where the trie has any). What tokens that
        end here and were not extended would contribute is left out, unless nothing else is left: then
        the heaviest of them is extended. The result's `slack` says how far off it may be.

        Where candidates are deferred, no byte that a token contains has probability 0: they may go on with
        any, and a thousandth of their expected share is spread over all.

        Raises:
            EmptyBeamError: no candidate is left, or all have read the end of the sequence.
        """
        return await self._next(ahead=True)

    async def peek(self) -> LazyByteProbs:
        if type(self).logp_next is not ByteBeamState.logp_next:  # a subclass's own
            return await self.logp_next()
        return await self._next(ahead=False)

    async def _next(self, ahead: bool) -> LazyByteProbs:
        """What comes next.

        Args:
            ahead: what will probably be asked for next rides along where the model is run.
        """
        await self.materialize()
        self._looked = ahead
        if self.data.expansion is None:
            step = self.params.search_rule.expand(self.data, None)
            self.data = await run(step, self._least if ahead else None)
        assert self.data.expansion is not None
        states, deferred, dropped, *_ = self.data.expansion
        found = Mixture.of(states)
        if not found.total > 0.0:
            found = Mixture.of(await self._last_resort())
        if not found.total > 0.0:
            raise EmptyBeamError(self._why_empty())
        slack = Slack.of(found.log_total, deferred, dropped, of_next=True)
        return found.normalised(self._smoothing(slack, found.units) if len(deferred) else None, slack)

    def _smoothing(self, slack: Slack, units: Collection[bytes]) -> Float64[np.ndarray, " symbols"]:
        """A small share for every symbol that some token is read by: 258, then the atomic units."""
        trie = self.trie.trie
        possible = np.zeros(258 + len(units))
        possible[sorted(trie.readable(self.mode))] = 1.0
        possible[258:] = 1.0
        if self.mode is TrieMode.WITH_EOS and len(trie.eos_leaves):
            possible[EOS] = 1.0
        possible *= SMOOTHING * slack.expected / possible.sum()
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
        pending = [state for state in self.states if not state.materialized]
        if pending:
            await asyncio.gather(*(state.materialize() for state in pending))

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

        With a tolerance: those, and the deferred ones, that are expected to be worth a millionth of it.
        """
        return self._with(self.params.search_rule.prune(self.data))

    def with_mode(self, mode: Mode) -> Self:
        """The same beam, reading end-of-sequence tokens in the given mode from now on.

        Bytes stay as they were read: see `LazyTrieState.with_mode`.
        """
        # Deferred ones will read in the mode that each symbol was read in, and go on in that of the others.
        after = self.data.after([state.with_mode(mode) for state in self.states])
        return self._with(replace(after, mode=as_mode(mode, TrieMode.WITH_EOS)))

    async def recovered(self) -> Self:
        """The beam with some deferred candidates evaluated, if none has any probability
        (`SearchRule.recover`)."""
        return self._with(await run(self.params.search_rule.recover(self.data)))

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

    @property
    def begun(self) -> int:
        """How many tokens precede the text."""
        return self._begun

    def with_states(self, states: Sequence[LazyTrieState]) -> Self:
        """A beam of other candidates under the same settings."""
        return self._with(self.data.after(states))

    def with_coming(self, symbols: tuple[int | bytes, ...]) -> Self:
        """The beam with symbols that are known to come next (`foresight.py`)."""
        return self._with(replace(self.data, coming=symbols))

    def with_hindsight(self, passing: Sequence[LazyTrieState], origins: Sequence[LazyTrieState]) -> Self:
        """The beam with candidates that were found later (`BeamData.with_hindsight`)."""
        return self._with(self.data.with_hindsight(passing, origins))

    def rebased(self, states: Sequence[LazyTrieState]) -> Self:
        """The same text with candidates that see other contexts from now on. Deferred ones are dropped."""
        return self._with(self.data.without_deferred(states, self.logZ))

    def restarted(self, state: LazyTrieState, length: int, dropped: DroppedMass | None = None) -> Self:
        """A beam of one candidate that stands where `length` symbols have been read; nothing is deferred."""
        return self._with(self.data.after([state], self.deferred.emptied(length), dropped, 0.0))

    @property
    def _least(self) -> float:
        """The share of the beam from which an extension is evaluated."""
        return self.params.tolerance or self.params.prune_threshold or 0.0

    def _without_deferred(self, states: Sequence[LazyTrieState]) -> Self:
        """Healed candidates, or none, in place of all deferred ones."""
        return self._with(self.data.without_deferred(states, log_sum(states)))

    def _with(self, data: BeamData) -> Self:
        kind = makeable(type(self), 2)
        if kind is ByteBeamState:  # at every byte, many times: without sorting, or a rule's beginning
            after = kind.__new__(kind)
            after.params = self.params
        else:
            after = kind(data.hypotheses, self.params)
        after.data, after._begun, after._looked = data, self._begun, self._looked
        after._trie = data.hypotheses[0].trie if data.hypotheses else self._trie
        return after
