"""Questions that only bytes answer: `/v1/score`, `/v1/next`, `/v1/predict`.

Figures are those of `AsyncByteLM.score`, `word_surprisal`, `next`, `expand` and `predict_words`. What JSON
has no number for, minus infinity and what is not known, is null (`to_json`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from genlm.bytes.api import AsyncByteLM
from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.score import Score
from genlm.bytes.serve.contexts import Given, given_prompts
from genlm.bytes.serve.failures import invalid, too_long
from genlm.bytes.serve.fields import Body, ListOf, Whole
from genlm.bytes.serve.logprobs import token_text
from genlm.bytes.serve.server import answer, server_of
from genlm.bytes.viz import likeliest, view_beam

__all__ = ["NextBody", "PredictBody", "ScoreBody", "router"]

MOST_SHOWN = 1000
MIN_PROB = 0.01
"""The least probability of a node of the tree, unless another is given."""
Span = Annotated[
    tuple[int, int], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]
router = APIRouter()


class ScoreBody(Body):
    """What may be asked of some texts: figures of bytes or characters; of words or spans besides."""

    text: str | ListOf[str]
    context: str | ListOf[int] = ""
    unit: Literal["byte", "char"] = "byte"
    end: bool = False
    words: bool | ListOf[str] | ListOf[ListOf[str]] = False
    spans: ListOf[Span] | ListOf[ListOf[Span]] | None = None
    sep: str | None = " "
    boundary: Literal["trailing", "leading", "none"] | None = None
    punctuation: bool | str = False
    base: float = Field(2.0, gt=1.0)
    method: Literal["tokenize", "beam", "heal"] = "beam"
    on_impossible: Literal["error", "inf"] = "inf"


@router.post("/v1/score")
async def score(body: ScoreBody, request: Request) -> Response:
    """How probable each byte of some texts is, given a context; and what words and spans of them cost."""
    server = server_of(request)
    name, lm = server.catalog.get(body.model)
    most = server.settings.max_prompt
    texts = [body.text] if isinstance(body.text, str) else body.text
    if len(texts) > server.settings.max_choices:
        raise invalid("text", f"{len(texts)} texts: at most {server.settings.max_choices} a request.")
    length = sum(len(as_bytes("text", text)) for text in texts)
    if length > most:
        raise too_long("text", length, most)
    context = given_prompts(lm, body.context, most, "context")[0] if body.context else Given(b"", b"")
    found = await server.run(request, _scored(lm, body, texts, context.context))
    server.metrics.prompt_bytes.inc(length)
    return answer({"object": "score", "model": name, "results": found})


async def _scored(lm: AsyncByteLM, body: ScoreBody, texts: list[str], context: Any) -> list[dict[str, Any]]:
    options: Any = {"method": body.method, "on_impossible": body.on_impossible}
    single = isinstance(body.text, str)
    asked = body.words if isinstance(body.words, list) else None
    if not body.words and body.spans is None:
        scores: Any = await lm.score(texts, [context] * len(texts), end=body.end, **options)
        return [_score(one, body.unit) for one in scores]
    words: Any = [asked] if single and asked is not None else asked
    spans: Any = [body.spans] if single and body.spans is not None else body.spans
    rows = await lm.word_surprisal(
        texts,
        words,
        spans,
        sep=body.sep,
        boundary=body.boundary,
        base=body.base,
        context=[context] * len(texts),
        punctuation=body.punctuation,
        **options,
    )
    found = [{**_score(one, body.unit), "words": list[Any]()} for one in rows.scores]
    for row in rows.records():
        found[row["text"]]["words"].append({key: value for key, value in row.items() if key != "text"})
    return found


def _score(score: Score, unit: str) -> dict[str, Any]:
    logprobs = score.logprobs if unit == "byte" else score.chars.logprobs
    pieces: Any = list(score.text) if unit == "byte" else list(score.chars.text)
    return {
        "logprob": score.logprob,
        "bits": score.bits,
        "bits_per_byte": score.bits_per_byte,
        "bits_per_char": score.bits_per_char,
        "end": score.end,
        "slack": score.slack,
        "missing": score.missing,
        "error": score.error,
        "above_one": score.above_one,
        "unit": unit,
        "pieces": pieces,
        "logprobs": logprobs.tolist(),
    }


class NextBody(Body):
    """What may be asked of what comes next."""

    prompt: str | ListOf[int] = ""
    unit: Literal["byte", "char"] = "byte"
    top: Whole = Field(20, ge=1, le=MOST_SHOWN)
    min_prob: float | None = Field(None, ge=0.0, le=1.0)
    depth: Whole = Field(1, ge=1, le=16)
    candidates: Whole = Field(0, ge=0, le=100)
    method: Literal["tokenize", "beam", "heal"] = "tokenize"


@router.post("/v1/next")
async def following(body: NextBody, request: Request) -> Response:
    """What comes next, by byte or character; and, if asked for, the candidates of the beam."""
    server = server_of(request)
    name, lm = server.catalog.get(body.model)
    most = server.settings.max_prompt
    given = given_prompts(lm, body.prompt, most)[0] if body.prompt else Given(b"", b"")
    if body.depth > 1 and body.min_prob is not None and body.min_prob < 1e-4:
        raise invalid("min_prob", "`min_prob` must be at least 1e-4 where `depth` is above 1.")
    found = await server.run(request, _following(lm, body, given))
    server.metrics.prompt_bytes.inc(len(given.spelled))
    return answer({"object": "next", "model": name, "unit": body.unit, **found})


async def _following(lm: AsyncByteLM, body: NextBody, given: Given) -> dict[str, Any]:
    found = await lm.next(given.context, method=body.method)
    if body.unit == "byte":
        rows = likeliest(found, body.top)
    else:
        chars = await found.chars(body.top)
        rows = [(None if c == "EOS" else c.encode(), logp) for c, logp in chars.items()]
    least = math.log(body.min_prob) if body.min_prob else -math.inf
    document: dict[str, Any] = {"next": [_row(text, logp) for text, logp in rows if logp >= least]}
    if body.depth > 1:
        least_node = MIN_PROB if body.min_prob is None else body.min_prob
        root: Any = await lm.expand(given.context, least_node, body.depth, body.unit, method=body.method)
        document["tree"] = _node(root)
    if body.candidates and isinstance(found.beam, ByteBeamState):
        # What the tokenizer would cut is looked up in its rules, which takes a moment the first time.
        document["candidates"] = await asyncio.to_thread(_candidates, found.beam, body.candidates)
    return document


def _node(node: Any) -> dict[str, Any]:
    """A node of the tree, with its extent in the unit interval."""
    return {
        "text": token_text(node.symbol),
        "bytes": list(node.symbol),
        "end": node.end,
        "low": node.low,
        "probability": node.probability,
        "rest": node.rest,
        "children": [_node(child) for child in node.children],
    }


def _row(text: bytes | None, logp: float) -> dict[str, Any]:
    if text is None:
        return {"text": "", "bytes": [], "end": True, "logprob": logp, "probability": math.exp(logp)}
    return {"text": token_text(text), "bytes": list(text), "logprob": logp, "probability": math.exp(logp)}


def _candidates(beam: ByteBeamState, most: int) -> dict[str, Any]:
    view = view_beam(beam, most)

    def spelled(tokens: Sequence[bytes]) -> list[str]:
        return [token_text(token) for token in tokens]

    return {
        "logprob": view.logp,
        "shared": spelled(view.shared),
        "rows": [
            {
                "share": row.share,
                "tokens": spelled(row.tokens),
                "partial": token_text(row.partial),
                "canonical": row.canonical,
            }
            for row in view.rows
        ],
        "others": {"count": view.others[0], "share": view.others[1]},
        "deferred": view.deferred,
        "missing": view.missing,
    }


class PredictBody(Body):
    """What may be asked of the next word."""

    prompt: str = ""
    n: Whole = Field(5, ge=1, le=100)
    prefix: str | None = None
    min_prob: float = Field(1e-3, ge=1e-6, le=1.0)
    budget: Whole = Field(1000, ge=1, le=10_000)
    milliseconds: float | None = Field(None, gt=0.0)


@router.post("/v1/predict")
async def predict(body: PredictBody, request: Request) -> Response:
    """The likeliest next words, each with its end, and the probability of everything else."""
    server = server_of(request)
    name, lm = server.catalog.get(body.model)
    text = as_bytes("prompt", body.prompt)
    if len(text) > server.settings.max_prompt:
        raise too_long("prompt", len(text), server.settings.max_prompt)
    options: Any = {"budget": body.budget, "milliseconds": body.milliseconds, "min_prob": body.min_prob}
    found: Any = await server.run(request, lm.predict_words(text, body.n, body.prefix, **options))
    server.metrics.prompt_bytes.inc(len(text))
    words = [
        {"word": one.word, "text": one.text, "logprob": one.logprob, "probability": one.probability}
        for one in found
    ]
    return answer(
        {
            "object": "predictions",
            "model": name,
            "words": words,
            "prefix": found.prefix,
            "remainder": found.remainder,
            "complete": found.complete,
        }
    )
