"""Small models with random conditional distributions, exact in float64, and awkward vocabularies.

The hand-checkable one is `TOY`. Its trie, with the library's node numbers (depth first, siblings in byte
order) and, after a dot, the tokens that end at a node:

    0 ─<─ 1 ─e─ 2 ─>─ 3 .6          tokens:  0 a    1 ab   2 abc  3 b
      ├─a─ 4 .0 .4                           4 a    5 c    6 <e>
      │    └─b─ 5 .1
      │         └─c─ 6 .2
      ├─b─ 7 .3
      └─c─ 8 .5
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from genlm.backend.tokenization import Token
from hypothesis import strategies as st

from genlm.bytes.contexts.cost import UNKNOWN

TOY = [b"a", b"ab", b"abc", b"b", b"a", b"c", b"<e>"]
EOS_STRING = b"<e>"


@dataclass
class ToyTokenizer:
    bos_token_id: int | None = None
    eos_token_id: int | None = None


@dataclass(eq=False)
class ToyLM:
    """A model with the interface of `AsyncLM`: `p(· | context)` is a random function of the context."""

    words: Sequence[bytes]
    seed: int = 0
    bos: int | None = None
    eos: int | None = None
    ids: Sequence[int] | None = None  # token ids, where they are not 0, 1, 2 …
    logits: int | None = None  # how many logits the model has, where not one per id
    zeros: float = 0.0  # share of tokens that have probability zero after a context
    dtype: torch.dtype = torch.float64
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        ids = range(len(self.words)) if self.ids is None else self.ids
        self.byte_vocab = [Token(i, w) for i, w in zip(ids, self.words, strict=True)]
        self.tokenizer = ToyTokenizer(self.bos, self.eos)
        self.size = self.logits or max(t.token_id for t in self.byte_vocab) + 1

    def probs(self, context: Sequence[int]) -> np.ndarray:
        rng = np.random.default_rng([self.seed, *(i + 1 for i in context)])
        p = rng.dirichlet(np.full(self.size, 0.7)) + 1e-6
        if self.zeros:
            p[rng.random(self.size) < self.zeros] = 0.0
            p[rng.integers(self.size)] += 1e-3
        return p / p.sum()

    async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> torch.Tensor:
        self.asked.append(tuple(token_ids))
        return torch.log(torch.from_numpy(self.probs(token_ids))).to(self.dtype)


@dataclass(eq=False)
class FixedLM(ToyLM):
    """A toy whose distributions come from a function of the context."""

    rule: Callable[[Sequence[int]], Sequence[float]] = lambda context: [1.0]

    def probs(self, context: Sequence[int]) -> np.ndarray:
        return np.asarray(self.rule(context), np.float64)


@dataclass(eq=False)
class BatchingToy(ToyLM):
    """A toy that says its contexts cost less together, so that it is asked for them ahead of time."""

    cost = UNKNOWN  # not measured: what is drafted must not depend on a clock here
    batches: list[int] = field(default_factory=list)  # how many contexts each batch had

    async def batch_next_token_logprobs(self, token_ids_list: Sequence[Sequence[int]]) -> torch.Tensor:
        self.batches.append(len(token_ids_list))
        return torch.stack([await self.next_token_logprobs(ids) for ids in token_ids_list])


def vocabularies(
    alphabet: bytes = b"abc", most: int = 9, longest: int = 4, complete: bool = True
) -> st.SearchStrategy[list[bytes]]:
    """Vocabularies with awkward overlaps and repeated spellings; with every single byte if `complete`."""
    byte = st.sampled_from([bytes([b]) for b in alphabet])
    word = st.lists(byte, min_size=1, max_size=longest).map(b"".join)
    singles = [bytes([b]) for b in alphabet] if complete else []
    return st.lists(word, min_size=0 if complete else 1, max_size=most).map(lambda ws: singles + ws)
