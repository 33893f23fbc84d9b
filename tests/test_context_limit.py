"""Contexts longer than the model can read, through beams: a clear error, or the latest tokens only."""

from __future__ import annotations

import pytest
import tiny
from tiny import LONGEST

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.errors import GenlmBytesError

LLAMA = tiny.transformer("llama")
PARAMS = BeamParams(3, 0.01)
TEXT = b"the cat and the hat in the inn and then there" * 2


async def by_bytes(beam, text):
    for symbol in text:
        beam = await (beam.prune() << symbol)
    return beam


def same(one, other):
    assert [s.lm_state.context for s in one] == [s.lm_state.context for s in other]
    assert [s.weight for s in one] == pytest.approx([s.weight for s in other], abs=1e-3)


@pytest.mark.parametrize("tokens", [LONGEST, LONGEST + 1])
async def test_up_to_the_limit_and_one_token_more(tokens):
    """Each of these bytes can only be a token by itself, so the text has one tokenization."""
    text = bytes([0]) * (tokens - 1)  # and the beginning of the sequence
    start = await ByteBeamState.initial(LLAMA, PARAMS)
    if tokens == LONGEST:
        beam = await start.prefill(text)
        same(beam, await by_bytes(start, text))
        assert len((await beam.logp_next()).materialize())
        assert max(len(s.lm_state.context) for s in await beam.extend(beam.logZ)) == LONGEST
        return
    for read in (start.prefill(text + b"a"), by_bytes(start, text + b"a")):
        with pytest.raises(
            ValueError, match=f"{tokens} tokens.*reads at most {LONGEST}.*max_context_length"
        ) as caught:
            await read
        assert isinstance(caught.value, GenlmBytesError)


async def test_a_guess_beyond_the_limit_is_no_error(monkeypatch):
    """Guesses are longer than what turns out to be needed: that is no fault of the text."""
    from genlm.bytes.byte_lm import draft

    monkeypatch.setattr(draft, "draft_tokens", lambda llm, trie, text: [2] * (LONGEST + 5))
    start = await ByteBeamState.initial(LLAMA, PARAMS)
    same(await start.prefill(TEXT[:9]), await by_bytes(start, TEXT[:9]))


@pytest.mark.parametrize("most", [1, 5, 20])
async def test_the_latest_tokens_only(most):
    """With the engine and without, read at once and byte by byte; and a text far beyond the limit."""
    start = await ByteBeamState.initial(LLAMA, PARAMS, max_context_length=most)
    plain = await ByteBeamState.initial(LLAMA, PARAMS, max_context_length=most, engine=False)
    text = TEXT[:40]
    beam = await start.prefill(text)
    same(beam, await plain.prefill(text))
    same(beam, await by_bytes(start, text))
    assert max(len(s.lm_state.context) for s in beam) == min(most, 20)
    whole = await (await ByteBeamState.initial(LLAMA, PARAMS)).prefill(text)
    assert whole.logZ != pytest.approx(beam.logZ, abs=1e-2)
    far = await start.prefill(bytes([0]) * (2 * LONGEST))
    assert len((await far.logp_next()).materialize())


async def test_a_bad_limit():
    with pytest.raises(ValueError, match="`max_context_length` is 0"):
        await ByteBeamState.initial(LLAMA, PARAMS, max_context_length=0)
