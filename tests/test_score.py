"""Scores of bytes, characters and words: against brute force, the chain rule, and what bad input says."""

from __future__ import annotations

import asyncio
import copy
import csv
import errno
import io
import itertools
import math
import pickle
import sys

import numpy as np
import pytest
import tiny
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, ToyLM, vocabularies

from genlm.bytes import AsyncByteLM, BeamParams, ByteLM
from genlm.bytes.errors import (
    ImpossibleByteError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
)
from genlm.bytes.resumable import Locks
from genlm.bytes.score import read_shards
from genlm.bytes.score.regions import find_regions
from genlm.bytes.score.shards import Shards

EXACT = BeamParams(exact=True)
# Finer than the share of any token that these toys have: nothing waits. At 1e-12 one may that is worth 1e-6
# later, where a model gives a byte 1e-6 after the others and 1 after the one that waits.
NEARLY = BeamParams(tolerance=1e-100)
texts = st.lists(st.sampled_from(b"abc"), min_size=1, max_size=6).map(bytes)


def toy(seed=5, params=EXACT, **more):
    return ByteLM(ToyLM(TOY, seed=seed, **more), params, eos=[EOS_STRING])


@st.composite
def models(draw):
    """A toy over a random vocabulary, and the strings that end its sequences."""
    words = [*draw(vocabularies()), EOS_STRING]
    return ToyLM(words, seed=draw(st.integers(0, 2**20)), bos=draw(st.sampled_from([None, len(words) - 1])))


class TestAgainstBruteForce:
    @pytest.mark.parametrize("params", [EXACT, NEARLY], ids=["exact", "tolerance"])
    @examples(30)
    @given(llm=models(), text=texts, context=st.lists(st.sampled_from(b"abc"), max_size=3).map(bytes))
    def test_every_byte_and_the_end(self, params, llm, text, context):
        brute = Brute(llm, eos=[EOS_STRING])
        lm = AsyncByteLM(llm, params, eos=[EOS_STRING])
        score = asyncio.run(lm.score(text, context, end=True))
        plain = len(context)
        base = math.log(brute.prefix(context, plain))
        p = [math.log(brute.prefix(context + text[:i], plain)) for i in range(len(text) + 1)]
        np.testing.assert_allclose(score.logprobs, np.diff(p), atol=1e-9)
        ended = math.log(brute.ended(context + text, plain))
        assert score.end == pytest.approx(ended - p[-1], abs=1e-9)
        assert score.logprob == pytest.approx(ended - base, abs=1e-9)
        assert score.slack < 1e-9

    def test_the_end_of_sequence_string_is_an_end_and_no_text(self):
        """As text of the model's it is spelled by other tokens: here there are none."""
        lm = toy(seed=3)
        assert lm.score("a", end=True).end < 0.0
        assert lm.score(EOS_STRING, on_impossible="inf").logprob == -math.inf
        assert lm.score("a", context=EOS_STRING).logprob > -math.inf

    def test_the_chain_rule_for_a_pruned_beam(self):
        """What pruning drops is in neither of the two beams whose difference is a byte's."""
        lm = toy(seed=8, params=BeamParams(K=2, prune_threshold=0.1))
        text = b"abcabcab"

        async def by_hand():
            beam, found = await lm.asynchronous.beam(b""), []
            for byte in text:
                pruned = beam.prune()
                beam = await (pruned << byte)
                found.append(beam.logZ - pruned.logZ)
            return found

        np.testing.assert_allclose(lm.score(text).logprobs, lm.run(by_hand()), atol=1e-12)

    def test_what_comes_after_a_text_is_asked_of_a_pruned_beam(self):
        """Its end, and the end of its last word: as for every byte, what pruning drops has no part in it."""
        text, shown = b"ababab", 0
        for seed in range(12):
            lm = toy(seed=seed, params=BeamParams(K=1, prune_threshold=0.02))

            async def by_hand(lm=lm):
                beam = await lm.asynchronous.beam(b"")
                for byte in text:
                    beam = await (beam.prune() << byte)
                return [await kept.logp_next() for kept in (beam.prune(), beam)]

            pruned, unpruned = lm.run(by_hand())
            if pruned[257] == -math.inf:  # then reading, which heals, says more
                continue
            shown += pruned[257] > unpruned[257] + 1e-6 or pruned[257] < unpruned[257] - 1e-6
            assert lm.score(text, end=True).end == pytest.approx(pruned[257], abs=1e-12)
            (row,) = lm.word_surprisal(text, sep="c", base=math.e)
            ended = math.exp(pruned[257]) + math.exp(pruned[ord("c")])
            want = -lm.score(text).logprobs.sum() - math.log(ended)
            assert row.surprisal == pytest.approx(want, abs=1e-12)
        assert shown > 3


class TestScore:
    @pytest.mark.parametrize("op", [None, "mixture", "prod"])
    def test_what_was_copied_is_the_same(self, op):
        """Where something is unknown, nan, too: after an impossible byte, for an ensemble that is no mean."""
        one, other = toy(seed=2), toy(seed=3)
        lm = one if op is None else ByteLM.ensemble([one, other], op)
        found = [
            lm.score("abca", end=True),
            lm.score("ab\xffa", on_impossible="inf"),
            lm.score("abc")[1:],
            lm.word_surprisal("abcab", sep="c"),
            lm.word_surprisal("abcab", sep="c")[0],
            lm.choices("a", ["b", "ca"]),
            lm.choices(["a", "b"], ["b", "ca"], "unconditional"),
            *([] if op else [lm.tokenizations("abc"), lm.token_logprobs("abc")]),
        ]
        for this in found:
            for copied in (pickle.loads(pickle.dumps(this)), copy.deepcopy(this)):
                assert copied == this and not copied != this and copied is not this
            assert this != object() and sum(this == another for another in found) == 1
        for this in (found[0], found[4], found[5], *found[7:]):
            assert len({this, copy.deepcopy(this)}) == 1
        assert found[0] != lm.score("abcb", end=True) and found[0] != lm.score("abca")

    def test_slices_totals_and_characters(self):
        lm = toy(seed=2)
        score = lm.score("abcab")
        assert len(score) == 5 and score[2] == score.logprobs[2] and score[-1] == score.logprobs[4]
        assert score[1:3].text == b"bc"
        assert score[:2].logprob + score[2:].logprob == pytest.approx(score.logprob, abs=1e-12)
        assert score.bits == pytest.approx(-score.logprob / math.log(2))
        assert score.bits_per_byte == pytest.approx(score.bits / 5) == score.bits_per_char
        np.testing.assert_array_equal(score.chars.logprobs, score.logprobs)
        assert score[3:1].text == b"" and score.chars[4:2].text == b"" and score[2:99].text == b"cab"
        assert "5 bytes" in repr(score) and "5 characters" in repr(score.chars)
        with pytest.raises(InvalidValueError, match="no gaps"):
            score[::2]
        with pytest.raises(InvalidTypeError, match="integers"):
            score["a":]
        with pytest.raises(IndexError):
            score.chars[5]

    def test_characters_of_several_bytes(self):
        text = "aé日"
        llm = ToyLM([bytes([b]) for b in sorted(set(text.encode()))] + ["é".encode()], seed=1)
        score = ByteLM(llm, EXACT).score(text.encode() + b"\xe6")
        assert len(score) == 7 and len(score.chars) == 4
        assert score.chars[1] == pytest.approx(score[1:3].logprob)
        assert score.chars[1:3].text == "é日".encode() and score.chars[3] == score[6]
        assert score.bits_per_char == pytest.approx(score.bits / 4)

    def test_several_texts_are_the_same_as_one_by_one(self):
        lm = toy(seed=4)
        several = lm.score(["ab", b"cab", "", "abc"], context="a")
        assert [s.text for s in several] == [b"ab", b"cab", b"", b"abc"]
        for score in several:
            np.testing.assert_array_equal(score.logprobs, lm.score(score.text, "a").logprobs)
        each = lm.score(["ab", "ab"], context=["a", "c"])
        assert [s.logprob for s in each] == [lm.score("ab", "a").logprob, lm.score("ab", "c").logprob]
        assert lm.score([]) == []

    def test_contexts_are_those_of_complete(self):
        lm = toy(seed=4)
        assert lm.score("ab", ("c", 6, "a")).logprob != lm.score("ab", ("c", 6)).logprob
        brute = Brute(lm.llm, eos=[EOS_STRING], start=[5, 6])
        assert lm.score("ab", ("c", 6)).logprob == pytest.approx(math.log(brute.prefix(b"ab")), abs=1e-9)

    def test_empty_text(self):
        score = toy().score("")
        assert score.logprob == 0.0 and math.isnan(score.bits_per_byte) and math.isnan(score.bits_per_char)
        assert toy().score("", end=True).logprob < 0.0

    def test_impossible_bytes_are_named(self):
        lm = toy(seed=4)
        with pytest.raises(ImpossibleByteError, match=r"`text` has byte 0x7a .* offset 2") as raised:
            lm.score("abz")
        assert raised.value.offset == 2 and raised.value.byte == ord("z") and not raised.value.producible
        score = lm.score("abzab", on_impossible="inf")
        np.testing.assert_array_equal(score.logprobs[:2], lm.score("ab").logprobs)
        assert score[2] == -math.inf and np.isnan(score.logprobs[3:]).all() and score.logprob == -math.inf
        assert math.isnan(lm.score("z", end=True, on_impossible="inf").end)

    @pytest.mark.parametrize(
        ("options", "error", "says"),
        [
            ({"on_impossible": "skip"}, InvalidValueError, "'error' or 'inf'"),
            ({"window": 2}, InvalidValueError, "`window` is 2: must be at least 8"),
            ({"window": 16, "overlap": 9}, InvalidValueError, "at most half the window"),
            ({"at_once": 0}, InvalidValueError, "`at_once`"),
            ({"method": "fast"}, InvalidValueError, "`method`"),
            ({"context": ["a", "b"]}, InvalidValueError, "2 contexts for 1 texts"),
        ],
    )
    def test_bad_options(self, options, error, says):
        with pytest.raises(error, match=says):
            toy().score(["ab"], **{"context": "a", **options})

    def test_bad_texts(self):
        with pytest.raises(InvalidTypeError, match=r"`text` is 5"):
            toy().score(5)
        with pytest.raises(InvalidTypeError, match=r"`text\[1\]` is None"):
            toy().score(["a", None])
        with pytest.raises(InvalidValueError, match="lone surrogate"):
            toy().score("\udc80")
        with pytest.raises(InvalidValueError, match="no token ends a sequence"):
            ByteLM(ToyLM(TOY), EXACT, eos=[]).score("a", end=True)

    def test_one_failure_ends_the_others(self):
        lm = toy()
        with pytest.raises(ImpossibleByteError):
            lm.score(["ab", "z", *["abc"] * 50], at_once=1)


class TestWindow:
    def test_a_text_that_fits_is_read_as_ever(self):
        lm = toy(seed=6, params=NEARLY)
        np.testing.assert_array_equal(lm.score("abcab", window=8).logprobs, lm.score("abcab").logprobs)

    def test_sliding_is_exact_where_the_model_forgets_too(self):
        """A model that looks at its latest two tokens loses nothing where at least two are kept."""

        class Forgets(ToyLM):
            def probs(self, context):
                return super().probs(context[-2:])

        text = b"abccccbcacbccaca" * 5  # two ways to cut each `ab`
        lm = ByteLM(Forgets([b"a", b"b", b"c", b"ab", b"<e>"], seed=9), NEARLY, eos=[EOS_STRING])
        full, slid = lm.score(text), lm.score(text, window=24, overlap=8)
        assert max(len(ids) for ids in lm.llm.asked) > 24
        np.testing.assert_allclose(slid.logprobs, full.logprobs, atol=1e-8)
        lm.forget()
        lm.llm.asked.clear()
        lm.score(text, window=24, overlap=8)
        assert max(len(ids) for ids in lm.llm.asked) <= 24

    def test_a_long_context_slides_too(self):
        lm = toy(seed=9, params=BeamParams(K=4))
        lm.llm.asked.clear()
        score = lm.score("abc", context="abcab" * 30, window=32)
        assert score.logprob < 0.0 and max(len(ids) for ids in lm.llm.asked) <= 32

    def test_an_impossible_byte_far_on_has_its_offset_in_the_text(self):
        text = "abcab" * 30 + "z"
        with pytest.raises(ImpossibleByteError, match="offset 150") as raised:
            toy(params=BeamParams(K=4)).score(text, window=32)
        assert raised.value.offset == 150

    def test_no_room_for_the_text(self):
        parts = [*[6] * 30, "abcab" * 30]
        with pytest.raises(InvalidValueError, match="30 tokens precede the text"):
            toy(params=BeamParams(K=4)).score("a", context=parts, window=32)


class TestWords:
    def brute(self, lm):
        return Brute(lm.llm, eos=[EOS_STRING])

    def test_trailing_is_the_word_and_its_end(self):
        """`c` stands between words."""
        lm = toy(seed=7)
        brute = self.brute(lm)
        rows = lm.word_surprisal("abcbaca", sep="c")
        assert [(r.word, r.start, r.end) for r in rows] == [("ab", 0, 2), ("ba", 3, 5), ("a", 6, 7)]
        for row in rows:
            text = b"abcbaca"[: row.end]
            p = brute.prefix([*text, ord("c")]) + brute.ended(text)
            p /= brute.prefix(b"abcbaca"[: row.start])
            assert row.surprisal == pytest.approx(-math.log2(p), abs=1e-9)

    @pytest.mark.parametrize("seed", range(3))
    def test_trailing_probabilities_sum_to_one(self, seed):
        """Over all words of up to four letters: 1 less what longer ones have."""
        lm = toy(seed=seed)
        words = ["".join(w) for n in range(1, 5) for w in itertools.product("ab", repeat=n)]
        rows = lm.word_surprisal(words, sep="c", context="abc")
        total = sum(2.0**-row.surprisal for row in rows)
        brute = self.brute(lm)
        longer = sum(brute.prefix(b"abc" + bytes(w), 3) for w in itertools.product(b"ab", repeat=5))
        none = brute.prefix(b"abcc", 3) + brute.ended(b"abc", 3)
        assert total <= 1.0
        assert total + (longer + none) / brute.prefix(b"abc", 3) == pytest.approx(1.0, abs=1e-9)
        loose = lm.word_surprisal(words, sep="c", context="abc", boundary="none")
        assert sum(2.0**-row.surprisal for row in loose) > 1.0

    def test_leading_counts_the_separator_before(self):
        lm = toy(seed=7)
        score = lm.score("abcbacca")
        rows = lm.word_surprisal("abcbacca", sep="c", boundary="leading", base=math.e)
        want = [score[0:2], score[2:5], score[5:8]]
        assert [r.surprisal for r in rows] == pytest.approx([-w.logprob for w in want])
        assert sum(r.surprisal for r in rows) == pytest.approx(-score.logprob)

    def test_given_words_spans_and_no_boundary(self):
        lm = toy(seed=7)
        score = lm.score("abcba")
        rows = lm.word_surprisal("abcba", words=["ab", "ba"], sep="", base=10)
        want = [-score[0:2].logprob / math.log(10), -score[3:5].logprob / math.log(10)]
        assert [r.surprisal for r in rows] == pytest.approx(want) and {r.kind for r in rows} == {"word"}
        spans = lm.word_surprisal("abcba", spans=[(0, 2), (3, 5)], base=10)
        assert [r.surprisal for r in spans] == pytest.approx(want) and {r.kind for r in spans} == {"span"}
        both = lm.word_surprisal(["abcba", "ab"], words=[["ab", "ba"], ["b"]], sep="")
        assert [(r.text, r.index, r.word) for r in both] == [(0, 0, "ab"), (0, 1, "ba"), (1, 0, "b")]

    def test_ends_of_several_bytes_and_marks_after_given_words(self):
        text = "a—b, a"
        llm = ToyLM([bytes([b]) for b in sorted(set(text.encode()))] + [b"<e>"], seed=3)
        lm = ByteLM(llm, EXACT, eos=[EOS_STRING])
        score = lm.score(text.encode())
        p = [lm.next(text[:1]), lm.next("a—b"), lm.next(text)]
        dash = lm.word_surprisal(text, sep="—", words=["a"], base=math.e)[0]
        want = math.exp(p[0][257]) + math.exp(score.chars[1])
        assert dash.surprisal == pytest.approx(-score[0] - math.log(want))
        given = lm.word_surprisal(text, words=["b", "a"], base=math.e)
        want = sum(math.exp(p[1][b]) for b in (32, 44, 257))
        assert given[0].surprisal == pytest.approx(-score.chars[2] - math.log(want))
        want = math.exp(p[2][257]) + math.exp(p[2][32])
        assert given[1].surprisal == pytest.approx(-score.chars[5] - math.log(want))
        with pytest.raises(InvalidValueError, match="the word does not end here"):
            lm.word_surprisal("abba", spans=[(0, 2)], sep=" ", boundary="trailing")

    def test_punctuation_as_regions_of_its_own(self):
        regions = find_regions('He said: "don\'t (go)!"', None, None, " ", '.,:!?()"')
        text = 'He said: "don\'t (go)!"'
        found = [(text[r.start : r.end], r.kind[0]) for r in regions]
        assert found == [
            ("He", "w"), ("said", "w"), (":", "p"), ('"', "p"), ("don't", "w"),
            ("(", "p"), ("go", "w"), (')!"', "p"),
        ]  # fmt: skip
        llm = ToyLM([b"a", b"a.", b".", b" ", b" a", b"\xe3", b"\x80", b"\x82", b"<e>"], seed=1)
        lm = ByteLM(llm, EXACT, eos=[EOS_STRING])
        rows = lm.word_surprisal("a. a。", punctuation=".。", base=math.e)
        assert [r.kind for r in rows] == ["word", "punctuation"] * 2
        score, after = lm.score("a. a。"), lm.next("a")
        want = sum(math.exp(after[b]) for b in (32, 46, 257)) + math.exp(lm.score("a。")[1:].logprob)
        assert rows[0].surprisal == pytest.approx(-score[0] - math.log(want))
        assert rows[1].surprisal == pytest.approx(-score[1])
        after = lm.next("a. a")
        want = sum(math.exp(after[b]) for b in (32, 46, 257)) + math.exp(score.chars[4])
        assert rows[2].surprisal == pytest.approx(-score[3] - math.log(want))

    def test_white_space_of_any_kind(self):
        llm = ToyLM([b"a", b" ", b"\n", b"\xc2\xa0", b"\xc2", b"\xa0", b" a", b"<e>"], seed=1)
        lm = ByteLM(llm, EXACT, eos=[EOS_STRING])
        rows = lm.word_surprisal(" a\n a\u00a0aa", sep=None)
        assert [(r.word, r.start) for r in rows] == [("a", 1), ("a", 4), ("aa", 6)]
        leading = lm.word_surprisal(" a\n a\u00a0aa", sep=None, boundary="leading")
        assert sum(r.surprisal for r in leading) == pytest.approx(lm.score(" a\n a\u00a0aa").bits)

    def test_impossible_words(self):
        lm = toy(seed=4)
        rows = lm.word_surprisal("acbzcac", sep="c", on_impossible="inf")
        assert rows[0].surprisal < rows[1].surprisal == math.inf and math.isnan(rows[2].surprisal)

    def test_naive_sums_are_the_tokenizers_own(self):
        """`abc` and `b`, the longest matches: no other way counts, and `cb` has no token of its own."""
        lm = toy(seed=7)
        rows = lm.word_surprisal("abcb", spans=[(0, 2), (2, 3), (3, 4)], base=math.e)
        llm = lm.llm
        assert rows[0].naive == pytest.approx(-math.log(llm.probs(())[2]))
        assert math.isnan(rows[1].naive)
        assert rows[2].naive == pytest.approx(-math.log(llm.probs((2,))[3]))
        assert rows[0].difference == pytest.approx(rows[0].naive - rows[0].surprisal)

    def test_tables(self, tmp_path, monkeypatch):
        lm = toy(seed=7)
        rows = lm.word_surprisal(["abcb", "ac"], sep="c")
        assert rows.records()[2]["word"] == "a" and len(rows[:2]) == 2 and rows[:3] == rows
        assert "'ab'" in repr(rows)
        frame = rows.to_dataframe()
        assert list(frame.word) == ["ab", "b", "a"] and frame.surprisal[0] == rows[0].surprisal
        said = rows.to_tsv(tmp_path / "x.tsv")
        assert (tmp_path / "x.tsv").read_text() == said and len(list(tmp_path.iterdir())) == 1
        back = list(csv.DictReader(io.StringIO(said), dialect="excel-tab"))
        assert [float(r["surprisal"]) for r in back] == [r.surprisal for r in rows]
        assert list(back[0]) == list(frame.columns)
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(MissingDependencyError, match="pip install"):
            rows.to_dataframe()

    @pytest.mark.parametrize(
        ("options", "error", "says"),
        [
            ({"words": ["ab", "x"], "sep": ""}, InvalidValueError, r"`words\[1\]` is 'x': does not occur"),
            ({"words": ["b", "b", "b"], "sep": ""}, InvalidValueError, r"`words\[2\]`"),
            ({"words": ["ab", ""]}, InvalidValueError, "must not be empty"),
            ({"words": [1]}, InvalidTypeError, r"`words\[0\]`"),
            ({"words": "ab"}, InvalidTypeError, "a list of words"),
            ({"words": ["ab"], "spans": [(0, 1)]}, InvalidValueError, "Give one"),
            ({"spans": [(0, 6)]}, InvalidValueError, "out of range: the text has 5 characters"),
            ({"spans": [(-1, 2)]}, InvalidValueError, "out of range"),
            ({"spans": [(2, 2)]}, InvalidValueError, "is empty"),
            ({"spans": [(0, 3), (2, 4)]}, InvalidValueError, r"`spans\[1\]` .* overlaps"),
            ({"spans": [(0, 1, 2)]}, InvalidTypeError, "pair"),
            ({"spans": [5]}, InvalidTypeError, "pair"),
            ({"spans": 5}, InvalidTypeError, "list of pairs"),
            ({"sep": ""}, InvalidValueError, "finds no words"),
            ({"sep": "", "words": ["ab"], "boundary": "trailing"}, InvalidValueError, "no separator"),
            ({"sep": b" "}, InvalidTypeError, "`sep`"),
            ({"boundary": "both"}, InvalidValueError, "must be one of"),
            ({"base": 1}, InvalidValueError, "above 1"),
            ({"base": "2"}, InvalidTypeError, "number above 1"),
            ({"punctuation": 1}, InvalidTypeError, "True, False"),
        ],
    )
    def test_bad_options(self, options, error, says):
        with pytest.raises(error, match=says):
            toy().word_surprisal("abcba", **options)

    def test_an_entry_for_each_text(self):
        with pytest.raises(InvalidValueError, match="1 entries for 2 texts"):
            toy().word_surprisal(["ab", "b"], words=[["ab"]])
        with pytest.raises(InvalidTypeError, match="an entry for each text"):
            toy().word_surprisal(["ab", "b"], spans=5)
        assert len(toy().word_surprisal("")) == 0


class TestByteLogprobs:
    def test_rows_are_distributions_and_agree_with_scores(self):
        lm = toy(seed=3)
        found, score = lm.byte_logprobs("abcab", "b"), lm.score("abcab", "b")
        assert found.shape == (5, 257) and found.dtype == np.float32
        np.testing.assert_allclose(np.exp(found.astype(float)).sum(1), 1.0, atol=1e-6)
        np.testing.assert_allclose(found[range(5), list(b"abcab")], score.logprobs, atol=1e-6)
        assert found[2, 256] == pytest.approx(lm.score("ab", "b", end=True).end, abs=1e-6)
        several = lm.byte_logprobs(["ab", "", "abz"], "b", on_impossible="inf")
        assert [len(rows) for rows in several] == [2, 0, 3]
        assert not np.isnan(several[2]).any() and several[2][2, ord("z")] == -np.inf
        np.testing.assert_array_equal(several[2][:2], several[0])

    @pytest.mark.parametrize("kind", ["npz", "safetensors"])
    def test_shards(self, tmp_path, kind):
        lm, texts = toy(seed=3), ["ab", "", "abc", b"ca", "b"]
        call = {"out": tmp_path / "o", "format": kind, "texts_per_shard": 2, "context": "a"}
        assert lm.byte_logprobs(texts, **call) == tmp_path / "o"
        names = sorted(p.name for p in (tmp_path / "o").iterdir())
        assert names == ["manifest.jsonl", *(f"shard-0000{i}.{kind}" for i in range(3))]
        back = list(read_shards(tmp_path / "o"))
        assert [text for text, _ in back] == [b"ab", b"", b"abc", b"ca", b"b"]
        for (_, rows), want in zip(back, lm.byte_logprobs(texts, "a"), strict=True):
            np.testing.assert_array_equal(rows, want)

    @pytest.mark.parametrize("kind", ["npz", "safetensors"])
    def test_what_is_there_is_kept_and_what_is_missing_or_damaged_made(self, tmp_path, kind, caplog):
        lm, texts = toy(seed=3), ["ab", "abc", "ca", "b"]
        call = {"out": tmp_path, "format": kind, "texts_per_shard": 1}
        lm.byte_logprobs(texts, **call)
        shards = sorted(tmp_path.glob("shard-*"))
        times = [path.stat().st_mtime_ns for path in shards]
        shards[1].unlink()
        with pytest.raises(InvalidValueError, match="lacks shard-00001"):
            list(read_shards(tmp_path))
        content = shards[2].read_bytes()
        shards[2].write_bytes(content[: len(content) // 2])
        (tmp_path / f".{shards[3].name}.1.half").write_bytes(content[:9])
        lm.byte_logprobs(texts, **call)
        assert "damaged" in caplog.text and shards[2].read_bytes() == content and shards[1].exists()
        assert [p.stat().st_mtime_ns == t for p, t in zip(shards, times, strict=True)][::3] == [True, True]
        with pytest.raises(InvalidValueError, match="another call: sha256_of_texts differ"):
            lm.byte_logprobs([*texts[:3], "a"], **call)
        with pytest.raises(InvalidValueError, match="context"):
            lm.byte_logprobs(texts, context="a", **call)

    @pytest.mark.slow
    def test_every_byte_is_that_of_a_run_without_an_end(self, tmp_path, monkeypatch):
        """Wherever it was cut, and whatever the model has read in between: round-off included."""
        texts = ["the man and the end", "in the", "an and", "the ant in", "and the man", "thin", "the the"]
        call = {"context": "and ", "format": "safetensors", "texts_per_shard": 2}

        def shards(folder):
            return {path.name: path.read_bytes() for path in folder.glob("shard-*")}

        llm = tiny.transformer("llama")
        ByteLM(llm, BeamParams(K=4)).byte_logprobs(texts, out=tmp_path / "whole", **call)
        whole = shards(tmp_path / "whole")
        assert len(whole) == 4
        written = Shards.write
        for cut in (0, 1, 3):

            def write(self, shard, arrays, cut=cut):
                if shard == cut:
                    raise RuntimeError("stopped")
                return written(self, shard, arrays)

            folder = tmp_path / str(cut)
            with monkeypatch.context() as patch:
                patch.setattr(Shards, "write", write)
                with pytest.raises(RuntimeError, match="stopped"):
                    ByteLM(llm, BeamParams(K=4)).byte_logprobs(texts, out=folder, **call)
            assert len(shards(folder)) == cut
            lm = ByteLM(tiny.transformer("llama") if cut % 2 else llm, BeamParams(K=4))
            lm.score(["the man in", "thin and", "an"][:cut], "and ")
            lm.byte_logprobs(texts, out=folder, **call)
            assert shards(folder) == whole, cut

    @pytest.mark.parametrize("kind", ["npz", "safetensors"])
    def test_shards_that_are_not_what_was_written(self, tmp_path, kind, caplog):
        """Damaged, cut, of another call, of another kind, or a folder: told by a digest, and made again."""
        lm, texts = toy(seed=3), ["ab", "abc", "ca"]
        call = {"format": kind, "texts_per_shard": 1}
        lm.byte_logprobs(texts, out=tmp_path / "a", **call)
        lm.byte_logprobs(texts, "b", out=tmp_path / "b", **call)
        path = tmp_path / "a" / f"shard-00001.{kind}"
        good = path.read_bytes()
        other = (tmp_path / "b" / path.name).read_bytes()
        flipped = (good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 97))
        for bad in (b"", good[:-1], good + b"\0", other, b"{}", *flipped):
            path.write_bytes(bad)
            with pytest.raises(InvalidValueError, match=f"holds {path.name}, which is damaged.*again"):
                list(read_shards(tmp_path / "a"))
            caplog.clear()
            lm.byte_logprobs(texts, out=tmp_path / "a", **call)
            assert path.name in caplog.text and path.read_bytes() == good
        lines = (tmp_path / "a" / "manifest.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "a" / "manifest.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:9])
        with pytest.raises(InvalidValueError, match="lacks shard-00001"):
            list(read_shards(tmp_path / "a"))  # whole, but nobody says so
        lm.byte_logprobs(texts, out=tmp_path / "a", **call)
        assert len(list(read_shards(tmp_path / "a"))) == 3

    @pytest.mark.parametrize(
        "other", [{"engine": False}, {"max_context_length": 2}, {"trie_opts": {"device": "cpu"}}]
    )
    def test_another_model_of_the_same_name(self, tmp_path, other):
        llm = ToyLM(TOY, seed=3)
        ByteLM(llm, EXACT, eos=[EOS_STRING]).byte_logprobs(["ab"], out=tmp_path)
        with pytest.raises(InvalidValueError, match=f"another call: {next(iter(other))} differ"):
            ByteLM(llm, EXACT, eos=[EOS_STRING], **other).byte_logprobs(["ab"], out=tmp_path)

    def test_two_runs_and_a_full_disk(self, tmp_path, monkeypatch):
        lm = toy(seed=3)
        (tmp_path / "o").mkdir()
        held = Locks({tmp_path / "o" / "manifest.jsonl": "out"})
        with pytest.raises(InvalidValueError, match=r"`out` .*another run"):
            lm.byte_logprobs(["ab"], out=tmp_path / "o")
        held.release()

        def no_room(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", no_room)
            with pytest.raises(InvalidValueError, match=r"`out` .*No space left"):
                lm.byte_logprobs(["ab"], out=tmp_path / "o")
        lm.byte_logprobs(["ab"], out=tmp_path / "o")
        assert len(list(read_shards(tmp_path / "o"))) == 1

    def test_folders_of_others(self, tmp_path):
        (tmp_path / "mine.txt").write_text("x")
        with pytest.raises(InvalidValueError, match="without a manifest"):
            toy().byte_logprobs(["a"], out=tmp_path)
        with pytest.raises(InvalidValueError, match=r"has no manifest\.jsonl"):
            list(read_shards(tmp_path))
        with pytest.raises(InvalidValueError, match="`format`"):
            toy().byte_logprobs(["a"], out=tmp_path / "o", format="csv")


@pytest.mark.real_model
class TestRealModel:
    TEXT = "The chef who won the award cooked dinner."

    def test_words_of_a_sentence(self, default_llm):
        lm = ByteLM(default_llm)
        rows = lm.word_surprisal(self.TEXT)
        assert [r.word for r in rows] == self.TEXT.split(" ")
        total = lm.score(self.TEXT, end=True)
        # Each word's end is either what stands there or something of less probability beside it.
        assert 0 < sum(r.surprisal for r in rows) < total.bits
        assert all(math.isfinite(r.naive) and abs(r.difference) < 8 for r in rows)

    @pytest.mark.slow
    def test_against_a_near_exact_reading(self, default_llm):
        found, exact = (ByteLM(default_llm, p).score(self.TEXT) for p in (None, BeamParams(tolerance=1e-6)))
        assert np.abs(exact.logprobs - found.logprobs).max() < 0.05

    def test_a_batch_equals_its_texts(self, default_llm):
        lm = ByteLM(default_llm)
        texts = [self.TEXT, "Ein Satz.", "x = f(y)\n"]
        for score in lm.score(texts):
            np.testing.assert_allclose(score.logprobs, lm.score(score.text).logprobs, atol=1e-3)
