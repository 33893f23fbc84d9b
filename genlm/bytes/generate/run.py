"""From a beam after a prompt to a completion, a stream, or several."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genlm.bytes.byte_lm.context_limits import depth
from genlm.bytes.byte_lm.speculation import side_by_side
from genlm.bytes.errors import GenlmBytesError
from genlm.bytes.generate.bytewise import ByteDecoder
from genlm.bytes.generate.completion import Chunk, Completion, Drawn, Usage
from genlm.bytes.generate.output import Output, to_text
from genlm.bytes.generate.tokenwise import TokenDecoder
from genlm.bytes.options import Options
from genlm.bytes.util.gather import gather

__all__ = ["Finish", "Read", "Stream", "complete", "completion_of"]


@dataclass(frozen=True)
class Read:
    """A prompt that has been read.

    Attributes:
        beam: the beam after it.
        text: all of its bytes, special tokens spelled out.
        stops: what ends a completion of it besides the user's stop strings.
    """

    beam: Any
    text: bytes
    stops: tuple[bytes, ...] = ()


Finish = Callable[[Read, Completion], Awaitable[Completion]]
"""What is still to be found out of a completion once it has ended."""


class Stream:
    """One completion as it comes: an asynchronous iterator of `Chunk`s, which can be read once.

    Args:
        read: the prompt; or a function that reads it, called when the first chunk is asked for.
        options: what was asked.
        sample: which of several completions of the prompt this is; decides its random numbers.
        finish: see `Finish`.

    Attributes:
        completion: the whole, once the last chunk has been given.
    """

    def __init__(
        self,
        read: Read | Callable[[], Awaitable[Read]],
        options: Options,
        sample: int = 0,
        finish: Finish | None = None,
    ) -> None:
        self._read = read
        self._finish = finish
        self._options = options
        self._rng = random_numbers(options.seed, sample)
        self._begun = False
        self.completion: Completion | None = None

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        if self._begun:
            raise GenlmBytesError("a stream can be read once: ask for another, or look at its `completion`.")
        self._begun = True
        read, options = self._read, self._options
        if not isinstance(read, Read):
            read = await read()
        kind: type[ByteDecoder | TokenDecoder] = ByteDecoder if options.by_byte else TokenDecoder
        decoder = kind(read.beam, read.text, options, self._rng)
        output = Output(read.text, options, read.stops)
        shown = 0
        while output.reason is None:
            chunk = output.add(await decoder.step(), decoder.tokens)
            if output.reason is not None:
                self.completion = await self._finished(read, decoder, output)
            if chunk is not None:
                begin, shown = shown, shown + len(chunk.bytes)
                drawn = decoder.drawn(begin, shown, output.reason is not None)
                yield replace(chunk, **vars(drawn))

    async def _finished(self, read: Read, decoder: ByteDecoder | TokenDecoder, output: Output) -> Completion:
        length = len(output.text)
        found = completion_of(
            read,
            self._options,
            output,
            await decoder.logprob(length),
            decoder.drawn(0, length, True),
            decoder.end_logprob,
            decoder.prompt_token_ids,
        )
        return found if self._finish is None else await self._finish(read, found)

    async def collect(self) -> Completion:
        """The completion, without the pieces."""
        async for _ in self:
            pass
        assert self.completion is not None
        return self.completion


def random_numbers(seed: int | None, sample: int) -> np.random.Generator:
    """The random numbers of one completion: those of no other, whatever runs at the same time."""
    return np.random.default_rng(None if seed is None else [seed, sample])


async def complete(read: Read, options: Options) -> list[Completion]:
    """`n` completions of one prompt; the likeliest of `best_of` by log-probability a byte."""
    with side_by_side(options.count):
        found = await gather(Stream(read, options, i).collect() for i in range(options.count))
    if options.count > options.n:
        found = sorted(found, key=lambda c: -c.logprob / max(1, c.usage.completion_bytes))
    return list(found[: options.n])


def completion_of(
    read: Read,
    options: Options,
    output: Output,
    logprob: float,
    drawn: Drawn,
    end_logprob: float | None,
    prompt_token_ids: tuple[int, ...] | None = None,
) -> Completion:
    """What has come out, as it is given back."""
    assert output.reason is not None
    new = bytes(output.text)
    text = to_text(read.text, new)
    states = read.beam.states
    usage = Usage(len(read.text), depth(states[0].lm_state) if states else 0, len(new), output.tokens)
    if options.echo:
        text = (read.text + new).decode("utf-8", "replace")
    return Completion(
        text=text,
        bytes=read.text + new if options.echo else new,
        logprob=logprob,
        finish_reason=output.reason,
        usage=usage,
        stop=output.stop,
        end_logprob=end_logprob,
        prompt_token_ids=prompt_token_ids,
        **vars(drawn),
    )
