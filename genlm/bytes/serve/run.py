"""Running a server: uvicorn, with logs of our own, that says where to look and ends in good order."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from genlm.bytes.errors import GenlmBytesError, bad_value
from genlm.bytes.serve.app import create_app
from genlm.bytes.serve.catalog import Catalog
from genlm.bytes.serve.protocol import Protocol
from genlm.bytes.serve.settings import Settings

__all__ = ["LOOPBACK", "is_loopback", "serve"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
BACKLOG = 512
IDLE_SECONDS = 30
"""After which a connection on which nothing is asked is closed."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask there."""
    return host in LOOPBACK or host.startswith("127.")


def serve(
    catalog: Catalog,
    settings: Settings,
    load: Callable[..., Any] | None,
    *,
    host: str,
    port: int,
    grace: int,
    say: Callable[[str], None],
) -> None:
    """Serve until a signal (SIGINT, SIGTERM) ends it. What runs then has `grace` seconds to finish, and is
    cancelled after that.

    Args:
        load: see `create_app`.
        say: told where the server can be asked, once it can.

    Raises:
        ValueError: nothing can listen there.
        GenlmBytesError: a model could not be loaded.
    """
    listening = _listen(host, port)
    number = listening.getsockname()[1]
    failures: list[Exception] = []

    def failed(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(catalog, settings, load, failed)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=grace,
        http=Protocol,
        ws="none",
        h11_max_incomplete_event_size=1 << 16,
    )
    server = uvicorn.Server(config)
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host in ("0.0.0.0", "") else host
    say(f"http://{shown}:{number}")
    # Uvicorn's own errors have tracebacks with what a request held; ours are in the log already.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    with listening:
        server.run([listening])
    if failures:
        error = failures[0]
        raise (
            error
            if isinstance(error, GenlmBytesError | OSError | MemoryError)
            else GenlmBytesError(f"a model could not be loaded: {type(error).__name__}: {error}")
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    """A socket there."""
    if not 0 <= port < 1 << 16:
        raise bad_value("port", port, "must be between 0 and 65535")
    try:
        family, *_, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)  # who is told where to ask may ask at once
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise bad_value("port", f"{host}:{port}", f"cannot be listened on: {error.strerror}") from None
    return made
