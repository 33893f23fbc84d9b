"""Drawing tokens: one that covers the prompt's edge, then ordinary decoding.

The prompt may stop inside a token. The beam says in which ways: each of its hypotheses has committed some
tokens and stands inside the next, whose first bytes are the last of the prompt. So the first draw is from
all pairs of a hypothesis and a token that begins so, each by its probability: the hypothesis's committed
tokens times the token after them. That settles one tokenization. From there on the model is at a boundary
between tokens, and goes on as `transformers.generate` would, on the same engine and cache, one context a
token. In the first draw a repetition penalty looks at each hypothesis's own tokens, and temperature and
truncation act on the pairs; in the later ones on tokens.

At temperature 1 and without truncation the bytes drawn have exactly the distribution that drawing them one
by one from the beam has: a pair drawn by weight is a draw from the tokenizations that agree with the prompt.

The pair's token may also end at the edge and give no new byte; it then counts for nothing but the context.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

from genlm.bytes.byte_lm import ByteBeamState, LazyTrieState, StatefulTokenizedLM
from genlm.bytes.byte_lm.context_limits import depth, longest_context
from genlm.bytes.byte_lm.lm_state import next_row
from genlm.bytes.generate.bytewise import Step
from genlm.bytes.generate.completion import Alternative, Drawn
from genlm.bytes.generate.records import likeliest
from genlm.bytes.generate.sampling import LogitsProcessor, process, processors, sample, warpers
from genlm.bytes.generate.token_table import token_table
from genlm.bytes.options import Options
from genlm.bytes.util import logsumexp, utf8
from genlm.bytes.util.rows import as_numpy

__all__ = ["Pairs", "TokenDecoder", "edge_pairs"]


@dataclass(frozen=True)
class _Place:
    """Where a token was drawn: `length` new bytes so far, with `partial` before them in the same token."""

    lm_state: StatefulTokenizedLM
    partial: bytes
    token: int
    length: int
    logp: float  # of the way here
    own: float  # the token's; of the first that gives new bytes, with what lies before it
    top: tuple[Alternative, ...]


class TokenDecoder:
    """One completion, a token at a time.

    Args:
        prompt: the bytes it has read: an unfinished character there decides how the next byte may go on.

    Attributes:
        tokens: how many tokens have given new bytes.
    """

    end_logprob: float | None = None

    def __init__(
        self, beam: ByteBeamState, prompt: bytes, options: Options, rng: np.random.Generator
    ) -> None:
        self.tokens: int | None = 0
        self._beam = beam
        self._processors, self._warpers = processors(options), warpers(options)
        self._rng = None if options.greedy else rng
        self._utf8 = utf8.state_after(prompt) if options.valid_utf8 else None
        self._lm_state: StatefulTokenizedLM | None = None
        self._text = bytearray()
        self._logp = 0.0
        self._places: list[_Place] = []
        self._ends: list[int] = []  # of each place's token, in new bytes
        self._before_first = 0.0  # of a token that ends where the prompt does
        self._prompt: StatefulTokenizedLM | None = None
        self._count = options.top_logprobs
        self._longest: int | None = None
        if beam.states:
            self._table = token_table(beam.states[0].trie.trie)
            self._longest = longest_context(beam.states[0].lm_state)

    async def step(self) -> Step:
        """The rest of the token at the edge, or the next token."""
        if self._lm_state is None:
            return await self._cover_edge()
        if self._longest is not None and depth(self._lm_state) > self._longest:
            return Step(b"", "length")
        logps = await _logps_next(self._lm_state)
        token = self._choose(_processed(self._lm_state, logps, self._processors))
        if token is None:
            return Step(b"", "dead_end")
        top = self._alternatives(logps)
        return self._take(self._lm_state, b"", token, self._logp, float(logps[token]), top)

    async def logprob(self, length: int) -> float:
        """Natural log-probability of the first `length` new bytes, by the tokens drawn.

        Where that is inside a token, all tokens count that begin with the same bytes there.
        """
        if length == len(self._text):
            return self._logp
        place = next(p for p in reversed(self._places) if p.length <= length)
        if place.length == length:
            return place.logp if length else 0.0
        kept = place.partial + bytes(self._text[place.length : length])
        logps = await _logps_next(place.lm_state)
        alike = set(self._table.beginning_with(kept).tolist()) - self._table.ends
        ids = [i for i in alike | {place.token} if i < len(logps)]
        return place.logp + logsumexp(logps[ids])

    def drawn(self, begin: int, end: int, last: bool) -> Drawn:
        """What is known of the tokens that end after `begin` and not after `end`, in new bytes.

        Args:
            last: whether the new bytes end at `end`: then the token that goes on past it counts too.
        """
        first, stop = bisect_right(self._ends, begin), bisect_right(self._ends, end)
        if last and stop < len(self._places) and self._places[stop].length < end:
            stop += 1
        places, ends = self._places[first:stop], self._ends[first:stop]
        pieces = (self._text[p.length : min(at, end)] for p, at in zip(places, ends, strict=True))
        return Drawn(
            token_ids=tuple(place.token for place in places),
            token_bytes=tuple(map(bytes, pieces)),
            token_logprobs=np.array([place.own for place in places]),
            token_top=None if self._count is None else tuple(place.top for place in places),
        )

    @property
    def prompt_token_ids(self) -> tuple[int, ...] | None:
        """The tokens before the first that gave new bytes; None where there was no token to be drawn."""
        return None if self._prompt is None else tuple(self._prompt.context)

    async def _cover_edge(self) -> Step:
        pairs = await edge_pairs(self._beam, self._processors)
        total = logsumexp(pairs.logps)
        left = pairs.processed
        if self._utf8 is not None:
            left = np.where(self._fits_edge(pairs), left, -np.inf)
        if not len(left) or not left.max() > -math.inf:
            return Step(b"", "dead_end")
        index = sample(process(self._warpers, left), self._rng)
        state = pairs.states[int(pairs.owner[index])]
        token, logp = int(pairs.tokens[index]), float(pairs.logps[index]) - state.committed
        top = self._alternatives(pairs.logps - total, pairs)
        return self._take(state.lm_state, state.partial_bytes, token, state.committed - total, logp, top)

    def _fits_edge(self, pairs: Pairs) -> Bool[np.ndarray, " pairs"]:
        assert self._utf8 is not None
        skip = [len(state.partial_bytes) for state in pairs.states]
        fits = self._table.fits
        each = zip(pairs.tokens.tolist(), pairs.owner.tolist(), strict=True)
        return np.fromiter((fits(t, self._utf8, skip[i]) for t, i in each), np.bool_, len(pairs.tokens))

    def _choose(self, logps: Float64[np.ndarray, " logits"]) -> int | None:
        """The next token; None if there is none that may be drawn."""
        if self._rng is None:
            # Nearly always the likeliest token may be drawn, and the mask need not be applied.
            token = int(logps.argmax())
            if self._may_be_drawn(token) and float(logps[token]) > -math.inf:
                return token
        allowed = self._table.allowed(self._utf8, len(logps))
        left = np.where(allowed, logps, -np.inf)
        if not left.max() > -math.inf:
            return None
        return sample(process(self._warpers, left), self._rng)

    def _may_be_drawn(self, token: int) -> bool:
        spelled = bool(self._table.spelling.get(token))
        return spelled and (self._utf8 is None or self._table.fits(token, self._utf8))

    def _alternatives(
        self, logps: Float64[np.ndarray, " n"], pairs: Pairs | None = None
    ) -> tuple[Alternative, ...]:
        """The likeliest tokens; at the prompt's edge, of pairs, with what each would add."""
        if self._count is None:
            return ()

        def one(index: int) -> Alternative:
            token, read = index, 0
            if pairs is not None:
                token = int(pairs.tokens[index])
                read = len(pairs.states[int(pairs.owner[index])].partial_bytes)
            logp = float(logps[index]) + self._before_first
            return Alternative(self._table.spelling.get(token, b"")[read:], logp, token)

        return tuple(map(one, likeliest(logps, self._count)))

    def _take(
        self,
        lm_state: StatefulTokenizedLM,
        partial: bytes,
        token: int,
        before: float,
        logp: float,
        top: tuple[Alternative, ...],
    ) -> Step:
        """Append a token of log-probability `logp`, drawn after `lm_state`, the way to which has `before`."""
        self._logp = before + logp
        own = logp + (before if not self._places else self._before_first)
        if not self.tokens:
            self._prompt = lm_state
        if token in self._table.ends and not partial:
            return Step(b"", "eos")
        self._places.append(_Place(lm_state, partial, token, len(self._text), before, own, top))
        text = self._table.spelling[token][len(partial) :]
        self._lm_state = lm_state << token
        self._text += text
        self._ends.append(len(self._text))
        self._before_first = 0.0 if text else own
        if text:
            assert self.tokens is not None
            self.tokens += 1
        if self._utf8 is not None:
            self._utf8 = utf8.advance(self._utf8, text)
        return Step(text)


@dataclass(frozen=True)
class Pairs:
    """All ways in which a token can cover the prompt's edge.

    Attributes:
        states: the hypotheses.
        owner: which of them, `[pairs]`.
        tokens: the token's id, `[pairs]`.
        logps: natural log-probability of the hypothesis's committed tokens and this one, `[pairs]`.
        processed: the same, with the token's after the logits processors, `[pairs]`.
    """

    states: list[LazyTrieState]
    owner: Int[np.ndarray, " pairs"]
    tokens: Int[np.ndarray, " pairs"]
    logps: Float64[np.ndarray, " pairs"]
    processed: Float64[np.ndarray, " pairs"]


async def edge_pairs(beam: ByteBeamState, steps: Sequence[LogitsProcessor] = ()) -> Pairs:
    """Each hypothesis of a beam with each token that begins with the bytes it has read of it.

    A token that would end the sequence is one of them where a hypothesis stands between tokens, or where
    its spelling was read in full as text. Tokens of probability zero are left out. Logits processors
    (`steps`) act after each hypothesis's own tokens.
    """
    states = [state for state in beam.states if not state.terminated]
    owner, tokens, logps, processed = [], [], [], []
    for i, state in enumerate(states):
        table = token_table(state.trie.trie)
        partial = state.partial_bytes
        ids = table.below(state.node)
        if partial:
            read_in_full = set(state.committable)
            ids = np.array([t for t in ids.tolist() if t not in table.ends or t in read_in_full], np.int64)
        found = await _logps_next(state.lm_state)
        ids = ids[ids < len(found)]
        ids = ids[found[ids] > -math.inf]
        owner.append(np.full(len(ids), i))
        tokens.append(ids)
        logps.append(state.committed + found[ids])
        processed.append(state.committed + _processed(state.lm_state, found, steps)[ids])
    if not states:
        return Pairs([], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    return Pairs(states, *map(np.concatenate, (owner, tokens, logps, processed)))


def _processed(
    lm_state: StatefulTokenizedLM, logps: Float64[np.ndarray, " logits"], steps: Sequence[LogitsProcessor]
) -> Float64[np.ndarray, " logits"]:
    """Natural log-probabilities of the next token after logits processors."""
    if not steps:
        return logps
    logits = process(steps, logps + lm_state.log_normalizer, lm_state.context)
    return logits - logsumexp(logits)


async def _logps_next(lm_state: StatefulTokenizedLM) -> Float64[np.ndarray, " logits"]:
    return as_numpy(await next_row(lm_state)).astype(np.float64)
