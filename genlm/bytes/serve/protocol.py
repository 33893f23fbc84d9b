"""HTTP/1.1 as uvicorn speaks it, with a time for what a client may leave undone.

A connection on which no request begins, or whose head does not end, would stay open for good; and so would
one whose client reads nothing of its answer, with all that the answer holds. A few hundred of them, and a
server has no files left. Timers belong to the connection, so that they hold wherever a request is.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from genlm.bytes.serve.events import to_json
from genlm.bytes.serve.failures import Refusal

__all__ = ["HEAD_SECONDS", "READING_SECONDS", "Protocol"]

HEAD_SECONDS = 30.0
"""Within which a connection's first request, or one that has begun, must have all of its head."""
READING_SECONDS = 60.0
"""After which a client is gone that reads nothing of what is written to it."""
LINGER_SECONDS = 5.0
"""For which the rest of a body is read, and dropped, whose request has been answered already."""
BROKEN = Refusal(400, "this is no HTTP request, or its head has more than 64 KiB.", code="bad_request")
LATE = Refusal(408, f"the head of a request did not come within {HEAD_SECONDS:g} s.", code="timeout")


class Protocol(H11Protocol):
    """See the module."""

    _head: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: its head is waited for."""
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        """Something came: the rest of a head, or the beginning of the next."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            _stop(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was sent away."""
        _stop(self._head)
        _stop(self._reading)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._reading = self.loop.call_later(READING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        _stop(self._reading)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while. What a client has not read by now is not waited for."""
        super().timeout_keep_alive_handler()
        self.transport.abort()

    def on_response_complete(self) -> None:
        """An answer has been given. Its client may still be sending, and must be able to read why."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self.loop.call_later(LINGER_SECONDS, self._still_sending, self.cycle)

    def _still_sending(self, cycle: object) -> None:
        if self.cycle is cycle and self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What came is no request."""
        self._refuse(BROKEN)

    def _head_is_late(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(LATE)

    def _refuse(self, refusal: Refusal) -> None:
        """Say why, and hang up."""
        body = to_json(refusal.document)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            headers.append(("Connection", "close"))
            reason = HTTPStatus(refusal.status).phrase
            head = h11.Response(status_code=refusal.status, headers=headers, reason=reason)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
