"""An HTTP client that can be rude: it reads slowly, hangs up at any moment, and sends what is no request.

One connection, kept alive; the standard library's event loop and nothing else, so that 64 of them leave the
machine to the server.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "Client"]

READ_AHEAD = 4096
"""Bytes that are read before anybody asks for them: few, so that a slow reader is one."""


@dataclass(frozen=True)
class Answer:
    """An answer as a whole; `seconds` since it was asked for."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def document(self) -> Any:
        """The body, if it is JSON."""
        return json.loads(self.body)


class Client:
    """One connection, opened when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        self._at = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def begin(self, path: str, body: bytes, length: int | None = None) -> None:
        """Send a request.

        Args:
            length: of the body as the head says it, if it is not the true one.
        """
        if self._streams is not None and self._streams[0].at_eof():
            self.hang_up()  # the server has closed a connection on which nothing was asked for a while
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._at, limit=READ_AHEAD)
        _, writer = self._streams
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer."""
        assert self._streams is not None
        lines = (await self._streams[0].readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def pieces(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        """The answer's body as it comes."""
        assert self._streams is not None
        reader, _ = self._streams
        if "content-length" in headers:
            yield await reader.readexactly(int(headers["content-length"]))
        else:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                yield (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        if headers.get("connection") == "close":
            self.hang_up()

    async def ask(self, path: str, body: bytes) -> Answer:
        """Ask and wait for all of the answer."""
        begun = time.perf_counter()
        await self.begin(path, body)
        status, headers = await self.head()
        found = b"".join([piece async for piece in self.pieces(headers)])
        return Answer(status, headers, found, time.perf_counter() - begun)

    def hang_up(self) -> None:
        """Close the connection, whatever is on its way."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
