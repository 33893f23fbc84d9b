"""Answers as they come: server-sent events, whose work ends with the connection."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from genlm.bytes.serve.admission import Deadline, while_wanted
from genlm.bytes.serve.failures import GOING_DOWN, ClientGone, Refusal

__all__ = ["EventStream", "stream_of", "to_json"]

Documents = AsyncIterator[dict[str, Any]]
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def to_json(document: Any) -> bytes:
    """A document on the wire. JSON has neither NaN nor infinities: what is not known or infinite is null.

    Any figure of the library may be one of them, and an answer with a gap is worth more than none at all.

    Examples:
        >>> to_json({"logprob": float("-inf"), "of": [0.5, float("nan")]})
        b'{"logprob":null,"of":[0.5,null]}'
    """
    try:
        text = _dumps(document)
    except ValueError:  # looked for only where there is one: most documents have none, and may be long
        text = _dumps(_with_nulls(document))
    return text.encode("utf-8", "backslashreplace")


def _dumps(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _with_nulls(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _with_nulls(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_with_nulls(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


async def stream_of(
    documents: Documents,
    request: Request,
    deadline: Deadline,
    refusal: Callable[[Exception], Refusal],
    done: bool = True,
) -> EventStream:
    """The answer that sends some documents. What fails before the first is an error as any other.

    Args:
        refusal: what is said of an error that comes later.
        done: whether the last event is `[DONE]`.
    """
    try:
        first = await while_wanted(_next(documents), request, deadline)
    except BaseException:
        await documents.aclose()  # type: ignore[attr-defined]
        raise
    return EventStream(first, documents, deadline, refusal, done)


async def _next(documents: Documents) -> dict[str, Any]:
    return await anext(documents)


class EventStream(Response):
    """Sends documents as they come, and ends their making when the client has gone."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: dict[str, Any],
        documents: Documents,
        deadline: Deadline,
        refusal: Callable[[Exception], Refusal],
        done: bool,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._first, self._documents, self._done = first, documents, done
        self._deadline, self._refusal = deadline, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._documents):  # type: ignore[type-var]
            try:
                await while_wanted(self._send_all(send), Request(scope, receive), self._deadline)
            except Refusal as late:  # the time is up: what has been sent stands
                await _within_a_moment(self._end(send, late.document))
            except (ClientGone, OSError):
                pass
            except asyncio.CancelledError:
                await _within_a_moment(self._end(send, GOING_DOWN.document))
                raise

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await _event(send, self._first)
            async for document in self._documents:
                await _event(send, document)
        except (ClientGone, OSError):
            raise
        except Exception as error:
            await self._end(send, self._refusal(error).document)
            return
        await self._end(send, None)

    async def _end(self, send: Send, document: dict[str, Any] | None) -> None:
        if document is not None:
            await _event(send, document)
        elif self._done:
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _within_a_moment(work: Awaitable[None]) -> None:
    """A last word to a client that may not be listening."""
    try:
        await asyncio.wait_for(work, 1.0)
    except (TimeoutError, OSError):
        pass


async def _event(send: Send, document: dict[str, Any]) -> None:
    body = b"data: " + to_json(document) + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": True})
