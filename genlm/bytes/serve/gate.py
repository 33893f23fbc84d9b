"""What every request passes first, and every answer last: size, host, origin, key; an id and a line of log.

Plain ASGI, outside of everything else, so that it holds for whatever lies inside. The body is read here, to
its bound and within a time, and handed on whole. A page elsewhere can make a browser send a request, without
reading the answer; a browser says from where (`Origin`), and such a request is refused unless that origin
is allowed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import traceback
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlm.bytes.serve.events import to_json
from genlm.bytes.serve.failures import GOING_DOWN, ClientGone, Refusal, refusal_of
from genlm.bytes.serve.metrics import Metrics
from genlm.bytes.serve.settings import Settings

__all__ = ["Gate", "answered", "log_failure", "request_id"]

logger = logging.getLogger("genlm.bytes.serve")

OPEN = ("/", "/health")
"""Asked without a key; so are the page's own files. The page sends the key that it is told."""
BODY_SECONDS = 30.0
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def answered(refusal: Refusal) -> Response:
    """A refusal as an answer."""
    return Response(to_json(refusal.document), refusal.status, refusal.headers, "application/json")


class Gate:
    """See the module."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._settings, self._metrics, self._paths = app, settings, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passing = _Passing(scope, send)
        body = b""
        try:
            self._check(Headers(scope=scope), scope["path"])
            body = await _read(Headers(scope=scope), receive, self._settings.max_body)
            await self._app(_as_json(scope), _replayed(body, receive), passing.send)
        except (ClientGone, OSError):
            passing.status = passing.status or 499
        except asyncio.CancelledError:  # the server ends, and this has had its time
            if not passing.status:
                await answered(GOING_DOWN)(scope, receive, passing.send)
            raise
        except Exception as error:
            if not isinstance(error, Refusal):
                log_failure(passing.id, error)
            if not passing.status:
                await answered(refusal_of(error, passing.id))(scope, receive, passing.send)
        finally:
            self._note(passing, scope, body)

    def _check(self, headers: Headers, path: str) -> None:
        settings = self._settings
        host = headers.get("host", "")
        if settings.hosts and _name(host) not in settings.hosts:
            raise Refusal(
                403, "this server is not asked for under that name (see --allow-host).", code="host"
            )
        origin = headers.get("origin")
        if origin is not None and not ({origin, "*"} & set(settings.origins)):
            if urlsplit(origin).netloc != host:
                raise Refusal(403, "pages of other origins are not served here (see --cors).", code="origin")
        if settings.keys and path not in OPEN and not path.startswith("/page/"):
            kind, _, key = headers.get("authorization", "").partition(" ")
            key = key.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
            if not settings.keys.allow(key):
                raise Refusal(401, "a key is needed: Authorization: Bearer KEY.", code="invalid_api_key")

    def _note(self, passing: _Passing, scope: Scope, body: bytes) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        took = time.monotonic() - passing.begun
        self._metrics.requests.labels(path, str(passing.status)).inc()
        self._metrics.seconds.labels(path).observe(took)
        texts = body.decode("utf-8", "replace") if self._settings.log_texts else ""
        logger.info(
            "%s %s %s %d, %d bytes in, %d out, %.0f ms%s",
            passing.id, scope["method"], path, passing.status, len(body), passing.sent, 1000 * took,
            f" {texts!r}" if texts else "",
        )  # fmt: skip


class _Passing:
    """One request on its way: adds headers to its answer, and counts."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.id = f"req_{secrets.token_hex(8)}"
        self.status, self.sent, self.begun = 0, 0, time.monotonic()
        self._send = send
        scope["request_id"] = self.id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            for name, value in SECURITY.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)


async def _read(headers: Headers, receive: Receive, most: int) -> bytes:
    """The body, if it is not too large, and comes within a time."""
    said = headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > most:
                    raise _too_large(most)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {BODY_SECONDS:g} s.") from None


def _as_json(scope: Scope) -> Scope:
    """A body is JSON, whatever a client calls it: `curl -d` says that it is a form."""
    others = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"a body may have at most {most:,} bytes here.", code="too_large")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body at once, then what else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


def _name(host: str) -> str:
    """A host without its port."""
    return (host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host).strip("[]").lower()


def log_failure(request_id: str, error: Exception) -> None:
    """Where something failed; not what it said, which may be somebody's text."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames[-6:]))
    logger.error("%s failed: %s at %s", request_id, type(error).__name__, where)


def request_id(request: Request) -> str:
    """The id of a request that has passed."""
    return str(request.scope.get("request_id", "req_0"))
