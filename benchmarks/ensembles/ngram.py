"""A second model with a tokenizer of its own: n-grams over byte-pair tokens, trained at once on given texts.

Each order's counts are mixed with those of the shorter ones, by how many different tokens have followed
(Witten and Bell 1991).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from genlm.backend.tokenization import Token
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from genlm.bytes.contexts.backend import Backend

END = "<end>"


class NGram(Backend):
    """See the module.

    Args:
        texts: to learn from.
        tokens: how many tokens its tokenizer has.
        order: the tokens that a count is of, at most.
    """

    batches = False

    def __init__(self, texts: Sequence[str], tokens: int = 600, order: int = 4) -> None:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        learn = trainers.BpeTrainer(
            vocab_size=tokens, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator(texts, learn)
        self._made, self.order = made, order
        self.tokenizer: Any = SimpleNamespace(bos_token_id=0, eos_token_id=0, encode=self._encode)
        self.byte_vocab = [Token(0, END.encode())] + [
            Token(i, _spelling(made.id_to_token(i))) for i in range(1, made.get_vocab_size())
        ]
        self._counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            ids = [0, *self._encode(text), 0]
            for at in range(1, len(ids)):
                for n in range(min(order, at + 1)):
                    self._counts[tuple(ids[at - n : at])][ids[at]] += 1

    def _encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return list(self._made.encode(text).ids)

    def _probs(self, context: Sequence[int]) -> np.ndarray:
        found = np.full(len(self.byte_vocab), 1.0 / len(self.byte_vocab))
        for n in range(min(self.order, len(context) + 1)):
            seen = self._counts.get(tuple(context[len(context) - n :]))
            if seen:
                total, kinds = seen.total(), len(seen)
                found *= kinds / (total + kinds)
                found[list(seen)] += np.array(list(seen.values())) / (total + kinds)
        return found

    def evaluate(self, contexts: list[Any]) -> list[torch.Tensor]:
        return [torch.log(torch.from_numpy(self._probs(context.tokens()))) for context in contexts]


_BYTES = {
    c: b
    for b, c in zip(
        [*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173],
        [*map(chr, [*range(33, 127), *range(161, 173), *range(174, 256)]), *map(chr, range(256, 256 + 68))],
        strict=True,
    )
}
"""What the byte-level pre-tokenizer writes for each byte."""


def _spelling(token: str) -> bytes:
    return bytes(_BYTES[c] for c in token)
