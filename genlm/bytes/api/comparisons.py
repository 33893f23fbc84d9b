"""Bytes beside tokens, continuations beside each other, as methods of `AsyncByteLM`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from genlm.bytes.prompt import Prompt
    from genlm.bytes.score import ScoringOptions, TokenLogprobs

__all__ = ["Comparisons"]


class Comparisons:
    """What compares; it needs no more than the beginning of a context."""

    @abstractmethod
    async def _begin(self, context: Any) -> tuple[Prompt, Any]:
        """A context's text that is still to be read, and the state before it."""

    async def token_logprobs(
        self, text: Any, context: Any = b"", **options: Unpack[ScoringOptions]
    ) -> TokenLogprobs | list[TokenLogprobs]:
        """What the model's own tokens of a text cost, beside its bytes.

        Args:
            text: str or bytes; or a list of them.
            context: as for `score`. The tokenizer cuts context and text together.
            **options: as for `score`.

        Returns:
            `TokenLogprobs`, or a list of them.

        Raises:
            ValueError: the tokens do not spell the text: the tokenizer normalizes, the text is no UTF-8, the
                model has no logits for one of them; or they are more than it reads.
            GenlmBytesError: an ensemble, which has no tokens.
            ImpossibleByteError: a byte that the model cannot write, with its offset.
        """
        from genlm.bytes.prompt import is_batch
        from genlm.bytes.score.scorer import Scorer, contexts_of, texts_of

        texts, single = texts_of(text, "text")
        contexts = contexts_of(context, len(texts), is_batch(context))
        found = await Scorer.of(self._begin, options).token_logprobs(texts, contexts)
        return found[0] if single else found
