"""The new bytes of one completion as they come: where they stop, and what may already be shown."""

from __future__ import annotations

import codecs

from genlm.bytes.generate.bytewise import Step
from genlm.bytes.generate.completion import Chunk, FinishReason
from genlm.bytes.generate.stops import StopFinder
from genlm.bytes.options import Options
from genlm.bytes.util import utf8

__all__ = ["Output", "to_text"]


class Output:
    """Collects steps until one ends the completion.

    Args:
        prompt: the bytes before; a character that they leave unfinished is given whole in `text`.

    Attributes:
        reason: why the completion has ended; None while it goes on.
        stop: the stop string that was met.
        text: the new bytes; without the stop string once the completion has ended.
        tokens: how many tokens with new bytes it has, if tokens are counted.
    """

    def __init__(self, prompt: bytes, options: Options, stops: tuple[bytes, ...] = ()) -> None:
        self.text = bytearray()
        self.reason: FinishReason | None = None
        self.stop: bytes | None = None
        self.tokens: int | None = None
        self._finder = StopFinder((*options.stop, *stops))
        self._max_bytes = options.max_bytes
        self._max_tokens = options.max_tokens
        self._shown = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder.decode(utf8.unfinished(prompt))

    def add(self, step: Step, tokens: int | None) -> Chunk | None:
        """Take one step of a decoder; what can be shown now, if anything. The last chunk has a reason."""
        since, self.tokens = len(self.text), tokens
        self.text += step.text
        if self._max_bytes is not None and len(self.text) >= self._max_bytes:
            del self.text[self._max_bytes :]
            self.reason = "length"
        found = self._finder.feed(self.text[since:])
        if found is not None:
            self.reason, self.stop = "stop", bytes(self.text[found.start : found.end])
            del self.text[found.start :]
        elif step.end is not None:
            self.reason = step.end
        elif self._max_tokens is not None and tokens is not None and tokens >= self._max_tokens:
            self.reason = "length"
        return self._show()

    def _show(self) -> Chunk | None:
        until = len(self.text) - (0 if self.reason else self._finder.held)
        if until <= self._shown and not self.reason:
            return None
        piece = bytes(self.text[self._shown : until])
        self._shown = until
        return Chunk(self._decoder.decode(piece), piece, self.reason)


def to_text(prompt: bytes, new: bytes) -> str:
    """New bytes as text: with the bytes of a character that the prompt began, without one unfinished.

    Examples:
        >>> to_text(b"caf\\xc3", b"\\xa9 \\xe2\\x82")
        'é '
    """
    return codecs.getincrementaldecoder("utf-8")("replace").decode(utf8.unfinished(prompt) + new)
