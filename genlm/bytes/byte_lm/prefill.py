"""Reading a known context, and saying clearly where that is impossible.

Byte by byte, the model would be asked for a few contexts at each token's end, and mostly wait for the
next question. But the bytes are known, so the questions can be guessed. A model that remembers what it
has computed (`genlm.bytes.engine`) is first asked for the whole tokenization that its tokenizer would
choose, in one forward. Then the beam reads on with the candidates whose contexts are known, noting each
context that it needs and lacks, at whatever offset, with the tokens that would come next after it; all
these are asked for together; and the reading is taken up again at the first offset where one was
lacking. What comes out is the beam that reading byte by byte gives: guesses only decide which contexts
are computed early. Where the first byte of a pass lacks something the step is taken in full, so each
pass reads at least one byte, however small the model's memory.
"""

from __future__ import annotations

import asyncio
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from genlm.bytes.byte_lm.guess import guess_tokens
from genlm.bytes.byte_lm.lm_state import Context, StatefulTokenizedLM
from genlm.bytes.byte_lm.progress import ReadingProgress, reading_progress
from genlm.bytes.byte_lm.shortcut import METHODS, read_path
from genlm.bytes.byte_lm.trail import spelled
from genlm.bytes.byte_lm.trie_state import LazyTrieState, check_symbol
from genlm.bytes.errors import EmptyBeamError, ImpossibleByteError, bad_type, bad_value
from genlm.bytes.trie.modes import EOS, TrieMode
from genlm.bytes.trie.service import AsyncTokenByteTrie

if TYPE_CHECKING:
    from genlm.bytes.byte_lm.beam import ByteBeamState
    from genlm.bytes.byte_lm.canonical import CanonicalContext

__all__ = ["Listener", "check_readable", "read_context"]


class _Lacking(NamedTuple):
    """A candidate whose context is not known.

    Attributes:
        state: the candidate.
        place: the index of the symbol it reads next; below 0 for one that has waited since before this text.
        needed: the one it was needed at: later than `place` for a candidate that waited.
        share: natural log of its share of the beam.
    """

    state: LazyTrieState
    place: int
    needed: int
    share: float


BREATHE = 64
"""Bytes of known contexts read before other tasks of the event loop get a turn: some milliseconds."""

NEAR, FAR = 64, 4
"""How many bytes beyond the first lacking context are looked at: so many times the bytes that the pass before
gained, and at least so many. Where guesses fail at every byte, looking to the end each time would cost the
square of the length."""

FAINT, CLOSE = math.log(1e-4), 16
"""A lacking candidate of a smaller share of the beam is asked for only if it is needed within so many bytes
of the first that is lacking: further on, others that are lacking too will mostly have pushed it out. (300
bytes of prose, K=5, threshold 0: of the fainter ones further on one in six was needed in the end, of the
others six in seven; 3,236 contexts became 1,550, for 966 that reading byte by byte needs.)"""

CROWD = 32
"""The most candidates that waited to be asked for at one byte. More, and the beam there is a wrong guess that
cannot read the text, to which all who wait look heavy (5,000 of them, at one byte in 1,500). Where it is none
the full step that follows asks for them."""

_Beam = TypeVar("_Beam", bound="ByteBeamState")

Listener = Callable[[int, Any, Any], None]
"""Is told of every symbol read, in order: its index, the pruned beam that read it, and the beam after it."""


LOOKAHEAD = 3
"""Tokens guessed after a context that was lacking and ends where a token of the tokenizer's path ends. One
that outlives its guess gets twice as many the next time, so that a candidate which lives on beside that
path for n tokens costs log n passes, and at most as many wasted contexts as it used. One that ends inside
a token of that path mostly dies within a byte or two: nothing is guessed for it. (1,000 bytes of prose, K=5,
threshold 0.05, 575 contexts needed: guessing 3 for all ran 1,300 contexts in 12 forwards, this 670 in 13.)"""


async def read_context(
    beam: _Beam,
    bs: Context,
    method: str = "beam",
    progress: bool | ReadingProgress = False,
    *,
    mode: TrieMode = TrieMode.WITHOUT_EOS,
    listener: Listener | None = None,
) -> _Beam:
    """`ByteBeamState.prefill`.

    Args:
        beam: see there, as for `bs`, `method` and `progress`.
        mode: how end-of-sequence strings are read.
        listener: hears of each symbol that is read with the beam. Where a symbol cannot be read it has heard
            of all those before it. Without one, a symbol that no token is read by is refused before the model
            is asked for anything.
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
    with reading_progress(progress, _length(symbols)) as report:
        return await _read(beam, symbols, method, report, mode, listener or _unheard)


def _unheard(at: int, before: Any, after: Any) -> None:
    """The listener where nobody listens."""


async def _read(
    beam: _Beam,
    text: list[int | bytes],
    method: str,
    report: Callable[[int], None],
    mode: TrieMode,
    listener: Listener,
) -> _Beam:
    reading, done = beam.with_mode(mode), 0
    await reading.materialize()
    reading = await reading.relieved()
    whole, text = text, text[: _readable(text, beam.trie, mode)]
    if not len(reading) and text:
        raise _impossible(reading, text[0], text, 0)
    if method != "beam" and all(isinstance(symbol, int) for symbol in text):
        reading, done = await read_path(reading, spelled(text), method)
        report(done)
    symbols, at = text[done:], 0
    guesses = _Guesses(reading, symbols, lambda at, before, after: listener(done + at, before, after))
    if guesses.useful and symbols:
        await guesses.ask_for_whole(reading.states[0])
    while at < len(symbols):
        before = reading.prune()
        after = await before.advance(symbols[at], pruned=at + 1 < len(symbols))
        if not len(after):
            raise _impossible(reading, symbols[at], text, done + guesses.offset(at))
        guesses.listener(at, before, after)
        reading, at = after, at + 1
        if guesses.useful:
            reading, at = await _read_known(reading, symbols, at, guesses)
        report(done + guesses.offset(at))
    check_readable(whole, beam.trie, mode)
    return await reading.with_mode(TrieMode.WITH_EOS).relieved()


async def _read_known(
    beam: _Beam, symbols: list[int | bytes], at: int, guesses: _Guesses
) -> tuple[_Beam, int]:
    """Read on from offset `at` while every context needed is known; ask for those that were lacking.

    Returns:
        The beam before the first symbol for which a context was lacking, and that symbol's index.
    """
    exact, exact_at, begun = beam, at, at
    start = beam.waiting.trail.at - at
    rejoined = -1
    lacking: list[_Lacking] = []
    while at < len(symbols) and at < exact_at + guesses.horizon:
        before = beam.prune()
        after, missing = _read_if_known(before, symbols[at], at + 1 < len(symbols))
        lacking += [
            _Lacking(state, at, at, state.weight - beam.logZ)
            if place is None
            else _Lacking(state, place - start, at, 0.0)  # judged by an estimate already
            for state, place in missing
        ]
        if after.states and not lacking:
            guesses.listener(at, before, after)
        if after.states:
            beam, at = after, at + 1
        elif not lacking:  # nothing reads on: the full step that comes next may heal
            break
        else:  # all that could go on is lacking: guess on along the tokenizer's own path
            found = await guesses.rejoin(max(at, rejoined + 1), beam.states[0])
            if found is None:
                break
            beam, at = beam.restarted(found[0], start + found[1]), found[1]
            rejoined = at  # where that does not lead on either, the next time goes further
        if not lacking:
            exact, exact_at = beam, at
        if at % BREATHE == 0:
            await asyncio.sleep(0)
    guesses.horizon = max(NEAR, FAR * (exact_at - begun))
    if lacking:
        await guesses.ask_for(lacking)
    return exact, exact_at


def _read_if_known(
    beam: _Beam, symbol: int | bytes, pruned: bool
) -> tuple[_Beam, list[tuple[LazyTrieState, int | None]]]:
    """One step without the model: candidates whose contexts are not known are left out, and listed.

    Where it would take a crowd of those who waited there is no result, an empty beam.
    """
    missing = list[tuple[LazyTrieState, int | None]]()
    step = beam.reading(symbol, pruned=pruned)
    try:
        ask = next(step)
        while True:
            places: Sequence[int | None] = ask.places or [None] * len(ask.states)
            known = [state.materialize_if_known() for state in ask.states]
            missing += [(s, p) for s, p, k in zip(ask.states, places, known, strict=True) if not k]
            if sum(place is not None for _, place in missing) > CROWD:
                step.close()
                return beam.with_states([]), missing
            ask = step.send([s for s, k in zip(ask.states, known, strict=True) if k])
    except StopIteration as stop:
        after: _Beam = stop.value
        return after, missing


class _Place(NamedTuple):
    """Where a token of the tokenizer's path begins: the offset in bytes, and what precedes it."""

    offset: int
    lm_state: StatefulTokenizedLM
    canonical: CanonicalContext | None


class _Guesses:
    """Contexts that reading some symbols will probably need."""

    def __init__(self, beam: ByteBeamState, symbols: list[int | bytes], listener: Listener) -> None:
        self.listener = listener
        self._mode = beam.mode
        self.useful = any(state.batches for state in beam.states[:1])
        self._trie = beam.trie.trie
        self._history = beam.waiting.trail  # what was read before
        self._text = spelled(symbols)
        self._offset = _offsets(symbols)
        self.horizon = len(symbols)
        self._tokens: list[int] = []  # the tokenizer's own path …
        self._path: list[_Place] = []  # … and where each of its tokens begins
        self._reach: dict[Any, int] = {}

    def offset(self, index: int) -> int:
        """Where the symbol of an index begins, in bytes; below 0 before this text."""
        return self._offset[index] if index >= 0 else -len(self._before(-index))

    def _before(self, count: int) -> bytes:
        """The bytes of so many symbols, the last that were read before this text."""
        return spelled(link.symbol for link in self._history.last(count))

    async def ask_for_whole(self, state: LazyTrieState) -> None:
        """The contexts along one tokenization of the whole text."""
        partial = state.partial_bytes
        tokens = guess_tokens(state.lm_state.model, self._trie, partial + self._text)
        place = _Place(-len(partial), state.lm_state, state.canonical)
        for n, token in enumerate(tokens):
            self._path.append(place)
            canonical = place.canonical and place.canonical.after(token)
            if place.canonical is not None and canonical is None:
                tokens = tokens[: n + 1]  # no candidate gets further on this path
                break
            at = place.offset + len(self._trie.spelling_of_id[token])
            place = _Place(at, place.lm_state << token, canonical)
        self._tokens = tokens
        places = dict.fromkeys([*self._path, place])  # the last is there already where the path broke off
        await _ask([place.lm_state for place in places])

    async def rejoin(self, index: int, model: LazyTrieState) -> tuple[LazyTrieState, int] | None:
        """A candidate on the tokenizer's path where its next token begins, and that symbol's index.

        Its weight means nothing: it only serves to see which contexts may be needed from there on.
        """
        i = self._place(self._offset[index])
        while i < len(self._path) and not self._begins_symbol(self._path[i].offset):
            i += 1  # a token of the path begins inside an atomic unit, where no symbol does
        if i == len(self._path) or not self._path[i].lm_state.known:
            return None
        offset, lm_state, canonical = self._path[i]
        state = LazyTrieState.at_boundary(lm_state, model.trie, 0.0, self._mode, canonical)
        return await state.materialize(), bisect_left(self._offset, offset)

    async def ask_for(self, lacking: list[_Lacking]) -> None:
        """The contexts of some candidates at a token's end, each with a few tokens more."""
        contexts, soon = [], lacking[0].needed + CLOSE
        woken = Counter(needed for _, place, needed, _ in lacking if place < needed)
        for state, place, needed, share in lacking:
            if (share < FAINT and needed >= soon) or (place < needed and woken[needed] > CROWD):
                continue
            offset = self.offset(place)
            length = 2 * self._reach.pop(state.lm_state.parent_node, 0)
            length = length or (LOOKAHEAD if self._at_boundary(offset) else 0)
            path = _path(state.lm_state, self._guess(state, place, length))
            self._reach[path[-1].node] = length
            contexts += path
        await _ask(contexts)

    def _guess(self, state: LazyTrieState, place: int, length: int) -> list[int]:
        """The next tokens from a place on."""
        offset = self.offset(place)
        if self._at_boundary(offset):
            i = self._place(offset)
            return self._tokens[i : i + length]
        # Not a boundary of the tokenizer's path: tokenize afresh.
        before = self._before(-place) if place < 0 else b""
        ahead = (before + self._text[max(offset, 0) : max(offset + 16 * length, 0)])[: 16 * length]
        return guess_tokens(state.lm_state.model, self._trie, ahead)[:length]

    def _begins_symbol(self, offset: int) -> bool:
        return self._offset[bisect_left(self._offset, offset)] == offset

    def _at_boundary(self, offset: int) -> bool:
        i = self._place(offset)
        return i < len(self._path) and self._path[i].offset == offset

    def _place(self, offset: int) -> int:
        """The first place of the tokenizer's path at or after an offset."""
        return bisect_left(self._path, offset, key=attrgetter("offset"))


def _path(start: StatefulTokenizedLM, tokens: list[int]) -> list[StatefulTokenizedLM]:
    path = [start]
    for token in tokens:
        path.append(path[-1] << token)
    return path


async def _ask(contexts: list[StatefulTokenizedLM]) -> None:
    """A guess that fails (longer than the model can read, say) costs nothing: who needs it asks again."""
    asked = (context.logp_next() for context in contexts if not context.known)
    await asyncio.gather(*asked, return_exceptions=True)


def _offsets(symbols: list[int | bytes]) -> list[int]:
    """Where each symbol begins, in bytes."""
    return list(accumulate((len(s) if isinstance(s, bytes) else 1 for s in symbols), initial=0))


def _length(symbols: list[int | bytes]) -> int:
    return _offsets(symbols)[-1]


def split_symbols(bs: Context, trie: AsyncTokenByteTrie) -> list[int | bytes]:
    """A context as symbols: byte values, and atomic units where `bytes` spell one, the longest first."""
    if isinstance(bs, str):
        raise bad_type("bs", bs, "must be bytes", f"Encode text first: {bs[:20]!r}.encode().")
    units = trie.trie.arrays.units
    if isinstance(bs, bytes | bytearray | memoryview):
        text = bytes(bs)
        if not units:
            return list(text)
        pattern = b"|".join(re.escape(unit) for unit in sorted(units, key=len, reverse=True))
        known = frozenset(units)
        parts = re.split(b"(" + pattern + b")", text)
        return [s for part in parts for s in ([part] if part in known else part)]
    if not isinstance(bs, Iterable):
        raise bad_type("bs", bs, "must be bytes, or a sequence of byte values and atomic units")
    symbols = [check_symbol(symbol, trie) for symbol in bs]
    if EOS in symbols:
        raise bad_type("bs", EOS, "a context holds bytes; the end of the sequence cannot be followed")
    return symbols


def _readable(symbols: Sequence[int | bytes], trie: AsyncTokenByteTrie, mode: TrieMode) -> int:
    """How many symbols there are before the first that no token of the vocabulary is read by."""
    may = trie.trie.may_read
    return next((at for at, symbol in enumerate(symbols) if not may(symbol, mode)), len(symbols))


def check_readable(
    symbols: list[int | bytes], trie: AsyncTokenByteTrie, mode: TrieMode, name: str = "bs"
) -> None:
    """Refuse a text with a symbol that no token of the vocabulary is read by: no model is needed for that.

    Args:
        symbols: the text.
        trie: the trie of the vocabulary.
        mode: how end-of-sequence strings are read.
        name: the argument that the text is.

    Raises:
        ImpossibleByteError: such a symbol, with its offset.
    """
    at = _readable(symbols, trie, mode)
    if at == len(symbols):
        return
    symbol = symbols[at]
    why = "no token of this model contains that byte. Remove it, or use a model with byte fallback."
    producible = isinstance(symbol, bytes) or symbol in trie.trie.producible
    if producible:
        why = (
            "only tokens that end a sequence and atomic units contain it, and none is read byte by byte. "
            "Read an atomic unit whole; where an end may be text, read it with `prefill`."
        )
    where = _where(symbol, symbols, _offsets(symbols)[at], name)
    raise ImpossibleByteError(
        f"{where}: {why}", byte=symbol, offset=_offsets(symbols)[at], producible=producible
    )


def _where(symbol: int | bytes, symbols: list[int | bytes], offset: int, name: str = "bs") -> str:
    shown = repr(symbol) if isinstance(symbol, bytes) else f"0x{symbol:02x} ({bytes([symbol])!r})"
    before = spelled(symbols)[max(0, offset - 20) : offset]
    return f"`{name}` has byte {shown} at offset {offset}, after {before!r}"


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
    where = _where(symbol, symbols, offset)
    return ImpossibleByteError(f"{where}: {why}", byte=symbol, offset=offset, producible=True)
