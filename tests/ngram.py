"""A backend in 50 lines: how often a token follows some others in a text, mixed with all shorter histories.

It does what `contexts/backend.py` says, and knows nothing else of this library. A count is the same whatever
else is asked for, so nothing needs to be kept between calls, and what a call asks for is looked up in turn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from genlm.backend.tokenization import Token

from genlm.bytes.contexts.backend import Backend
from genlm.bytes.contexts.tree import ContextNode


@dataclass
class GreedyTokenizer:
    """The longest token that fits, from left to right."""

    words: Sequence[bytes]
    bos_token_id: int = 0
    eos_token_id: int = 0

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        found, rest = [], text.encode()
        while rest:
            fits = [i for i, word in enumerate(self.words) if word and rest.startswith(word)]
            best = max(fits, key=lambda i: len(self.words[i]))
            found.append(best)
            rest = rest[len(self.words[best]) :]
        return found


class NGramBackend(Backend):
    """Counts of n-grams, from `order` tokens down to one, each level given `weight` of what it leaves."""

    batches = False  # looking up ten contexts takes ten times as long as one

    def __init__(self, words: Sequence[bytes], texts: Iterable[str], order: int = 3, weight: float = 0.6):
        self.byte_vocab = [Token(i, word) for i, word in enumerate(words)]
        self.tokenizer = GreedyTokenizer(words)
        self.order, self.weight = order, weight
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            ids = [self.tokenizer.bos_token_id, *self.tokenizer.encode(text), self.tokenizer.eos_token_id]
            for at in range(1, len(ids)):
                for n in range(min(order, at + 1)):
                    self.counts[tuple(ids[at - n : at])][ids[at]] += 1

    def probs(self, context: Sequence[int]) -> np.ndarray:
        """The probability of each token after a context."""
        found = np.full(len(self.byte_vocab), 1 / len(self.byte_vocab))
        for n in range(self.order):
            seen = self.counts.get(tuple(context[len(context) - n :])) if n <= len(context) else None
            if seen:
                level = np.zeros(len(found))
                level[list(seen)] = list(seen.values())
                found = (1 - self.weight) * found + self.weight * level / level.sum()
        return found

    def evaluate(self, contexts: list[ContextNode]) -> list[torch.Tensor]:
        return [torch.log(torch.from_numpy(self.probs(context.tokens()))) for context in contexts]
