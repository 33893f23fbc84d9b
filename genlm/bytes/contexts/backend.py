"""`Backend`: what a kind of model must offer so that its contexts are cached, batched and shared.

To add a kind of model, write one of these: `evaluate`, a tokenizer, the tokens. Everything else, `CachedLM`
(`cached_lm.py`) does for every backend: the prefix tree, the log-probabilities it remembers within a bound,
one batch for all that is asked at a moment by tasks, event loops and threads, cancellation, statistics.
Whether a backend keeps its word `check_backend` finds out (`conformance.py`).

**What a backend may rely on.** All contexts of a call share a tree, and so an adapter. They are distinct,
none is known (`logps` is None), and shorter ones come first. A parent need not be asked for, nor evaluated
before: `context.tokens()` are all tokens, and `context.parent` is there for backends that keep something for
each context, in `context.slot`. A context lives, with its parents, while somebody uses it.

- An `evaluate` that is a plain function is called on one thread of `CachedLM`'s own, one call at a time. So
  are `changed`, `split` and `forget`.
- An `async def evaluate` is awaited on the event loop of whoever asks: for models that belong to a loop, or
  do their own batching. Calls overlap, and are cancelled when nobody waits for them any longer.

**What it promises.** One outcome a context, in their order. An outcome is a row of natural log-probabilities,
`[token ids]`, a tensor or an array, with memory of its own (a backend that has logits sets
`context.log_normalizer` too, for options that act on logits); or an exception, for those who asked for that
context alone. An exception that `evaluate` raises reaches all whose contexts were in that call. A row does
not depend on what else is in the call nor on what was evaluated, forgotten or given up before (round-off
aside).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from genlm.bytes.contexts.cost import Cost
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import bad_value
from genlm.bytes.util.rows import Row

if TYPE_CHECKING:
    from genlm.backend.tokenization import Token

__all__ = ["Backend", "Outcome", "Question", "Score", "Statistics"]

Outcome = Row | float | BaseException
"""What was found, or what was raised; an exception is raised by whoever awaits it."""


class Score(NamedTuple):
    """A question with a number for an answer: the natural log-probability of one next token.

    Attributes:
        context: the context.
        token: the token's id.
    """

    context: ContextNode
    token: int


Question = ContextNode | Score
"""A context: what comes next. Or how probable one token is there."""


class Statistics(NamedTuple):
    """What has been evaluated so far, and what is held.

    Attributes:
        forwards: forwards, or calls of the model.
        tokens_run: tokens that went through the model, or contexts where the backend does not count tokens.
        tokens_reused: tokens that did not have to, since their keys and values were there.
        slots: contexts whose keys and values are held.
        cache_bytes: memory for keys, values and log-probabilities.
        evictions: contexts whose keys and values were given up.
    """

    forwards: int = 0
    tokens_run: int = 0
    tokens_reused: int = 0
    slots: int = 0
    cache_bytes: int = 0
    evictions: int = 0


class Backend(ABC):
    """A model that evaluates contexts. Only `evaluate`, `tokenizer` and `byte_vocab` have no default.

    Attributes:
        tokenizer: with `bos_token_id` and `eos_token_id`; `encode` where text is to be tokenized.
        byte_vocab: the model's tokens.
        max_length: the most tokens a context may have; None where there is no limit.
        batches: whether contexts asked for together cost less than one after another. Only then is it worth
            while to evaluate ahead of time what will probably be needed.
        normalizes: whether rows are log-softmaxes, whose numbers need no checking.
        cost: what a call costs (`cost.py`); None where that is to be measured.
        deterministic: whether to do without what may change the last digits of a row.
    """

    tokenizer: Any
    byte_vocab: Sequence[Token]
    max_length: int | None = None
    batches: bool = True
    normalizes: bool = False
    cost: Cost | None = None
    deterministic: bool = False

    @abstractmethod
    def evaluate(self, contexts: list[ContextNode]) -> Sequence[Outcome] | Awaitable[Sequence[Outcome]]:
        """The natural log-probabilities of the next token after each context; see the module."""

    def check(self, context: ContextNode) -> None:
        """Refuse a context that the model cannot read, before anything runs.

        Raises:
            ValueError: why.
        """
        if self.max_length is not None and context.depth > self.max_length:
            raise bad_value(
                "token_ids",
                f"{context.depth} tokens",
                f"this model reads at most {self.max_length} tokens",
                "Shorten the text, or give `max_context_length` to keep the latest tokens only.",
            )

    def scores(self, contexts: list[ContextNode], asked: list[Score]) -> Sequence[Outcome]:
        """Optional: what `evaluate` gives, and then the natural log-probability of each token asked for.

        Numbers, where `evaluate` would give rows: of a prompt of 4,000 tokens the rows are two gigabytes.
        Where a backend has none of its own, rows are evaluated, and remembered. A plain function, as an
        `evaluate` on `CachedLM`'s thread is.

        Args:
            contexts: those whose rows are wanted; there may be none.
            asked: the tokens, of the same tree; none after a context whose row is known.
        """
        raise NotImplementedError

    @property
    def has_scores(self) -> bool:
        """Whether it has `scores` of its own."""
        return type(self).scores is not Backend.scores

    def split(self, contexts: list[ContextNode]) -> Iterable[list[ContextNode]]:
        """The parts in which contexts of one tree are to be evaluated, each by one call."""
        return [contexts]

    def changed(self) -> bool:
        """Whether the model is another one than it was at the last call, so that rows are worth nothing."""
        return False

    def adapter(self, lora_name: str | None) -> object:
        """An object that is another one when another LoRA adapter has been loaded under a name."""
        return None

    def forget(self) -> None:  # noqa: B027 — a backend that keeps nothing has nothing to do
        """Give up what is kept between calls."""

    def statistics(self, own: Statistics) -> Statistics:
        """The statistics, given those that `CachedLM` has counted itself: calls and contexts."""
        return own
