"""A server that is told to end: what runs has its time, and is told when that is up."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from served import GatedToy

from genlm.bytes import AsyncByteLM
from genlm.bytes.serve import Catalog, Settings, serve
from genlm.bytes.serve.memory import give_back, trimmer

BODY = {"prompt": "ab", "max_bytes": 3, "temperature": 0}


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Signals that would have ended this process after the server."""
    found: list[int] = []
    handlers = {
        one: signal.signal(one, lambda number, _: found.append(number))
        for one in (signal.SIGTERM, signal.SIGINT)
    }
    yield found
    for one, handler in handlers.items():
        signal.signal(one, handler)


def ended(llm: GatedToy, grace: int, ask: Callable[[str, Callable[[], None]], Any], number: int) -> Any:
    """What a client gets that asks, and has the server told to end meanwhile."""
    found: list[Any] = []

    def client(where: str) -> None:
        found.append(ask(where, lambda: os.kill(os.getpid(), number)))

    asking: list[threading.Thread] = []

    def say(where: str) -> None:
        asking.append(threading.Thread(target=client, args=[where]))
        asking[0].start()

    catalog = Catalog(ready={"tiny": AsyncByteLM(llm)})
    serve(catalog, Settings(), None, host="127.0.0.1", port=0, grace=grace, say=say)
    asking[0].join(60)
    return found[0]


class Telling(GatedToy):
    """Tells when it is asked, and goes on when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> Any:
        self.loop = asyncio.get_running_loop()
        self.reached.set()
        return await super().next_token_logprobs(token_ids)

    def let_go(self) -> None:
        self.loop.call_soon_threadsafe(self.gate.set)


class Held(Telling):
    """Never goes on."""

    def let_go(self) -> None:
        pass


def asked_and_ended(llm: Telling) -> Callable[[str, Callable[[], None]], Any]:
    """Asks; once the model works, tells the server to end; once it takes nobody any more, tells it again."""

    def ask(where: str, end: Callable[[], None]) -> Any:
        def ending() -> None:
            llm.reached.wait(60)
            end()
            while taken(where):
                pass
            end()
            llm.let_go()

        other = threading.Thread(target=ending)
        other.start()
        found = httpx2.post(f"{where}/v1/completions", json=BODY, timeout=60)
        other.join()
        return found

    return ask


def taken(where: str) -> bool:
    """Whether somebody can connect."""
    host, _, port = where.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=60).close()
    except OSError:
        return False
    return True


def test_what_runs_is_finished(signals: list[int]) -> None:
    found = ended(llm := Telling(), 30, asked_and_ended(llm), signal.SIGTERM)
    assert found.status_code == 200 and found.json()["choices"][0]["text"]
    assert set(signals) == {signal.SIGTERM}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_takes_longer_is_cancelled_and_told(signals: list[int], number: int) -> None:
    found = ended(llm := Held(), 0, asked_and_ended(llm), number)
    assert (found.status_code, found.json()["error"]["code"]) == (503, "going_down")
    assert found.headers["retry-after"] and llm.cancelled == 1


def test_a_stream_is_told_in_its_last_event(signals: list[int]) -> None:
    def ask(where: str, end: Callable[[], None]) -> Any:
        with httpx2.stream(
            "POST", f"{where}/v1/completions", json={**BODY, "stream": True}, timeout=60
        ) as said:
            lines = said.iter_lines()
            first = next(lines)
            end()
            return [first, *lines]

    class Once(GatedToy):
        """Writes one byte, and is held then."""

        async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> Any:
            (self.gate.set if len(token_ids) < 4 else self.gate.clear)()
            return await super().next_token_logprobs(token_ids)

    lines = [line.removeprefix("data: ") for line in ended(Once(), 0, ask, signal.SIGTERM) if line]
    assert len(lines) >= 2 and json.loads(lines[0])["choices"][0]["text"]
    assert json.loads(lines[-1])["error"]["code"] == "going_down"


async def test_freed_memory_is_given_back_until_the_end():
    trims: list[int] = []
    often = asyncio.Event()

    def trim(kept: int) -> None:
        trims.append(kept)
        if len(trims) == 3:
            loop.call_soon_threadsafe(often.set)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(give_back(trim, 0.0))
    await often.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(trims) == {0}
    await give_back(None)  # another C library: there is nothing to do


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_gives_back():
    trim = trimmer()
    assert trim is not None and trim(0) in (0, 1)
