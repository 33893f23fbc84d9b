"""What a server says of itself: models, health, metrics; and its tokenizer, for clients that cut text."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from genlm.bytes.prompt.prompt import as_bytes, special_token, tokenize
from genlm.bytes.serve.contexts import given_prompts, has_tokens
from genlm.bytes.serve.events import to_json
from genlm.bytes.serve.failures import invalid, too_long
from genlm.bytes.serve.fields import Body, ListOf
from genlm.bytes.serve.server import Server, answer, server_of

__all__ = ["router"]

STARTED = int(time.time())
router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """The models by name."""
    names = server_of(request).catalog.names
    return answer({"object": "list", "data": [_model(name) for name in names]})


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> Response:
    """One of them."""
    found, _ = server_of(request).catalog.get(name)
    return answer(_model(found))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": STARTED, "owned_by": "genlm-bytes"}


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether all models are ready: 200, or 503 while they are loading."""
    loading = server_of(request).catalog.loading
    document = {"status": "loading" if loading else "ok", "loading": loading}
    return Response(to_json(document), 503 if loading else 200, media_type="application/json")


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(server_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


class TokenizeBody(Body):
    """What may be asked of the tokenizer."""

    prompt: str
    add_special_tokens: bool = False
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """What may be asked back."""

    tokens: ListOf[int]


def _tokenizer(server: Server, name: str | None) -> Any:
    _, lm = server.catalog.get(name)
    if not has_tokens(lm):
        raise invalid("model", "several models as one have no tokenizer in common.")
    return lm


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request) -> Response:
    """The names of the special tokens, and the chat template."""
    tokenizer = getattr(_tokenizer(server_of(request), None).llm, "tokenizer", None)
    names = ("bos_token", "eos_token", "pad_token", "chat_template")
    found = {name: getattr(tokenizer, name, None) for name in names}
    return answer({name: value if isinstance(value, str) else None for name, value in found.items()})


@router.post("/tokenize")
async def cut(body: TokenizeBody, request: Request) -> Response:
    """A text as the model's tokenizer cuts it. A text that is a special token's name, and nothing else, is
    that token: so clients ask for its id."""
    server = server_of(request)
    lm = _tokenizer(server, body.model)
    text = as_bytes("prompt", body.prompt)
    if len(text) > server.settings.max_prompt:
        raise too_long("prompt", len(text), server.settings.max_prompt)
    vocabulary = getattr(getattr(lm.llm, "tokenizer", None), "all_special_tokens", ())
    named = special_token(lm.llm, body.prompt) if body.prompt in vocabulary else None
    ids = tokenize(lm.llm, lm._open_trie(), text) if named is None else [named]
    return answer({"tokens": ids, "count": len(ids)})


@router.post("/detokenize")
async def join(body: DetokenizeBody, request: Request) -> Response:
    """Tokens as text."""
    server = server_of(request)
    lm = _tokenizer(server, body.model)
    (given,) = (
        given_prompts(lm, body.tokens, server.settings.max_prompt, "tokens") if body.tokens else (None,)
    )
    return answer({"prompt": "" if given is None else given.spelled.decode("utf-8", "replace")})
