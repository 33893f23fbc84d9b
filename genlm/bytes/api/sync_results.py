"""What the plain methods give back where the coroutines give something that has to be awaited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from genlm.bytes.api.loop import run
from genlm.bytes.generate.completion import Chunk, Completion
from genlm.bytes.generate.next_bytes import AsyncNextBytes
from genlm.bytes.generate.run import Stream
from genlm.bytes.util import Chart, LazyByteProbs

__all__ = ["NextBytes", "SyncStream"]


class NextBytes(LazyByteProbs):
    """Natural log-probabilities of the next byte, of the end, and on demand of the next character.

    Attributes:
        beam: the beam after the context.
        slack: how far off they may be in total variation, as expected and at most; see `LazyByteProbs`.
    """

    def __init__(self, later: AsyncNextBytes) -> None:
        super().__init__(later.ps, later.log_space, units=later.units, slack=later.slack)
        self.beam, self._later = later.beam, later

    def chars(self, top: int | None = 20) -> Chart:
        """Natural log-probabilities of the next whole character, likeliest first; `"EOS"` is the end.

        Args:
            top: how many; None for all. See `AsyncNextBytes.chars` for what they cost.
        """
        return run(self._later.chars(top))


class SyncStream:
    """One completion as it comes, in `Chunk`s. Closing it, or leaving its `with`, stops the work."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pieces = stream.__aiter__()

    @property
    def completion(self) -> Completion | None:
        """The whole, once the last chunk has been given."""
        return self._stream.completion

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        chunk = run(self._next())
        if chunk is None:
            raise StopIteration
        return chunk

    async def _next(self) -> Chunk | None:
        return await anext(self._pieces, None)

    def close(self) -> None:
        """Stop; nothing more is given."""
        run(self._pieces.aclose())  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
