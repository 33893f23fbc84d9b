"""Bytes beside tokens, continuations beside each other, as methods of `AsyncByteLM`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from genlm.bytes.api.scoring import scoring_options
from genlm.bytes.errors import called, names_checked

if TYPE_CHECKING:
    from genlm.bytes.generate import Read
    from genlm.bytes.prompt import Prompt
    from genlm.bytes.score import Choices, ChoicesTable, ScoringOptions, Tokenizations, TokenLogprobs
    from genlm.bytes.score.choices import Normalise

__all__ = ["Comparisons"]


@names_checked(scoring_options)
class Comparisons:
    """What compares; it needs no more than the beginning of a context."""

    @abstractmethod
    async def _begin(self, context: Any) -> tuple[Prompt, Any]:
        """A context's text that is still to be read, and the state before it."""

    @abstractmethod
    async def _read(self, context: Any, *, name: str = "context", healing: bool = True) -> Read:
        """A context, read."""

    async def tokenizations(self, text: Any, context: Any = b"") -> Tokenizations | list[Tokenizations]:
        """The posterior over the ways to cut a text into tokens: the share of the tokenizer's own, entropy,
        alternatives and where they differ.

        Args:
            text: str or bytes; or a list of them. A token begins with it, and one ends with it.
            context: a prompt that stands before it, by the tokenizer's own tokens.

        Returns:
            `Tokenizations`, or a list of them: sequences of `Cut`, the likeliest first.

        Raises:
            GenlmBytesError: an ensemble, which has no tokens.
            ImpossibleByteError: a byte that the model cannot write, with its offset.
        """
        from genlm.bytes.byte_lm import ByteBeamState
        from genlm.bytes.score.scorer import texts_of
        from genlm.bytes.score.tokenizations import tokenizations_of_text
        from genlm.bytes.score.tokens import no_tokens
        from genlm.bytes.util.gather import gather

        texts, single = texts_of(text, "text")
        start = (await self._read(context, healing=not context)).beam
        if not isinstance(start, ByteBeamState):
            raise no_tokens()
        with called(bs="text"):
            found = list(await gather(tokenizations_of_text(start, one) for one in texts))
        return found[0] if single else found

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

    async def choices(
        self,
        context: Any,
        choices: Sequence[Any],
        normalise: Normalise = None,
        *,
        end: bool = False,
        baseline: Any = b"",
        **options: Unpack[ScoringOptions],
    ) -> Choices | ChoicesTable:
        """Compare given continuations: their log-probabilities, the share of each, ranks.

        Args:
            context: what stands before them, as a prompt of `complete`; or a list of prompts.
            choices: the continuations, str or bytes, as they stand after it, with a space in front where
                there is one; for several contexts the same ones, or a list for each.
            normalise: compare log-probabilities as they are; by byte, `"length"`; or less those after
                `baseline` in place of the context, `"unconditional"`. See `genlm.bytes.score.choices`.
            end: whether each one's end counts too.
            baseline: a prompt; with `"unconditional"` only.
            **options: as for `score`.

        Returns:
            `Choices`; of several contexts a list of them, a `ChoicesTable`.

        Raises:
            ValueError: no choices, an empty one, another number of lists than of contexts.
            TypeError: an argument of the wrong type.
            ImpossibleByteError: a byte that the model cannot write; not with `on_impossible="inf"`.
        """
        from genlm.bytes.prompt import is_batch
        from genlm.bytes.prompt.prompt import as_bytes
        from genlm.bytes.score.choices import (
            Choices,
            ChoicesTable,
            check_baseline,
            check_normalise,
            choices_of,
        )
        from genlm.bytes.score.scorer import Scorer

        several = is_batch(context)
        contexts = list(context) if several else [context]
        given = choices_of(choices, len(contexts), end)
        check_normalise(normalise, given)
        check_baseline(baseline, normalise)
        scorer = Scorer.of(self._begin, options)
        texts = [as_bytes("choices", choice) for one in given for choice in one]
        after = [context for context, one in zip(contexts, given, strict=True) for _ in one]
        with called(text="choices"):
            scores = iter(await scorer.scores(texts, after, end))
        below = None
        if normalise == "unconditional":
            with called(context="baseline"):
                unique = list(dict.fromkeys(texts))
                found = await scorer.scores(unique, [baseline], end)
            below = dict(zip(unique, found, strict=True))
        table = ChoicesTable()
        for one in given:
            own = tuple(next(scores) for _ in one)
            under = None if below is None else tuple(below[score.text] for score in own)
            table.append(Choices(one, own, under, normalise))
        return table if several else table[0]
