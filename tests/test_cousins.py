"""Cousins: evaluated hypotheses of the same token at the same place tell what a deferred one has gained."""

from __future__ import annotations

import math

import pytest
from toy import FixedLM

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.byte_lm.constants import ToleranceConstants
from genlm.bytes.byte_lm.cousins import WINDOW, Cousins, Cut
from genlm.bytes.byte_lm.tolerance import ToleranceRule

WORDS = [b"ab", b"a", b"b", b"cd", b"cdef", b"(", b"x"]
AB, A, B, CD, CDEF, OPEN, X = range(7)
TOLERANCE = 5e-4


def after(context):
    """`ab` is one token, or two a tenth of the time; then `cdef` is heavy, and `cd` wins by what follows."""
    rows = {(): {AB: 0.9, A: 0.1}, (A,): {B: 1.0}}
    last = context[-1] if context else None
    if tuple(context) in rows:
        found = rows[tuple(context)]
    elif last in (AB, B):
        found = {CD: 0.02, CDEF: 0.98}
    else:
        found = {OPEN: 0.3, X: 0.7}
    return [found.get(token, 0.0) for token in range(len(WORDS))]


async def begin(**numbers):
    rule = ToleranceRule(TOLERANCE, constants=ToleranceConstants(**numbers))
    return await ByteBeamState.initial(FixedLM(WORDS, rule=after), BeamParams(rule=rule), initial_context=[])


@pytest.mark.parametrize("read", ["at once", "byte by byte"])
async def test_what_the_vocabulary_belittles_is_found(read):
    """`a|b|cd` is above the tolerance where it is deferred, inside `cdef`; the beam goes on from `ab|cd`."""
    beam = await begin(inflation=1e-9)
    text = b"abcd(x"
    if read == "at once":
        beam = await beam.prefill(text)
    else:
        for byte in text:
            beam = await (beam.prune() << byte)
    assert math.exp(beam.logZ) == pytest.approx((0.9 + 0.1) * 0.02 * 0.3 * 0.7)
    assert not any(d.state.lm_state.context == [A, B, CD] for d in beam.deferred)


async def test_it_waits_while_the_others_token_may_go_on():
    beam = await begin(inflation=1e-9)
    for byte in b"abcde":
        beam = await (beam.prune() << byte)
    assert [A, B, CD] not in [state.lm_state.context for state in beam]


async def test_gains_are_what_has_come_of_a_cut():
    beam = await begin()
    beam = await beam.prefill(b"abcd")
    cut = Cut(4, CD)
    evaluated = [one for state in beam for one in state.extend_all() if one.lm_state.context[-1] == CD]
    assert {Cut.of(one, 4) for one in evaluated} == {cut}
    known = Cousins().after(evaluated, 4)
    assert known.gains(evaluated, {cut}) == {cut: pytest.approx(0.0)}
    read = [(await one.materialize()) << ord("(") for one in evaluated]
    assert known.gains(read, {cut, Cut(4, CDEF)}) == {cut: pytest.approx(math.log(0.3))}
    assert known.gains(read[:1], {cut})[cut] < math.log(0.3)
    assert known.gains([], {cut}) == {} and Cousins().gains(read, {cut}) == {}
    assert len(known.after([], 4 + WINDOW - 1).weights) == 2 and not known.after([], 4 + WINDOW).weights
