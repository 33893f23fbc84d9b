"""The posterior over the ways to cut a text into tokens.

A cut is a sequence of tokens that spells the text and ends with it. Its weight is the probability that the
model gives to these tokens; its posterior is its share of all. The tokenizer makes one of them, its own; how
much of the probability that one has, and what the others are, is what an audit asks ("Broken Tokens?", Zheng
et al. 2025, arXiv 2506.19004; Vieira et al. 2024, arXiv 2412.03719).

The cuts are those that the beam has kept, and the tokenizer's own in any case; with `BeamParams(exact=True)`
all there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.byte_lm.token_path import longest_tokens
from genlm.bytes.score.naive import token_scores
from genlm.bytes.util import logsumexp

__all__ = ["Cut", "Tokenizations", "marked", "tokenizations_of_text"]


@dataclass(frozen=True)
class Cut:
    """One way to cut a text.

    Attributes:
        token_ids: the tokens.
        pieces: what each spells of the text; a space that the tokenizer writes before a text is left out.
        logprob: natural log of the probability that the model gives to these tokens.
        posterior: its share of all cuts that were found.
        canonical: whether it is the tokenizer's own, or, for a model without one, that of the longest
            matches.
    """

    token_ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
    logprob: float
    posterior: float
    canonical: bool

    @property
    def ends(self) -> frozenset[int]:
        """Where its tokens end in the text, in bytes."""
        return frozenset(accumulate(map(len, self.pieces)))

    def differs(self, other: Cut) -> list[tuple[int, int]]:
        """Where two cuts of a text differ: pairs of byte offsets at which both have a boundary, and between
        which their tokens are not the same.

        Examples:
            >>> one = Cut((1, 2, 3), (b"ab", b"c", b"d"), 0.0, 1.0, True)
            >>> Cut((1, 4), (b"ab", b"cd"), 0.0, 0.0, False).differs(one)
            [(2, 4)]
        """
        found, begin, mine, theirs = list[tuple[int, int]](), 0, list(self._placed()), list(other._placed())
        for end in sorted(self.ends & other.ends):
            if [t for t in mine if begin < t[0] <= end] != [t for t in theirs if begin < t[0] <= end]:
                found.append((begin, end))
            begin = end
        return found

    def _placed(self) -> Iterator[tuple[int, int]]:
        """Each token with where it ends; those that spell nothing of the text have their place in it."""
        ends = accumulate(map(len, self.pieces))
        return ((max(end, 1), token) for end, token in zip(ends, self.token_ids, strict=True))


def marked(cut: Cut, own: Cut | None) -> list[tuple[bytes, bool]]:
    """The pieces of a cut, each with whether the tokenizer's own cut is another there."""
    places = [] if own is None or cut.canonical else cut.differs(own)
    ends = accumulate(map(len, cut.pieces))
    return [
        (piece, any(begin < max(end, 1) <= stop for begin, stop in places))
        for piece, end in zip(cut.pieces, ends, strict=True)
    ]


class Tokenizations(Sequence[Cut]):
    """The cuts of a text, the likeliest first.

    Attributes:
        text: the text.
        canonical: the tokenizer's own cut; None where its tokens do not spell the text.
        missing: the share of the text's probability that is expected to be with cuts that were left out.
    """

    def __init__(self, text: bytes, cuts: Sequence[Cut], missing: float) -> None:
        self.text, self.missing = text, missing
        self._cuts = tuple(sorted(cuts, key=lambda cut: -cut.logprob))
        self.canonical = next((cut for cut in self._cuts if cut.canonical), None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizations):
            return False
        return (self.text, self.missing, self._cuts) == (other.text, other.missing, other._cuts)

    def __hash__(self) -> int:
        return hash(self._cuts)

    @property
    def logprob(self) -> float:
        """Natural log-probability that the tokens to come spell the text and end with it: of all cuts."""
        return float(logsumexp([cut.logprob for cut in self._cuts]))

    @property
    def canonical_share(self) -> float:
        """The posterior of the tokenizer's own cut; nan where there is none."""
        return math.nan if self.canonical is None else self.canonical.posterior

    @property
    def entropy(self) -> float:
        """Of the posterior, in nats: 0 where one cut has all."""
        return -sum(p * math.log(p) for p in (cut.posterior for cut in self._cuts) if p > 0.0) + 0.0

    @property
    def boundaries(self) -> Float64[np.ndarray, " n"]:
        """The probability that a token ends after each byte, `[n]`; 1 for the last."""
        found = np.zeros(len(self.text))
        for cut in self._cuts:
            found[[end - 1 for end in cut.ends if end]] += cut.posterior
        return found

    @overload
    def __getitem__(self, at: int) -> Cut: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Cut]: ...
    def __getitem__(self, at: int | slice) -> Cut | Sequence[Cut]:
        return self._cuts[at]

    def __len__(self) -> int:
        return len(self._cuts)

    def __repr__(self) -> str:
        said = f"{len(self)} cuts, the tokenizer's own {self.canonical_share:.4g}, {self.entropy:.4g} nats"
        return f"Tokenizations({self.text!r}: {said})"


async def tokenizations_of_text(start: ByteBeamState, text: bytes) -> Tokenizations:
    """The cuts of a text that begins where a token does.

    Args:
        start: the beam before it.
    """
    beam = await start.prefill(text)
    state, begun = start.states[0], start.begun
    trie, lead = state.trie.trie, len(state.partial_bytes)
    found: dict[tuple[int, ...], float] = {}
    for hypothesis in beam.states:
        for ended in hypothesis.extend_all() if hypothesis.partial_bytes else [hypothesis]:
            found[tuple(ended.lm_state.context[begun:])] = ended.weight
    encoder = text_encoder(state.lm_state.model, trie)
    whole = state.partial_bytes + text
    own = tuple(
        (encoder.exact(whole, cut=False) if encoder.exists else longest_tokens(trie, whole, encoder.avoided))
        or ()
    )
    if own not in found and (scores := await token_scores(start, b"", text, None)):
        found[own] = sum(score.logprob for score in scores)
    total = logsumexp(list(found.values())) if found else -math.inf
    cuts = []
    for ids, logp in found.items():
        if logp > -math.inf:
            pieces = _pieces([trie.spelling_of_id[i] for i in ids], lead)
            cuts.append(Cut(ids, pieces, logp, math.exp(logp - total), ids == own))
    return Tokenizations(text, cuts, beam.slack.expected)


def _pieces(spelled: Sequence[bytes], lead: int) -> tuple[bytes, ...]:
    """Spellings without the first bytes, which were there before the text."""
    found = []
    for spelling in spelled:
        found.append(spelling[lead:])
        lead = max(0, lead - len(spelling))
    return tuple(found)
