"""The whole idea in a page of plain Python: the probability of bytes under a model of tokens.

A token model gives P(next token | tokens). A text can be covered by tokens in many ways, and the probability
that the model's output begins with it is the sum over all of them. A *hypothesis* is one way: the tokens
committed, and the bytes read since (`partial`), which the next token is to begin with. Its weight is

    P(tokens) * (sum of P(t | tokens) over the tokens t whose bytes begin with `partial`).

Hypotheses that differ in their committed tokens are disjoint events, so the probability of a text is the sum
of their weights, and what comes next is their mixture. Reading a byte, each hypothesis appends it to
`partial`; and where a token ends exactly at `partial`, that token is committed and the byte begins the next
one.

With neither `K` nor a threshold nothing is dropped, and the answers are exact. `ByteBeamState` computes the
same with a trie, masses summed on demand, contexts evaluated in batches and remembered; `tests/test_plain.py`
holds the two together. Time here is of no concern: every step goes through the whole vocabulary. (Vieira et
al., arXiv 2412.03719; Phan et al., arXiv 2410.09303.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from genlm.bytes.util.symbols import EOS

__all__ = ["EOS", "Hypothesis", "PlainByteLM"]


@dataclass(frozen=True)
class Hypothesis:
    """One way to cover the bytes read so far.

    Attributes:
        tokens: the ids committed, those of the start first.
        partial: the bytes read since, all of them the beginning of one token.
        committed: probability of the tokens.
        weight: probability of the tokens, and that the next begins with `partial`.
        ended: whether the end of the sequence has been read.
    """

    tokens: tuple[int, ...]
    partial: bytes
    committed: float
    weight: float
    ended: bool = False


class PlainByteLM:
    """A token model, read by bytes.

    Args:
        next_token_probs: the probability of each token id after some token ids.
        spellings: the bytes of each token id.
        ends: the ids that end a sequence: their bytes are no text.
        start: token ids before any text.
        K: the most hypotheses that `prune` keeps; None for no limit.
        prune_threshold: the share of all that a hypothesis must exceed to be kept or extended.

    Examples:
        >>> lm = PlainByteLM(lambda tokens: [0.5, 0.3, 0.2], {0: b"a", 1: b"b", 2: b"ab"})
        >>> round(lm.prefix(b"ab"), 3)  # "ab" as one token, or "a" and then what begins with "b"
        0.35
    """

    def __init__(
        self,
        next_token_probs: Callable[[tuple[int, ...]], Sequence[float]],
        spellings: Mapping[int, bytes],
        ends: Collection[int] = (),
        start: Sequence[int] = (),
        K: int | None = None,
        prune_threshold: float = 0.0,
    ) -> None:
        self.next_token_probs = next_token_probs
        self.words = {token: word for token, word in spellings.items() if word and token not in ends}
        self.ends, self.start = ends, tuple(start)
        self.K, self.prune_threshold = K, prune_threshold

    def initial(self) -> list[Hypothesis]:
        """Nothing has been read: one hypothesis, sure."""
        return [Hypothesis(self.start, b"", 1.0, 1.0)]

    def moved(self, hypothesis: Hypothesis, symbol: int) -> Hypothesis | None:
        """A hypothesis after one more byte inside its token, or after the end; None where that is
        impossible."""
        tokens, partial, committed, _, ended = vars(hypothesis).values()
        if ended or (symbol == EOS and partial):
            return None
        ps = self.next_token_probs(tokens)
        if symbol == EOS:
            mass = sum(ps[token] for token in self.ends)
            return Hypothesis(tokens, b"", committed, committed * mass, True) if mass else None
        longer = partial + bytes([symbol])
        mass = sum(ps[token] for token, word in self.words.items() if word.startswith(longer))
        return Hypothesis(tokens, longer, committed, committed * mass) if mass else None

    def extensions(self, hypothesis: Hypothesis) -> list[Hypothesis]:
        """A hypothesis with each token committed that ends here."""
        tokens, partial, committed, _, ended = vars(hypothesis).values()
        if ended or not partial:
            return []
        ps = self.next_token_probs(tokens)
        whole = {token: committed * ps[token] for token, word in self.words.items() if word == partial}
        return [Hypothesis((*tokens, token), b"", p, p) for token, p in whole.items() if p]

    def extended(self, beam: list[Hypothesis], total: float) -> list[Hypothesis]:
        """The extensions whose share of `total` and all of them exceeds the threshold."""
        found = [extension for hypothesis in beam for extension in self.extensions(hypothesis)]
        total += math.fsum(extension.weight for extension in found)
        return [extension for extension in found if extension.weight > self.prune_threshold * total]

    def read(self, beam: list[Hypothesis], symbol: int) -> list[Hypothesis]:
        """The beam after a symbol. The heaviest come first."""
        read = [self.moved(hypothesis, symbol) for hypothesis in beam]
        total = math.fsum(hypothesis.weight for hypothesis in read if hypothesis)
        read += [self.moved(extension, symbol) for extension in self.extended(beam, total)]
        return sorted(filter(None, read), key=lambda hypothesis: -hypothesis.weight)

    def prune(self, beam: list[Hypothesis]) -> list[Hypothesis]:
        """The hypotheses whose share exceeds the threshold, at most `K` of them."""
        least = self.prune_threshold * self.total(beam)
        return [hypothesis for hypothesis in beam if hypothesis.weight > least][: self.K]

    def total(self, beam: list[Hypothesis]) -> float:
        """The probability of what has been read."""
        return math.fsum(hypothesis.weight for hypothesis in beam)

    def next(self, beam: list[Hypothesis]) -> dict[int, float]:
        """The distribution of the next byte, and of the end: one more symbol read by everyone, normalised."""
        everyone = [*beam, *self.extended(beam, self.total(beam))]
        symbols = [*sorted({byte for word in self.words.values() for byte in word}), EOS]
        read = {s: [m for h in everyone if (m := self.moved(h, s))] for s in symbols}
        total = math.fsum(self.total(found) for found in read.values())
        return {symbol: self.total(found) / total for symbol, found in read.items()} if total else {}

    def prefix(self, text: bytes) -> float:
        """The probability that the model's text begins with `text`."""
        beam = self.initial()
        for byte in text:
            beam = self.read(self.prune(beam), byte)
        return self.total(beam)
