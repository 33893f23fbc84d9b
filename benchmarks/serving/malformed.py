"""Bodies that are none: what broken clients send, and what somebody sends on purpose."""

from __future__ import annotations

import json
import random
from typing import Any

__all__ = ["malformed"]

GOOD: dict[str, Any] = {"prompt": "The capital of Fra", "max_tokens": 4, "temperature": 0}
WRONG: dict[str, list[Any]] = {
    "prompt": [7, None, {}, [], [[]], [-1], [10**9], [1.5], "\ud800", "x" * 70_000, ["a", 5]],
    "max_tokens": [-1, "many", True, 1.5, [], 10**400],
    "max_bytes": [0, -5, "x", False],
    "temperature": [-1, "hot", True, float("nan"), float("inf")],
    "top_p": [2, -1, 0, "x", float("nan")],
    "top_k": [-7, 1.5, "x"],
    "n": [0, -1, 10**6, "two", True, 1.5],
    "best_of": [0, 10**6, "x"],
    "seed": [1.5, "x", True],
    "stop": [7, [7], [""], {}],
    "logprobs": [-1, 21, True, "x"],
    "stream": ["yes", 1, []],
    "echo": ["yes", 1],
    "unit": ["word", 1],
    "method": ["guess", None],
    "logit_bias": [{"5": 1}, 7],
    "presence_penalty": [1],
    "guided_regex": ["(", "[", "(?<=x)y", 7],
    "guided_json": ["{", {"type": "nothing"}, 7],
    "response_format": [{"type": "xml"}, {"type": "json_schema"}, "json"],
    "model": ["another", 7, "../../etc/passwd"],
    "nonsense": [1, None, "x"],
}
NO_JSON = (
    b"",
    b"{",
    b"[]",
    b"7",
    b"null",
    b'"x"',
    b"\xff\xfe\x00",
    b"[" * 5000,
    b'{"a":' * 5000,
    b"{'prompt': 1}",
)


def malformed(rng: random.Random) -> bytes:
    """One of them."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(NO_JSON)
    if kind == 1:  # cut off
        whole = json.dumps(GOOD).encode()
        return whole[: rng.randrange(1, len(whole))]
    if kind == 2:  # a byte that is wrong, in its grammar and not only in a text
        return json.dumps(GOOD).encode().replace(b":", rng.choice((b"\x00", b"=", b"\xc3", b"::")), 1)
    name = rng.choice(list(WRONG))
    return json.dumps({**GOOD, name: rng.choice(WRONG[name])}).encode()
