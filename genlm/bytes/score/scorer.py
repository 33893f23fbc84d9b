"""Scoring texts through one model: what `AsyncByteLM.score` and its like do once their arguments are named.

Texts are read concurrently, so that the contexts of many go out in the same forwards. A context that texts
share is read once. Many texts are taken a few at a time: what has been read can be forgotten.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar

import numpy as np
from jaxtyping import Float32

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.byte_lm.symbols import offsets, split_symbols
from genlm.bytes.errors import bad_type, bad_value, called, check_names
from genlm.bytes.prompt.prompt import Prompt, as_bytes
from genlm.bytes.prompt.read import read_text
from genlm.bytes.score.byte_scores import CharScores, Score
from genlm.bytes.score.ends import EndProbability, end_probability, ends_tree
from genlm.bytes.score.naive import naive_sums, reaches, token_scores
from genlm.bytes.score.reading import Reading, check_policy, distributions, end_logprob, read
from genlm.bytes.score.regions import Region, find_regions
from genlm.bytes.score.shards import Shards
from genlm.bytes.score.table import WordSurprisal, WordSurprisals
from genlm.bytes.score.tokens import TokenLogprobs, no_tokens
from genlm.bytes.score.uncertainty import Uncertain
from genlm.bytes.score.window import Window, Windows, fits, read_sliding
from genlm.bytes.score.words import Rule, log_sum, region_logprobs, region_places
from genlm.bytes.trie import TrieMode
from genlm.bytes.trie.modes import EOT
from genlm.bytes.util.gather import gather
from genlm.bytes.util.numbers import whole_number

__all__ = ["Begin", "Scorer", "ScoringOptions"]

AT_ONCE = 32
"""Texts read at the same time: enough to fill forwards, few enough for their contexts to be kept."""

T = TypeVar("T")
Begin = Callable[[Any], Awaitable[tuple[Prompt, Any]]]
"""From a user's context to its one form, and the beam, or ensemble, that its text is to be read with."""


@dataclass(frozen=True)
class _Context:
    """A context that has been read: the beam before its text and after it."""

    before: Any
    text: bytes
    after: Any
    window: Window | Windows | None


class ScoringOptions(TypedDict, total=False):
    """Options of `score`, `word_surprisal` and `byte_logprobs`.

    Attributes:
        window: tokens of a context, of a sliding window for long texts; see `genlm.bytes.score.Window`.
        overlap: see `Window.of`.
        method: how contexts are read, `"beam"` by default; see `ByteBeamState.prefill`.
        on_impossible: `"error"`, or `"inf"` to give a byte that the model cannot write minus infinity, and
            the bytes after it nan.
        at_once: texts read at the same time.
    """

    window: int | None
    overlap: int | None
    method: str
    on_impossible: str
    at_once: int


class Scorer:
    """Scores texts.

    Args:
        begin: see `Begin`.

    The others are `ScoringOptions`.
    """

    def __init__(
        self,
        begin: Begin,
        *,
        window: int | None = None,
        overlap: int | None = None,
        method: str = "beam",
        on_impossible: str = "error",
        at_once: int = AT_ONCE,
    ) -> None:
        check_policy(on_impossible)
        self._begin = begin
        self._window, self._overlap = window, overlap
        self._method = method
        self._on_impossible = on_impossible
        self._at_once = asyncio.Semaphore(whole_number("at_once", at_once, 1) or AT_ONCE)

    @classmethod
    def of(cls, begin: Begin, options: ScoringOptions) -> Self:
        """One with the options that a caller has given by name; a TypeError if one does not exist."""
        check_names(options, ScoringOptions.__annotations__)
        return cls(begin, **options)

    async def scores(self, texts: Sequence[bytes], contexts: Sequence[Any], end: bool) -> list[Score]:
        """The score of each text, after its context or after the one for all."""
        read_contexts = await self._contexts(contexts, len(texts))

        async def one(text: bytes, context: _Context) -> Score:
            reading = await self._read(text, context)
            return _score(text, reading, await end_logprob(reading) if end else None)

        return await self._each(one(t, c) for t, c in zip(texts, read_contexts, strict=True))

    async def token_logprobs(self, texts: Sequence[bytes], contexts: Sequence[Any]) -> list[TokenLogprobs]:
        """The tokenizer's own tokens of each text, beside its score."""
        read_contexts = await self._contexts(contexts, len(texts))

        async def one(text: bytes, context: _Context) -> TokenLogprobs:
            if not isinstance(context.before, ByteBeamState):
                raise no_tokens()
            most = None if context.window is None else context.window.most
            reading, tokens = await asyncio.gather(
                self._read(text, context), token_scores(context.before, context.text, text, most)
            )
            return TokenLogprobs.of(tokens, _score(text, reading))

        return await self._each(one(t, c) for t, c in zip(texts, read_contexts, strict=True))

    async def likeliest(self, text: bytes, context: Any) -> tuple[Score, bool, Any]:
        """The score of a text, whether each of its bytes is the likeliest there, and the beam before it."""
        async with self._at_once:
            read_context = await self._context(context)
            reading = await self._read(text, read_context, range(len(text)))
        score = _score(text, reading)
        # A byte of more than half is the likeliest; of the others the first that is not decides.
        for at in np.flatnonzero(~(reading.logprobs > math.log(0.5))).tolist():
            if reading.logprobs[at] == -math.inf:
                return score, False, read_context.after
            (row,) = await distributions([reading.beams[at]])
            if int(np.argmax(row)) != text[at]:
                return score, False, read_context.after
        return score, True, read_context.after

    async def surprisals(
        self,
        texts: Sequence[bytes],
        contexts: Sequence[Any],
        words: Sequence[Any],
        spans: Sequence[Any],
        rule: Rule,
        asked: Uncertain | None = None,
    ) -> WordSurprisals:
        """The surprisal of each region of each text."""
        views = [CharScores(Score(text, np.zeros(len(text)))) for text in texts]
        every = [
            find_regions(view.text, w, s, rule.sep, rule.marks)
            for view, w, s in zip(views, words, spans, strict=True)
        ]
        for view, regions in zip(views, every, strict=True):
            for region in regions:
                if rule.wants_end(region):
                    rule.own_end(view.text, region)  # what is wrong is said before anything is computed
        read_contexts = await self._contexts(contexts, len(texts))
        found = await self._each(
            self._regions(i, text, view, every[i], rule, context, asked)
            for i, (text, view, context) in enumerate(zip(texts, views, read_contexts, strict=True))
        )
        columns = () if asked is None else asked.columns
        every_row = (row for rows, _ in found for row in rows)
        return WordSurprisals(every_row, (score for _, score in found), columns, rule.base)

    async def _regions(
        self,
        number: int,
        text: bytes,
        view: CharScores,
        regions: list[Region],
        rule: Rule,
        context: _Context,
        asked: Uncertain | None,
    ) -> tuple[list[WordSurprisal], Score]:
        offset = view.offsets
        wanted = {offset[region.end] for region in regions if rule.wants_end(region)}
        if asked is not None:
            wanted |= {offset[region.start] for region in regions}
        reading = await self._read(text, context, wanted, region_places(view.text, regions, rule, offset))
        most = None if context.window is None else context.window.most
        ended, tokens = await asyncio.gather(
            self._ended(view, regions, rule, reading),
            token_scores(context.before, context.text, text, most),
        )
        logps = region_logprobs(view.text, regions, rule, offset, reading, ended)
        reach = reaches(view.text, regions, rule.sep)
        sums = naive_sums(tokens, [(offset[start], offset[end]) for start, end in reach])
        scale, score = -math.log(rule.base), _score(text, reading)
        more = await self._uncertain(view, regions, rule, reading, [logp for logp, _ in logps], asked)
        found = []
        for i, (region, (logp, above), naive) in enumerate(zip(regions, logps, sums, strict=True)):
            cost, by_tokens = logp / scale + 0.0, naive / scale + 0.0
            word = view.text[region.start : region.end]
            place = (number, i, region.kind, word, region.start, region.end)
            error = score[offset[region.start] : offset[region.end]].error
            if rule.wants_end(region) and offset[region.end] in ended:
                error += ended[offset[region.end]].error
            error /= -scale
            found.append(WordSurprisal(*place, cost, by_tokens, by_tokens - cost, above, error, **more[i]))
        return found, score

    async def _ended(
        self, view: CharScores, regions: list[Region], rule: Rule, reading: Reading
    ) -> dict[int, EndProbability]:
        """The probability that an end comes next, by byte offset, after each region whose end counts."""

        async def one(region: Region) -> tuple[int, EndProbability]:
            end, own = view.offsets[region.end], rule.own_end(view.text, region)
            beam = reading.beams[end]
            tree = ends_tree(rule.ends_of(view.text, region), beam.trie)
            read = math.exp(log_sum(reading.logprobs[end : end + len(own.encode())])) if own else 0.0
            return end, await end_probability(beam, tree, read)

        asked = [r for r in regions if rule.wants_end(r) and view.offsets[r.end] in reading.beams]
        return dict(await asyncio.gather(*map(one, asked)))

    async def _uncertain(
        self,
        view: CharScores,
        regions: list[Region],
        rule: Rule,
        reading: Reading,
        logps: list[float],
        asked: Uncertain | None,
    ) -> list[dict[str, Any]]:
        """What is asked about the beginning of each region."""
        if asked is None:
            return [{} for _ in regions]
        ends = [rule.ends_of(view.text, r) if rule.wants_end(r) else None for r in regions]
        beams = [reading.beams.get(view.offsets[region.start]) for region in regions]
        return await gather(
            asked.measure(beam, end, logp, view.text[region.start : region.end])
            for beam, end, logp, region in zip(beams, ends, logps, regions, strict=True)
        )

    async def arrays(self, texts: Sequence[bytes], contexts: Sequence[Any]) -> list[Any]:
        """The `[n, 257]` array of each text."""
        read_contexts = await self._contexts(contexts, len(texts))

        async def one(text: bytes, context: _Context) -> Float32[np.ndarray, "n 257"]:
            places = offsets(split_symbols(text, context.after.trie))[:-1]  # not inside atomic units
            reading = await self._read(text, context, places)
            found = np.full((len(text), 257), np.nan, np.float32)
            rows = await distributions(reading.beams.values())
            for place, row in zip(reading.beams, rows, strict=True):
                found[place] = np.delete(row, EOT)
            return found

        return await self._each(one(t, c) for t, c in zip(texts, read_contexts, strict=True))

    async def write_arrays(
        self,
        texts: Sequence[bytes],
        contexts: Sequence[Any],
        out: str | os.PathLike[str],
        kind: str,
        size: int,
        settings: dict[str, Any],
        forget: Callable[[], Awaitable[None]],
    ) -> Path:
        """Write the arrays to a folder, shard by shard; see `Shards`. Each depends on its texts alone."""
        shards = Shards(out, texts, kind, size, settings)
        with closing(shards):
            for shard in shards.missing():
                await forget()
                members = shards.members(shard)
                ours = [contexts[i] for i in members] if len(contexts) == len(texts) else contexts
                arrays = await self.arrays([texts[i] for i in members], ours)
                await asyncio.to_thread(shards.write, shard, arrays)
        return shards.folder

    # -- reading --------------------------------------------------------------------------------------

    async def _contexts(self, contexts: Sequence[Any], count: int) -> list[_Context]:
        """The context of each text; one that several share is read once."""
        if not count:
            return []
        keys = [context if isinstance(context, str | bytes) else id(context) for context in contexts]
        each = dict(zip(keys, contexts, strict=True))
        read = dict(zip(each, await self._each(map(self._context, each.values())), strict=True))
        found = [read[key] for key in keys]
        return found * count if len(found) == 1 else found

    async def _context(self, context: Any) -> _Context:
        with called(prompt="context", bs="context"):
            prompt, start = await self._begin(context)
            if not isinstance(start, ByteBeamState):  # an ensemble
                windows = Windows(self._window, self._overlap)
                if windows.fit(start.members, prompt.text):
                    after = await start.prefill(prompt.text, method=self._method)
                else:
                    after = (await start.trace(prompt.text, TrieMode.WITHOUT_EOS, windows.read))[-1]
                return _Context(start, prompt.text, after, windows)
            window = Window.of(start, self._window, self._overlap)
            symbols = split_symbols(prompt.text, start.states[0].trie)
            if fits(start, symbols, window):
                after = await read_text(start, prompt.text, self._method)
            else:
                after = await read_sliding(start, symbols, window, TrieMode.WITHOUT_EOS)
            return _Context(start, prompt.text, after, window)

    async def _read(
        self,
        text: bytes,
        context: _Context,
        wanted: Iterable[int] = (),
        places: Collection[int] | None = None,
    ) -> Reading:
        window, kept = context.window, frozenset(wanted)
        return await read(context.after, text, window, kept, self._on_impossible, places)

    async def _each(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        async def in_turn(coroutine: Coroutine[Any, Any, T]) -> T:
            async with self._at_once:
                return await coroutine

        waiting = list(coroutines)
        try:
            return await gather(map(in_turn, waiting))
        finally:
            for coroutine in waiting:  # those whose turn never came, or whose task was not even begun
                coroutine.close()


def _score(text: bytes, reading: Reading, end: float | None = None) -> Score:
    if reading.unfound is None:
        return Score(text, reading.logprobs, end, 0.0 if reading.last is None else math.nan)
    return Score.of(text, reading.logprobs, end, reading.unfound)


def texts_of(texts: Any, name: str = "texts") -> tuple[list[bytes], bool]:
    """One text or several as bytes, and whether it was one."""
    if isinstance(texts, str | bytes | bytearray | memoryview):
        return [as_bytes(name, texts)], True
    if not isinstance(texts, Iterable):
        raise bad_type(name, texts, "must be str or bytes, or a list of these")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str | bytes | bytearray | memoryview):
            raise bad_type(f"{name}[{i}]", text, "must be str or bytes")
    return [as_bytes(f"{name}[{i}]", text) for i, text in enumerate(found)], False


def contexts_of(context: Any, count: int, several: bool) -> list[Any]:
    """One context for all texts; or one for each, where it is a list of them."""
    if not several:
        return [context]
    if len(context) != count:
        raise bad_value("context", context, f"holds {len(context)} contexts for {count} texts")
    return list(context)


def for_each(name: str, given: Any, single: bool, count: int) -> list[Any]:
    """What is given for one text, or a list with an entry for each, or None for all."""
    if given is None:
        return [None] * count
    if single:
        return [given]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise bad_type(name, given, "must be a list with an entry for each text")
    if len(given) != count:
        raise bad_value(name, given, f"has {len(given)} entries for {count} texts")
    return list(given)


def settings_of(params: Any, model: Any, context: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What decides the numbers, as JSON values, for a manifest."""
    beam = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    del beam["eos_tokens"], beam["verbose"]
    beam["eos_byte_strings"] = sorted(repr(string) for string in params.eos_byte_strings or ())
    return {"model": model, "params": beam, "context": repr(context), **options}
