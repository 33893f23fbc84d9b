"""One server: its models, its limits, its counts; and how the work of a request is run in it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response

from genlm.bytes.serve.admission import Admission, Deadline, while_wanted
from genlm.bytes.serve.catalog import Catalog
from genlm.bytes.serve.events import EventStream, stream_of, to_json
from genlm.bytes.serve.failures import refusal_of
from genlm.bytes.serve.gate import request_id
from genlm.bytes.serve.metrics import Metrics
from genlm.bytes.serve.settings import Settings

__all__ = ["Server", "answer", "server_of"]

T = TypeVar("T")


class Server:
    """See the module."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self.catalog, self.settings = catalog, settings
        self.admission = Admission(settings)
        self.metrics = Metrics(catalog, self.admission)

    async def run(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """The result of some work, once there is a place for it, while it is wanted and there is time."""

        async def placed() -> T:
            async with self.admission.place():
                return await work

        try:
            return await while_wanted(placed(), request, Deadline(self.settings.timeout))
        finally:
            work.close()  # it may never have had a place

    async def stream(
        self, request: Request, documents: AsyncIterator[dict[str, Any]], done: bool = True
    ) -> EventStream:
        """The same for documents as they come."""
        begun = time.monotonic()

        async def placed() -> AsyncIterator[dict[str, Any]]:
            first = True
            async with aclosing(cast(Any, documents)), self.admission.place():
                async for document in documents:
                    if first:
                        self.metrics.first.observe(time.monotonic() - begun)
                        first = False
                    yield document

        refusal = partial(refusal_of, request_id=request_id(request), path=request.url.path)
        return await stream_of(placed(), request, Deadline(self.settings.timeout), refusal, done)


def server_of(request: Request) -> Server:
    """The server that a request has come to."""
    return cast(Server, request.app.state.server)


def answer(document: Any) -> Response:
    """A document as an answer."""
    return Response(to_json(document), media_type="application/json")
