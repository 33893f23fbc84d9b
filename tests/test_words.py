"""What ends a word, which words are found, and whose tokens are whose: against brute force and by hand."""

from __future__ import annotations

import asyncio
import math
import re
import sys

import numpy as np
import pytest
from brute import Brute
from budget import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, FixedLM, ToyLM, vocabularies

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState, ByteLM
from genlm.bytes.byte_lm.token_path import longest_tokens
from genlm.bytes.errors import ImpossibleByteError, InvalidValueError
from genlm.bytes.score.boundaries import continues
from genlm.bytes.score.ends import SPACES, end_probability, ends_tree
from genlm.bytes.score.regions import find_regions

EXACT = BeamParams(exact=True)
NEARLY = BeamParams(tolerance=1e-12)
SEPARATORS = [" ", ", ", " | ", "　", "\u00a0", "—", "😀", "é ", "--"]


def separators():
    """Of one to four bytes, of one character or several."""
    some = st.text("c,|é\u00a0　", min_size=1, max_size=3).filter(lambda sep: len(sep.encode()) <= 4)
    return st.sampled_from(SEPARATORS) | some


@st.composite
def cases(draw):
    """A separator, marks, a text of two or three words, and a toy with tokens that cut it anywhere."""
    sep = draw(separators())
    marks = draw(st.sampled_from(["", ".", "。", ".。"]))
    words = draw(st.lists(st.text("ab", min_size=1, max_size=2), min_size=2, max_size=3))
    after = [draw(st.sampled_from(["", *marks])) for _ in words]
    text = sep.join(word + mark for word, mark in zip(words, after, strict=True))
    data = text.encode()
    pieces = st.tuples(st.integers(0, len(data) - 2), st.integers(2, 5)).map(lambda p: data[p[0] :][: p[1]])
    merges = draw(st.lists(pieces, max_size=5))
    single = sorted({bytes([b]) for b in (text + sep + marks).encode()})
    llm = ToyLM([*single, *merges, EOS_STRING], seed=draw(st.integers(0, 2**20)))
    return sep, marks, text, llm


def surprisals(llm, params, text, **options):
    """The words of a text, in nats."""
    lm = AsyncByteLM(llm, params, eos=[EOS_STRING])
    return asyncio.run(lm.word_surprisal(text, base=math.e, **options))


class TestEnds:
    @pytest.mark.parametrize("params", [EXACT, NEARLY], ids=["exact", "tolerance"])
    @examples(12)
    @given(case=cases())
    def test_what_ends_a_word_is_the_same_everywhere(self, params, case):
        """By brute force: a word, then its separator, a mark, or the end of the text."""
        sep, marks, text, llm = case
        brute = Brute(llm, eos=[EOS_STRING])
        rows = surprisals(llm, params, text, sep=sep, punctuation=marks)
        for row in rows:
            before, read = text[: row.start].encode(), text[: row.end].encode()
            p = brute.prefix(read)
            if row.kind == "word":
                p = brute.ended(read) + sum(brute.prefix(read + end.encode()) for end in [sep, *marks])
            assert row.surprisal == pytest.approx(math.log(brute.prefix(before) / p), abs=1e-8)

    @examples(12)
    @given(
        sep=separators(),
        seed=st.integers(0, 2**20),
        words=st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3),
    )
    def test_a_text_is_what_its_words_and_their_own_ends_are(self, sep, seed, words):
        """Where a word can end in one way only, the chain rule: words cost together what the text costs."""
        text = sep.join([*words, ""])
        single = sorted({bytes([b]) for b in text.encode()})
        llm = ToyLM([*single, b"ab", f"b{sep}".encode(), f"{sep}a".encode()], seed=seed)
        lm = AsyncByteLM(llm, EXACT, eos=[])
        score = asyncio.run(lm.score(text))
        rows = asyncio.run(lm.word_surprisal(text, sep=sep))
        assert sum(row.surprisal for row in rows) == pytest.approx(score.bits, abs=1e-8)

    def test_any_white_space(self):
        every = "".join(map(chr, range(sys.maxunicode + 1)))
        assert list(SPACES) == re.findall(r"\s", every) == [char for char in every if char.isspace()]
        text = "a　b\u00a0a"
        llm = ToyLM([bytes([b]) for b in sorted({*text.encode(), *" \n\u2003".encode()})] + [b"<e>"], seed=3)
        brute = Brute(llm, eos=[EOS_STRING])
        (*_, last) = surprisals(llm, EXACT, text, sep=None)
        read = text.encode()
        p = brute.ended(read) + sum(brute.prefix(read + c.encode()) for c in SPACES)
        assert last.surprisal == pytest.approx(math.log(brute.prefix(read[:-1]) / p), abs=1e-8)

    async def test_ends_that_begin_each_other_count_once(self):
        lm = AsyncByteLM(ToyLM([b"a", b",", b" ", b"<e>"]), EXACT, eos=[EOS_STRING])
        trie = (await lm.beam()).states[0].trie
        comma, space = b", "
        assert ends_tree([", ", ","], trie) == ends_tree([",", ", "], trie) == {257: None, comma: None}
        assert ends_tree([", ", ",,"], trie) == {257: None, comma: {space: None, comma: None}}

    def test_light_branches_are_not_read(self):
        """Five hundred times lighter than the text's end: the answer is as near, and costs fewer contexts."""

        def rule(context):
            return [0.5, 0.0005, 0.2495, 0.25]

        words, found = [b"a", b"\xe3", b"\x80", b"<e>"], []
        for params in (EXACT, BeamParams(tolerance=0.01)):
            llm = FixedLM(words, rule=rule)
            (row,) = surprisals(llm, params, "a", sep="\u3000")
            found.append((row.surprisal, len(set(llm.asked))))
        (exact, most), (near, fewer) = found
        assert near == pytest.approx(exact, abs=0.002) and fewer < most

    @examples(20)
    @given(
        words=vocabularies(most=6),
        seed=st.integers(0, 2**20),
        text=st.text("abc", min_size=1, max_size=8),
        K=st.integers(1, 3),
    )
    def test_an_end_that_was_read_or_can_be_read_is_possible(self, words, seed, text, K):
        """However few candidates are kept, and whatever threshold they must reach."""
        llm = ToyLM([*words, EOS_STRING], seed=seed)
        params = BeamParams(K=K, prune_threshold=0.3)
        lm = ByteLM(llm, params, eos=[EOS_STRING])
        score = lm.score(text, end=True)
        assert score.end > -math.inf
        for row in lm.word_surprisal(text, sep="c", base=math.e):
            after = score[row.start : row.end + 1].logprob if row.end < len(text) else -1e9
            assert row.surprisal <= -after + 1e-12 and math.isfinite(row.surprisal)

    @given(st.floats(0.0, 1.0), st.integers(0, 999))
    @examples(20)
    async def test_it_is_no_less_than_the_end_that_was_read(self, read, seed):
        """What pruning has left may give the separator less than reading, which heals, has found."""
        beam = await ByteBeamState.initial(ToyLM(TOY, seed=seed), BeamParams(K=1))
        beam = (await beam.prefill(b"ab")).prune()
        ends = ends_tree(["a", "bb"], beam.trie)
        alone = await end_probability(beam, ends)
        assert (await end_probability(beam, ends, read)).p == pytest.approx(max(alone.p, read))

    @given(
        seed=st.integers(0, 2**20),
        text=st.text("abc", min_size=1, max_size=8),
        tolerance=st.sampled_from([0.2, 0.05]),
    )
    @examples(20)
    def test_a_figure_that_is_off_says_so(self, seed, text, tolerance):
        """By what is left out where the word is read, or where its end is looked for."""
        llm = ToyLM([*TOY, EOS_STRING], seed=seed)
        near = ByteLM(llm, BeamParams(tolerance=tolerance, heal=False), eos=[EOS_STRING])
        exact = ByteLM(llm, BeamParams(exact=True, heal=False), eos=[EOS_STRING])
        try:
            rows, truth = near.word_surprisal(text, sep="c"), exact.word_surprisal(text, sep="c")
        except (ImpossibleByteError, InvalidValueError):
            return
        for row, true in zip(rows, truth, strict=True):
            assert true.error == 0.0
            assert row.error > 0.0 or row.surprisal == pytest.approx(true.surprisal, abs=1e-9)

    def test_nothing_can_end_here(self):
        """After `a` comes `a` and nothing else."""
        llm = FixedLM([b"a", b" ", b"<e>"], rule=lambda context: [1.0, 0.0, 0.0])
        for params in (EXACT, BeamParams(K=2)):
            (row,) = surprisals(llm, params, "aa")
            assert row.surprisal == math.inf


class TestGivenWords:
    @pytest.mark.parametrize(
        ("text", "words", "sep", "starts"),
        [
            ("The man said he left.", ["he", "left"], " ", [13, 16]),
            ("he's sure (he) left", ["he", "left"], " ", [11, 15]),
            ("he's sure", ["he"], " ", [0]),  # no better one
            ("left.Then he", ["left", "Then", "he"], " ", [0, 5, 10]),
            ("I don't; do you", ["do"], " ", [9]),
            ("I don't go", ["do", "n't", "go"], " ", [2, 4, 8]),  # several that make up a whole one
            ("In 1998 and 98", ["98"], " ", [12]),
            ("हिन्दी हिन्द", ["हिन्द"], " ", [7]),
            ("cafe\u0301 cafe", ["cafe"], " ", [6]),
            ("ソフトウェアの開発", ["ソフト", "ウェア", "開発"], " ", [0, 3, 7]),
            ("ソフトウェアの開発", ["ウェア"], "", [3]),
            ("tadatocada", ["to", "ca"], "da", [4, 6]),
            ("die-hard|he", ["he"], "|", [9]),
            ("say he_ll, he", ["he"], " ", [11]),
            ("The\u2003he", ["he"], None, [4]),
            ("a.he", ["he"], " ", [2]),
        ],
    )
    def test_whole_words_first(self, text, words, sep, starts):
        regions = find_regions(text, words, None, sep, "")
        assert [region.start for region in regions] == starts
        assert [text[region.start : region.end] for region in regions] == words

    def test_marks_separate(self):
        assert [r.start for r in find_regions("xhe-he", ["he"], None, " ", "x-")] == [1]

    @pytest.mark.parametrize(
        ("text", "words", "sep", "says"),
        [
            (
                "The man",
                ["he"],
                " ",
                r"words\[0\]` is 'he': occurs after character 0 only inside other words",
            ),
            (
                "The man left.",
                ["man", "eft"],
                " ",
                r"words\[1\].*after character 7 .* first at character 9, in 'The",
            ),
            ("हिन्दी", ["हिन्द"], " ", "only inside"),
            ("हिन्दी", ["हिन्द"], "", "only inside"),
            ("e\u0301 e", ["e\u0301", "e\u0301"], " ", "does not occur in the text after character 2"),
            ("می\u200cخواهم", ["می"], " ", "only inside"),
            ("ソフトウェア", ["ウェア"], " ", 'sep=""'),
            ("he man", ["man", "he"], " ", r"words\[1\].* does not occur in the text after character 6"),
        ],
    )
    @pytest.mark.parametrize("boundary", ["trailing", "none"])
    def test_others_are_errors_that_say_where(self, text, words, sep, says, boundary):
        if sep == "" and boundary == "trailing":
            boundary = None
        with pytest.raises(InvalidValueError, match=says):
            lm = ByteLM(ToyLM([b"a"]), EXACT)
            lm.word_surprisal(text, words=words, sep=sep, boundary=boundary)

    @examples(100)
    @given(st.text("ab'. न\u0301ि", min_size=1, max_size=12), st.data())
    def test_the_words_of_a_text_are_found_where_they_are(self, text, data):
        """Some of those that a separator finds, given by name, where no other is spelled like them."""
        regions = find_regions(text, None, None, " ", "")
        words = [text[r.start : r.end] for r in regions]
        assume(len(set(words)) == len(words))
        chosen = data.draw(st.lists(st.sampled_from(range(len(words))), unique=True)) if words else []
        chosen = [i for i in sorted(chosen) if sum(words[i] in word for word in words) == 1]
        found = find_regions(text, [words[i] for i in chosen], None, " ", "")
        assert [(r.start, r.end) for r in found] == [(regions[i].start, regions[i].end) for i in chosen]

    @pytest.mark.parametrize("after", ["ी", "\u0301", "e", "7", "\u200d"])
    def test_what_belongs_to_a_span_is_no_end_of_it(self, after):
        assert continues(after)
        with pytest.raises(InvalidValueError, match="the word does not end here"):
            ByteLM(ToyLM([b"a"]), EXACT).word_surprisal("a" + after, spans=[(0, 1)], boundary="trailing")


class TestNaive:
    WORDS = (b"a", b"b", b"1", b" ", b"  ", b",", b" a", b" b", b"a,", b", ", b",\n", b"\n", b"ab", b"<e>")

    def tokens(self, llm, text):
        """The log-probability of each token that the tokenizer makes, here the longest matches."""
        lm = ByteLM(llm, EXACT, eos=[EOS_STRING])
        trie = lm.run(lm.asynchronous.beam()).states[0].trie.trie
        tokens = [*longest_tokens(trie, text.encode())]
        return [math.log(llm.probs(tokens[:i])[token]) for i, token in enumerate(tokens)]

    @pytest.mark.parametrize("boundary", ["trailing", "leading", "none"])
    @examples(12)
    @given(
        text=st.text("ab1, \n", min_size=1, max_size=10),
        sep=st.sampled_from([" ", ", ", None]),
        marks=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_words_cost_together_what_the_tokens_cost(self, boundary, text, sep, marks, seed):
        llm = ToyLM(self.WORDS, seed=seed)
        rows = surprisals(llm, EXACT, text, sep=sep, punctuation="," if marks else False, boundary=boundary)
        assume(rows)
        total = -sum(self.tokens(llm, text))
        assert np.nansum([row.naive for row in rows]) == pytest.approx(total, abs=1e-9)

    def test_a_separator_that_is_a_token_is_the_next_words(self):
        llm = ToyLM(self.WORDS, seed=3)
        cost = [-logp for logp in self.tokens(llm, "a 1  b 1 ")]  # a, ␣, 1, ␣␣, b, ␣, 1, ␣
        rows = surprisals(llm, EXACT, "a 1  b 1 ")
        want = [cost[0], cost[1] + cost[2], cost[3] + cost[4], sum(cost[5:])]
        assert [row.naive for row in rows] == pytest.approx(want)
        # A span's too, as a leading space is; what stands after it is not.
        (row,) = surprisals(llm, EXACT, "a 1  b 1 ", spans=[(7, 8)])
        assert row.naive == pytest.approx(cost[5] + cost[6])
        (row,) = surprisals(llm, EXACT, "a 1  b 1 ", words=["1"], boundary="none")
        assert row.naive == pytest.approx(cost[1] + cost[2])
        (row,) = surprisals(llm, EXACT, "a,1", words=["1"], boundary="none")  # `a,` is another word's
        assert row.naive == pytest.approx(-self.tokens(llm, "a,1")[1])


@pytest.mark.parametrize("options", [{}, {"words": []}, {"spans": []}, {"boundary": "leading"}], ids=str)
def test_an_empty_text_has_no_words(options):
    """Also among others, whose rows it leaves as they are; a line of a corpus may be empty."""
    lm = ByteLM(ToyLM([b"a", b"b", b" ", b"ab", EOS_STRING], seed=4), EXACT, eos=[EOS_STRING])
    for text in ("", b""):
        assert lm.word_surprisal(text, **options).records() == []
        assert lm.word_surprisal(text, context="a ", **options).records() == []
    some = lm.word_surprisal(["", "a b", ""])
    assert [(row["text"], row["word"]) for row in some.records()] == [(1, "a"), (1, "b")]
    assert [len(score.logprobs) for score in some.scores] == [0, 3, 0]
