"""`Engine`: a Hugging Face model behind the `AsyncLM` interface that never computes a context twice.

A search asks for many contexts that differ in their last few tokens. Evaluating a hundred of them in
one forward costs about five times one alone (`benchmarks/RESULTS.md`), and every prefix they share is
computed once. So the engine keeps all contexts in a prefix tree, keeps keys and values for its nodes,
and evaluates everything that is waiting in one forward.

**Nothing blocks the event loop.** Forwards run on one thread of the engine's own (`batcher.py`). While
one runs, requests from beams in any number of tasks, loops and threads gather for the next. There is no
timer.

**Guarantees.** Results do not depend on what else is in the batch or what was evicted (round-off
aside). A cancelled request harms no other, also when it is cancelled while its forward runs. An exception
in the model reaches those whose contexts were in that forward. The engine belongs to no event loop: loops
may use it one after another, or at the same time in several threads, and one that is closed during a
forward is forgotten. A model in training mode is an error, and one whose weights have changed is begun anew
with (`weights.py`). The `*_sync` methods may be called on any thread, whether a loop runs there or not.
An engine that is dropped is collected, and its thread ends.

Memory is bounded by `max_cache_bytes`, shared by keys and values and by log-probabilities, each given
up in order of last use; what is asked for again is computed again. Contexts that do not fit beside each
other are run one after another; only a single context longer than the bound takes more, until its forward
is done.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float32

from genlm.bytes.backends.hf_tree.forward import TreeModel
from genlm.bytes.backends.hf_tree.positions import Twins
from genlm.bytes.backends.hf_tree.schedule import nodes_to_run, split_batch
from genlm.bytes.backends.hf_tree.uncached import UncachedModel
from genlm.bytes.backends.hf_tree.weights import Weights
from genlm.bytes.contexts.batcher import QUIET_PASSES, UNTIL_IDLE, Batcher, Outcome
from genlm.bytes.contexts.tree import ContextNode, ContextTree
from genlm.bytes.errors import ModelOutputError, bad_value, training

if TYPE_CHECKING:
    from genlm.backend.llm import AsyncTransformer

__all__ = ["Engine", "Statistics"]

logger = logging.getLogger(__name__)

MOST_NEW = 512
"""New nodes in one forward: beyond this nothing is gained, and the logits' memory (200 kB a node at a
vocabulary of 49k) is."""

_Logps = Float32[torch.Tensor, " logits"]


class Statistics(NamedTuple):
    """What an engine has done so far, and what it holds."""

    forwards: int
    tokens_run: int
    tokens_reused: int
    slots: int
    cache_bytes: int
    evictions: int


class Engine:
    """An `AsyncLM` over the weights of a `genlm-backend` `AsyncTransformer`.

    Args:
        llm: the model to share weights with. It stays usable by itself.
        max_cache_bytes: the most memory for keys and values (on the model's device) and log-probabilities
            (in the host's memory), half for each. None takes an eighth of what is free for each half;
            on a CUDA device a quarter for keys and values.
        trees: run the model over trees of contexts. False runs every context whole and keeps
            log-probabilities only: slow, and right for models that can do no more (`uncached.py`).

    Raises:
        UnsupportedModelError: the model cannot be run over a tree of contexts.
    """

    def __init__(
        self, llm: AsyncTransformer, max_cache_bytes: int | None = None, *, trees: bool = True
    ) -> None:
        if max_cache_bytes is not None and max_cache_bytes < 1:
            raise bad_value("max_cache_bytes", max_cache_bytes, "must be a number of bytes above 0, or None")
        self.tokenizer = llm.tokenizer
        self.byte_vocab, self.str_vocab = llm.byte_vocab, llm.str_vocab
        self.model = llm.model
        if max_cache_bytes is None:
            slots_bytes, self._most_logps_bytes = default_bounds(llm.model.device)
        else:
            slots_bytes, self._most_logps_bytes = max_cache_bytes // 2, max_cache_bytes - max_cache_bytes // 2
        self.max_cache_bytes = slots_bytes + self._most_logps_bytes
        self._trees_wanted, self._slots_bytes = trees, slots_bytes
        self._tree_model = self._made()
        self._weights = Weights(llm.model)
        self._twins = Twins()
        self._llm = llm
        self._trees: dict[str | None, ContextTree] = {}
        self._with_logps: OrderedDict[ContextNode, None] = OrderedDict()
        self._logps_bytes = 0
        # Guards the trees and the log-probabilities, for moments. The slots belong to the worker's thread.
        self._lock = Lock()
        self._batcher = Batcher(self._parts, self._evaluate)
        self._forwards = self._tokens_run = self._tokens_reused = 0
        self._batcher.run(self._tree_model.check)

    def _made(self) -> TreeModel | UncachedModel:
        return TreeModel(self.model, self._slots_bytes) if self._trees_wanted else UncachedModel(self.model)

    normalizes = True
    """Its rows are log-softmaxes: that they are is not checked again."""

    # -- the AsyncLM interface ------------------------------------------------------------------------

    async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: str | None = None) -> _Logps:
        """Natural log-probabilities of the next token after a context."""
        return await self.logprobs(self.node(token_ids, lora_name))

    async def batch_next_token_logprobs(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> Float32[torch.Tensor, "contexts logits"]:
        """`next_token_logprobs` of each context, in one forward."""
        return torch.stack(await self.logprobs_many([self.node(ids, lora_name) for ids in token_ids_list]))

    def next_token_logprobs_sync(self, token_ids: Sequence[int], lora_name: str | None = None) -> _Logps:
        """`next_token_logprobs` for callers that cannot await. It blocks the thread, and a loop on it."""
        (found,) = self._logprobs_sync([self.node(token_ids, lora_name)])
        return found

    def batch_next_token_logprobs_sync(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> Float32[torch.Tensor, "contexts logits"]:
        """`batch_next_token_logprobs` for callers that cannot await."""
        return torch.stack(self._logprobs_sync([self.node(ids, lora_name) for ids in token_ids_list]))

    def clear_cache(self) -> None:
        """Forget everything computed so far; needed where the model's weights have changed unnoticed.

        Noticed, at the next forward, is what is written to them as training and loading do, and that they are
        moved or converted; not what is written through `tensor.data`, as merging a LoRA adapter is. What is
        known already is answered from memory until then. A beam that was begun before goes on with the new
        weights; begin a new one for figures of one model only.

        A forward that is running is waited for. Of the memory for keys and values all is given back.
        """
        self._batcher.run(self._forget)

    @property
    def deterministic(self) -> bool:
        """Whether the same questions, after `clear_cache`, are answered with the same last digits.

        For one event loop, on one machine. A forward then waits until its loop has nothing else to do, and
        nothing is chosen by measuring what is faster.
        """
        return self._tree_model.deterministic

    @deterministic.setter
    def deterministic(self, wanted: bool) -> None:
        self._tree_model.deterministic = wanted
        self._batcher.quiet_passes = UNTIL_IDLE if wanted else QUIET_PASSES

    reproducible = deterministic  # its name in 0.3.0

    def _forget(self) -> None:
        self._tree_model.cache.clear()
        with self._lock:
            for node in self._with_logps:
                node.logps = None
            self._with_logps.clear()
            self._logps_bytes = 0

    def add_new_lora(self, lora_path: str, lora_name: str = "lora_1") -> None:
        """Load a LoRA adapter, as `genlm-backend` does. One of the same name is replaced.

        A forward that is running is waited for. Contexts begun with the old adapter cannot be read on.
        """
        self._batcher.run(lambda: self._llm.add_new_lora(lora_path, lora_name))

    def remove_lora(self, lora_name: str) -> None:
        """Remove a LoRA adapter. A forward that is running is waited for."""
        self._batcher.run(lambda: self._llm.remove_lora(lora_name))

    # -- contexts as nodes ----------------------------------------------------------------------------

    def node(self, token_ids: Sequence[int], lora_name: str | None = None) -> ContextNode:
        """The node of a context. `node.child(token)` is the context with one more token."""
        with self._lock:
            tree = self._trees.get(lora_name)
            adapter = self._adapter(lora_name)
            if tree is None or tree.adapter is not adapter:
                tree = self._trees[lora_name] = ContextTree(lora_name, adapter)
        return tree.find(token_ids)

    def _adapter(self, lora_name: str | None) -> object:
        """The configuration that came with an adapter's weights; None if there is no such adapter."""
        return None if lora_name is None else getattr(self.model, "peft_config", {}).get(lora_name)

    async def logprobs(self, node: ContextNode) -> _Logps:
        """Natural log-probabilities of the next token after a node's context.

        Raises:
            ValueError: the context is empty, longer than the model can read, or has an unknown token.
        """
        logps = node.logps
        if logps is not None:
            self._touch(node)
            return logps
        self._check(node)
        (outcome,) = await self._batcher.ask([node])
        return raised(outcome)

    async def logprobs_many(self, nodes: Sequence[ContextNode]) -> list[_Logps]:
        """`logprobs` of each node, for less than as many calls. What is missing goes out together.

        Raises:
            ValueError: see `logprobs`; the first context that cannot be read. None is evaluated then.
        """
        self._check(*nodes)
        return [raised(outcome) for outcome in await self.outcomes(nodes)]

    async def outcomes(self, nodes: Sequence[ContextNode]) -> list[Outcome]:
        """`logprobs` of each node, or the exception that it would raise: a failing one harms no other."""
        known: dict[ContextNode, Outcome] = {}
        for node in nodes:
            logps = node.logps
            if logps is not None:
                self._touch(node)
                known[node] = logps
            else:
                try:
                    self._check(node)
                except ValueError as error:
                    known[node] = error
        asked = list(dict.fromkeys(node for node in nodes if node not in known))
        known.update(zip(asked, await self._batcher.ask(asked), strict=True))
        return [known[node] for node in nodes]

    def _logprobs_sync(self, nodes: list[ContextNode]) -> list[_Logps]:
        self._check(*nodes)
        return [raised(outcome) for outcome in self._batcher.ask_and_wait(nodes)]

    def statistics(self) -> Statistics:
        """Forwards, tokens run through the model and tokens reused, slots, bytes and evictions."""
        cache = self._tree_model.cache
        return Statistics(
            self._forwards + getattr(self._tree_model, "forwards", 0),
            self._tokens_run + getattr(self._tree_model, "tokens", 0),
            self._tokens_reused,
            cache.used,
            cache.nbytes + self._logps_bytes,
            cache.evictions,
        )

    # -- evaluation, on the worker's thread -----------------------------------------------------------

    def _parts(self, nodes: Collection[ContextNode]) -> Iterator[list[ContextNode]]:
        nothing_kept = isinstance(self._tree_model, UncachedModel)
        most = sys.maxsize if nothing_kept else self._tree_model.cache.most_slots or 0
        return split_batch(nodes, MOST_NEW, most)

    def _evaluate(self, nodes: list[ContextNode]) -> dict[ContextNode, Outcome]:
        """The log-probabilities at `nodes`, which share a tree, running what is missing."""
        self._notice()
        # A node's may be given up by the next, so they are read once.
        found: dict[ContextNode, Outcome] = {
            node: logps for node in nodes if (logps := node.logps) is not None
        }
        missing = [node for node in nodes if node not in found]
        if missing:
            self._activate(missing[0].tree)
            try:
                found |= self._run(missing)
            finally:
                self._tree_model.cache.trim()
        return found

    def _notice(self) -> None:
        """Have nothing to do with a model in training, and begin anew with one whose weights have changed."""
        if self.model.training:
            raise training(self.model)
        if self._weights.moved():
            renewed, deterministic = self._made(), self.deterministic
            renewed.check()
            renewed.deterministic = deterministic
            self._forget()
            self._tree_model, self._weights = renewed, Weights(self.model)
            logger.info("%s has been moved; its contexts are computed again", type(self.model).__name__)
        elif self._weights.written():
            self._forget()
            logger.info(
                "the weights of %s have changed; its contexts are computed again", type(self.model).__name__
            )

    def _activate(self, tree: ContextTree) -> None:
        self._llm._activate(tree.lora_name)
        if tree.adapter is not self._adapter(tree.lora_name):
            raise bad_value(
                "lora_name",
                tree.lora_name,
                "another adapter has been loaded under that name since this context was begun",
                "Start a new beam.",
            )

    def _run(self, wanted: list[ContextNode]) -> dict[ContextNode, Outcome]:
        found = self._rows(wanted)
        if len(wanted) > 1:
            for node in [node for node, row in found.items() if _undefined(row)]:
                # What is undefined passes every mask (0 x nan), so it may be another's.
                found |= self._rows([node])
        answers: dict[ContextNode, Outcome] = {}
        with self._lock:
            for node, row in found.items():
                if _undefined(row):
                    answers[node] = self._gave_nan(node)
                else:
                    answers[node] = row
                    self._keep(node, row)
        return answers

    def _rows(self, wanted: list[ContextNode]) -> dict[ContextNode, _Logps]:
        model = self._tree_model
        if isinstance(model, UncachedModel):
            return model.run(wanted)
        most = math.inf if model.switch is None else model.switch
        found = self._run_tree(model, [node for node in wanted if node.depth <= most])
        twins = {self._twins.of(node): node for node in wanted if node.depth > most}
        return found | {twins[twin]: row for twin, row in self._run_tree(model, list(twins)).items()}

    def _gave_nan(self, node: ContextNode) -> ModelOutputError:
        return ModelOutputError(
            f"{type(self.model).__name__} gave nan or infinite logits after {node.depth} tokens, the last of "
            f"them {node.token}: they must be finite. Look for overflow in half precision (load it with "
            "dtype='float32' or 'bfloat16'), or damaged weights."
        )

    def _run_tree(self, model: TreeModel, wanted: list[ContextNode]) -> dict[ContextNode, _Logps]:
        cache = model.cache
        cache.clock += 1
        new = nodes_to_run(wanted, cache.clock)
        ask = set(wanted)
        found: dict[ContextNode, _Logps] = {}
        for first in range(0, len(new), MOST_NEW):
            part = new[first : first + MOST_NEW]
            at = [i for i, node in enumerate(part) if node in ask]
            try:
                rows = model.run(part, at or [len(part) - 1])
            except BaseException:
                cache.discard(part)
                raise
            self._forwards += 1
            self._tokens_run += len(part)
            self._tokens_reused += len(cache.view.old)
            if at:
                found |= {part[i]: row for i, row in zip(at, rows, strict=True)}
        if any(_undefined(row) for row in found.values()):
            cache.discard(new)
        return found

    def _keep(self, node: ContextNode, logps: _Logps) -> None:
        node.logps = logps
        self._with_logps[node] = None
        self._logps_bytes += logps.numel() * logps.element_size()
        while self._logps_bytes > self._most_logps_bytes:
            oldest, _ = self._with_logps.popitem(last=False)
            assert oldest.logps is not None
            self._logps_bytes -= oldest.logps.numel() * oldest.logps.element_size()
            oldest.logps = None

    def _touch(self, node: ContextNode) -> None:
        with self._lock:
            if node in self._with_logps:
                self._with_logps.move_to_end(node)

    def _check(self, *nodes: ContextNode) -> None:
        longest, size = self._tree_model.longest, self._tree_model.config.vocab_size
        for node in nodes:
            if node.depth == 0:
                raise bad_value(
                    "token_ids", [], "the model needs at least one token", "Start from a BOS token."
                )
            if longest is not None and node.depth > longest:
                raise bad_value(
                    "token_ids",
                    f"{node.depth} tokens",
                    f"this model reads at most {longest} tokens",
                    "Shorten the text, or give `max_context_length` to keep the latest tokens only.",
                )
            if node.token >= size:
                raise bad_value("token_ids", node.token, f"this model's tokens are 0..{size - 1}")


def _undefined(row: _Logps) -> bool:
    """Whether a log-softmax found no numbers; then all of its row is nan."""
    return bool(row[0].isnan())


def raised(outcome: Outcome) -> _Logps:
    """What was found; an exception is raised."""
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def default_bounds(device: torch.device) -> tuple[int, int]:
    """Bytes for keys and values, which live on `device`, and for log-probabilities, which the host holds."""
    import psutil

    host = int(psutil.virtual_memory().available) // 8
    return (int(torch.cuda.mem_get_info(device)[0]) // 4 if device.type == "cuda" else host), host
