"""Contexts and forwards that a beam asks for, counted as if nothing had been computed before.

**Problem.** Settings share most of their contexts. Evaluating each from nothing takes hours; over a warm
cache an engine's own statistics count only what the settings before had not asked for.

**Idea.** Every run gets a prefix tree of its own, in which nothing is known. What the beam asks for goes
through the engine's own way of gathering requests (`Batcher`), is counted, and is answered by an engine
that may know it from another run. The row `cold` checks both counts against the statistics of an engine
with nothing cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from genlm.bytes.contexts.batcher import Batcher
from genlm.bytes.contexts.tree import ContextNode, ContextTree
from genlm.bytes.engine import Engine

__all__ = ["Counter"]


class Counter:
    """An `AsyncLM` that counts, in front of an engine that may know the answers.

    Args:
        engine: answers.
        most_rows: log-probabilities kept for asking again, those of the latest contexts.

    Attributes:
        contexts: contexts that would have been run.
        forwards: forwards they would have taken.
    """

    def __init__(self, engine: Engine, most_rows: int = 8192) -> None:
        self.tokenizer, self.byte_vocab = engine.tokenizer, engine.byte_vocab
        self.contexts = self.forwards = 0
        self._engine = engine
        self._most_rows = most_rows
        self._tree = ContextTree()
        self._known: OrderedDict[ContextNode, None] = OrderedDict()
        self._seen: set[tuple[int, ...]] = set()
        self._batcher = Batcher(lambda nodes: [list(nodes)], self._evaluate)

    def node(self, token_ids: Sequence[int]) -> ContextNode:
        """The node of a context."""
        return self._tree.find(token_ids)

    async def next_token_logprobs(self, token_ids: Sequence[int]) -> Any:
        """Natural log-probabilities of the next token after a context."""
        return await self.logprobs(self.node(token_ids))

    async def logprobs(self, node: ContextNode) -> Any:
        """Natural log-probabilities of the next token after a node's context."""
        if node.logps is not None:
            return node.logps
        (outcome,) = await self._batcher.ask([node])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _evaluate(self, nodes: list[ContextNode]) -> Mapping[ContextNode, Any]:
        contexts = [tuple(node.tokens()) for node in nodes]
        # The beginning-of-sequence token alone is paid once for all texts.
        new = {tokens for tokens in contexts if len(tokens) > 1} - self._seen
        self._seen |= new
        self.contexts += len(new)
        self.forwards += bool(new)
        rows = self._engine.batch_next_token_logprobs_sync(contexts)
        found = {node: row.clone() for node, row in zip(nodes, rows, strict=True)}
        for node, row in found.items():
            node.logps = row
            self._known[node] = None
        while len(self._known) > self._most_rows:
            oldest, _ = self._known.popitem(last=False)
            oldest.logps = None
        return found
