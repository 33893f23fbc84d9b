"""Whether a backend keeps its word: `check_backend` tries what `backend.py` promises, on given contexts.

await check_backend(lambda: MyBackend(model), [[1], [1, 5], [1, 5, 2], [1, 7]])
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import torch

from genlm.bytes.contexts.backend import Backend
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.contexts.rows import checked_row
from genlm.bytes.util.rows import Row, as_tensor

__all__ = ["check_backend"]

_Contexts = Sequence[Sequence[int]]
_Make = Callable[[], Backend]


async def check_backend(make: _Make, contexts: _Contexts, *, atol: float = 1e-3) -> None:
    """Try a backend's promises, one after another.

    Args:
        make: makes the backend, anew for each promise.
        contexts: token ids. Some should be beginnings of others, and all distinct.
        atol: how far probabilities may be off by round-off.

    Raises:
        AssertionError: a promise is broken; it says which. What shows it is its cause.
    """
    for promise in PROMISES:
        try:
            await promise(make, contexts, atol)
        except Exception as error:
            raise AssertionError(f"{type(make()).__name__} breaks its promise. {promise.__doc__}") from error


async def _rows(make: _Make, contexts: _Contexts, atol: float) -> None:
    """Each outcome is a row of natural log-probabilities, in memory of its own."""
    llm = CachedLM(make())
    _hold(len(llm.byte_vocab) > 0, "there are tokens")
    rows = await llm.logprobs_many([llm.node(ids) for ids in contexts])
    for row in rows:
        checked_row(llm.backend, row)
        held = row.untyped_storage().nbytes() if isinstance(row, torch.Tensor) else row.nbytes
        whole = isinstance(row, torch.Tensor) or row.base is None
        _hold(whole and held == row.nbytes, "a row keeps no memory but its own")
    _hold(len({as_tensor(row).data_ptr() for row in rows}) == len(contexts), "no two rows share memory")


async def _independent(make: _Make, contexts: _Contexts, atol: float) -> None:
    """A row does not depend on what shares the call, nor on their order, nor on what was evaluated before."""
    want = await _one_by_one(make, contexts)
    llm = CachedLM(make())
    for order in (range(len(contexts)), reversed(range(len(contexts)))):
        at = list(order)
        found = await llm.logprobs_many([llm.node(contexts[i]) for i in at])
        _same(found, [want[i] for i in at], atol)
        llm.clear_cache()


async def _forgets(make: _Make, contexts: _Contexts, atol: float) -> None:
    """What was given up is computed again, and the same; what was not is not evaluated again."""
    want = await _one_by_one(make, contexts)
    llm = CachedLM(make(), max_bytes=2 * want[0].nbytes)
    for _ in range(2):
        _same([await llm.next_token_logprobs(ids) for ids in contexts], want, atol)
        _hold(llm.rows.nbytes <= llm.rows.most_bytes, "rows stay within their bound")
    calls = llm.statistics().forwards
    await llm.next_token_logprobs(contexts[-1])
    _hold(llm.statistics().forwards == calls, "what is known is not evaluated again")


async def _errors(make: _Make, contexts: _Contexts, atol: float) -> None:
    """A context that is too long is a `ValueError`, and harms no other."""
    want = await _one_by_one(make, contexts)
    llm = CachedLM(make())
    longest, nodes = llm.backend.max_length, [llm.node(ids) for ids in contexts]
    if longest is not None:
        far = llm.node([contexts[0][0]] * (longest + 1))
        *found, refused = await llm.outcomes([*nodes, far])
        _hold(isinstance(refused, ValueError), "it is refused")
        _same([row for row in found if not isinstance(row, BaseException | float)], want, atol)


async def _cancelled(make: _Make, contexts: _Contexts, atol: float) -> None:
    """A request that is cancelled, at any moment, harms no other, and leaves nothing behind."""
    want = await _one_by_one(make, contexts)
    before = asyncio.all_tasks()
    for passes in range(0, 24, 3):
        llm = CachedLM(make())
        one = asyncio.ensure_future(llm.batch_next_token_logprobs(contexts))
        others = [asyncio.ensure_future(llm.next_token_logprobs(ids)) for ids in contexts[::2]]
        for _ in range(passes):
            await asyncio.sleep(0)
        one.cancel()
        _same(await asyncio.gather(*others), want[::2], atol)
        await asyncio.gather(one, return_exceptions=True)
    for _ in range(24):
        await asyncio.sleep(0)
    _hold(asyncio.all_tasks() <= before, "no task is left running")


async def _threads(make: _Make, contexts: _Contexts, atol: float) -> None:
    """Event loops in several threads, and threads without one, may ask at the same time."""
    want, llm = await _one_by_one(make, contexts), CachedLM(make())
    found = await asyncio.gather(
        llm.batch_next_token_logprobs(contexts),
        asyncio.to_thread(asyncio.run, llm.batch_next_token_logprobs(contexts)),
        asyncio.to_thread(llm.batch_next_token_logprobs_sync, contexts),
    )
    for rows in found:
        _same(list(rows), want, atol)


PROMISES = (_rows, _independent, _forgets, _errors, _cancelled, _threads)


async def _one_by_one(make: _Make, contexts: _Contexts) -> list[torch.Tensor]:
    """What a backend says of each context that knows no other."""
    llm, found = CachedLM(make()), []
    for ids in contexts:
        found.append(await llm.next_token_logprobs(ids))
        llm.clear_cache()
    return found


def _same(found: Sequence[Row], want: Sequence[torch.Tensor], atol: float) -> None:
    _hold(len(found) == len(want), f"{len(want)} rows come, not {len(found)}")
    for i, (one, other) in enumerate(zip(found, want, strict=True)):
        off = float((as_tensor(one).exp() - other.exp()).abs().max())
        _hold(off <= atol, f"probabilities after context {i} are off by {off:.2g}")


def _hold(true: bool, what: str) -> None:
    if not true:
        raise AssertionError(f"that {what}")
