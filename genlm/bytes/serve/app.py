"""The application: its routes inside the gate, and what is said of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from genlm.bytes.errors import GenlmBytesError
from genlm.bytes.serve import about, chat, completions, infill, page, questions
from genlm.bytes.serve.catalog import Catalog
from genlm.bytes.serve.failures import ClientGone, Refusal, invalid, refusal_of
from genlm.bytes.serve.gate import Gate, answered, log_failure, request_id
from genlm.bytes.serve.memory import give_back, trimmer
from genlm.bytes.serve.server import Server
from genlm.bytes.serve.settings import Settings

__all__ = ["create_app"]

ROUTERS = (about.router, completions.router, chat.router, questions.router, infill.router, page.router)


def create_app(
    catalog: Catalog,
    settings: Settings | None = None,
    load: Callable[..., Any] | None = None,
    failed: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """An ASGI application, for uvicorn or for one's own.

    Args:
        catalog: the models.
        settings: limits.
        load: loads a model by its path, in a thread, once the server runs; None where all are loaded.
        failed: told of a model that could not be loaded.
    """
    settings = Settings() if settings is None else settings
    server = Server(catalog, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(give_back(trimmer()))]
        if load is not None:
            tasks.append(asyncio.create_task(_load(catalog, load, failed)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await catalog.close()

    version = "unknown"  # run from its source
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version("genlm-bytes")
    app = FastAPI(title="GenLM Bytes", version=version, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.server = server
    for router in ROUTERS:
        app.include_router(router)
    for kind in (Refusal, GenlmBytesError, RequestValidationError, HTTPException, ClientGone, RecursionError):
        app.add_exception_handler(kind, _say)
    app.add_middleware(Gate, settings=settings, metrics=server.metrics, paths=_paths())
    if settings.origins:  # around the gate, so that its refusals can be read, too
        allowed: dict[str, Any] = {"allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        app.add_middleware(CORSMiddleware, allow_origins=list(settings.origins), **allowed)
    return app


def _paths() -> frozenset[str]:
    """The paths that are counted by name."""
    return frozenset(getattr(route, "path", "") for router in ROUTERS for route in router.routes)


async def _load(
    catalog: Catalog, load: Callable[..., Any], failed: Callable[[Exception], None] | None
) -> None:
    try:
        await catalog.load(load)
    except Exception as error:
        if failed is None:
            raise
        failed(error)


async def _say(request: Request, error: Exception) -> Response:
    """An error as an answer."""
    if isinstance(error, ClientGone):
        return Response(status_code=499)
    if isinstance(error, RequestValidationError):
        error = _invalid(error)
    elif isinstance(error, HTTPException):
        error = Refusal(error.status_code, str(error.detail))
    elif isinstance(error, RecursionError):
        error = invalid(None, "the body is nested too deeply.")
    refusal = refusal_of(error, request_id(request), request.url.path)
    if refusal.status >= 500 and not isinstance(error, Refusal):
        log_failure(request_id(request), error)
    return answered(refusal)


def _named(part: str) -> str:
    """A field inside another; of one that may be several things, the kinds are no places."""
    return f".{part}" if part.isidentifier() and part not in ("str", "int", "bool", "float") else ""


def _bare(place: list[Any]) -> list[Any]:
    """A place without the kinds."""
    return [part for part in place if isinstance(part, int) or _named(part)]


def _invalid(error: RequestValidationError) -> Refusal:
    """The first thing that is wrong with a body."""
    found = [(list(one.get("loc", ()))[1:], one) for one in error.errors()]
    # Of a field that may be several things, what comes closest; and what else might be there.
    ours = [(place, one) for place, one in found if place[:1] == found[0][0][:1]]
    place, first = max(ours, key=lambda pair: len(pair[0]))
    deep = max(map(len, (_bare(place) for place, _ in ours)))
    said = dict.fromkeys(one.get("msg", "is not valid") for place, one in ours if len(_bare(place)) == deep)
    either, *others = said
    message = ", or ".join([either, *(other.removeprefix("Input should be ") for other in others)])
    if first.get("type") == "json_invalid":
        return invalid(None, "the body must be JSON.")
    if not place:
        return invalid(None, "the body must be a JSON object.")
    name = str(place[0])
    inner = "".join(f"[{part}]" if isinstance(part, int) else _named(part) for part in place[1:])
    return invalid(name, f"`{name}{inner}`: {message}.")
