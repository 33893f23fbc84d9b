"""The plain twin is the definition, and the beam is the plain twin."""

from __future__ import annotations

import math

import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from test_beam_exact import models, texts
from toy import ToyLM

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.plain import EOS, PlainByteLM


def plain(lm: ToyLM, eos: frozenset[bytes], K: int | None = None, threshold: float = 0.0) -> PlainByteLM:
    spellings = {t.token_id: bytes(t) for t in lm.byte_vocab if t.token_id < lm.size}
    ends = {i for i, word in spellings.items() if word in eos}
    return PlainByteLM(lm.probs, spellings, ends, Brute(lm).start, K, threshold)


@given(models(), texts)
@examples(60)
def test_without_pruning_it_is_the_definition(model, text):
    lm, eos = model
    brute, twin = Brute(lm, eos), plain(lm, eos)
    beam = twin.initial()
    for n, byte in enumerate(text):
        beam = twin.read(twin.prune(beam), byte)
        assert twin.total(beam) == pytest.approx(brute.prefix(text[: n + 1]), rel=1e-12, abs=1e-300)
    if brute.prefix(text) > 0.0 and sum(twin.next(beam).values()):
        want = brute.next(text)
        assert twin.next(beam) == pytest.approx({s: want[s] for s in twin.next(beam)}, abs=1e-12)


@given(models(), texts, st.sampled_from([(None, 0.0), (1, 0.0), (3, 0.0), (2, 0.05), (5, 0.3)]))
@examples(60)
async def test_the_beam_is_the_plain_twin(model, text, pruning):
    """The same hypotheses with the same weights after every byte, and the same distributions."""
    lm, eos = model
    K, threshold = pruning
    params = BeamParams(
        K, threshold, exact=K is None, eos_byte_strings=sorted(eos), heal=False, check_model=False
    )
    beam, twin = await ByteBeamState.initial(lm, params), plain(lm, eos, K, threshold)
    hypotheses = twin.initial()
    for byte in text:
        beam, hypotheses = await (beam.prune() << byte), twin.read(twin.prune(hypotheses), byte)
        ours = {(tuple(s.lm_state.context), s.partial_bytes): s.weight for s in beam if s.weight > -math.inf}
        assert ours == pytest.approx(
            {(h.tokens, h.partial): math.log(h.weight) for h in hypotheses}, rel=1e-9, abs=1e-9
        )
        want = twin.next(hypotheses)
        if want:
            logp = await beam.logp_next()
            assert {s: math.exp(logp[s]) for s in want} == pytest.approx(want, abs=1e-9)
    ended = await (beam << EOS)
    assert sum(math.exp(s.weight) for s in ended) == pytest.approx(
        twin.total(twin.read(hypotheses, EOS)), rel=1e-9
    )
