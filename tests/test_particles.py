"""Particles against enumeration: what they estimate is a sum over strings."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from test_drafts import Batching
from test_ensemble import EXACT, FIRST, SECOND, SYMBOLS, conditionals, lm
from toy import FixedLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.errors import DeadEndError, InvalidValueError
from genlm.bytes.util.symbols import EOS

RUNS = 200
Weigh = Callable[[bytes], np.ndarray]
"""From a text to the potentials of `SYMBOLS` after it."""


def every(weigh: Weigh, length: int) -> dict[tuple[bytes, bool], float]:
    """The weight of each string of so many bytes, and of each shorter one that ends."""
    found, open_ = dict[tuple[bytes, bool], float](), {b"": 1.0}
    for _ in range(length):
        longer = {}
        for text, weight in open_.items():
            for symbol, p in zip(SYMBOLS, weigh(text), strict=True):
                if symbol == EOS:
                    found[text, True] = weight * p
                else:
                    longer[text + bytes([symbol])] = weight * p
        open_ = longer
    found |= {(text, False): weight for text, weight in open_.items()}
    return {key: weight for key, weight in found.items() if weight}


def check(model: ByteLM, weigh: Weigh, length: int, **options: Any) -> None:
    """The estimates of the normaliser, and of each string's weight, over many seeds."""
    wanted = every(weigh, length)
    totals, weights = list[float](), defaultdict[Any, list[float]](lambda: [0.0] * RUNS)
    for seed in range(RUNS):
        drawn = model.complete("", particles=5, max_bytes=length, seed=seed, **options)
        totals.append(math.exp(drawn.log_normalizer))
        assert sum(drawn.posterior.values()) == pytest.approx(1.0)
        for completion in drawn:
            key = completion.bytes, completion.finish_reason in ("eos", "stop")
            weights[key][seed] += (
                math.exp(completion.log_weight or 0.0) / 5 if completion.log_weight != -math.inf else 0
            )
    assert weights.keys() <= wanted.keys() | {key for key, found in weights.items() if not any(found)}
    for found, value in [(totals, sum(wanted.values())), *((weights[key], wanted[key]) for key in wanted)]:
        error = np.std(found) / math.sqrt(RUNS)
        assert abs(np.mean(found) - value) <= 5 * error + 1e-9 or value < 2.0 / RUNS / 5


@pytest.mark.parametrize(
    "ess_threshold",
    [pytest.param(0.0, marks=pytest.mark.slow), 0.5, pytest.param(1.0, marks=pytest.mark.slow)],
)
def test_under_a_mask(ess_threshold: float) -> None:
    """After `a` nothing but `c`, and after that nothing but the end."""
    member = lm(FIRST, 4)

    def mask(new: bytes) -> list[int]:
        return [EOS] if new.endswith(b"c") else [ord("c")] if new.endswith(b"a") else [*b"ab", EOS]

    def weigh(text: bytes) -> np.ndarray:
        return conditionals(member, text) * np.isin(SYMBOLS, mask(text))

    check(member, weigh, 3, mask=mask, ess_threshold=ess_threshold)


@pytest.mark.parametrize("ess_threshold", [pytest.param(0.0, marks=pytest.mark.slow), 0.7])
def test_the_product_of_two_models(ess_threshold: float) -> None:
    members = [lm(FIRST, 1), lm(SECOND, 2)]

    def weigh(text: bytes) -> np.ndarray:
        return np.prod([conditionals(member, text) for member in members], axis=0)

    together = ByteLM.ensemble(members, weights=[1, 1])
    check(together, weigh, 2, ess_threshold=ess_threshold)


def test_without_either_every_weight_is_one() -> None:
    drawn = lm().complete("a", particles=20, max_bytes=5, seed=1)
    assert all(completion.log_weight == pytest.approx(0.0, abs=1e-9) for completion in drawn)
    assert drawn.effective_size == pytest.approx(20) and drawn.log_normalizer == pytest.approx(0.0, abs=1e-9)
    again = lm().complete("a", particles=20, max_bytes=5, seed=1)
    assert [c.bytes for c in drawn] == [c.bytes for c in again] and len(Counter(c.bytes for c in drawn)) > 1
    assert drawn[0].logprob == pytest.approx(
        lm().score(drawn[0].bytes, "a", end=drawn[0].finish_reason == "eos").logprob
    )


def test_texts_that_are_cut_short_are_told_of() -> None:
    """What of the posterior is beginnings only, whatever the mask wants after them."""

    def mask(new: bytes) -> bytes | list[int]:
        return b"ab" if len(new) < 3 else [EOS]

    cut, whole = (lm().complete("", particles=8, max_bytes=n, seed=1, mask=mask) for n in (3, 4))
    assert (cut.unfinished, whole.unfinished) == pytest.approx((1.0, 0.0))
    mixed = lm().complete("", particles=50, max_bytes=2, seed=1)
    ended = sum(p for text, p in mixed.posterior.items() if len(text.encode()) < 2)
    assert 0.0 < mixed.unfinished == pytest.approx(1.0 - ended)


def corner() -> ByteLM:
    """A first letter that is likely, and whose rest is not; another of which the rest is sure."""
    words = [b"a", b"b", b"x", b"y", b"<e>"]

    def rule(context: Any) -> list[float]:
        last = words[context[-1]] if context else b"<e>"
        return {
            b"<e>": [0.9, 0.1, 0.0, 0.0, 0.0],
            b"a": [0.0, 0.0, 0.01, 0.99, 0.0],
            b"b": [0.0, 0.0, 1.0, 0.0, 0.0],
        }.get(last, [0.0, 0.0, 0.0, 0.0, 1.0])

    return ByteLM(FixedLM(words, eos=4, rule=rule), EXACT)


def test_a_constraint_that_paints_the_local_choice_into_a_corner() -> None:
    """`ax` has 0.009 and `bx` 0.1: of what ends in x one in twelve begins with a, not nine in ten."""

    def ends_in_x(new: bytes) -> list[int]:
        return [*b"ab"] if not new else [ord("x")] if len(new) == 1 else [EOS]

    local = Counter(drawn.text for drawn in corner().complete("", n=200, seed=3, mask=ends_in_x))
    assert local["ax"] > 150
    drawn = corner().complete("", particles=400, seed=3, mask=ends_in_x)
    assert drawn.posterior["bx"] == pytest.approx(0.1 / 0.109, abs=0.05)
    assert math.exp(drawn.log_normalizer) == pytest.approx(0.109, abs=0.04)


def test_dead_ends() -> None:
    """Whoever takes `a` finds no `z`; all do in the end."""
    model = corner()

    def then_y(new: bytes) -> list[int]:
        return [*b"ab"] if not new else [*b"y"] if len(new) == 1 else [EOS]

    some = model.complete("", particles=50, seed=0, ess_threshold=0, mask=then_y)
    assert math.exp(some.log_normalizer) == pytest.approx(0.9 * 0.99, abs=0.2)
    assert {c.finish_reason for c in some if c.log_weight == -math.inf} == {"dead_end"}
    with pytest.raises(DeadEndError, match="after 1 bytes") as caught:
        model.complete("", particles=8, mask=lambda new: b"ab" if not new else b"z")
    assert caught.value.offset == 1


@pytest.mark.parametrize("heal", [False, True])
def test_what_pruning_loses_is_what_the_mask_asks_for(heal: bool) -> None:
    """`ac` takes a token that is below a twentieth of the beam, where nobody knows yet that a `c` comes. The
    default defers it. A beam that has dropped it says that no `c` can come, so none is read, or healed."""
    words = [b"ab", b"a", b"c", b"<e>"]

    def rule(context: Any) -> list[float]:
        last = words[context[-1]] if context else b"<e>"
        return {b"<e>": [0.97, 0.03, 0.0, 0.0], b"a": [0.0, 0.0, 1.0, 0.0]}.get(last, [0.0, 0.0, 0.0, 1.0])

    def mask(new: bytes) -> list[int]:
        return [b"ac"[len(new)]] if len(new) < 2 else [EOS]

    model = FixedLM(words, eos=3, rule=rule)
    drawn = ByteLM(model, BeamParams(heal=heal)).complete("", particles=4, mask=mask)
    assert {one.text for one in drawn} == {"ac"}
    assert drawn.log_normalizer == pytest.approx(math.log(0.03), abs=0.01)
    with pytest.raises(DeadEndError, match="after 1 bytes"):
        ByteLM(model, BeamParams(K=5, prune_threshold=0.05, heal=heal)).complete("", particles=4, mask=mask)


def test_particles_that_have_read_the_same_share_the_work() -> None:
    alone, many = lm(FIRST, 9), lm(FIRST, 9)
    alone.complete("", particles=1, mask=lambda new: b"abc"[len(new) : len(new) + 1] or [EOS])
    many.complete("", particles=50, mask=lambda new: b"abc"[len(new) : len(new) + 1] or [EOS])
    assert len(many.llm.asked) == len(alone.llm.asked)


@pytest.mark.parametrize("how", ["particles", "n", "prompts", "members"])
def test_what_is_written_side_by_side_speculates_less(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An offered context might save one of them a forward, which goes out for another all the same."""
    counts, found = [], []
    for together in (False, True):
        if together is False:
            for module in ("generate.particles", "generate.run", "ensemble.state", "byte_lm.speculation"):
                monkeypatch.setattr(f"genlm.bytes.{module}.side_by_side", lambda count: nullcontext())
        backend = Batching(8.0)
        lm = ByteLM(CachedLM(backend), BeamParams(tolerance=0.01))
        if how == "particles":
            drawn = lm.complete("the ", particles=6, seed=1, max_bytes=8)
        elif how == "n":
            drawn = lm.complete("the ", n=6, seed=1, max_bytes=8, unit="byte")
        elif how == "prompts":
            drawn = lm.complete([b"the ", b"a ", b"on ", b"it "], max_bytes=8, unit="byte")
        else:
            contexts = ["the ", "a ", "on ", "it "]
            drawn = ByteLM.ensemble([lm] * 4, "sum", contexts=contexts).complete("", max_bytes=8)
        monkeypatch.undo()
        counts.append(sum(backend.calls))
        found.append(drawn)
    assert counts[0] > counts[1] and found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 2}, "`n`"),
        ({"best_of": 2}, "says how many"),
        ({"temperature": 0.5}, "`temperature`"),
        ({"temperature": 0}, "`temperature`"),
        ({"top_p": 0.5}, "`top_p`"),
        ({"unit": "token"}, "byte by byte"),
        ({"particles": 0}, "`particles`"),
        ({"ess_threshold": 2}, "`ess_threshold`"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        lm().complete("a", **{"particles": 3, **options})
