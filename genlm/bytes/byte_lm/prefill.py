"""Reading a known context, and saying clearly where that is impossible.

Byte by byte, the model would be asked for a few contexts at each token's end, and mostly wait for the
next question. But the bytes are known, so the questions can be drafted. A model that evaluates contexts
in batches is first asked for the whole tokenization that its tokenizer would choose, in one batch. Then
the beam reads on with what is known, others standing in for the contexts that are not, and notes each that it
needs and lacks; these are asked for together, as far as they are likely to be needed; and the reading is
taken up again at the first offset where one was lacking. What comes out is
the beam that reading byte by byte gives: drafts only decide which contexts are computed early. Where the
first byte of a pass lacks something the step is taken in full, so each pass reads at least one byte,
however small the model's memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from genlm.bytes.byte_lm.draft import Drafter, MissingContext
from genlm.bytes.byte_lm.progress import ReadingProgress, reading_progress
from genlm.bytes.byte_lm.symbols import (
    Context,
    check_readable,
    described,
    length,
    readable_count,
    spelled,
    split_symbols,
)
from genlm.bytes.byte_lm.tokenized_prefill import METHODS, read_path
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.errors import EmptyBeamError, ImpossibleByteError, bad_value
from genlm.bytes.trie.modes import TrieMode

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState

__all__ = ["Listener", "read_context"]

BREATHE = 64
"""Bytes of known contexts read before other tasks of the event loop get a turn: some milliseconds."""

_Beam = TypeVar("_Beam", bound="ByteBeamState")

Listener = Callable[[int, Any, Any], None]
"""Is told of every symbol read, in order: its index, the pruned beam that read it, and the beam after it."""


async def read_context(
    beam: _Beam,
    bs: Context,
    method: str = "beam",
    progress: bool | ReadingProgress = False,
    *,
    mode: TrieMode = TrieMode.WITHOUT_EOS,
    listener: Listener | None = None,
    wanted: Collection[int] | None = None,
) -> _Beam:
    """`ByteBeamState.prefill`.

    Args:
        beam: see there, as for `bs`, `method` and `progress`.
        mode: how end-of-sequence strings are read.
        listener: hears of each symbol that is read with the beam. Where a symbol cannot be read it has heard
            of all those before it. Without one, a symbol that no token is read by is refused before the model
            is asked for anything.
        wanted: the indices of the symbols before which it wants to know what the beam weighs; None for all.
            The beams between may lack what is not canonical by the next of them (`foresight.py`).
    """
    if method not in METHODS:
        raise bad_value("method", method, f"must be one of {', '.join(map(repr, METHODS))}")
    if beam.is_empty:
        raise EmptyBeamError("the beam is empty: it cannot read a context. Start with ByteBeamState.initial.")
    symbols = split_symbols(bs, beam.trie)
    if not symbols:
        return beam
    if listener is None:
        check_readable(symbols, beam.trie, mode)
    with reading_progress(progress, length(symbols)) as report:
        return await _read(beam, symbols, method, report, mode, listener or _unheard, wanted)


def _unheard(at: int, before: Any, after: Any) -> None:
    """The listener where nobody listens."""


async def _read(
    beam: _Beam,
    text: list[int | bytes],
    method: str,
    report: Callable[[int], None],
    mode: TrieMode,
    listener: Listener,
    wanted: Collection[int] | None,
) -> _Beam:
    reading, done = beam.with_mode(mode), 0
    await reading.materialize()
    reading = await reading.recovered()
    whole, text = text, text[: readable_count(text, beam.trie, mode)]
    if not len(reading) and text:
        raise _impossible(reading, text[0], text, 0)
    if method != "beam" and all(isinstance(symbol, int) for symbol in text):
        reading, done = await read_path(reading, spelled(text), method)
        report(done)
    symbols, at = text[done:], 0
    drafter = Drafter(reading, symbols)
    foresee: Callable[[_Beam, int], _Beam] = _nothing_foreseen
    if wanted is not None and reading.params.canonical:
        from genlm.bytes.byte_lm.foresight import Foresight  # which few need

        foresee = Foresight(reading, symbols, {at - done for at in wanted}).before

    def hear(at: int, before: _Beam, after: _Beam) -> None:
        listener(done + at, before, after)

    with drafter.reading():
        if drafter.useful and len(symbols) > 1:  # the first is read in full
            await drafter.whole_path(reading.states[0])
        while at < len(symbols):
            before = reading.prune()
            after = await foresee(before, at).advance(symbols[at], pruned=at + 1 < len(symbols))
            if not len(after):
                raise _impossible(reading, symbols[at], text, done + drafter.offset(at))
            hear(at, before, after)
            reading, at = after, at + 1
            if drafter.useful:
                reading, at = await _read_known(reading, symbols, at, drafter, foresee, hear)
            report(done + drafter.offset(at))
    check_readable(whole, beam.trie, mode)
    return await reading.with_mode(TrieMode.WITH_EOS).recovered()


def _nothing_foreseen(beam: _Beam, at: int) -> _Beam:
    return beam


async def _read_known(
    beam: _Beam,
    symbols: list[int | bytes],
    at: int,
    drafter: Drafter,
    foresee: Callable[[_Beam, int], _Beam],
    listener: Listener,
) -> tuple[_Beam, int]:
    """Read on from offset `at` while every context needed is known; ask for those that were lacking.

    Returns:
        The beam before the first symbol for which a context was lacking, and that symbol's index.
    """
    exact, exact_at = beam, at
    start = beam.data.history.length - at
    resumed = -1
    while at < len(symbols) and not drafter.has_enough:
        before = beam.prune()
        ahead = foresee(before, at)
        after = _read_if_known(ahead, symbols[at], at, start, at + 1 < len(symbols), drafter)
        if after.states and not drafter.lacking:
            listener(at, before, after)
        if after.states:
            beam, at = after, at + 1
        elif not drafter.lacking:  # nothing reads on: the full step that comes next may heal
            break
        else:  # all that could go on is lacking: go on along the tokenizer's own path
            found = await drafter.resume(max(at, resumed + 1), beam.states[0])
            if found is None:
                break
            beam, at = beam.restarted(found[0], start + found[1]), found[1]
            resumed = at  # where that does not lead on either, the next time goes further
        if not drafter.lacking:
            exact, exact_at = beam, at
        if at % BREATHE == 0:
            await asyncio.sleep(0)
    await drafter.evaluate_lacking()
    return exact, exact_at


def _read_if_known(
    beam: _Beam, symbol: int | bytes, at: int, start: int, pruned: bool, drafter: Drafter
) -> _Beam:
    """One step without the model: for candidates whose contexts are not known others stand in.

    Where it would take a crowd of deferred ones there is no result, an empty beam.

    Args:
        beam: the beam, pruned.
        symbol: what it reads.
        at: the symbol's index,
        start: and how many symbols the beam's history has before the first.
        pruned: see `SearchRule.read`.
        drafter: hears of what is known and of what is lacking.
    """
    lacking, late = list[MissingContext](), 0
    step = beam.step(symbol, pruned=pruned)
    try:
        asked = next(step)
        while True:
            answers, guessed = list[LazyTrieState | None](), bool(drafter.lacking or lacking)
            for i, state in enumerate(asked.hypotheses):
                place = at if asked.places is None else asked.places[i] - start
                if state.materialize_if_known():
                    drafter.known(state, place, needed=not guessed)
                    answers.append(state)
                else:
                    late += place < at
                    lacking.append(MissingContext(state, at, guessed))
                    answers.append(drafter.stand_ins.for_(state, place))
            if late > drafter.most:  # a wrong draft: all look heavy to it
                step.close()
                lacking = [one for one in lacking if not one.guessed]
                return beam.with_states([])
            asked = step.send(answers)
    except StopIteration as stop:
        after: _Beam = stop.value
        return after
    except Exception:
        if not drafter.lacking and not lacking:
            raise
        return beam.with_states([])  # what a rule makes of guesses is no fault of the text
    finally:
        drafter.lacking += lacking


def _impossible(
    beam: ByteBeamState, symbol: int | bytes, symbols: list[int | bytes], offset: int
) -> ImpossibleByteError:
    """Why `beam` could not read `symbol`, which some token is read by."""
    if beam.logZ == -math.inf:
        why = (
            "nothing goes on from where the text before it ends, inside a string that ends a sequence. End "
            "that text elsewhere, or give other `eos_byte_strings`."
        )
    else:
        why = "no kept tokenization of the bytes before it can go on with it. "
        if beam.params.canonical:
            why += (
                "Only canonical ones count here: text that the tokenizer does not produce as it stands "
                "(bytes that are not UTF-8, say) has none; use canonical=False. Otherwise: "
            )
        way = "Allow healing (heal=True, larger heal_max_backoff and heal_max_splits), a larger K, or a "
        why += way + "smaller prune_threshold."
    where = described(symbol, symbols, offset)
    return ImpossibleByteError(f"{where}: {why}", byte=symbol, offset=offset, producible=True)
