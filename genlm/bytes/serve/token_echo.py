"""The log-probabilities of a prompt's own tokens, where they are asked for (`echo` with `unit: "token"`).

What other servers give: each token after those before it, along one tokenization. So they sum to less than
the text's log-probability, and hang on who has tokenized it. One forward over the prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from genlm.bytes.api import AsyncByteLM
from genlm.bytes.backends.async_lm import cached
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.engine import adopt
from genlm.bytes.generate.records import likeliest
from genlm.bytes.prompt.prompt import begun_after
from genlm.bytes.serve.contexts import Given, spellings
from genlm.bytes.serve.logprobs import Entry
from genlm.bytes.util.rows import as_numpy

__all__ = ["token_entries"]

AT_ONCE = 32
"""Rows of the whole vocabulary that are held at once."""


async def token_entries(lm: AsyncByteLM, given: Given, top: int) -> list[Entry]:
    """An entry for each token of a prompt: the client's own, or the tokenizer's.

    Args:
        top: so many of the likeliest tokens each.
    """
    spelling = spellings(lm)
    if given.ids is None:
        prompt = lm._parse(given.context)
        ids, lead = list(prompt.closed(lm.llm, lm._open_trie(), lm._begins).ids or ()), prompt.lead
        begun = len(begun_after(lm.llm, lm._begins)) if prompt.ids is None else 0
    else:
        start = [] if isinstance(given.context[0], int) else begun_after(lm.llm, lm._begins)
        ids, lead, begun = [*start, *given.ids], b"", len(start)
    model: CachedLM[Any] = lm.llm if isinstance(lm.llm, CachedLM) else cached(adopt(lm.llm))
    nodes = [model.node(ids[:at]) for at in range(begun, len(ids))]
    asked = list(zip(nodes, ids[begun:], strict=True))
    unknown = 1 if begun == 0 else 0  # nothing stands before the first
    found = [Entry(bytes(spelling[token]), None) for _, token in asked[:unknown]]
    for first in range(unknown, len(asked), AT_ONCE):
        some = asked[first : first + AT_ONCE]
        tops = await _tops(model, [node for node, _ in some], top, spelling)
        logps = await asyncio.gather(*(model.score(node, token) for node, token in some))
        each = zip(some, logps, tops, strict=True)
        found += [Entry(bytes(spelling[token]), logp, best) for (_, token), logp, best in each]
    if found and lead:
        found[0] = Entry(found[0].text.removeprefix(lead), found[0].logprob, found[0].top)
    return found


async def _tops(
    model: CachedLM[Any], nodes: Sequence[ContextNode], count: int, spelling: Mapping[int, bytes]
) -> list[tuple[tuple[bytes, float], ...]]:
    """The likeliest tokens after each context, and their log-probabilities."""
    if not count:
        return [()] * len(nodes)
    rows = [as_numpy(row) for row in await model.logprobs_many(nodes)]
    return [
        tuple((bytes(spelling[i]), float(row[i])) for i in likeliest(row, count) if i in spelling)
        for row in rows
    ]
