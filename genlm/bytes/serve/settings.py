"""What a server allows: how much at once, how long, how large, and whom."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from genlm.bytes.errors import bad_value
from genlm.bytes.options import number
from genlm.bytes.resumable import saying
from genlm.bytes.util.numbers import whole_number

__all__ = ["KEY_VARIABLE", "Keys", "Settings", "read_keys"]

ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\sA-Z]+")
KEY_VARIABLE = "GENLM_BYTES_API_KEY"
"""The environment variable that holds a key."""


class Keys:
    """Keys, of which digests are kept. Whether one is among them takes as long for every wrong one."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, key: str) -> bool:
        """Whether this is one of the keys; any is, where there are none."""
        given = _digest(key)
        found = not self._digests
        for digest in self._digests:  # to the last, whichever it is
            found |= hmac.compare_digest(given, digest)
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(path: Path | None) -> list[str]:
    """The keys of a file, one a line, and that of the environment variable `GENLM_BYTES_API_KEY`.

    Raises:
        ValueError: the file cannot be read, or has no key in it.
    """
    keys = [key] if (key := os.environ.get(KEY_VARIABLE, "").strip()) else []
    if path is not None:
        with saying("cannot be read", lambda rule, _: bad_value("api_key", str(path), rule)):
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise bad_value("api_key", str(path), "the file must have a key, one a line")
        keys += found
    return keys


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Args:
        max_concurrent: requests that are worked at the same time; others wait.
        max_queue: requests that may wait; one more is refused with 429.
        timeout: seconds that a request may take, waiting included.
        max_body: bytes of a request's body; more is refused with 413.
        max_prompt: bytes of a prompt, or of a text to be scored; more is refused with 400.
        max_choices: completions that one request may ask for, over all of its prompts.
        keys: keys of which a request must have one; with none anybody is served.
        origins: origins of pages elsewhere that may ask (CORS); `*` for all.
        hosts: names under which the server is asked for; with none any. Where a server listens on
            loopback only, this keeps pages elsewhere from reaching it by a name that resolves to it.
        log_texts: whether prompts are logged, not only their sizes.

    Raises:
        ValueError: a limit that is none.
    """

    max_concurrent: int = 16
    max_queue: int = 64
    timeout: float = 120.0
    max_body: int = 1 << 20
    max_prompt: int = 1 << 16
    max_choices: int = 128
    keys: Keys = field(default_factory=Keys)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    log_texts: bool = False

    def __post_init__(self) -> None:
        for name in ("max_concurrent", "max_body", "max_prompt", "max_choices"):
            if whole_number(name, getattr(self, name), 1) is None:
                raise bad_value(name, None, "must be a number")
        whole_number("max_queue", self.max_queue, 0)
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin):
                rule = (
                    "must be an origin as browsers send it: a scheme, a host in small letters, a port if any"
                )
                raise bad_value("origins", origin, rule, "Pass e.g. https://example.org, or * for all.")
        if not number("timeout", self.timeout, above=True):
            raise bad_value("timeout", self.timeout, "must be a number of seconds above 0")
