"""The backend of Hugging Face models: evaluates what is asked for over a tree of contexts, in one forward.

Evaluating a hundred contexts in one forward costs about five times one alone (`benchmarks/RESULTS.md`), and
every prefix they share is computed once. So keys and values are kept for the nodes of the prefix tree
(`kv_cache.py`), within a bound and given up in order of last use. Contexts that do not fit beside each other
are run one after another; only a single context longer than the bound takes more, until its forward is done.

A model in training mode is an error, and one whose weights have changed is begun anew with (`weights.py`).
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float32

from genlm.bytes.backends.hf_tree.forward import TreeModel
from genlm.bytes.backends.hf_tree.positions import Twins
from genlm.bytes.backends.hf_tree.schedule import nodes_to_run, split_batch
from genlm.bytes.backends.hf_tree.uncached import UncachedModel
from genlm.bytes.backends.hf_tree.weights import Weights
from genlm.bytes.backends.hf_tree.wrapped import unwrapped
from genlm.bytes.contexts.backend import Backend, Outcome, Score, Statistics
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import ModelOutputError, bad_value, training

if TYPE_CHECKING:
    from genlm.backend.llm import AsyncTransformer

__all__ = ["HFTreeBackend"]

logger = logging.getLogger(__name__)

MOST_NEW = 512
"""New nodes in one forward: beyond this nothing is gained, and the logits' memory (200 kB a node at a
vocabulary of 49k) is."""

_Logps = Float32[torch.Tensor, " logits"]
_Rows = dict[ContextNode, _Logps]
_Scores = dict[Score, float]


class HFTreeBackend(Backend):
    """See `Engine`.

    Args:
        llm: the model to share weights with.
        most_bytes: the most memory for keys and values.
        trees: run the model over trees of contexts; else every context whole (`uncached.py`).

    Attributes:
        runner: runs the forwards. Another one when the model has been moved.
    """

    normalizes = True

    def __init__(self, llm: AsyncTransformer, most_bytes: int, trees: bool) -> None:
        self.tokenizer, self.byte_vocab = llm.tokenizer, llm.byte_vocab
        self._llm, self._model = llm, unwrapped(llm.model)
        self._most_bytes, self._trees = most_bytes, trees
        self.runner = self._made()
        self.max_length = self.runner.longest
        self._weights = Weights(self._model)
        self._twins = Twins()
        self._fit = MOST_NEW
        self._forwards = self._tokens_run = self._tokens_reused = 0

    def try_out(self) -> None:
        """Find out whether, and how, the model can be run (`TreeModel.check`, `UncachedModel.check`)."""
        self._check(self.runner)

    def _made(self) -> TreeModel | UncachedModel:
        return TreeModel(self._model, self._most_bytes) if self._trees else UncachedModel(self._model)

    @property
    def deterministic(self) -> bool:
        """Whether nothing is chosen by measuring what is faster."""
        return self.runner.deterministic

    @deterministic.setter
    def deterministic(self, wanted: bool) -> None:
        self.runner.deterministic = wanted

    def check(self, context: ContextNode) -> None:
        """Refuse a context that is empty, longer than the model can read, or has an unknown token."""
        size = self.runner.config.vocab_size
        if context.depth == 0:
            raise bad_value("token_ids", [], "the model needs at least one token", "Start from a BOS token.")
        if context.token >= size:
            raise bad_value("token_ids", context.token, f"this model's tokens are 0..{size - 1}")
        super().check(context)

    def split(self, contexts: list[ContextNode]) -> Iterable[list[ContextNode]]:
        """Parts that fit into the cache."""
        nothing_kept = isinstance(self.runner, UncachedModel)
        most = sys.maxsize if nothing_kept else self.runner.cache.most_slots or 0
        return split_batch(contexts, self._most_new, most)

    @property
    def _most_new(self) -> int:
        """New nodes in one forward: some models have buffers as wide as the longest text they read."""
        return min(self._fit, self.max_length or self._fit)

    def adapter(self, lora_name: str | None) -> object:
        """The configuration that came with an adapter's weights; None if there is no such adapter."""
        return None if lora_name is None else getattr(self._model, "peft_config", {}).get(lora_name)

    def forget(self) -> None:
        """Give all memory for keys and values back."""
        self.runner.cache.clear()

    def statistics(self, own: Statistics) -> Statistics:
        """Forwards and tokens as the model saw them, and the KV cache's slots and bytes."""
        cache = self.runner.cache
        return Statistics(
            self._forwards + getattr(self.runner, "forwards", 0),
            self._tokens_run + getattr(self.runner, "tokens", 0),
            self._tokens_reused,
            cache.used,
            cache.nbytes + own.cache_bytes,
            cache.evictions,
        )

    def changed(self) -> bool:
        """Whether the weights have been written to or moved. A model in training is an error."""
        name = type(self._model).__name__
        if self._model.training:
            raise training(self._model)
        if self._weights.moved():
            renewed, deterministic = self._made(), self.deterministic
            self._check(renewed)
            renewed.deterministic = deterministic
            self.forget()
            self.runner, self._weights = renewed, Weights(self._model)
            logger.info("%s has been moved; its contexts are computed again", name)
            return True
        if self._weights.written():
            logger.info("the weights of %s have changed; its contexts are computed again", name)
            return True
        return False

    # -- evaluation -----------------------------------------------------------------------------------

    def evaluate(self, contexts: list[ContextNode]) -> list[Outcome]:
        """The log-probabilities after each context, running what is missing on the way to them."""
        return self.scores(contexts, [])

    def scores(self, contexts: list[ContextNode], asked: list[Score]) -> list[Outcome]:
        """Rows and single numbers, from the same forwards; see `Backend`."""
        self._llm._activate((contexts or [asked[0].context])[0].tree.lora_name)
        try:
            with self._current_device():
                found, scores = self._answers(contexts, asked)
                if len(contexts) + len(asked) > 1:
                    # What is undefined passes every mask (0 x nan), so it may be another's.
                    for node in [node for node, row in found.items() if _undefined(row)]:
                        found |= self._answers([node], [])[0]
                    for one in [one for one, score in scores.items() if math.isnan(score)]:
                        scores |= self._answers([], [one])[1]
        finally:
            self.runner.cache.trim()
        rows = [self._gave_nan(n) if _undefined(row := found[n]) else row for n in contexts]
        numbers = [self._gave_nan(q.context) if math.isnan(x := scores[q]) else x for q in asked]
        return [*rows, *numbers]

    def _current_device(self) -> AbstractContextManager[object]:
        """Each thread has a current device of its own, the first at first; Triton's kernels run there."""
        device = self.runner.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _check(self, runner: TreeModel | UncachedModel) -> None:
        with self._current_device():
            runner.check()

    def _answers(self, wanted: list[ContextNode], asked: list[Score]) -> tuple[_Rows, _Scores]:
        model = self.runner
        if isinstance(model, UncachedModel):
            rows = model.run(list(dict.fromkeys([*wanted, *(one.context for one in asked)])))
            return rows, {one: float(rows[one.context][one.token]) for one in asked}
        most = math.inf if model.switch is None else model.switch
        near = [one for one in asked if one.context.depth <= most]
        found, scores = self._run_tree(model, [node for node in wanted if node.depth <= most], near)
        twins = {self._twins.of(node): node for node in wanted if node.depth > most}
        far = {Score(self._twins.of(a.context), a.token): a for a in asked if a.context.depth > most}
        rows, numbers = self._run_tree(model, list(twins), list(far))
        for twin, row in rows.items():
            found[twins[twin]], twins[twin].log_normalizer = row, twin.log_normalizer
        return found, scores | {far[one]: number for one, number in numbers.items()}

    def _gave_nan(self, node: ContextNode) -> ModelOutputError:
        return ModelOutputError(
            f"{type(self._model).__name__} gave nan or infinite logits after {node.depth} tokens, the last "
            f"of them {node.token}: they must be finite. Look for overflow in half precision (load it with "
            "dtype='float32' or 'bfloat16'), or damaged weights."
        )

    def _run_tree(
        self, model: TreeModel, wanted: list[ContextNode], asked: list[Score]
    ) -> tuple[_Rows, _Scores]:
        cache = model.cache
        cache.clock += 1
        tokens: dict[ContextNode, list[int]] = {}
        for context, token in asked:
            tokens.setdefault(context, []).append(token)
        new = everything = nodes_to_run(list(dict.fromkeys([*wanted, *tokens])), cache.clock)
        ask = set(wanted)
        found: _Rows = {}
        scores: _Scores = {}
        while new:
            part = new[: self._most_new]
            at = [i for i, node in enumerate(part) if node in ask]
            scored = [(i, token) for i, node in enumerate(part) for token in tokens.get(node, ())]
            try:
                rows, numbers = model.run_scored(part, at, scored)
            except BaseException as error:
                cache.discard(part)
                if not isinstance(error, torch.cuda.OutOfMemoryError) or len(part) == 1:
                    raise
                rows = None
            if rows is None:
                self._fit = len(part) // 2
                logger.warning("out of memory over %d contexts: at most %d from now on", len(part), self._fit)
                torch.cuda.empty_cache()
                continue
            self._forwards += 1
            self._tokens_run += len(part)
            self._tokens_reused += len(cache.view.old)
            found |= {part[i]: row for i, row in zip(at, rows, strict=True)}
            scores |= {Score(part[i], t): x for (i, t), x in zip(scored, numbers.tolist(), strict=True)}
            new = new[len(part) :]
        if any(map(_undefined, found.values())) or any(map(math.isnan, scores.values())):
            cache.discard(everything)
        return found, scores


def _undefined(row: _Logps) -> bool:
    """Whether a log-softmax found no numbers; then all of its row is nan."""
    return bool(row[0].isnan())
