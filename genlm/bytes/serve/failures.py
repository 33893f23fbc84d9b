"""Errors as clients of OpenAI's API expect them: `{"error": {"message", "type", "param", "code"}}`.

What a client is told is what the library says of the client's own arguments. Of anything else it is told an
id, under which the log has more: no path, no traceback, nothing of another request.
"""

from __future__ import annotations

import re
from typing import Any

from genlm.bytes.errors import (
    BudgetExceededError,
    DeadEndError,
    EmptyBeamError,
    GenlmBytesError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    UnsupportedModelError,
)

__all__ = ["GOING_DOWN", "ClientGone", "Refusal", "invalid", "refusal_of", "too_long"]

ARGUMENTS = (
    InvalidValueError,
    InvalidTypeError,
    DeadEndError,
    EmptyBeamError,
    BudgetExceededError,
    UnsupportedModelError,
)
"""Errors that are about what was asked."""
READ = {"/v1/chat/completions": "messages", "/v1/score": "context", "/infill": "input_prefix"}
"""What the model reads, where that is not called `prompt`."""
MOST_SAID = 500
"""Characters of a message: whoever sent a megabyte need not have it back."""
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
KINDS |= {429: "rate_limit_error", 503: "unavailable_error", 504: "timeout_error"}


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: for people.
        param: the field of the request that it is about.
        code: for programs.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        if len(message) > MOST_SAID:
            message = f"{message[: MOST_SAID // 2]} … {message[-MOST_SAID // 2 :]}"
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    @property
    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        if self.status == 504:  # the same again would take as long
            found["x-should-retry"] = "false"
        return found


GOING_DOWN = Refusal(503, "this server is being ended.", code="going_down", retry_after=5)


class ClientGone(Exception):
    """Nobody waits for the answer."""


def invalid(param: str | None, message: str, code: str | None = None) -> Refusal:
    """A request with a field that cannot be honoured."""
    return Refusal(400, message, param, code)


def too_long(param: str, length: int, most: int) -> Refusal:
    """A text beyond the server's bound."""
    return invalid(param, f"`{param}` has {length:,} bytes: this server reads at most {most:,}.", "too_long")


def refusal_of(error: Exception, request_id: str, path: str = "") -> Refusal:
    """What a client is told of an exception."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, MissingDependencyError):
        return Refusal(501, "this server lacks an optional package that the request needs.", code="not_here")
    if isinstance(error, GenlmBytesError) and isinstance(error, ARGUMENTS):
        message = str(error)
        named = re.match(r"`(\w+)", message)
        if named and named[1] == "token_ids":  # so the model calls what it was given
            field = READ.get(path, "prompt")
            rule = re.search(r"this model reads at most [\d,]+ tokens", message)
            message = f"`{field}` cannot be read: {rule[0] if rule else 'the model has no such tokens'}."
            return invalid(field, message, "context_length_exceeded" if rule else None)
        return invalid(named[1] if named else None, message)
    return Refusal(500, f"something went wrong here; the server's log has it under {request_id}.")
