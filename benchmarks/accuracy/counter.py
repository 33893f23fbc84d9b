"""Contexts and forwards that a beam asks for, counted as if nothing had been computed before.

**Problem.** Settings share most of their contexts. Evaluating each from nothing takes hours; over a warm
cache an engine's own statistics count only what the settings before had not asked for.

**Idea.** Every run gets a `CachedLM` of its own, in which nothing is known. What the beam asks for goes
through it to a backend that counts, and has it answered by an engine that may know it from another run. The
row `cold` checks both counts against the statistics of an engine with nothing cached.
"""

from __future__ import annotations

import torch

from genlm.bytes.contexts.backend import Backend
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.engine import Engine

__all__ = ["Counter", "counting"]

MOST_BYTES = 8192 * 200_000
"""Log-probabilities kept for asking again: some thousand rows."""


class Counter(Backend):
    """Counts what it is asked, and asks an engine that may know the answers.

    Attributes:
        contexts: contexts that would have been run.
        forwards: forwards they would have taken.
    """

    normalizes = True

    def __init__(self, engine: Engine) -> None:
        self.tokenizer, self.byte_vocab = engine.tokenizer, engine.byte_vocab
        self.contexts = self.forwards = 0
        self._engine = engine
        self._seen: set[tuple[int, ...]] = set()

    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        """The engine's answers."""
        asked = [tuple(context.tokens()) for context in contexts]
        # The beginning-of-sequence token alone is paid once for all texts.
        new = {tokens for tokens in asked if len(tokens) > 1} - self._seen
        self._seen |= new
        self.contexts += len(new)
        self.forwards += bool(new)
        return [row.clone() for row in self._engine.batch_next_token_logprobs_sync(asked)]


def counting(engine: Engine) -> CachedLM[Counter]:
    """A model that remembers nothing yet, in front of an engine that may know the answers."""
    return CachedLM(Counter(engine), MOST_BYTES)
