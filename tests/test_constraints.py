"""Masks: what a completion may contain, decided by code of the user's or by a grammar."""

from __future__ import annotations

import json
import math
import re
import sys

import numpy as np
import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, FixedLM, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams
from genlm.bytes.errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from genlm.bytes.generate.grammar import json_schema, lark, regex

EXACT = BeamParams(K=10_000, prune_threshold=0.0)


class Alternate:
    """A mask as an object: `a` and `b` in turn; it may end after any number of pairs."""

    def __init__(self, turn: int = 0) -> None:
        self.turn = turn

    def allowed(self):
        return [ord("ab"[self.turn]), *([257] if self.turn == 0 else [])]

    def advance(self, symbol, /):
        assert symbol == ord("ab"[self.turn]), "only what was allowed is read"
        return Alternate(1 - self.turn)


def alternate(text: bytes):
    return {ord("ab"[len(text) % 2]), *([257] if len(text) % 2 == 0 else [])}


class TestMasks:
    @pytest.mark.parametrize("mask", [Alternate(), alternate])
    @examples(15)
    @given(seed=st.integers(0, 99))
    async def test_both_kinds(self, mask, seed):
        model = AsyncByteLM(ToyLM(TOY, seed), EXACT, eos=[EOS_STRING])
        for options in ({}, {"seed": seed}):
            completion = await model.complete("c", mask=mask, max_bytes=5, **options)
            assert completion.bytes == b"ababa"[: len(completion.bytes)]
            assert completion.finish_reason in ("eos", "length")

    @examples(15)
    @given(seed=st.integers(0, 99))
    async def test_what_is_left_is_drawn_by_the_models_probabilities(self, seed):
        """Greedy under a mask: the likeliest of the allowed bytes, by brute force; and its probability."""
        lm = ToyLM(TOY, seed)
        brute, text, logprob = Brute(lm), list(b"ab"), 0.0
        for _ in range(3):
            chart = brute.next(text)
            best = max(b"ac", key=lambda b: chart[b])
            logprob += math.log(chart[best])
            text.append(best)
        model = AsyncByteLM(lm, EXACT)
        completion = await model.complete("ab", mask=lambda _: b"ac", max_bytes=3, method="beam")
        assert [*b"ab", *completion.bytes] == text
        assert completion.logprob == pytest.approx(logprob)

    @pytest.mark.parametrize(
        "given", [b"a", [97], {97}, (np.int64(97),), np.arange(256) == 97, np.arange(258) == 97, iter([97])]
    )
    async def test_forms_of_an_answer(self, given):
        completion = await AsyncByteLM(ToyLM(TOY), EXACT).complete("b", mask=lambda _: given, max_bytes=1)
        assert completion.text == "a"

    async def test_a_dead_end_is_said(self):
        model = AsyncByteLM(ToyLM(TOY), EXACT)
        nothing = await model.complete("b", mask=lambda text: b"a" if len(text) < 2 else b"")
        assert (nothing.text, nothing.finish_reason) == ("aa", "dead_end")
        # Allowed, but no token of the model has it.
        impossible = await model.complete("b", mask=lambda text: b"z")
        assert (impossible.text, impossible.finish_reason) == ("", "dead_end")
        both = await model.complete(["b", "c"], mask=lambda text: b"z")
        assert [c.finish_reason for c in both] == ["dead_end"] * 2

    async def test_where_only_the_end_is_allowed_the_completion_stops(self):
        model = AsyncByteLM(ToyLM(TOY), EXACT)
        completion = await model.complete("b", mask=lambda text: b"c" if len(text) < 2 else [257])
        assert (completion.text, completion.finish_reason, completion.stop) == ("cc", "stop", None)

    async def test_an_end_that_the_mask_forbids_is_not_drawn(self):
        lm = FixedLM(TOY, rule=lambda context: [0.02, 0.02, 0.02, 0.02, 0.01, 0.01, 0.9])
        completion = await AsyncByteLM(lm, EXACT, eos=[EOS_STRING]).complete(
            "b", mask=lambda text: b"abc", max_bytes=4
        )
        assert (len(completion.bytes), completion.finish_reason) == (4, "length")

    async def test_atomic_units_pass_the_mask_byte_by_byte(self):
        lm = FixedLM([b"a", b"b", b"ab", b"ba"], rule=lambda context: [0.1, 0.1, 0.5, 0.3])
        model = AsyncByteLM(lm, EXACT, trie_opts={"atomic_byte_strings": [b"ab", b"ba"]})
        free = await model.complete("b", max_bytes=4, unit="byte")
        assert free.text == "abab"
        masked = await model.complete("b", max_bytes=4, mask=lambda text: b"b" if len(text) == 1 else b"ab")
        assert masked.text == "abab"
        forbidden = await model.complete("b", max_bytes=4, mask=lambda text: b"a" if len(text) % 2 else b"b")
        assert forbidden.text == "baba"

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (None, InvalidTypeError),
            ("a", InvalidTypeError),
            (97, InvalidTypeError),
            ([256], InvalidValueError),
            ([-1], InvalidValueError),
            ([300], InvalidValueError),
            (np.ones(10, np.bool_), InvalidValueError),
        ],
    )
    async def test_answers_that_are_none(self, answer, error):
        with pytest.raises(error, match="`mask` is"):
            await AsyncByteLM(ToyLM(TOY), EXACT).complete("b", mask=lambda _: answer)

    async def test_a_mask_that_changes_in_place_is_noticed(self):
        class Forgets(Alternate):
            def advance(self, symbol, /):
                self.turn = 1 - self.turn

        with pytest.raises(InvalidTypeError, match="must be the mask after the byte"):
            await AsyncByteLM(ToyLM(TOY), EXACT).complete("b", mask=Forgets())


class TestGrammars:
    WORDS = (
        *(bytes([b]) for b in range(32, 127)),
        "é".encode()[:1],
        "é".encode()[1:],
        b"12",
        b'{"',
        b"}}",
        b"<e>",
    )

    def model(self, seed: int) -> AsyncByteLM:
        return AsyncByteLM(ToyLM(self.WORDS, seed), BeamParams(K=3, prune_threshold=0.05), eos=[b"<e>"])

    @examples(15)
    @given(
        pattern=st.sampled_from(["[0-9]{3}-[0-9]{4}", "(foo|ba+r)x?", "é{2}", r"\(a(b|c)*\)"]),
        seed=st.integers(0, 99),
    )
    async def test_regex(self, pattern, seed):
        completion = await self.model(seed % 5).complete("12", mask=regex(pattern), seed=seed)
        if completion.finish_reason in ("stop", "eos"):
            assert re.fullmatch(pattern, completion.text)
        else:
            assert completion.finish_reason == "length" and len(completion.bytes) == 256

    async def test_json(self):
        properties = {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "é"]}}
        schema = {
            "type": "object",
            "properties": properties,
            "required": ["a", "b"],
            "additionalProperties": False,
        }
        for mask in (json_schema(schema), json_schema(json.dumps(schema))):
            completion = await self.model(1).complete("", mask=mask, seed=3, max_bytes=2000, temperature=0.5)
            value = json.loads(completion.text)
            assert 0 <= value["a"] <= 99 and value["b"] in ("x", "é")
            assert "\n" not in completion.text

    def test_white_space_in_json_only_if_asked(self):
        assert not json_schema({"type": "array"}).advance(ord("[")).allowed()[ord("\n")]
        assert json_schema({"type": "array"}, white_space=True).advance(ord("[")).allowed()[ord("\n")]

    async def test_a_grammar(self):
        mask = lark('start: "(" start ")" | "x"')
        completion = await self.model(2).complete("", mask=mask, seed=1, max_bytes=100)
        inside = len(completion.text) // 2
        assert completion.text == "(" * inside + "x" + ")" * inside

    async def test_a_mask_is_a_value(self):
        """One grammar serves several completions at once."""
        for make in (regex, json_schema, lark):
            with pytest.raises(InvalidTypeError, match=r"is None .*: must be a str"):
                make(None)
        mask = regex("[a-z]{4}")
        drawn = await self.model(1).complete(["1", "2"], n=3, mask=mask, seed=1)
        assert all(re.fullmatch("[a-z]{4}", c.text) for several in drawn for c in several)
        assert bytes(np.flatnonzero(mask.allowed()).tolist()) == bytes(range(ord("a"), ord("z") + 1))

    @pytest.mark.parametrize(
        ("make", "given", "name"),
        [(regex, "(", "pattern"), (lark, "start: (", "grammar"), (json_schema, "{", "schema")],
    )
    def test_mistakes(self, make, given, name):
        with pytest.raises(InvalidValueError, match=rf"`{name}` is .*llguidance cannot use it"):
            make(given)

    def test_without_llguidance(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "llguidance", None)
        with pytest.raises(MissingDependencyError, match=r"genlm-bytes\[grammar\]"):
            regex("a")
