"""The backend of every other model with the interface of an `AsyncLM`: vLLM, SGLang, mocks, one's own.

Such a model belongs to the event loop that asks it. What is asked at a moment goes out by one
`batch_next_token_logprobs`, where the model has it; else each context by itself, whenever it is asked for.
"""

from __future__ import annotations

import warnings
from asyncio import gather
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from inspect import isawaitable
from threading import RLock
from typing import TYPE_CHECKING, Any

from genlm.bytes.contexts.backend import Backend, Outcome
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.contexts.cost import Cost
from genlm.bytes.contexts.rows import checked_row
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import ModelOutputError, bad_type, training

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AsyncLMBackend", "cached"]

MOST_FAILED = 3
"""Batches in a row that raise before that is said. One may have held a context that the model cannot read."""


class AsyncLMBackend(Backend):
    """A model that is asked as it is.

    Args:
        llm: the model. Whether its answers are rows is looked at here, and not what numbers they hold.
    """

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.tokenizer, self.byte_vocab = getattr(llm, "tokenizer", None), getattr(llm, "byte_vocab", ())
        # Asked of the class: a mock has every attribute.
        self.batches = hasattr(type(llm), "batch_next_token_logprobs")
        cost = getattr(llm, "cost", None)
        self.cost = cost if isinstance(cost, Cost) else None
        self._failed = 0  # batches in a row

    async def evaluate(self, contexts: list[ContextNode]) -> Sequence[Outcome]:
        """What the model says after each context. A context that fails harms no other."""
        if getattr(getattr(self.llm, "model", None), "training", False) is True:
            raise training(self.llm.model)
        if len(contexts) == 1:
            return [await self._row(contexts[0])]
        if self.batches:
            given = None
            # One of them may be more than the model reads, and was perhaps asked for in vain.
            try:
                given = await self._batch(contexts)
            except Exception as error:
                self._failed += 1
                if self._failed == MOST_FAILED:
                    self._warn(error)
            if given is not None:
                self._failed = 0
                return self._rows(contexts, given)
        return await gather(*map(self._row, contexts), return_exceptions=True)

    def _warn(self, error: Exception) -> None:
        warnings.warn(
            f"`batch_next_token_logprobs` of {type(self.llm).__name__} has raised {self._failed} times in a "
            f"row, at last {type(error).__name__}: {error}. Each context is asked for by itself instead, "
            "which is slower. Mend that method, or leave it out.",
            UserWarning,
            stacklevel=2,
        )

    def adapter(self, lora_name: str | None) -> object:
        """The configuration of an adapter, where the model shows its adapters as `peft` does."""
        adapters = getattr(getattr(self.llm, "model", None), "peft_config", None)
        return adapters.get(lora_name) if isinstance(adapters, dict) else None

    def _batch(self, contexts: list[ContextNode]) -> Awaitable[Any]:
        tokens = [context.tokens() for context in contexts]
        asked: Awaitable[Any] = self.llm.batch_next_token_logprobs(tokens, **_lora(contexts[0]))
        return asked

    def _rows(self, contexts: list[ContextNode], given: Any) -> list[Outcome]:
        if len(given) != len(contexts):
            asked = f"`batch_next_token_logprobs` of {type(self.llm).__name__}"
            raise ModelOutputError(f"{asked} gave {len(given)} rows: {len(contexts)} contexts need as many.")
        return [self._checked_or_error(row) for row in given]

    def _checked_or_error(self, row: Any) -> Outcome:
        try:
            return self._checked(row)
        except ModelOutputError as error:
            return error

    async def _row(self, context: ContextNode) -> Tensor:
        try:
            asked = self.llm.next_token_logprobs(context.tokens(), **_lora(context))
        except AttributeError:
            if callable(getattr(self.llm, "next_token_logprobs", None)):
                raise
            raise bad_type(
                "llm", self.llm, "must be a model with an async method `next_token_logprobs(token_ids)`"
            ) from None
        if not isawaitable(asked):
            raise ModelOutputError(
                f"`next_token_logprobs` of {type(self.llm).__name__} gave a {type(asked).__name__}: it must "
                "be a coroutine. Define it with `async def`."
            )
        return self._checked(await asked)

    def _checked(self, row: Any) -> Tensor:
        return checked_row(self.llm, row, values=False).to("cpu", copy=True)


def _lora(context: ContextNode) -> dict[str, str]:
    # Named only where one is wanted: models without adapters need not know the word.
    return {} if context.tree.lora_name is None else {"lora_name": context.tree.lora_name}


# On the model itself: a `CachedLM` needs its model, so a table, even one with weak keys, would keep every
# model alive for good. A cycle of two is collected.
_ATTRIBUTE = "_genlm_bytes_cached"
_lock = RLock()


class _Kept:
    """Holds what serves a model. Nothing of it is pickled or copied with the model."""

    def __init__(self, served: CachedLM[AsyncLMBackend] | None = None) -> None:
        self.served = served

    def __reduce__(self) -> tuple[Any, ...]:
        return _Kept, ()


def cached(llm: Any) -> CachedLM[Any]:
    """A model behind a cache: itself if it is a `CachedLM`; else one over it, the same each time."""
    if isinstance(llm, CachedLM):
        return llm
    with _lock:
        kept: CachedLM[AsyncLMBackend] | None
        kept = getattr(llm, "__dict__", {}).get(_ATTRIBUTE, _Kept()).served
        if kept is None or kept.backend.llm is not llm:  # it may have come here in a copy of its model
            kept = CachedLM(AsyncLMBackend(llm))
            with suppress(Exception):  # a model that takes no attributes is remembered by its states alone
                setattr(llm, _ATTRIBUTE, _Kept(kept))
        return kept
