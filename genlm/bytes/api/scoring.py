"""Known texts scored, by bytes and by words, as methods of `AsyncByteLM`."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack

from genlm.bytes.errors import called, names_checked

if TYPE_CHECKING:
    from genlm.bytes.byte_lm import BeamParams
    from genlm.bytes.prompt import Prompt
    from genlm.bytes.score import Score, ScoringOptions, TableSurprisals, WordSurprisals

__all__ = ["Scoring", "scoring_options"]


def scoring_options() -> Iterable[str]:
    """What `**options` of a method that scores stands for; their module is imported when they are needed."""
    from genlm.bytes.score.scorer import ScoringOptions

    return ScoringOptions.__annotations__


@names_checked(scoring_options)
class Scoring:
    """What reads known texts; it needs the beginning of a context, and for files what tells models apart."""

    params: BeamParams

    @abstractmethod
    async def _begin(self, context: Any) -> tuple[Prompt, Any]:
        """A context's text that is still to be read, and the state before it."""

    @abstractmethod
    def _described(self) -> dict[str, Any]:
        """What tells this model from others, as JSON values: its `model`, and how it is asked."""

    @abstractmethod
    async def forget(self, *, deterministic: bool | None = None) -> None:
        """Forget what has been read."""

    async def score(
        self, text: Any, context: Any = b"", *, end: bool = False, **options: Unpack[ScoringOptions]
    ) -> Score | list[Score]:
        """How probable each byte of a text is, given the context and the bytes before it.

        Args:
            text: str or bytes; or a list of them, which are read concurrently.
            context: what stands before it, as a prompt of `complete`; or a list of prompts, one a text.
            end: whether the text ends there, so that its end counts too.
            **options: see `genlm.bytes.score.ScoringOptions`.

        Returns:
            A `Score`, or a list of them.

        Raises:
            ImpossibleByteError: a byte that the model cannot write, with its offset.
            ValueError: an option out of range; `end` where nothing ends a sequence.
            TypeError: a text that is neither str nor bytes.
        """
        from genlm.bytes.prompt import is_batch
        from genlm.bytes.score.scorer import Scorer, contexts_of, texts_of

        texts, single = texts_of(text, "text")
        contexts = contexts_of(context, len(texts), is_batch(context))
        found = await Scorer.of(self._begin, options).scores(texts, contexts, end)
        return found[0] if single else found

    async def word_surprisal(
        self,
        texts: Any,
        words: Sequence[Any] | None = None,
        spans: Sequence[Any] | None = None,
        *,
        sep: str | None = " ",
        boundary: Literal["trailing", "leading", "none"] | None = None,
        base: float = 2,
        context: Any = b"",
        punctuation: bool | str = False,
        entropy: bool | Literal["byte", "char"] = False,
        rank: bool = False,
        budget: int | None = 256,
        **options: Unpack[ScoringOptions],
    ) -> WordSurprisals:
        """The surprisal of each word of some texts, beside the sum over the tokenizer's own tokens.

        Args:
            texts: str or bytes; or a list of them.
            words: the words to look at, as they stand in the text, in order; a list of lists for several.
            spans: or pairs of character offsets, likewise.
            sep: or what stands between words; None for any white space. `""` for scripts without.
            boundary: `"trailing"`: the word and its end; `"leading"`: the separator before it and the word;
                `"none"`: the word's bytes alone. None is trailing where there are words and a separator. See
                `genlm.bytes.score.words`.
            base: of the logarithm: 2 for bits.
            context: as for `score`.
            punctuation: whether punctuation marks are regions of their own; or which characters are.
            entropy: add the entropy of the next byte (True), or character (`"char"`), where each word begins,
                and bounds on that of the next word.
            rank: add bounds on the word's rank among those that may come next.
            budget: contexts of the model looked at for each word's bounds; None for as many as it takes.
            **options: as for `score`.

        Returns:
            The records; `.to_dataframe()`, `.to_tsv()`.

        Raises:
            ValueError: a word that does not occur, spans out of range or overlapping, options that exclude
                each other.
            TypeError: an argument of the wrong type.
            ImpossibleByteError: a byte that the model cannot write, with its offset.
        """
        from genlm.bytes.prompt import is_batch
        from genlm.bytes.score.scorer import Scorer, contexts_of, for_each, texts_of
        from genlm.bytes.score.uncertainty import Uncertain
        from genlm.bytes.score.words import Rule

        found, single = texts_of(texts)
        rule = Rule.of(boundary, sep, punctuation, base, spans is not None)
        asked = Uncertain.of(entropy, rank, budget, rule.trailing, rule.base)
        with called(text="texts"):
            return await Scorer.of(self._begin, options).surprisals(
                found,
                contexts_of(context, len(found), is_batch(context)),
                for_each("words", words, single, len(found)),
                for_each("spans", spans, single, len(found)),
                rule,
                asked,
            )

    async def table_surprisal(
        self,
        table: Any,
        word: str = "word",
        text_id: str | None = None,
        position: str | None = None,
        *,
        texts: Mapping[Any, str] | str | None = None,
        context: Any = b"",
        context_column: str | None = None,
        align: str | Sequence[str] = "exact",
        on_missing: Literal["error", "ignore"] = "error",
        on_unmatched: Literal["error", "missing"] = "error",
        sep: str | None = " ",
        boundary: Literal["trailing", "leading", "none"] | None = None,
        base: float = 2,
        punctuation: bool | str = False,
        entropy: bool | Literal["byte", "char"] = False,
        rank: bool = False,
        budget: int | None = 256,
        **options: Unpack[ScoringOptions],
    ) -> TableSurprisals:
        """The surprisal of each word of a table that has a row a word, as corpora of reading times have.

        Args:
            table: a pandas DataFrame, or a list of dictionaries. Rows may be in any order, several of one
                word, and missing.
            word: the column of the words, as their owner has them.
            text_id: the column that says of which text a row is; None for one text.
            position: the column of a number that orders the words of a text; None where rows are in order.
                Rows that agree in text and position are one word, as several readers' are.
            texts: the whole texts by their ids, or the column that has them; None to join the words by `sep`.
            context: what stands before every text; see `score`.
            context_column: or the column that has it.
            align: what may differ between words and texts: `"exact"`, `"loose"`, or some of `"quotes"`,
                `"dashes"`, `"spaces"`, `"case"`, `"forms"`, `"penn"`; see `genlm.bytes.score.align`.
            on_missing: `"error"`, or `"ignore"` gaps between positions where there are no texts.
            on_unmatched: `"error"`, or `"missing"` to leave words that are not in their text without figures.
            sep: as for `word_surprisal`, as are the others.
            boundary: a word that the next row goes on in ("do", "n't") is a `"part"`, without an end.
            base: see there.
            punctuation: which marks end a word wherever they stand.
            entropy: as for `word_surprisal`, as are `rank` and `budget`.
            rank: see there. A word that the next row goes on in has none.
            budget: see there.
            **options: as for `score`.

        Returns:
            The rows, in their order, with the figures; `.to_dataframe()`, `.to_tsv()`, `.unmatched`.

        Raises:
            ValueError: words that are not in their text, by their places; rows that contradict each other;
                rows of several readers without a `position`; a column that is not there.
            ImpossibleByteError: a byte that the model cannot write, with its offset.
        """
        from genlm.bytes.score.joined import TableSurprisals, rows_of
        from genlm.bytes.score.word_rows import Columns, WordRows

        rows, there = rows_of(table)
        whole = texts if isinstance(texts, str) else None
        columns = Columns(word, text_id, position, context_column, whole)
        columns.check(there)
        given = None if isinstance(texts, str) else texts
        aligned = WordRows.of(rows, columns, given, align, on_missing, on_unmatched, sep)
        records = aligned.records
        found = await self.word_surprisal(
            [record.text for record in records],
            spans=[list(record.spans or ()) for record in records],
            sep=sep,
            boundary=boundary or ("none" if sep == "" else "trailing"),
            base=base,
            context=context if context_column is None else [record.context for record in records],
            punctuation=punctuation,
            entropy=entropy,
            rank=rank,
            budget=budget,
            **options,
        )
        return TableSurprisals(table, aligned, found)

    async def byte_logprobs(
        self,
        texts: Any,
        context: Any = b"",
        *,
        out: str | os.PathLike[str] | None = None,
        format: Literal["npz", "safetensors"] = "npz",
        texts_per_shard: int = 64,
        **options: Unpack[ScoringOptions],
    ) -> Any:
        """What could have stood at each byte of some texts: natural log-probabilities of every next byte.

        Row `i` is the distribution before byte `i`: bytes 0..255, and at 256 the end of the text.

        Args:
            texts: str or bytes; or a list of them.
            context: as for `score`.
            out: a folder to write to in shards, for what memory cannot hold; the same call again goes on
                where an interrupted one stopped, and the files are those of a run without an end: before each
                shard the model forgets what it has read (`forget(deterministic=True)`).
                `genlm.bytes.score.read_shards` reads it.
            format: of the shards.
            texts_per_shard: how many texts go into one.
            **options: as for `score`.

        Returns:
            A float32 array `[n, 257]`, or a list of them; with `out`, the folder.

        Raises:
            ValueError: `out` holds the results of another call, or is being written by one.
            ImpossibleByteError: a byte that the model cannot write, with its offset.
        """
        from genlm.bytes.prompt import is_batch
        from genlm.bytes.score.scorer import Scorer, contexts_of, settings_of, texts_of

        found, single = texts_of(texts)
        contexts = contexts_of(context, len(found), is_batch(context))
        scorer = Scorer.of(self._begin, options)
        if out is None:
            with called(text="texts"):
                arrays = await scorer.arrays(found, contexts)
            return arrays[0] if single else arrays
        own = self._described()
        settings = settings_of(self.params, own.pop("model"), context, dict(options)) | own
        forget = partial(self.forget, deterministic=True)
        with called(text="texts"):
            return await scorer.write_arrays(found, contexts, out, format, texts_per_shard, settings, forget)
