"""A server in this process, on small models: what the tests of it share."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest
import torch
import uvicorn
from toy import ToyLM

from genlm.bytes import AsyncByteLM
from genlm.bytes.serve import Catalog, Settings, create_app
from genlm.bytes.serve.protocol import Protocol

BYTES = [bytes([b]) for b in range(256)]


class GatedToy(ToyLM):
    """A model of single bytes whose forwards wait for a gate."""

    def __init__(self, **options: Any) -> None:
        super().__init__([*BYTES, b"<e>"], eos=256, **options)
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.cancelled = 0

    async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> torch.Tensor:
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().next_token_logprobs(token_ids)


def app_of(llm: Any, **settings: Any) -> Any:
    """The application over one model, `tiny`."""
    return create_app(Catalog(ready={"tiny": AsyncByteLM(llm)}), Settings(**settings))


@contextmanager
def asking(app: Any, **options: Any) -> Iterator[httpx2.AsyncClient]:
    """An HTTP client of an application, without a socket."""
    transport = httpx2.ASGITransport(app)
    yield httpx2.AsyncClient(transport=transport, base_url="http://localhost", **options)


def openai_client(app: Any, key: str = "none", retries: int = 0) -> openai.AsyncOpenAI:
    """The `openai` package's client of an application."""
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    return openai.AsyncOpenAI(
        api_key=key, base_url="http://localhost/v1", http_client=http, max_retries=retries
    )


Send = Callable[[dict[str, Any]], Awaitable[None]]


class Call:
    """One request by hand, to be hung up at any moment."""

    def __init__(self, app: Any, path: str, body: Any, send: Send | None = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self._left = asyncio.Event()
        self._given = False
        self._send = send
        self._body = json.dumps(body).encode()
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
            "query_string": b"", "headers": headers, "client": ("test", 1), "server": ("localhost", 80),
        }  # fmt: skip
        self.task = asyncio.create_task(app(scope, self._receive, self._sent))

    async def _receive(self) -> dict[str, Any]:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _sent(self, message: dict[str, Any]) -> None:
        if self._send is not None:
            await self._send(message)
        self.messages.append(message)

    def hang_up(self) -> None:
        self._left.set()

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.messages if m["type"] == "http.response.start"), None)

    @property
    def document(self) -> Any:
        return json.loads(b"".join(m.get("body", b"") for m in self.messages))


async def events(response: httpx2.Response) -> AsyncIterator[Any]:
    """The documents of a stream of events."""
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


@contextmanager
def on_a_port(app: Any) -> Iterator[str]:
    """An application on a loopback port, in a thread: for clients that know nothing but sockets."""
    config = uvicorn.Config(app, port=0, http=Protocol, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def said(*given: Any, **named: Any) -> None:
        await startup(*given, **named)
        started.set()

    server.startup = said  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        if not started.wait(60):
            pytest.fail("the server does not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
