"""`POST /infill`, in llama.cpp's shape, for the plugins of editors.

`input_prefix`, and after it `prompt` (llama.cpp has there what the middle has begun with), stand before the
cursor; `input_suffix` after it. A model that was trained to fill in the middle reads both, and the word that
the cursor stands in is healed. One that was not goes on with what stands before; `suffix_read` says so.

Plugins send fields for llama.cpp's own samplers and caches. What is not known here is taken and does nothing;
the answer lists it as `ignored`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from genlm.bytes.errors import InvalidValueError
from genlm.bytes.generate import Completion
from genlm.bytes.prompt.infill import infill
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.serve.choices import Work
from genlm.bytes.serve.contexts import Given, has_tokens
from genlm.bytes.serve.failures import invalid, too_long
from genlm.bytes.serve.fields import SHAPE, Count, ListOf, Whole, seed_of
from genlm.bytes.serve.server import Server, answer, server_of

__all__ = ["InfillBody", "router"]

DEFAULT_TOKENS = 128
router = APIRouter()


class Extra(BaseModel):
    """A piece of another file."""

    model_config = ConfigDict(extra="ignore", **SHAPE)
    text: str
    filename: str = ""


class InfillBody(BaseModel):
    """What may be asked."""

    model_config = ConfigDict(extra="allow", **SHAPE)
    model: str | None = None
    input_prefix: str = ""
    input_suffix: str = ""
    prompt: str = ""
    input_extra: ListOf[Extra] = Field(default_factory=list)
    n_predict: Count = Field(-1, ge=-2)
    stop: ListOf[str] = Field(default_factory=list)
    temperature: float = 0.0
    top_k: Whole | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: Whole | None = None
    stream: bool = False
    t_max_predict_ms: float = 0.0


@router.post("/infill")
async def fill_in(body: InfillBody, request: Request) -> Response:
    """What belongs between what stands before the cursor and what stands after it."""
    server = server_of(request)
    asked = _Asked(server, body)
    if body.stream:
        return await server.stream(request, asked.events(), done=False)
    return answer(await server.run(request, asked.document()))


class _Asked:
    """One request, checked."""

    def __init__(self, server: Server, body: InfillBody) -> None:
        self.body, self.server = body, server
        self.name, lm = server.catalog.get(body.model)
        for name in ("input_prefix", "input_suffix"):  # as llama.cpp: a name misspelt is not an empty text
            if name not in body.model_fields_set:
                raise invalid(name, f"`{name}` is missing: it may be empty.")
        others = "".join(f"{extra.text}\n" for extra in body.input_extra)
        before = as_bytes("input_prefix", others + body.input_prefix + body.prompt)
        after = as_bytes("input_suffix", body.input_suffix)
        for name, text in (("input_prefix", before), ("input_suffix", after)):
            if len(text) > server.settings.max_prompt:
                raise too_long(name, len(text), server.settings.max_prompt)
        tokens = body.n_predict if body.n_predict >= 0 else DEFAULT_TOKENS
        drawing = body.temperature > 0.0
        options: dict[str, Any] = {
            "stop": [stop for stop in body.stop if stop] or None,
            "temperature": max(0.0, body.temperature),
            "top_k": body.top_k if drawing and (body.top_k or 0) > 0 else None,
            "top_p": body.top_p if drawing and 0.0 < (body.top_p or 0.0) < 1.0 else None,
            "min_p": body.min_p if drawing and body.min_p else None,
            "seed": seed_of(body.seed) if drawing else None,
        }
        by_token = has_tokens(lm)
        options |= {"max_tokens": max(1, tokens)} if by_token else {"max_bytes": 4 * max(1, tokens)}
        self.suffix_read = bool(after) and by_token and _can_fill(lm)
        if self.suffix_read:
            options["suffix"] = after
        self.nothing = tokens == 0  # a plugin that has its context read ahead of time
        self.work = Work(lm, [Given(before, before)], options)
        self.work.check()
        self.begun = time.monotonic()

    async def document(self) -> dict[str, Any]:
        """The answer as a whole."""
        text, last = "", dict[str, Any]()
        async with aclosing(cast(Any, self.events())) as events:
            async for event in events:
                text += event["content"]
                last = event
        return {**last, "content": text}

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The answer as it comes; the last event has the figures."""
        if self.nothing:
            await self.work.lm._read(self.work.prompts[0].context, suffix=self.work.options.get("suffix"))
            yield self._last("", None)
            return
        most = self.body.t_max_predict_ms / 1000
        async with aclosing(cast(Any, self.work.pieces())) as pieces:
            async for piece in pieces:
                late = bool(most) and time.monotonic() - self.begun > most
                if late or piece.completion is not None:
                    yield self._last(piece.chunk.text, piece.completion)
                    return
                yield {"content": piece.chunk.text, "stop": False}

    def _last(self, text: str, completion: Completion | None) -> dict[str, Any]:
        reason = "length" if completion is None else completion.finish_reason
        kind = {"stop": "word", "eos": "eos"}.get(str(reason), "limit")
        stop = b"" if completion is None else completion.stop or b""
        usage = None if completion is None else completion.usage
        read, new = (usage.prompt_tokens, usage.completion_tokens or 0) if usage is not None else (0, 0)
        took = 1000 * (time.monotonic() - self.begun)
        self.server.metrics.completion_bytes.inc(0 if usage is None else usage.completion_bytes)
        return {
            "content": text,
            "stop": True,
            "model": self.name,
            "stop_type": kind,
            "stopping_word": stop.decode("utf-8", "replace"),
            "tokens_evaluated": read,
            "tokens_predicted": new,
            "truncated": False,
            "suffix_read": self.suffix_read,
            "ignored": [*(self.body.model_extra or ())],
            "timings": {
                "prompt_n": read,
                "predicted_n": new,
                "predicted_ms": took,
                "predicted_per_second": 1000 * new / took if took else 0.0,
            },
        }


def _can_fill(lm: Any) -> bool:
    """Whether the model has tokens for a middle."""
    try:
        infill(lm.llm, lm._open_trie(), b"", b"")
    except InvalidValueError:
        return False
    return True
