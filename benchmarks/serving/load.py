"""Clients of all kinds at once: patient, slow and rude; and for each request what became of it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serving.http import Answer, Client
from serving.malformed import malformed
from serving.texts import TOKENS, Alone, Prompts

__all__ = ["Asked", "Load", "body_of"]

WAYS = {"whole": 4, "streamed": 3, "read slowly": 1, "left before the answer": 1, "left in the answer": 1}
"""What clients do, and how often."""
SLOW_SECONDS = 0.2  # between two pieces that a slow reader reads


@dataclass(frozen=True)
class Asked:
    """A request that was answered: what it was, and the text that came."""

    prompt: str
    tokens: int
    text: str


@dataclass
class Load:
    """One load of a server.

    Attributes:
        known: each client's prompt, with its answer.
        ended: how many requests ended how, of each way.
        asked: answers, to be compared.
        seconds: from asking to the whole answer, by way; to the first piece of streams.
        lost: what went wrong, in words.
        sent: requests, of all kinds.
        took: seconds to the last answer.
    """

    host: str
    port: int
    known: list[tuple[str, Alone]]
    prompts: Prompts
    duration: float
    malformed_bodies: int
    ended: Counter[str] = field(default_factory=Counter)
    asked: list[Asked] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    retry_after: list[int] = field(default_factory=list)
    sent: int = 0
    took: float = 0.0

    async def run(self, at: dict[float, Callable[[], None]]) -> None:
        """All clients, until the time is up and what they have asked is answered.

        Args:
            at: what is to be done at which shares of the time.
        """
        self._begun = time.monotonic()
        watching = asyncio.create_task(self._watch(at))
        await asyncio.gather(*(self._client(i, own) for i, (own, _) in enumerate(self.known)))
        await watching
        self.took = time.monotonic() - self._begun

    async def _watch(self, at: dict[float, Callable[[], None]]) -> None:
        for share, act in sorted(at.items()):
            await asyncio.sleep(max(0.0, self._begun + share * self.duration - time.monotonic()))
            await asyncio.to_thread(act)

    @property
    def _gone(self) -> float:
        """The share of the time that is over."""
        return (time.monotonic() - self._begun) / self.duration

    async def _client(self, number: int, own: str) -> None:
        rng = random.Random(number)
        client, rude = (Client(self.host, self.port) for _ in range(2))
        share, sent = -(-self.malformed_bodies // len(self.known)), 0
        while self._gone < 1.0 or sent < share:
            while sent < share * min(1.0, self._gone + 0.02):
                await self._guarded("malformed", self._malformed, rude, rng)
                sent += 1
            if self._gone < 1.0:
                way = rng.choices(list(WAYS), list(WAYS.values()))[0]
                await self._guarded(way, self._one, client, rng, way, own)
            else:
                await asyncio.sleep(0)
        client.hang_up()
        rude.hang_up()

    async def _guarded(self, way: str, work: Any, client: Client, *given: Any) -> None:
        self.sent += 1
        try:
            how = await work(client, *given)
        except (OSError, EOFError, ValueError, KeyError) as error:  # the server has broken it off
            client.hang_up()
            how = "lost"
            self.lost.append(f"{way}: {error!r}")
        self.ended[f"{way}: {how}"] += 1

    async def _one(self, client: Client, rng: random.Random, way: str, own: str) -> str:
        prompt = own if rng.random() < 0.5 else self.prompts.one()
        tokens = rng.randrange(4, TOKENS + 1)
        streamed = way != "whole" and not (way == "left before the answer" and rng.random() < 0.5)
        begun = time.perf_counter()
        await client.begin("/v1/completions", body_of(prompt, tokens, streamed))
        if way == "left before the answer":
            await asyncio.sleep(rng.random() * 0.3)
            client.hang_up()
            return "left"
        status, headers = await client.head()
        if status != 200:
            answer = Answer(status, headers, b"".join([p async for p in client.pieces(headers)]), 0.0)
            return await self._refused(answer)
        pieces = list[bytes]()
        async for piece in client.pieces(headers):
            if not pieces:
                self._took(f"{way}, first piece", begun)
            pieces.append(piece)
            if way == "left in the answer" and rng.random() < 0.3:
                client.hang_up()
                return "left"
            if way == "read slowly":
                await asyncio.sleep(SLOW_SECONDS)
        self._took(way, begun)
        self.asked.append(Asked(prompt, tokens, _text(b"".join(pieces), streamed)))
        return "answered"

    async def _refused(self, answer: Answer) -> str:
        error = answer.document["error"]
        if answer.status != 429:
            self.lost.append(f"{answer.status}: {error['message']}")
            return "lost"
        self.retry_after.append(int(answer.headers["retry-after"]))
        await asyncio.sleep(min(self.retry_after[-1], 5))
        return "429"

    async def _malformed(self, client: Client, rng: random.Random) -> str:
        body = malformed(rng)
        if rng.random() < 0.02:  # half of it, and away
            await client.begin("/v1/completions", body, len(body) + 100)
            client.hang_up()
            return "left"
        answer = await client.ask("/v1/completions", body)
        self.seconds.setdefault("malformed", []).append(answer.seconds)
        error = answer.document["error"]
        shown = answer.body.decode()
        if not 400 <= answer.status < 500 or set(error) != {"message", "type", "param", "code"}:
            self.lost.append(f"malformed {body[:200]!r}: {answer.status} {shown[:200]}")
            return "lost"
        if "Traceback" in shown or ".py" in shown:
            self.lost.append(f"malformed {body[:200]!r} is told {shown[:200]}")
            return "lost"
        return "refused"

    def _took(self, name: str, begun: float) -> None:
        self.seconds.setdefault(name, []).append(time.perf_counter() - begun)


def body_of(prompt: str, tokens: int, stream: bool = False) -> bytes:
    """The body of a request for a greedy completion."""
    asked = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": stream}
    return json.dumps(asked).encode()


def _text(body: bytes, streamed: bool) -> str:
    """The text of an answer."""
    if not streamed:
        return str(json.loads(body)["choices"][0]["text"])
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    if events[-1] != b"[DONE]":
        raise ValueError(f"a stream ends in {events[-1]!r}")
    return "".join(choice["text"] for event in events[:-1] for choice in json.loads(event)["choices"])
