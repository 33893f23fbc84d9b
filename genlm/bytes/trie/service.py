"""`AsyncTokenByteTrie`: concurrent requests for sums, batched.

Requests made in the same pass of an event loop, for the same operation and mode, are worked together
in one call. There is no background task to start, leak or kill: the first request of a batch schedules
the batch's evaluation as a callback of its own loop, which runs once the tasks that are ready now have
made their requests. So the object belongs to no loop; it can serve one after another, or several in
several threads, and a beam may share it with every other beam on the same vocabulary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from jaxtyping import Float, Float32

from genlm.bytes.trie.modes import Mode, TrieMode, TrieOp, as_mode
from genlm.bytes.trie.token_trie import TokenByteTrie, Weights

if TYPE_CHECKING:
    import torch
    from genlm.backend.tokenization import Token

__all__ = ["AsyncTokenByteTrie"]


@dataclass(frozen=True, eq=False)
class _Request:
    op: TrieOp
    mode: TrieMode
    weights: Float[torch.Tensor, "1 tokens"]
    answer: asyncio.Future[Float32[torch.Tensor, " nodes"]]


class AsyncTokenByteTrie:
    """A `TokenByteTrie` whose sums can be awaited and are batched across tasks.

    Guarantees: a request with bad arguments fails alone and at once; an error while a batch is worked
    reaches the callers of that batch and no others; cancelling one caller harms no other.
    """

    def __init__(self, trie: TokenByteTrie) -> None:
        self.trie = trie
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Request]] = WeakKeyDictionary()

    @classmethod
    def from_vocab(cls, vocab: Sequence[Token], **trie_opts: Any) -> AsyncTokenByteTrie:
        """A service over a new `TokenByteTrie(vocab, **trie_opts)`."""
        return cls(TokenByteTrie(vocab, **trie_opts))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.trie!r})"

    async def weight_sum(self, ws: Weights, mode: Mode = None) -> Float32[torch.Tensor, " nodes"]:
        """`TokenByteTrie.weight_sum`, batched with the requests of other tasks."""
        return await self._request(ws, as_mode(mode, TrieMode.WITHOUT_EOS), TrieOp.SUM)

    async def weight_max(self, ws: Weights) -> Float32[torch.Tensor, " nodes"]:
        """`TokenByteTrie.weight_max`, batched with the requests of other tasks."""
        return await self._request(ws, TrieMode.WITHOUT_EOS, TrieOp.MAX)

    def start(self) -> None:
        """Kept for clients of the documented API; requests need no start."""

    async def cleanup(self) -> None:
        """Wait until the requests that this event loop has made so far are answered.

        The object stays usable: other beams may share it.
        """
        waiting = self._waiting.get(asyncio.get_running_loop(), [])
        await asyncio.gather(*(r.answer for r in waiting), return_exceptions=True)

    def shutdown(self) -> None:
        """Cancel the requests that are still waiting, on every loop. The object stays usable."""
        for loop, waiting in list(self._waiting.items()):
            requests, waiting[:] = list(waiting), []
            if not loop.is_closed():
                for request in requests:
                    loop.call_soon_threadsafe(request.answer.cancel)

    async def __aenter__(self) -> AsyncTokenByteTrie:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cleanup()

    async def _request(self, ws: Weights, mode: TrieMode, op: TrieOp) -> Float32[torch.Tensor, " nodes"]:
        weights = self.trie.check_weights(ws, dims=1)
        loop = asyncio.get_running_loop()
        request = _Request(op, mode, weights, loop.create_future())
        waiting = self._waiting.setdefault(loop, [])
        waiting.append(request)
        if len(waiting) == 1:
            loop.call_soon(self._answer, waiting)
        return await request.answer

    def _answer(self, waiting: list[_Request]) -> None:
        """Work everything that waits on one loop, in batches of like requests."""
        requests, waiting[:] = [r for r in waiting if not r.answer.done()], []
        kinds: dict[tuple[TrieOp, TrieMode], list[_Request]] = {}
        for request in requests:
            kinds.setdefault((request.op, request.mode), []).append(request)
        size = self.trie.max_batch_size
        for (op, mode), alike in kinds.items():
            for first in range(0, len(alike), size):
                self._answer_batch(op, mode, alike[first : first + size])

    def _answer_batch(self, op: TrieOp, mode: TrieMode, batch: list[_Request]) -> None:
        import torch

        try:
            rows = torch.cat([r.weights.double() for r in batch])
            if op is TrieOp.SUM:
                sums = self.trie.batch_weight_sum(rows, mode)
            else:
                sums = self.trie.batch_weight_max(rows)
        except Exception as error:
            for request in batch:
                request.answer.set_exception(error)
        else:
            # A row of its own each: a caller that keeps one row must not keep the whole batch alive.
            for request, row in zip(batch, sums, strict=True):
                request.answer.set_result(row.clone() if len(batch) > 1 else row)
