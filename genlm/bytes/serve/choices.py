"""The work of a completion request: some prompts, each completed some times; at once, or as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from genlm.bytes.api import AsyncByteLM
from genlm.bytes.generate import Chunk, Completion, Stream
from genlm.bytes.serve.contexts import Given
from genlm.bytes.util.gather import gather

__all__ = ["Piece", "Work", "finish_reason", "usage"]


@dataclass(frozen=True)
class Piece:
    """A chunk of one of several completions; the last has the whole.

    Attributes:
        index: which: prompts first, completions of each next to each other.
    """

    index: int
    chunk: Chunk
    completion: Completion | None


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        options: of `AsyncByteLM.complete`.
        n: completions of each prompt.
        best_of: draw so many, and give the likeliest.
    """

    lm: AsyncByteLM
    prompts: Sequence[Given]
    options: dict[str, Any]
    n: int = 1
    best_of: int | None = None

    def check(self) -> None:
        """Refuse options that exclude each other before anything is computed."""
        self.lm._checked(self.options, n=self.n, best_of=self.best_of)

    async def completions(self) -> list[list[Completion]]:
        """The completions of each prompt."""

        async def one(given: Given) -> list[Completion]:
            found: Any = await self.lm.complete(given.context, n=self.n, best_of=self.best_of, **self.options)
            return found if isinstance(found, list) else [found]

        return await gather(one(given) for given in self.prompts)

    async def pieces(self) -> AsyncIterator[Piece]:
        """The same as it comes. What has not been made when this is closed is not made."""
        streams = [self._stream(given, sample) for given in self.prompts for sample in range(self.n)]
        ready: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue(maxsize=2)

        async def pump(index: int, stream: Stream) -> None:
            try:
                async for chunk in stream:
                    await ready.put(Piece(index, chunk, stream.completion))
                await ready.put(None)
            except Exception as error:
                await ready.put(error)

        tasks = [asyncio.create_task(pump(i, stream)) for i, stream in enumerate(streams)]
        try:
            left = len(tasks)
            while left:
                found = await ready.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    left -= 1
                else:
                    yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _stream(self, given: Given, sample: int) -> Stream:
        """One of the completions; each has the random numbers that it has among several."""
        checked = self.lm._checked(self.options, n=self.n)
        return Stream(lambda: self.lm._read(given.context, name="prompt", **checked.reading), checked, sample)


def finish_reason(completion: Completion | Chunk) -> str | None:
    """As clients know it: an end that leaves the text incomplete is one of length."""
    reason = completion.finish_reason
    return None if reason is None else "stop" if reason in ("stop", "eos") else "length"


def usage(completions: Sequence[Sequence[Completion]]) -> dict[str, int]:
    """Sums over all; of a prompt that was completed several times its tokens once. Bytes that were drawn one
    by one count as tokens."""
    prompt = sum(some[0].usage.prompt_tokens for some in completions)
    new = [completion.usage for some in completions for completion in some]
    tokens = sum(
        one.completion_bytes if one.completion_tokens is None else one.completion_tokens for one in new
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
        "prompt_bytes": sum(some[0].usage.prompt_bytes for some in completions),
        "completion_bytes": sum(one.completion_bytes for one in new),
    }
