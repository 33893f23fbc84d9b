"""What a model's own tokens cost, beside the bytes that they spell, for those who compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from genlm.bytes.errors import GenlmBytesError, bad_value
from genlm.bytes.score.byte_scores import Score, equal_fields
from genlm.bytes.score.naive import TokenScore

__all__ = ["TokenLogprobs"]


@dataclass(frozen=True, eq=False)
class TokenLogprobs:
    """A text by the tokens that the model's own tokenizer makes of it after its context.

    Attributes:
        token_ids: the tokens.
        offsets: where each begins in the text, in bytes, `[tokens]`. The first is below 0 where the tokenizer
            has a token reach over the context's end.
        logprobs: natural log-probability of each given those before it, `[tokens]`.
        score: the same text by bytes, over all tokenizations.
    """

    token_ids: tuple[int, ...]
    offsets: Int64[np.ndarray, " tokens"]
    logprobs: Float64[np.ndarray, " tokens"]
    score: Score

    @classmethod
    def of(cls, tokens: Sequence[TokenScore], score: Score) -> TokenLogprobs:
        """The tokens of a text that has been scored."""
        if score.text and not tokens:
            rule = "the model's own tokens do not spell it, or are more than it reads"
            raise bad_value("text", score.text, rule, "`score` needs no tokens.")
        return cls(
            tuple(token.token_id for token in tokens),
            np.array([token.start for token in tokens], np.int64),
            np.array([token.logprob for token in tokens], np.float64),
            score,
        )

    @property
    def logprob(self) -> float:
        """The sum: of this one way to cut the text. That of all ways, `score.logprob`, is no less, unless
        the first token begins in the context."""
        return float(self.logprobs.sum())

    @property
    def token_bytes(self) -> tuple[bytes, ...]:
        """What each token spells of the text."""
        ends = [max(0, int(start)) for start in self.offsets] + [len(self.score)]
        return tuple(self.score.text[start:end] for start, end in pairwise(ends))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenLogprobs) and equal_fields(self, other)

    def __hash__(self) -> int:
        return hash(self.token_ids)

    def __len__(self) -> int:
        return len(self.token_ids)

    def __repr__(self) -> str:
        said = f"{len(self)} tokens, logprob={self.logprob:.6g}"
        return f"TokenLogprobs({said}; by bytes {self.score.logprob:.6g})"


def no_tokens() -> GenlmBytesError:
    """The error of an ensemble that is asked for its tokens."""
    return GenlmBytesError("an ensemble has no tokens of its own: ask one of its members.")
