"""The sum over tokens that is usually taken for a word's surprisal, for comparison.

The model's own tokenizer cuts the context and the text, each token costs its log-probability, and a word
costs what its tokens cost. This is the probability of one tokenization, not of the text; a token with a
leading space counts for the word, whose end costs nothing (Oh & Schuler 2024, Pimentel & Meister 2024).

**Which tokens are a word's.** Separators count for the word after them, whatever the boundary that our own
figure has: with a leading space where the tokenizer puts one there, and likewise where the separator is a
token of its own, as before numbers or where there are two. What stands after the last word counts for that.
A token that reaches into several words is the first one's. So each token is counted once, and words found by
a separator cost together what all tokens of the text cost.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.byte_lm.token_path import longest_tokens
from genlm.bytes.score.regions import Region

__all__ = ["TokenScore", "naive_sums", "reaches", "token_scores"]


class TokenScore(NamedTuple):
    """A token of the text: where it begins and ends, in bytes, and its natural log-probability."""

    start: int
    end: int
    logprob: float
    token_id: int = -1


async def token_scores(start: Any, before: bytes, text: bytes, most: int | None) -> list[TokenScore]:
    """The tokens of a text by the model's own tokenizer.

    Args:
        start: the beam before the context.
        before: the context's text.
        text: the text. A token that begins in the context counts if it ends here.
        most: tokens that the model reads; for longer texts there is no such figure.

    Returns:
        The tokens; none where the tokenizer's do not spell the text (it normalizes, say, or the text is no
        UTF-8), where the model has no logits for one of them, or where they are too many. For a model
        without a tokenizer they are the longest matches.
    """
    if not isinstance(start, ByteBeamState):
        return []  # of several models, each has tokens of its own
    state = start.states[0]
    trie, partial = state.trie.trie, state.partial_bytes
    encoder, whole = text_encoder(state.lm_state.model, trie), partial + before + text
    tokens = (
        encoder.exact(whole, cut=False) if encoder.exists else [*longest_tokens(trie, whole, encoder.avoided)]
    )
    spelled = [trie.spelling_of_id[token] for token in tokens or ()]
    too_many = most is not None and start.begun + len(spelled) > most + 1
    if tokens is None or b"".join(spelled) != whole or too_many:
        return []
    places, lm_state, at = [], state.lm_state, -len(before) - len(partial)
    for token, spelling in zip(tokens, spelled, strict=True):
        end = at + len(spelling)
        if not before and end <= 0:
            end = 1  # the tokenizer's own space, a token by itself, counts for what the text begins with
        if end > 0:
            places.append((at, end, token, lm_state))
        lm_state, at = lm_state << token, at + len(spelling)
    if not places:  # an empty text
        return []
    first = await places[0][3].logp_next()
    if any(token >= len(first) for _, _, token, _ in places):  # nor must it be asked what follows that
        return []
    rows = [first, *await asyncio.gather(*(place[3].logp_next() for place in places[1:]))]
    return [
        TokenScore(begin, end, float(row[token]), token)
        for (begin, end, token, _), row in zip(places, rows, strict=True)
    ]


def reaches(text: str, regions: Sequence[Region], sep: str | None) -> list[tuple[int, int]]:
    """Where the tokens of each region begin and end, in characters: at the separators before it.

    Examples:
        >>> reaches(" in 1998 ", [Region(1, 3, "word"), Region(4, 8, "word")], " ")
        [(0, 3), (3, 9)]
    """
    gap = rf"(?:\s|{re.escape(sep)})+" if sep else r"\s+"
    before, after = re.compile(rf"{gap}\Z"), re.compile(gap)
    found, least = list[tuple[int, int]](), 0
    for region in regions:
        separators = before.search(text, least, region.start)
        found.append((region.start if separators is None else separators.start(), region.end))
        least = region.end
    if regions and regions[-1].kind != "span" and after.fullmatch(text, least):
        found[-1] = (found[-1][0], len(text))
    return found


def naive_sums(tokens: Sequence[TokenScore], regions: Sequence[tuple[int, int]]) -> list[float]:
    """The sum of the log-probabilities of each region's tokens; nan for a region that has none of its own.

    A token belongs to the first region it reaches into.

    Args:
        regions: where each reaches from and to, in bytes; in order, apart.

    Examples:
        >>> naive_sums([TokenScore(0, 2, -1.0), TokenScore(2, 6, -2.0)], [(0, 2), (3, 5), (5, 6)])
        [-1.0, -2.0, nan]
    """
    sums = [math.nan] * len(regions)
    at = 0
    for token in tokens:
        while at < len(regions) and regions[at][1] <= token.start:
            at += 1
        if at < len(regions) and regions[at][0] < token.end:
            sums[at] = token.logprob + (0.0 if math.isnan(sums[at]) else sums[at])
    return sums
