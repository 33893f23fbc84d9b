"""What befalls a beam from outside: its caller is cancelled, its model fails or talks nonsense."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fuzz.episode import Episode, Operation, apply, assert_same, fingerprint
from fuzz.worlds import Batching, Plain

from genlm.bytes import AsyncByteLM
from genlm.bytes.errors import GenlmBytesError

__all__ = ["cancelled", "failing"]


class Boom(Exception):
    """What the model raises."""


NONSENSE: dict[str, Callable[[torch.Tensor], Any]] = {
    "raises": lambda row: None,
    "nan": lambda row: torch.full_like(row, float("nan")),
    "one nan": lambda row: torch.where(torch.arange(len(row)) == len(row) // 2, float("nan"), row),
    "infinite": lambda row: torch.where(torch.arange(len(row)) == 0, float("inf"), row),
    "too likely": lambda row: row + 3.0,
    "empty": lambda row: row[:0],
    "none": lambda row: None,
    "a list": lambda row: row.tolist(),
    "a matrix": lambda row: torch.stack([row, row]),
    "whole numbers": lambda row: row.to(torch.int64),
}


class _Harmed:
    """A model that does something at the `at`-th context it is asked for, and lets others run meanwhile."""

    at: int | None = None
    how = "raises"
    asked_ever = 0

    async def answer(self, ask: Callable[[], Any]) -> Any:
        self.asked_ever += 1
        at = self.asked_ever
        await asyncio.sleep(0)
        row = await ask()
        if at != self.at:
            return row
        if self.how == "raises":
            raise Boom(f"at context {at}")
        return NONSENSE[self.how](row)


class HarmedPlain(_Harmed, Plain):
    async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
        return await self.answer(lambda: Plain.next_token_logprobs(self, token_ids))


class HarmedBatching(HarmedPlain, Batching):
    async def batch_next_token_logprobs(self, token_ids_list: Sequence[Sequence[int]]) -> Any:
        return [await self.next_token_logprobs(ids) for ids in token_ids_list]


def _harmed(episode: Episode) -> Any:
    llm = episode.make()
    llm.__class__ = HarmedPlain if type(llm) is Plain else HarmedBatching
    return llm


async def _prepared(seed: int) -> tuple[Episode, Any, Any, list[Operation]]:
    """A world, its model, a beam in it, and what to do with that."""
    episode = Episode(seed)
    llm = _harmed(episode)
    beam = await episode.begin(llm)
    rng = random.Random(seed)
    ops: list[Operation] = []
    for _ in range(rng.choice([1, 2])):
        text = episode.text(rng.choice([1, 2, 4]))
        ops.append(("prefill", tuple(text), rng.choice(["beam", "tokenize"])))
        ops.append(("read", episode.symbol(), True))
    return episode, llm, beam, ops


async def _work(beam: Any, ops: Sequence[Operation]) -> Any:
    for op in ops:
        beam = await apply(beam, op)
    if len(beam) and beam.logZ > float("-inf"):
        await beam.logp_next()
    return beam


async def _outcome(beam: Any, ops: Sequence[Operation]) -> Any:
    """The beam after some operations, or the error of ours that they end in."""
    try:
        return await _work(beam, ops)
    except GenlmBytesError as error:
        return error


def _assert_same_outcome(one: Any, other: Any, why: Any, precise: float) -> None:
    if isinstance(one, Exception) or isinstance(other, Exception):
        assert type(one) is type(other) and str(one) == str(other), f"{why}: {one!r}, and {other!r}"
    else:
        assert_same(one, other, why, precise)


async def cancelled(seed: int) -> int:
    """Cancel one of two callers at a random moment; the other, and who asks again, notice nothing."""
    episode, llm, beam, ops = await _prepared(seed)
    rng = random.Random(seed)
    want = await _outcome(await episode.begin(episode.make()), ops)
    was = fingerprint(beam)
    one = asyncio.ensure_future(_outcome(beam, ops))
    two = asyncio.ensure_future(_outcome(beam, ops))
    lm = AsyncByteLM(llm, episode.params, eos=episode.eos, trie_opts=episode.trie_opts)
    three = asyncio.ensure_future(lm.score(["a", b"b", episode.text(3)], on_impossible="inf"))
    for _ in range(rng.randrange(12)):
        await asyncio.sleep(0)
    one.cancel()
    three.cancel()
    found = await asyncio.gather(one, three, return_exceptions=True)
    for result in found:
        fine = not isinstance(result, BaseException)
        assert fine or isinstance(result, asyncio.CancelledError | GenlmBytesError), result
    _assert_same_outcome(await two, want, f"seed {seed}: beside one cancelled", episode.precise)
    assert fingerprint(beam) == was, f"seed {seed}: a beam was changed by cancelling"
    _assert_same_outcome(await _outcome(beam, ops), want, f"seed {seed}: again", episode.precise)
    return 2


async def failing(seed: int) -> int:
    """A model that fails, or talks nonsense, at a random moment: an error, and all is well afterwards."""
    episode, llm, beam, ops = await _prepared(seed)
    rng = random.Random(seed)
    counted = _harmed(episode)
    want = await _outcome(await episode.begin(counted), ops)
    if counted.asked_ever < 2:
        return 0
    was, llm.how = fingerprint(beam), rng.choice(list(NONSENSE))
    llm.at = rng.randrange(llm.asked_ever + 1, max(counted.asked_ever, llm.asked_ever + 1) + 1)
    try:
        found = await _outcome(beam, ops)
    except Boom:
        assert llm.how == "raises"
    else:
        # A guess about what will be needed may fail unnoticed: who needs it asks again.
        if not isinstance(found, GenlmBytesError):
            why = f"seed {seed}: {llm.how} at context {llm.at} goes unnoticed"
            _assert_same_outcome(found, want, why, episode.precise)
    llm.at = None
    assert fingerprint(beam) == was, f"seed {seed}: a beam was changed by a failing model"
    _assert_same_outcome(await _outcome(beam, ops), want, f"seed {seed}: again", episode.precise)
    return 1
