"""Draws that are right under constraints: sequential Monte Carlo over bytes.

To draw each byte from what a mask, or several models, leave of its distribution is not to draw a string from
what they leave of the distribution over strings: a byte that leads into a corner is as probable as if it did
not. Here the target is the distribution over whole strings in which a string weighs the product of its
potentials: of a model its probability of each byte, and 0 where the mask does not permit it; of an ensemble
those of its operation. The end of the sequence is a symbol like others, with its own probability.

`N` particles are extended a byte at a time, each drawn from the local distribution, whose normaliser is the
factor by which the particle's weight grows. Where the effective sample size falls below a share of `N`, they
are resampled (systematically: Kitagawa 1996). The mean weight estimates the target's normaliser without
bias, whatever is resampled and when (Del Moral 2004; Whiteley, Lee and Heine, arXiv 1309.2918), and weighted
particles estimate its posterior. Of a mask alone the normaliser is the probability that the model's own text
satisfies it.

Particles that have read the same bytes share everything until they part.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm.context_limits import context_is_full
from genlm.bytes.byte_lm.speculation import side_by_side
from genlm.bytes.errors import DeadEndError, EmptyBeamError
from genlm.bytes.generate.bytewise import Step
from genlm.bytes.generate.completion import Completion
from genlm.bytes.generate.output import Output
from genlm.bytes.generate.permitted import Permitted
from genlm.bytes.generate.records import ByteRecord
from genlm.bytes.generate.run import Read, completion_of
from genlm.bytes.generate.sampling import sample
from genlm.bytes.options import Options
from genlm.bytes.util import logsumexp
from genlm.bytes.util.gather import gather
from genlm.bytes.util.symbols import EOS

__all__ = ["WeightedCompletions", "draw_particles"]


class WeightedCompletions(list[Completion]):
    """Completions that were drawn together, each with its `log_weight`; the heaviest first.

    Attributes:
        log_normalizer: natural log of the unbiased estimate of what the target sums to.
        effective_sizes: the effective sample size after each byte.
    """

    def __init__(
        self, completions: list[Completion], log_normalizer: float, effective_sizes: list[float]
    ) -> None:
        super().__init__(sorted(completions, key=lambda c: -_weight(c)))
        self.log_normalizer = log_normalizer
        self.effective_sizes = effective_sizes

    @property
    def posterior(self) -> dict[str, float]:
        """The probability of each text under the target, as estimated; the likeliest first. A text that a
        limit has cut short counts as a beginning: of all that may follow it, permitted or not."""
        found = dict[str, float]()
        for completion in self:
            found[completion.text] = found.get(completion.text, 0.0) + self._share(completion)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def unfinished(self) -> float:
        """The part of `posterior` that is texts which a limit has cut short: above 0, neither that nor
        `log_normalizer` is about whole texts. A larger `max_bytes` lets them end."""
        return math.fsum(
            self._share(completion) for completion in self if completion.finish_reason == "length"
        )

    def _share(self, completion: Completion) -> float:
        return math.exp(_weight(completion) - self.log_normalizer) / len(self)

    @property
    def effective_size(self) -> float:
        """How many equally weighted draws from the target these are worth."""
        return _effective(np.array([_weight(completion) for completion in self]))


def _weight(completion: Completion) -> float:
    return -math.inf if completion.log_weight is None else completion.log_weight


class _Place:
    """The bytes that some particles have read: what follows them is found out once for all of these."""

    def __init__(self, state: Any, permitted: Permitted) -> None:
        self.state = state
        self._permitted = permitted
        self._after: dict[int | bytes, _Place] = {}
        self._looked = self.full = False
        self.logps: Float64[np.ndarray, " symbols"] | None = None
        """Natural log-probabilities of the symbols, before anything is forbidden."""
        self.potentials: Float64[np.ndarray, " symbols"] | None = None
        """Natural logs of the potentials, of which what is forbidden has none; None where nothing follows."""
        self.units: list[bytes] = []
        self.only_the_end = False

    async def look(self) -> None:
        if self._looked:
            return
        self._looked = True
        self.full = context_is_full(self.state)
        if self.full:
            return
        try:
            found = await self.state.log_potentials()
        except EmptyBeamError:
            return
        units = self.units = list(found.units)
        permitted = self._permitted.symbols(units)
        self.only_the_end = self._permitted.only_the_end(permitted)
        raw = np.concatenate([found.ps, [found.units[unit] for unit in units]])
        self.logps = raw - logsumexp(raw)
        potentials = np.where(permitted, raw, -np.inf)
        self.potentials = potentials if potentials.max() > -np.inf else None

    def after(self, symbol: int | bytes) -> _Place:
        """The place after one more symbol; the same one for all who go there."""
        if symbol not in self._after:
            text = symbol if isinstance(symbol, bytes) else bytes([symbol])
            self._after[symbol] = _Place(None, self._permitted.after(text))
        return self._after[symbol]

    async def read(self, symbol: int | bytes) -> None:
        """Find the state after a symbol."""
        self._after[symbol].state = await (self.state.prune() << symbol)


class _Particle:
    def __init__(self, place: _Place, output: Output, rng: np.random.Generator, record: ByteRecord) -> None:
        self.place, self.output, self.rng = place, output, rng
        self.record = record
        self.log_weight = 0.0
        self.symbol: int | bytes | None = None

    def again(self, rng: np.random.Generator) -> _Particle:
        other = copy.copy(self)
        other.output, other.record, other.rng = copy.deepcopy(self.output), self.record.copy(), rng
        return other

    def step(self) -> None:
        """Draw a symbol at a place that has been looked at, and take its factor into the weight."""
        place, self.symbol = self.place, None
        if place.full:
            self.output.add(Step(b"", "length"), None)
            return
        if place.potentials is None or place.logps is None:
            self.log_weight = -math.inf
            self.output.add(Step(b"", "dead_end"), None)
            return
        self.log_weight += float(logsumexp(place.potentials))
        index = sample(place.potentials, self.rng)
        text = self.record.add(place.logps, place.units, index)
        if text is None:
            self.output.add(Step(b"", "stop" if place.only_the_end else "eos"), None)
            return
        self.symbol = text if index > EOS else index
        self.output.add(Step(text), None)
        if self.output.reason is None:
            self.place = place.after(self.symbol)

    @property
    def alive(self) -> bool:
        return self.output.reason is None


async def draw_particles(read: Read, options: Options) -> WeightedCompletions:
    """Completions of one prompt, drawn together.

    Args:
        read: the prompt.
        options: what was asked; with `particles`.

    Raises:
        DeadEndError: all particles have met a place where nothing is permitted.
    """
    count = options.particles or 1
    seeds = None if options.seed is None else [options.seed]
    *own, together = [np.random.default_rng(seeds and [*seeds, i]) for i in range(count + 1)]
    root = _Place(read.beam, Permitted.of(options, read.text))
    found = [_Particle(root, Output(read.text, options, read.stops), rng, ByteRecord(options)) for rng in own]
    sizes = list[float]()
    while alive := [particle for particle in found if particle.alive]:
        places = {id(particle.place): particle.place for particle in alive}.values()
        with side_by_side(len(places)):
            await gather(place.look() for place in places)
        parted = {}
        for particle in alive:
            before = particle.place
            particle.step()
            if particle.alive and particle.symbol is not None and particle.place.state is None:
                parted[id(before), particle.symbol] = before
        weights = np.array([particle.log_weight for particle in found])
        if weights.max() == -np.inf:
            offset = max(len(particle.output.text) for particle in found)
            raise DeadEndError(
                f"all {count} particles have met a dead end, the last after {offset} bytes: nothing that is "
                "permitted there is possible. More particles may find a way; so may a smaller "
                "`prune_threshold`, or a tolerance in place of it.",
                offset,
            )
        await gather(place.read(symbol) for (_, symbol), place in parted.items())
        size = _effective(weights)
        sizes.append(size)
        if size < options.ess_threshold * count:
            found = _resampled(found, weights, together)
    completions = [replace(_completion(read, options, p), log_weight=p.log_weight) for p in found]
    total = float(logsumexp([particle.log_weight for particle in found])) - math.log(count)
    return WeightedCompletions(completions, total, sizes)


def _completion(read: Read, options: Options, particle: _Particle) -> Completion:
    record, length = particle.record, len(particle.output.text)
    logprob, drawn = record.logprob(length), record.drawn(0, length)
    return completion_of(read, options, particle.output, logprob, drawn, record.end_logprob)


def _effective(log_weights: Float64[np.ndarray, " n"]) -> float:
    """The effective sample size, `(sum w) ** 2 / sum w ** 2`."""
    if log_weights.max() == -np.inf:
        return 0.0
    return float(np.exp(2.0 * logsumexp(log_weights) - logsumexp(2.0 * log_weights)))


def _resampled(
    found: list[_Particle], log_weights: Float64[np.ndarray, " n"], rng: np.random.Generator
) -> list[_Particle]:
    """As many particles, each as often as its weight says, up to less than one; all of the mean weight."""
    count = len(found)
    sums = np.cumsum(np.exp(log_weights - logsumexp(log_weights)))
    places = (rng.random() + np.arange(count)) / count
    chosen = np.minimum(np.searchsorted(sums / sums[-1], places, side="right"), count - 1)
    mean = float(logsumexp(log_weights)) - math.log(count)
    own = [particle.rng for particle in found]  # a copy goes on with random numbers of its own
    resampled = [found[i].again(own[n]) for n, i in enumerate(chosen.tolist())]
    for particle in resampled:
        particle.log_weight = mean
    return resampled
