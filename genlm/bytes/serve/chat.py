"""`POST /v1/chat/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal, cast

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from genlm.bytes.generate import Completion
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.serve.choices import Work, finish_reason, usage
from genlm.bytes.serve.contexts import Given, has_tokens
from genlm.bytes.serve.failures import invalid, too_long
from genlm.bytes.serve.fields import SHAPE, Count, ListOf, Sampling, Whole, made, options_of
from genlm.bytes.serve.logprobs import chat_logprobs, drawn_entries
from genlm.bytes.serve.server import Server, answer, server_of

__all__ = ["ChatBody", "Message", "router"]

DEFAULT_TOKENS = 2048
"""An answer ends by itself; this is for one that does not."""
MOST_TOP = 20
ROLES = {"developer": "system"}
router = APIRouter()


class Message(BaseModel):
    """One message: what is in it is text, whatever it spells."""

    model_config = ConfigDict(extra="ignore", **SHAPE)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | ListOf[dict[str, Any]] | None = None

    def text(self, at: int) -> str:
        """Its content.

        Raises:
            Refusal: a part that is no text.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        name = f"messages[{at}].content"
        parts = [part.get("text") for part in self.content if part.get("type") == "text"]
        if len(parts) < len(self.content) or not all(isinstance(part, str) for part in parts):
            raise invalid(name, f"`{name}` may have parts of type `text` only.")
        return "".join(cast(list[str], parts))


class ChatBody(Sampling):
    """What may be asked."""

    messages: ListOf[Message] = Field(min_length=1)
    max_completion_tokens: Count | None = Field(None, ge=0)
    logprobs: bool = False
    top_logprobs: Whole | None = Field(None, ge=0, le=MOST_TOP)
    continue_final_message: bool | None = None
    add_generation_prompt: bool = True
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    parallel_tool_calls: bool | None = None


@router.post("/v1/chat/completions")
async def chat(body: ChatBody, request: Request) -> Response:
    """What the assistant says next, or how its last message goes on."""
    server = server_of(request)
    asked = await made(_Asked, server, body)
    if body.stream:
        return await server.stream(request, asked.events())
    return answer(await server.run(request, asked.document()))


def context_of(body: ChatBody, most: int) -> list[dict[str, str]]:
    """The messages as the library takes them: an assistant's last one is gone on with, unless it is empty.

    Raises:
        Refusal: nothing to go on with where that is asked for, a message that is no text, too long.
    """
    said = [{"role": ROLES.get(m.role, m.role), "content": m.text(i)} for i, m in enumerate(body.messages)]
    length = sum(len(as_bytes(f"messages[{i}].content", m["content"])) for i, m in enumerate(said))
    if length > most:
        raise too_long("messages", length, most)
    own = said[-1]["role"] == "assistant" and bool(said[-1]["content"])
    if body.continue_final_message and not own:
        rule = "goes with a last message of the assistant that has content"
        raise invalid("continue_final_message", f"`continue_final_message` {rule}.")
    if own and body.continue_final_message is False:
        said.append({"role": "assistant", "content": ""})
    elif not own and not body.add_generation_prompt:
        rule = "without it there is nobody to speak: leave it out, or end with an assistant's message"
        raise invalid("add_generation_prompt", f"`add_generation_prompt` is false: {rule}.")
    return said


class _Asked:
    """One request, checked."""

    def __init__(self, server: Server, body: ChatBody) -> None:
        self.body, self.server = body, server
        self.name, lm = server.catalog.get(body.model)
        for name in ("tools", "functions"):
            if getattr(body, name):
                raise invalid(name, f"`{name}` are not supported. Use `response_format` or `guided_json`.")
        if body.tool_choice not in (None, "none", "auto"):
            raise invalid("tool_choice", "`tool_choice` asks for a tool, and tools are not supported.")
        if body.n > server.settings.max_choices:
            raise invalid("n", f"`n` is {body.n}: at most {server.settings.max_choices}.")
        if body.max_completion_tokens is not None:
            body = body.model_copy(update={"max_tokens": body.max_completion_tokens})
        options = options_of(body, DEFAULT_TOKENS, not has_tokens(lm))
        if body.top_logprobs and not body.logprobs:
            raise invalid("top_logprobs", "`top_logprobs` goes with `logprobs: true`.")
        if body.logprobs:
            by_byte = not has_tokens(lm) or body.unit == "byte" or options["mask"] is not None
            options |= {"logprobs": by_byte, "top_logprobs": body.top_logprobs or None}
        messages = context_of(body, server.settings.max_prompt)
        self.work = Work(lm, [Given(messages, b"")], options, body.n)
        self.work.check()
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": self.name,
        }

    async def document(self) -> dict[str, Any]:
        """The answer as a whole."""
        (found,) = await self.work.completions()
        counts = usage([found])
        self._count(counts)
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": one.text},
                "logprobs": self._logprobs(one, one.bytes),
                "finish_reason": finish_reason(one),
            }
            for i, one in enumerate(found)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": counts}

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The answer as it comes."""
        begun: set[int] = set()
        done: list[Completion] = []
        async with aclosing(cast(Any, self.work.pieces())) as pieces:
            async for piece in pieces:
                delta = {"content": piece.chunk.text}
                if piece.index not in begun:
                    begun.add(piece.index)
                    delta = {"role": "assistant", **delta}
                logprobs = self._logprobs(piece.chunk, piece.chunk.bytes)
                reason = finish_reason(piece.chunk)
                choice = {"index": piece.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
                yield self._event([choice])
                if piece.completion is not None:
                    done.append(piece.completion)
        counts = usage([done])
        self._count(counts)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield {**self._event([]), "usage": counts}

    def _event(self, choices: list[Any]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    def _logprobs(self, drawn: Any, text: bytes) -> dict[str, Any] | None:
        return chat_logprobs(drawn_entries(drawn, text)) if self.body.logprobs else None

    def _count(self, counts: dict[str, int]) -> None:
        self.server.metrics.prompt_bytes.inc(counts["prompt_bytes"])
        self.server.metrics.completion_bytes.inc(counts["completion_bytes"])
