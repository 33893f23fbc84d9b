"""Entropy and rank where a word begins: against enumeration, on languages of few words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from brute import Brute
from budget import examples
from cli_runner import Run, fine
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, FixedLM, ToyLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import InvalidTypeError, InvalidValueError
from genlm.bytes.predict.budget import Budget
from genlm.bytes.predict.entropy import LEXICON, entropy, word_uncertainty
from genlm.bytes.predict.word_rules import Delimited

WORDS = [b"a", b"b", b"ab", b" ", b"<e>"]
FEW = ["a", "b", "aa", "ab", "ba", "bb"]


def language(seed, spared=()):
    """A model of words of one or two letters: after two comes an end."""

    def rule(context):
        letters = 0
        for token in context:
            letters = 0 if token == 3 else letters + len(WORDS[token])
        p = np.random.default_rng([seed, *(t + 1 for t in context)]).dirichlet(np.full(5, 0.5)) + 1e-3
        p[[i for i, word in enumerate(WORDS[:3]) if len(word) + letters > 2]] = 0.0
        return p / p.sum()

    return ByteLM(FixedLM(WORDS, rule=rule), BeamParams(exact=True), eos=[EOS_STRING])


def enumerated(lm, before):
    """The probability of each word after some text, and of none."""
    brute, before = Brute(lm.llm, eos=[EOS_STRING]), before.encode()
    whole = brute.prefix(before)

    def ended(text):
        return (brute.ended(before + text) + brute.prefix(before + text + b" ")) / whole

    return {word: ended(word.encode()) for word in ["", *FEW]}


@examples(2)
@given(st.integers(0, 2**20), st.sampled_from(["ab a", "b ba"]))
def test_equal_to_enumeration(seed, text):
    lm = language(seed)
    for row in lm.word_surprisal(text, entropy=True, rank=True, base=math.e, budget=None):
        p = enumerated(lm, text[: row.start])
        assert sum(p.values()) == pytest.approx(1.0, abs=1e-9)
        assert row.word_entropy == pytest.approx(entropy(p.values()), abs=1e-9)
        assert row.word_entropy_most == pytest.approx(row.word_entropy, abs=1e-8)
        likelier = sum(q > p[row.word] * (1 + 1e-9) for w, q in p.items() if w)
        assert row.rank == row.rank_most == likelier + 1
        assert row.surprisal == pytest.approx(-math.log(p[row.word]), abs=1e-9)
        ps = lm.next(text[: row.start], method="beam").ps
        assert row.entropy == pytest.approx(entropy(np.exp(ps)), abs=1e-9)


@examples(8)
@given(seed=st.integers(0, 2**20), budget=st.integers(1, 6))
def test_between_its_bounds(seed, budget):
    lm = language(seed)
    for row in lm.word_surprisal("ab ba", entropy=True, rank=True, base=math.e, budget=budget):
        p = enumerated(lm, "ab ba"[: row.start])
        assert row.word_entropy - 1e-9 <= entropy(p.values()) <= row.word_entropy_most + 1e-9
        assert row.rank <= 1 + sum(q > p[row.word] * (1 + 1e-9) for w, q in p.items() if w) <= row.rank_most


@examples(6)
@given(seed=st.integers(0, 2**20), budget=st.integers(1, 8))
def test_ends_of_several_bytes_keep_the_bounds(seed, budget):
    """A word whose end has been read by half is in one place with what that may still become."""
    llm = ToyLM([b"a", b" ", b"\xe2", b"\x80", b"\x83", b"a\xe2", EOS_STRING], seed=seed)
    lm = ByteLM(llm, BeamParams(exact=True), eos=[EOS_STRING])
    near, far = (
        lm.word_surprisal("a", sep=None, entropy=True, rank=True, budget=most)[0] for most in (budget, 40)
    )
    assert near.word_entropy <= far.word_entropy_most + 1e-9
    assert far.word_entropy <= near.word_entropy_most + 1e-9
    assert near.rank <= far.rank_most and far.rank <= near.rank_most


def test_rank_alone_looks_no_further_than_the_word():
    lm = language(3)
    both = lm.word_surprisal("ab a", entropy=True, rank=True, budget=None)
    assert [(row.rank, row.rank_most) for row in both] == [
        (row.rank, row.rank_most) for row in lm.word_surprisal("ab a", rank=True, budget=None)
    ]


def test_a_word_is_not_ahead_of_itself():
    """Its probability is from a whole text, and not quite what a search from its beginning finds."""
    lm = language(3)
    p = enumerated(lm, "ab ")
    best, second = sorted(FEW, key=lambda word: -p[word])[:2]
    between = (p[best] + p[second]) / 2
    for word, rank in ((best, 1), (None, 2)):
        ask = word_uncertainty(lm.beam("ab ").prune(), Delimited([" "]), between, Budget(), word=word)
        found = lm.run(ask)
        assert found.rank == found.rank_most == rank


def test_of_characters():
    llm = ToyLM([b"a", b" ", b"\xc3", b"\xa9", b"\xa4", "é".encode(), EOS_STRING], seed=4)
    lm = ByteLM(llm, BeamParams(exact=True), eos=[EOS_STRING])
    (row,) = lm.word_surprisal("a", entropy="char", base=math.e)
    found = lm.next("", method="beam").chars(None)
    whole = dict(found)
    # What follows the first byte of a character and continues none counts as it stands.
    brute = Brute(llm, eos=[EOS_STRING])
    broken = [brute.prefix([0xC3, b]) for b in (0x61, 0x20, 0xC3)] + [brute.ended([0xC3])]
    broken += [brute.prefix([b]) for b in (0xA9, 0xA4)]
    parts = [math.exp(p) for p in whole.values()] + broken
    assert sum(parts) == pytest.approx(1.0, abs=1e-9)
    assert row.entropy == pytest.approx(entropy(parts), abs=1e-9)


class TestColumns:
    def test_only_where_they_are_asked_for(self):
        lm = language(1)
        plain = lm.word_surprisal("ab a")
        assert "rank" not in plain.records()[0] and "entropy" not in plain.to_tsv()
        ranked = lm.word_surprisal("ab a", rank=True)
        assert ranked.to_tsv().splitlines()[0].endswith("above_one\terror\trank\trank_most")
        assert list(ranked.to_dataframe().columns)[-2:] == ["rank", "rank_most"]
        assert ranked[:1].columns == ranked.columns
        both = lm.word_surprisal("ab a", entropy=True, rank=True)
        assert [*both.records()[0]][-5:] == [
            "entropy", "word_entropy", "word_entropy_most", "rank", "rank_most",
        ]  # fmt: skip
        assert [r.surprisal for r in both] == [r.surprisal for r in plain]

    def test_bits_are_bits(self):
        lm = language(1)
        (nats,) = lm.word_surprisal("a", entropy=True, base=math.e)
        (bits,) = lm.word_surprisal("a", entropy=True, base=2)
        assert bits.word_entropy * math.log(2) == pytest.approx(nats.word_entropy)
        assert bits.entropy * math.log(2) == pytest.approx(nats.entropy)

    def test_words_without_ends_have_the_next_bytes_entropy_alone(self):
        for options in ({"spans": [(0, 1)]}, {"boundary": "leading"}):
            rows = language(1).word_surprisal("ab", entropy=True, **options)
            assert rows[0].entropy > 0 and rows[0].word_entropy is None and LEXICON > 1
            assert rows.columns[-2:] == ("error", "entropy")

    @pytest.mark.parametrize(
        ("options", "error", "says"),
        [
            ({"entropy": "word"}, InvalidValueError, "entropy"),
            ({"rank": 1}, InvalidTypeError, "rank"),
            ({"rank": True, "boundary": "none"}, InvalidValueError, "trailing"),
            ({"rank": True, "budget": 0}, InvalidValueError, "budget"),
        ],
        ids=str,
    )
    def test_mistakes(self, options, error, says):
        with pytest.raises(error, match=says):
            language(1).word_surprisal("ab", **options)


class TestCommand:
    def test_columns(self, run: Run) -> None:
        line = ("score", "--words", "--entropy", "byte", "--rank", "--budget", "9", "the")
        head, row, *_ = fine(run(*line)).decode().splitlines()
        assert head.split("\t")[-5:] == ["entropy", "word_entropy", "word_entropy_most", "rank", "rank_most"]
        cells = dict(zip(head.split("\t"), row.split("\t"), strict=True))
        assert float(cells["word_entropy"]) <= float(cells["word_entropy_most"])
        assert int(cells["rank"]) >= 1
        head, *_ = fine(run("score", "--words", "--entropy", "byte", "--boundary", "leading", "x")).split(
            b"\n"
        )
        assert head.endswith(b"\tentropy")

    def test_they_need_words(self, run: Run) -> None:
        done = run("score", "--rank", "the cat")
        assert done.code == 2 and "--words" in done.err
        done = run("score", "--words", "--rank", "--boundary", "none", "the cat")
        assert done.code == 1 and "`--rank` is True" in done.err and "Use --boundary trailing." in done.err


class TestPictures:
    def test_bars_and_heat(self, tmp_path):
        lm = language(1)
        rows = lm.word_surprisal(["ab a", "b"], base=math.e)
        ax = rows.plot()
        assert [bar.get_height() for bar in ax.patches] == pytest.approx([r.surprisal for r in rows[:2]])
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["ab", "a"]
        assert ax.get_ylabel() == "surprisal (nats)" and rows.plot(1, ax) is ax
        for name, magic in [("x.svg", b"<?xml"), ("x.png", b"\x89PNG")]:
            figure = rows.heat(tmp_path / name, width=3)
            assert (tmp_path / name).read_bytes().startswith(magic)
        (axes,) = figure.axes
        assert len(axes.patches) == 3 and len(axes.texts) == 3  # a colour and a letter each, no space
        assert {patch.get_y() for patch in axes.patches} == {0, 1}  # "ab " and "a"
        for picture in (rows.heat, rows.plot):
            with pytest.raises(InvalidValueError, match="2 texts"):
                picture(text=2)
        with pytest.raises(InvalidTypeError, match="`path` is 3"):
            rows.heat(3)
        with pytest.raises(InvalidTypeError, match="`path` is 3"):
            rows.to_tsv(3)
        with pytest.raises(InvalidTypeError, match="`text` is 'x'"):
            rows.plot("x")
        with pytest.raises(InvalidValueError, match="width"):
            rows.heat(width=0)

    def test_lines_break_between_words_where_they_can(self):
        from genlm.bytes.score.plot import _places

        assert [line for line, _ in _places("ab cde\nf", 4)] == [0, 0, 0, 1, 1, 1, 1, 2]
        assert [line for line, _ in _places("abcdef", 4)] == [0, 0, 0, 0, 1, 1]
        assert _places("abcd ef", 4)[4:] == [(0, 4), (1, 0), (1, 1)]  # no line begins with a space
