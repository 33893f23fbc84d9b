"""Prompts that stop anywhere, no two alike, and what the model goes on with when it is asked alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from common.peers import HERE

from genlm.bytes import ByteLM

__all__ = ["TOKENS", "Alone", "Prompts"]

TOKENS = 16
"""Tokens that a prompt is completed by, at most."""
NEAR = 1e-3
"""Two tokens whose log-probabilities differ by less are near: which is the likelier may hang on what shares a
forward, since sums of floating-point numbers hang on their order."""

PARTIAL = "\ufffd"
"""What stands for a character that is cut at the end of an answer."""


class Prompts:
    """Prompts from sentences, each a different one."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._sentences = (HERE / "texts" / "sentences.txt").read_text(encoding="utf-8").splitlines()
        self._given = set[str]()

    def one(self) -> str:
        """One that has not been given yet."""
        while True:
            text = " ".join(self._rng.sample(self._sentences, 2))
            text = text[: self._rng.randrange(len(text) // 2, len(text))]
            if text not in self._given:
                self._given.add(text)
                return text


@dataclass(frozen=True)
class Alone:
    """What one prompt is completed with when nothing else is asked.

    Attributes:
        tokens: the bytes of each token, greedily; of the first what it adds to the prompt.
        margins: by how many nats each was likelier than the next.
        ends: whether the model ended the text after them.
    """

    tokens: tuple[bytes, ...]
    margins: tuple[float, ...]
    ends: bool

    @classmethod
    def asked(cls, lm: ByteLM, prompt: str) -> Alone:
        """By the library, in this process."""
        found: Any = lm.complete(prompt, max_tokens=TOKENS, temperature=0, top_logprobs=2)
        margins = tuple(top[0].logprob - top[1].logprob if len(top) > 1 else 99.0 for top in found.token_top)
        return cls(tuple(found.token_bytes), margins, found.finish_reason == "eos")

    def verdict(self, text: str, most: int) -> str:
        """How an answer of at most so many tokens compares: `right`, `near` or `wrong`.

        Near: it differs first in a token that was likelier than the next by less than `NEAR`.
        """
        text = text.rstrip(PARTIAL)
        if text == self._text(most):
            return "right"
        for i, margin in enumerate(self.margins[:most]):
            if margin < NEAR and text.startswith(self._text(i)):
                return "near"
        return "wrong"

    def _text(self, tokens: int) -> str:
        return b"".join(self.tokens[:tokens]).decode("utf-8", "replace").rstrip(PARTIAL)
