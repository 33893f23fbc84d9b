"""The far end of a benchmark: a process that runs named cases when asked.

A worker script runs unchanged under each side's interpreter, so it imports what both sides have and
nothing of the other benchmark modules; this file needs the standard library only. Such a script defines
cases and ends in `serve()`:

    @case
    def build(clock, vocabulary):
        spellings = load(vocabulary)    # untimed
        with clock:                     # timed, once or as often as wanted
            trie = TokenByteTrie(spellings)
        return {"nodes": len(trie)}     # facts, anything that JSON can hold

Requests and replies are lines of JSON. The real standard output is kept for replies; whatever a library
prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["Clock", "case", "serve"]

PACKAGES = ("genlm-bytes", "genlm-backend", "torch", "numpy", "numba", "transformers")

_cases: dict[str, Callable[..., Any]] = {}


class Clock:
    """Seconds spent in each `with clock:` block, and seconds of this process on all cores in the same."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self._start[0])
        self.cpu.append(time.process_time() - self._start[1])


def case(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register `function(clock, **arguments)` under its own name."""
    _cases[function.__name__] = function
    return function


@case
def versions(clock: Clock) -> dict[str, str]:
    """What this side runs on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def serve() -> None:
    """Answer requests from standard input until it closes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        clock = Clock()
        try:
            facts = _cases[request["case"]](clock, **request["arguments"])
            reply = {"seconds": clock.seconds, "cpu": clock.cpu, "facts": facts or {}}
        except Exception:
            reply = {"error": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
