"""`POST /v1/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from genlm.bytes.generate import Completion
from genlm.bytes.generate.completion import Drawn
from genlm.bytes.serve.choices import Work, finish_reason, usage
from genlm.bytes.serve.contexts import Given, given_prompts, has_tokens, pieces_of
from genlm.bytes.serve.failures import invalid
from genlm.bytes.serve.fields import Count, ListOf, Sampling, Whole, made, options_of
from genlm.bytes.serve.logprobs import Entry, drawn_entries, end_entry, prompt_entries, text_logprobs
from genlm.bytes.serve.server import Server, answer, server_of
from genlm.bytes.serve.token_echo import token_entries

__all__ = ["CompletionBody", "router"]

DEFAULT_TOKENS = 16
MOST_TOP = 20
router = APIRouter()


class CompletionBody(Sampling):
    """What may be asked."""

    prompt: str | ListOf[str] | ListOf[int] | ListOf[ListOf[int]] = "<|endoftext|>"
    suffix: str | None = None
    echo: bool = False
    logprobs: Whole | None = Field(None, ge=0, le=MOST_TOP)
    best_of: Count | None = Field(None, ge=1)


@router.post("/v1/completions")
async def complete(body: CompletionBody, request: Request) -> Response:
    """Text that goes on from a prompt, from wherever it stops."""
    server = server_of(request)
    asked = await made(_Asked, server, body)
    if body.stream:
        return await server.stream(request, asked.events())
    return answer(await server.run(request, asked.document()))


class _Asked:
    """One request, checked."""

    def __init__(self, server: Server, body: CompletionBody) -> None:
        self.body, self.server = body, server
        self.name, lm = server.catalog.get(body.model)
        if "prompt" not in body.model_fields_set:
            raise invalid("prompt", "`prompt` is missing.")
        prompts = given_prompts(lm, body.prompt, server.settings.max_prompt)
        most, count = server.settings.max_choices, max(body.n, body.best_of or 1)
        if len(prompts) * count > most:
            raise invalid(
                "n", f"{len(prompts)} prompts of {count} completions each: at most {most} a request."
            )
        options = options_of(body, DEFAULT_TOKENS, not has_tokens(lm))
        if body.suffix:
            if len(body.suffix.encode("utf-8", "replace")) > server.settings.max_prompt:
                raise invalid("suffix", f"`suffix` has more than {server.settings.max_prompt:,} bytes.")
            if any(not isinstance(given.context, bytes) for given in prompts):
                raise invalid("suffix", "`suffix` goes with a prompt of text only.")
            options["suffix"] = body.suffix
        if body.stream and (body.best_of or 1) > 1:
            raise invalid("best_of", "`best_of` is known at the end only: leave out `stream`.")
        if body.stream and body.echo and body.logprobs is not None:
            raise invalid("echo", "a prompt's log-probabilities come whole: leave out `stream`.")
        by_byte = not has_tokens(lm) or body.unit == "byte" or options["mask"] is not None
        # Of a prompt the figures of its bytes, at any token's end; its tokens' own where they are asked for.
        self.by_token = body.unit == "token" and has_tokens(lm)
        if body.logprobs is not None:
            options["logprobs"] = (body.echo and not self.by_token) or by_byte
            options["top_logprobs"] = body.logprobs or None
        options["echo"] = body.echo
        self.work = Work(lm, prompts, options, body.n, body.best_of)
        self.work.check()
        self.head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.name,
        }

    async def document(self) -> dict[str, Any]:
        """The answer as a whole."""
        found = await self.work.completions()
        choices: list[dict[str, Any]] = []
        for given, some in zip(self.work.prompts, found, strict=True):
            own = None
            if self.by_token and self.body.echo and self.body.logprobs is not None:
                own = await token_entries(self.work.lm, given, self.body.logprobs)
            choices += [self._choice(len(choices) + i, given, one, own) for i, one in enumerate(some)]
        counts = usage(found)
        if self.body.max_tokens == 0:
            counts |= {"completion_tokens": 0, "completion_bytes": 0, "total_tokens": counts["prompt_tokens"]}
        self._count(counts)
        return {**self.head, "choices": choices, "usage": counts}

    def _choice(
        self, index: int, given: Given, completion: Completion, own: list[Entry] | None
    ) -> dict[str, Any]:
        none = self.body.max_tokens == 0  # the prompt's figures alone
        read = completion.usage.prompt_bytes if self.body.echo else 0
        text = completion.bytes[:read].decode("utf-8", "replace") if none else completion.text
        entries: list[Entry] = []
        if self.body.logprobs is not None:
            if own is not None:
                entries += own
            elif self.body.echo:
                by_byte = self.body.unit == "byte"
                pieces = None if by_byte else pieces_of(self.work.lm, given, completion.bytes[:read])
                entries += prompt_entries(completion, read, pieces)
            if not none:
                entries += _new_entries(completion, read)
        return {
            "index": index,
            "text": text,
            "logprobs": None
            if self.body.logprobs is None
            else text_logprobs(entries, self.body.logprobs > 0),
            "finish_reason": "length" if none else finish_reason(completion),
            "stop_reason": None if completion.stop is None else completion.stop.decode("utf-8", "replace"),
        }

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The answer as it comes."""
        done: dict[int, Completion] = {}
        offsets = dict[int, int]()
        if self.body.echo:
            for i in range(len(self.work.prompts) * self.body.n):
                text = self.work.prompts[i // self.body.n].spelled.decode("utf-8", "replace")
                offsets[i] = len(text)
                yield self._event([_delta(i, text, None, None)])
        async with aclosing(cast(Any, self.work.pieces())) as pieces:
            async for piece in pieces:
                chunk, logprobs = piece.chunk, None
                if self.body.logprobs is not None:
                    entries = drawn_entries(chunk, chunk.bytes)
                    if piece.completion is not None and piece.completion.finish_reason == "eos":
                        entries.append(end_entry(piece.completion))
                    at = offsets.get(piece.index, 0)
                    logprobs = text_logprobs(entries, self.body.logprobs > 0, at)
                    offsets[piece.index] = at + len(chunk.text)
                yield self._event([_delta(piece.index, chunk.text, logprobs, finish_reason(chunk))])
                if piece.completion is not None:
                    done[piece.index] = piece.completion
        n = self.body.n
        counts = usage([[done[i * n + j] for j in range(n)] for i in range(len(self.work.prompts))])
        self._count(counts)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield {**self._event([]), "usage": counts}

    def _event(self, choices: list[Any]) -> dict[str, Any]:
        return {**self.head, "choices": choices}

    def _count(self, counts: dict[str, int]) -> None:
        self.server.metrics.prompt_bytes.inc(counts["prompt_bytes"])
        self.server.metrics.completion_bytes.inc(counts["completion_bytes"])


def _new_entries(completion: Completion, read: int) -> list[Entry]:
    """The entries of what is new; with the end's, where the model ended or nothing came."""
    new = completion.bytes[read:]
    drawn: Drawn = completion
    if completion.token_bytes is None and completion.logprobs is not None:
        top = None if completion.top is None else completion.top[read:]
        drawn = Drawn(logprobs=completion.logprobs[read:], top=top)
    entries = drawn_entries(drawn, new)
    if completion.finish_reason == "eos" or not entries:
        entries.append(end_entry(completion))
    return entries


def _delta(index: int, text: str, logprobs: Any, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
