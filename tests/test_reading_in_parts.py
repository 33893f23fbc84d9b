"""A text in any number of parts, read by `prefill` and `<<` in any mixture: as if read byte by byte.

Whoever reads a second text after a first, a word after a word, a line of a stream after a line, does this.
What began to wait in an earlier part comes to matter in a later one.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import BatchingToy, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.byte_lm.prefill import read_context
from genlm.bytes.errors import ImpossibleByteError
from genlm.bytes.score.window import Window, read_sliding
from genlm.bytes.trie import TrieMode

rules = st.sampled_from(
    [{"tolerance": t} for t in (0.5, 0.1, 0.02, 1e-3)]
    + [{"K": 2}, {"K": 4, "tolerance": 0.02}, {"K": 3, "prune_threshold": 0.05}]
)
UNIT = b"ca"


def held(beam: ByteBeamState) -> dict[str, Any]:
    """All that decides what a beam says later, once it has been pruned."""
    beam = beam.prune()
    found = {
        "states": [(round(s.weight, 3), s.lm_state.context, s.node) for s in beam],
        "waiting": sorted(
            (w.history.length, w.state.lm_state.context, round(w.weight, 3)) for w in beam.deferred
        ),
    }
    if beam.params.tolerance is not None:  # elsewhere what is dropped before or after the last byte differs
        found["dropped"] = round(max(beam.dropped.weight, -1e3), 3)
    return found


async def byte_by_byte(beam: ByteBeamState, symbols: list[int | bytes]) -> ByteBeamState:
    for symbol in symbols:
        beam = await (beam.prune() << symbol)
    return beam


async def in_parts(
    beam: ByteBeamState, symbols: list[int | bytes], cuts: list[int], ways: list[bool]
) -> ByteBeamState:
    places = sorted({0, *(cut % (len(symbols) + 1) for cut in cuts), len(symbols)})
    for i, (start, stop) in enumerate(pairwise(places)):
        part = symbols[start:stop]
        beam = await (beam.prefill(part) if ways[i % len(ways)] else byte_by_byte(beam, part))
    return beam


@given(
    vocabularies(complete=True, longest=5),
    st.lists(st.sampled_from([*b"aabbc", UNIT]), min_size=2, max_size=16),
    st.lists(st.integers(0, 24), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=3),
    rules,
    st.integers(0, 999),
)
@examples(60)
async def test_any_parts(
    words: list[bytes],
    symbols: list[int | bytes],
    cuts: list[int],
    ways: list[bool],
    rule: dict[str, Any],
    seed: int,
) -> None:
    found, opts = [], {"atomic_byte_strings": [UNIT]}
    for kind in (ToyLM, BatchingToy):
        llm = kind([*words, UNIT], seed=seed, dtype=torch.float32)
        beam = await ByteBeamState.initial(llm, BeamParams(**rule), opts, initial_context=[])
        if kind is ToyLM:
            beam = await byte_by_byte(beam, symbols)
        else:
            beam = await in_parts(beam, symbols, cuts, ways)
            text = b"".join(s if isinstance(s, bytes) else bytes([s]) for s in symbols)
            for context in llm.asked:  # what is computed early, too, is what this text could need
                assert text.startswith(b"".join(bytes(llm.byte_vocab[i]) for i in context))
        found.append(held(beam))
    assert found[0] == found[1]


@given(vocabularies(complete=False), st.data(), rules, st.integers(0, 999))
@examples(40)
async def test_any_parts_where_texts_can_be_impossible(
    words: list[bytes], data: st.DataObject, rule: dict[str, Any], seed: int
) -> None:
    symbols = list(data.draw(st.text("abc", min_size=2, max_size=16)).encode())
    cut = data.draw(st.integers(1, len(symbols) - 1))
    found = list[Any]()
    for parts in ([symbols], [symbols[:cut], symbols[cut:]]):
        llm = BatchingToy(words, seed=seed, dtype=torch.float32)
        beam = await ByteBeamState.initial(llm, BeamParams(**rule), initial_context=[])
        read = 0
        try:
            for part in parts:
                beam = await beam.prefill(part)
                read += len(part)
        except ImpossibleByteError as error:
            found.append((read + error.offset, error.byte))
        else:
            found.append(held(beam))
    in_no_token = [i for i, symbol in enumerate(symbols) if symbol not in b"".join(words)]
    if in_no_token:  # said at once, before it shows which byte cannot be read for other reasons
        assert found[0] == (in_no_token[0], symbols[in_no_token[0]])
        assert found[1][0] <= in_no_token[0]
    else:
        assert found[0] == found[1]


async def test_one_that_waited_in_the_first_is_drafted_from_its_place() -> None:
    """`a` waits beside `ab`; in the second text `a`, `bb` becomes the likely way, and is asked for at once.

    The text before it is long enough for a place counted from the wrong end to be another place.
    """
    words = [b"ab", b"a", b"bbc", b"b", b"c"]

    class Model(BatchingToy):
        def probs(self, context):
            after_a = bool(context) and context[-1] == 1
            return np.array([0.0, 0.0, 0.97, 0.01, 0.02] if after_a else [0.95, 0.02, 0.0, 0.02, 0.01])

    found = []
    for parts in ([b"abbc" * 3 + b"abbcab"], [b"abbc" * 3 + b"a", b"bbcab"]):
        llm = Model(words)
        beam = await ByteBeamState.initial(llm, BeamParams(tolerance=0.05), initial_context=[])
        for part in parts:
            beam = await beam.prefill(part)
        found.append(held(beam))
        best = [b"".join(words[i] for i in context) for context in llm.asked]
        assert all((b"abbc" * 3 + b"abbcab").startswith(spelled) for spelled in best)
    assert found[0] == found[1]


async def test_the_listener_hears_of_each_symbol_once() -> None:
    llm = BatchingToy([b"a", b"b", b"ab", b"bab"], seed=1)
    beam = await ByteBeamState.initial(llm, BeamParams(), initial_context=[])
    beam = await beam.prefill(b"abab")
    heard = []
    await read_context(
        beam,
        b"babaab",
        mode=TrieMode.WITH_EOS,
        listener=lambda at, before, after: heard.append((at, after.logZ < before.logZ)),
    )
    assert heard == [(at, True) for at in range(6)]


@pytest.mark.parametrize("rule", [{"tolerance": 0.05}, {"K": 3}], ids=repr)
@pytest.mark.parametrize("seed", range(2))
async def test_a_sliding_window_reads_in_parts(rule: dict[str, Any], seed: int) -> None:
    """Who waits does so across the places where a window stops to look how much room is left."""
    words = [b"a", b"b", b"c", b"ab", b"bc", b"abc", b"cab", b"bcab", b"aa"]
    text = list(np.random.default_rng(seed).choice(list(b"aabbc"), 50).tolist())
    found = []
    for kind in (ToyLM, BatchingToy):
        beam = await ByteBeamState.initial(kind(words, seed=seed, dtype=torch.float32), BeamParams(**rule))
        after = await read_sliding(beam, text, Window(24, 8), TrieMode.WITH_EOS)
        assert max(len(state.lm_state.context) for state in after) <= 24
        found.append(held(after))
    assert found[0] == found[1]


@pytest.mark.real_model
async def test_a_second_text_after_a_first(default_llm: Any) -> None:
    start = await ByteBeamState.initial(default_llm, BeamParams())
    for first, second in (
        (b"Two plus two is", b" four"),
        (b"Photo", b"synthesis"),
        (b"x = [1, 2", b", 3]\n"),
    ):
        whole = await start.prefill(first + second)
        before = await start.prefill(first)
        parts = await before.prefill(second)
        assert parts.logZ == pytest.approx(whole.logZ, abs=1e-3)
        assert [s.lm_state.context for s in parts.prune()] == [s.lm_state.context for s in whole.prune()]
        if second == b" four":
            assert parts.logZ - before.prune().logZ == pytest.approx(-5.950, abs=2e-3)
        assert math.isfinite(parts.logZ)
