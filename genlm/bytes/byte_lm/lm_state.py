"""A token model after a context, and what every byte-level model can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any, Self

from jaxtyping import Float

from genlm.bytes.backends.async_lm import cached
from genlm.bytes.byte_lm.symbols import Context
from genlm.bytes.contexts.rows import checked_row
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import ModelOutputError, bad_type, bad_value
from genlm.bytes.trie.modes import EOS
from genlm.bytes.util import LazyByteProbs, escape, sample_dict
from genlm.bytes.util.numbers import as_index
from genlm.bytes.util.rows import Row, as_tensor
from genlm.bytes.vocab import check_token_ids, spell, start_context

if TYPE_CHECKING:
    import torch

    from genlm.bytes.contexts.cached_lm import CachedLM

__all__ = ["Context", "StatefulByteLM", "StatefulTokenizedLM", "next_row", "of_its_own"]


class StatefulTokenizedLM:
    """A token-level model after the tokens `context`. A value: reading a token makes a new one.

    A state is a handle to its context in the model's prefix tree (`genlm.bytes.contexts`): a long context
    costs no more to extend than a short one, and what the model has said is remembered.

    Args:
        model: the model.
        context: the token ids read so far.
        n_calls: model calls made on the way here.
        max_context_length: keep at most this many tokens, the latest; None keeps all. It holds for
            every descendant, and bounds what the model is asked, at the price of forgetting.
        lora_name: the LoRA adapter to use, as loaded by the model's `add_new_lora`; None is the model
            without one. It holds for every descendant.
        check_model: look at the numbers that the model gives, as a beam does by default (see `BeamParams`).
            It holds for every descendant.

    Raises:
        ValueError: `max_context_length` below 1, or a token id below 0.
        TypeError: `context` is not a sequence of token ids.
    """

    # The dictionary is for attributes of clients' own; there is none until somebody sets one.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_cached",
        "_context",
        "check_model",
        "lora_name",
        "max_context_length",
        "model",
        "n_calls",
        "node",
    )

    def __init__(
        self,
        model: Any,
        context: Sequence[int],
        n_calls: int = 0,
        max_context_length: int | None = None,
        lora_name: str | None = None,
        *,
        check_model: bool = False,
    ) -> None:
        if max_context_length is not None and as_index(max_context_length) is None:
            raise bad_type("max_context_length", max_context_length, "must be an integer, or None")
        if max_context_length is not None and max_context_length < 1:
            raise bad_value(
                "max_context_length", max_context_length, "must be at least 1, or None for no limit"
            )
        self.model = model
        self._cached = cached(model)
        self.n_calls = n_calls
        self.max_context_length = max_context_length
        self.lora_name = lora_name
        self.check_model = check_model
        self._place(check_token_ids("context", context))

    def _place(self, context: list[int]) -> None:
        if self.max_context_length is not None:
            context = context[-self.max_context_length :]
        self._context: list[int] | None = context
        self.node = self._cached.node(context, self.lora_name)

    @classmethod
    def initial(
        cls,
        model: Any,
        initial_context: Sequence[int] | None = None,
        max_context_length: int | None = None,
        lora_name: str | None = None,
        *,
        check_model: bool = False,
    ) -> Self:
        """The model before any text.

        Args:
            model: the model.
            initial_context: token ids to start from. None means the tokenizer's beginning-of-sequence
                token; where it has none, its end-of-sequence token; where it has neither, no token.
            max_context_length: see the class.
            lora_name: see the class.
            check_model: see the class.
        """
        context = start_context(model) if initial_context is None else initial_context
        begun = cls(model, context, max_context_length=max_context_length, lora_name=lora_name)
        begun.check_model = check_model  # afterwards: a client's subclass need not know the word
        return begun

    @property
    def context(self) -> list[int]:
        """The token ids read so far."""
        if self._context is None:
            self._context = self.node.tokens()
        return self._context

    def __lshift__(self, token: int) -> Self:
        """The model after one more token."""
        (token,) = check_token_ids("token", [token])  # the tokens before it were checked when they were read
        after = copy(self)
        if self.max_context_length is not None and self.node.depth >= self.max_context_length:
            after._place([*self.context, token])
        else:
            after._context, after.node = None, self.node.child(token)
        return after

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = memo[id(self)] = copy(self)
        other.model = deepcopy(self.model, memo)
        vars(other).update(deepcopy(vars(self), memo))
        other._cached = cached(other.model)  # locks and threads are not copied
        other._place(list(self.context))
        memo[id(self.node.tree)] = other.node.tree  # where else a context is known by its node
        return other

    @property
    def batches(self) -> bool:
        """Whether contexts asked for together cost less, so that asking ahead of time pays. Of a subclass
        with a `logp_next` of its own they do not: only what is needed is asked for."""
        return bool(self._cached.backend.batches) and not of_its_own(self)

    @property
    def model_cache(self) -> CachedLM[Any]:
        """The model, with what it has said."""
        return self._cached

    def offer(self, priority: float) -> None:
        """Have the context evaluated beside others, if there is room (`CachedLM.offer`)."""
        self._cached.offer(self.node, priority)

    @property
    def parent_node(self) -> ContextNode | None:
        """The node of the context without its last token."""
        return self.node.parent

    @property
    def known(self) -> bool:
        """Whether `logp_next` answers at once, without running the model."""
        return self.logp_known() is not None

    @property
    def log_normalizer(self) -> float:
        """What to add to `logp_next()`, once that has been awaited, to have the model's logits.

        0 for a model that gives log-probabilities only: they are logits too.
        """
        return getattr(self.node, "log_normalizer", 0.0)

    async def logp_next(self) -> Float[torch.Tensor, " logits"]:
        """Natural log-probabilities of the next token, indexed by token id.

        Raises:
            ModelOutputError: the model gave something else.
        """
        return as_tensor(await self._row_next())

    async def _row_next(self) -> Row:
        self.n_calls += 1
        row = self.logp_known()
        return self._checked(await self._cached.logprobs(self.node)) if row is None else row

    async def logp_of(self, token: int) -> float:
        """`logp_next()[token]`, for callers that need no other: backends that can move only this number.

        Raises:
            ModelOutputError: the model gave something else.
        """
        if of_its_own(self) or not self._cached.backend.has_scores:
            return float((await next_row(self))[token])
        self.n_calls += 1
        return await self._cached.score(self.node, token)

    def logp_known(self) -> Row | None:
        """`logp_next` if that needs no run of the model; else None, as of a subclass with one of its own.

        A row that was evaluated ahead of time has been looked at by nobody. Where it is nonsense it is not
        known: it may never be needed, and if it is, the model is asked, and may give a better one.
        """
        row = None if of_its_own(self) else self._cached.known(self.node)
        try:
            return None if row is None else self._checked(row)
        except ModelOutputError:
            return None

    def _checked(self, row: Row) -> Row:
        if not self.check_model or self._cached.backend.normalizes:
            return row
        try:
            return checked_row(self.model, row)
        except ModelOutputError:
            self._cached.drop(self.node)  # nonsense is not remembered
            raise

    def __repr__(self) -> str:
        return "|".join(escape(token) for token in spell(self.model, self.context))


def of_its_own(lm_state: Any) -> bool:
    """Whether a client has written its `logp_next`."""
    return getattr(type(lm_state), "logp_next", None) is not StatefulTokenizedLM.logp_next


async def next_row(lm_state: Any) -> Any:
    """`logp_next()` of a token-level model for use in here, where an array does as well as a tensor.

    A `Row`; of a class of somebody's own whatever it gives, which nobody has looked at.
    """
    return await (lm_state.logp_next() if of_its_own(lm_state) else lm_state._row_next())


class StatefulByteLM(ABC):
    """A byte-level model after some bytes. A value: reading a byte makes a new one.

    A model of one's own needs `<<` and `logp_next`.
    """

    @abstractmethod
    async def __lshift__(self, b: int) -> Self:
        """The model after one more byte, 0..255, or after the end of the sequence, 257."""

    @abstractmethod
    async def logp_next(self) -> LazyByteProbs:
        """Natural log-probabilities of the next byte and of the end."""

    async def peek(self) -> LazyByteProbs:
        """`logp_next`, where nothing is read on from here: of a known text, of one of many branches. The
        same, and nothing that might be asked for next is evaluated beside it."""
        return await self.logp_next()

    async def log_potentials(self) -> LazyByteProbs:
        """The same, not normalised where a string's weight is a product of factors that need not be
        (`genlm.bytes.ensemble`)."""
        return await self.logp_next()

    def prune(self) -> Self:
        """The model with its unlikely hypotheses dropped; the model itself where it has none to drop."""
        return self

    async def prefill(self, bs: Context) -> Self:
        """The model after the known bytes `bs`, pruned before each."""
        state = self
        for symbol in list[Any](bs):
            state = await (state.prune() << symbol)
        return state

    async def cleanup(self) -> None:  # noqa: B027 — a model that holds nothing has nothing to do
        """Release what the model holds."""

    async def greedy(self, context: Context, steps: int) -> bytes:
        """Read `context`, then append the likeliest next byte up to `steps` times; stop at the end.

        Returns:
            `context` and the new bytes.
        """
        return await self._generate(context, steps, lambda chart: chart.argmax())

    async def sample(self, context: Context, steps: int, draw: Callable[[Any], Any] = sample_dict) -> bytes:
        """Read `context`, then append up to `steps` bytes, each drawn from its distribution.

        Args:
            context: bytes to start from.
            steps: how many bytes to append at most; fewer where the end of the sequence is drawn.
            draw: picks a key from a mapping of next bytes (and 257, the end) to probabilities.

        Returns:
            `context` and the new bytes.
        """
        return await self._generate(context, steps, lambda chart: draw(chart.map_values(math.exp)))

    async def _generate(self, context: Context, steps: int, choose: Callable[[Any], Any]) -> bytes:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise bad_value("steps", steps, "must be a number of bytes, zero or more")
        state = await self.prefill(context)
        text = [*context]
        for step in range(steps):
            symbol = choose((await state.logp_next()).materialize())
            if symbol == EOS:
                break
            text.append(symbol)
            if step + 1 < steps:
                state = await (state.prune() << symbol)
        return b"".join(s if isinstance(s, bytes) else bytes([s]) for s in text)
