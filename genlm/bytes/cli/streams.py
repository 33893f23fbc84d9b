"""The standard streams, whatever the shell has made of them: closed, full, without a reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

__all__ = ["open_standard_streams", "silence"]


class NotOpen(io.TextIOBase):
    """A standard stream that was closed (`>&-`): what goes there is an error, not lost."""

    encoding = "utf-8"

    @property
    def buffer(self) -> NotOpen:
        return self

    def write(self, text: Any) -> int:
        raise OSError(errno.EBADF, "it is closed")

    def read(self, size: int | None = -1) -> str:
        raise OSError(errno.EBADF, "it is closed", "stdin")

    def __iter__(self) -> Any:
        return self.read()


def open_standard_streams() -> None:
    """Have three streams in their places, that take every character.

    Python has None for a stream that was closed; and the next file that is opened, an output, say, would get
    its number, and everything that libraries write there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w") if name == "stderr" else NotOpen()
            setattr(sys, name, stream)
        if name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # bars and a model's text where it is no UTF-8


def silence(stream: Any) -> None:
    """Let what is still to be written to a stream go nowhere: that it cannot be written has been said."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
