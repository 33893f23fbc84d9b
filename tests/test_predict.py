"""Words, symbols and trees that may come next: by closed form, on toys whose every text can be summed."""

from __future__ import annotations

import asyncio
import itertools
import json
import math

import pytest
from brute import Brute
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, BatchingToy, FixedLM, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams, ByteLM
from genlm.bytes.api.predicting import MOST_CONTEXTS
from genlm.bytes.errors import DeadEndError, ImpossibleByteError, InvalidTypeError, InvalidValueError
from genlm.bytes.predict.budget import CONTEXTS
from genlm.bytes.predict.word_rules import WORD, begun_word, word_rule

EXACT = BeamParams(exact=True)
SINGLE = [bytes([b]) for b in b"ab ,"]
seeds = st.integers(0, 2**20)
merges = st.lists(st.text("ab ,", min_size=2, max_size=3).map(str.encode), max_size=2)


def model(words, seed, params=EXACT):
    return ByteLM(ToyLM([*words, EOS_STRING], seed=seed), params, eos=[EOS_STRING])


def total(found):
    return sum(word.probability for word in found) + found.remainder


@examples(15)
@given(merges=merges, seed=seeds, budget=st.integers(2, 40))
async def test_a_budget_buys_the_same_whatever_is_known(merges, seed, budget):
    """Asked again, or beside others, a search that stops early gives the same figures, every digit."""
    words, texts = [*SINGLE, *merges, EOS_STRING], ["b  a", "ab b", "a, ab"]

    async def ask(lm, text):
        return (
            (await lm.predict_words(text, 8, budget=budget, min_prob=1e-3)).to_dict(),
            (await lm.expand(text, 1e-3, 4, "char", budget=budget)).to_dict(),
            (await lm.word_surprisal(text, entropy=True, rank=True, budget=budget)).to_tsv(),
        )

    def fresh():
        toy = BatchingToy(words, seed=seed)
        return AsyncByteLM(toy, BeamParams(tolerance=1e-3), eos=[EOS_STRING])

    lm = fresh()
    first = [await ask(lm, text) for text in texts]
    assert [await ask(lm, text) for text in texts] == first
    other = fresh()
    assert await asyncio.gather(*(ask(other, text) for text in reversed(texts))) == first[::-1]


class TestWords:
    @examples(6)
    @given(merges=merges, seed=seeds, context=st.sampled_from(["", "a ", "b, ", "ab a", "ba"]))
    def test_words_and_remainder_are_all_there_is(self, merges, seed, context):
        """Each word is what `word_surprisal` has, none that is likelier is left out, and they sum to 1."""
        lm = model(SINGLE + merges, seed)
        found = lm.predict_words(context, n=2, budget=60)
        assert total(found) == pytest.approx(1.0, abs=1e-9)
        before = context[: len(context) - len(found.prefix)]
        assert found.prefix == context.split(" ")[-1]
        begun = lm.score(found.prefix, before, method="beam").logprob if found.prefix else 0.0
        for word in found:
            (row,) = lm.word_surprisal(word.word, context=before, punctuation=",", base=math.e)
            assert word.logprob == pytest.approx(-row.surprisal - begun, abs=1e-9) == word.most
            assert word.word == found.prefix + word.text
        if not found.complete:
            return
        brute = Brute(lm.llm, eos=[EOS_STRING])
        listed, least = {word.word for word in found}, min(word.probability for word in found)
        for letters in itertools.chain.from_iterable(itertools.product("ab", repeat=k) for k in (1, 2, 3)):
            word = "".join(letters)
            if word.startswith(found.prefix) and word not in listed:
                text = (before + word).encode()
                p = brute.ended(text) + sum(brute.prefix(text + end) for end in (b" ", b","))
                assert p <= least * brute.prefix(context.encode()) + 1e-12

    @examples(8)
    @given(seed=seeds, budget=st.integers(1, 12))
    def test_a_budget_stops_with_bounds(self, seed, budget):
        """What was found by then is a lower bound, and nothing is lost."""
        words = [*SINGLE, b"\xe2", b"\x80", b"\x94", b"ab"]
        lm = model(words, seed)
        near, far = lm.predict_words("a ", budget=budget), lm.predict_words("a ", n=99, budget=60)
        assert total(near) == pytest.approx(1.0, abs=1e-9) == total(far)
        assert near.contexts <= 3 * budget + 3 and near.unknown >= far.unknown
        known = {word.word: word for word in far}
        for word in near:
            assert word.logprob <= known[word.word].most + 1e-12
            assert known[word.word].logprob <= word.most + 1e-12
        for word in set(known) - {word.word for word in near}:
            assert known[word].probability <= near.unknown + near.other_words + 1e-12

    @pytest.mark.parametrize("milliseconds", [1e-9, 1e9])
    def test_time_is_a_budget_too(self, milliseconds):
        found = model(SINGLE, 3).predict_words("a ", budget=None, milliseconds=milliseconds)
        assert total(found) == pytest.approx(1.0, abs=1e-9)
        assert found.complete == (milliseconds > 1) and (found.unknown == 1.0) != found.complete

    def test_all_words_of_a_finite_language(self):
        """After `a` or `b` comes the end: three words of known probability, and what is none."""

        def rule(context):
            return [0.0, 0.0, 0.5, 0.5] if context else [0.5, 0.25, 0.125, 0.125]

        lm = ByteLM(FixedLM([b"a", b"bc", b" ", b"<e>"], rule=rule), EXACT, eos=[EOS_STRING])
        found = lm.predict_words()
        assert {word.word: word.probability for word in found} == pytest.approx({"a": 0.5, "bc": 0.25})
        assert found.unknown == 0.0 == found.other_words and found.no_word == pytest.approx(0.25)
        assert found.complete and found.remainder == found.no_word

    def test_typing_on_agrees(self):
        """A letter more: what is likely then is what was likely, by what the letter cost."""
        lm = model([*SINGLE, b"ab", b"ba", b" b"], 5)
        before = lm.predict_words("a ", n=40, budget=60)
        after = {word.word: word for word in lm.predict_words("a b", n=20, budget=60)}
        letter = lm.score("b", "a ").logprob
        shared = [word for word in before if word.word in after]
        assert len(shared) > 2
        for word in shared:
            assert word.logprob - letter <= after[word.word].most + 1e-9

    async def test_batches_and_single_contexts_agree(self):
        llm = ToyLM([*SINGLE, b"ab", b" b", EOS_STRING], seed=8)
        lm = AsyncByteLM(llm, EXACT, eos=[EOS_STRING])
        contexts = ["a ", "b", b"a, "]
        found = await lm.predict_words(contexts, n=4)
        assert found == [await lm.predict_words(context, n=4) for context in contexts]
        assert await lm.expand(contexts, 0.05, 2) == [await lm.expand(c, 0.05, 2) for c in contexts]
        chars = await lm.predict_chars(contexts, "ab ")
        assert [dict(one) for one in chars] == [dict(await lm.predict_chars(c, "ab ")) for c in contexts]

    def test_a_space_may_come_first_where_one_is_missing(self):
        found = model(SINGLE, 4).predict_words("a,", n=4)
        texts = {word.text for word in found}
        assert texts & {" a", " b"} and {word.word for word in found} <= {"a", "b", "aa", "ab", "ba", "bb"}
        assert all(word.text.removeprefix(" ") == word.word for word in found)

    def test_the_prefix_is_how_the_context_ends(self):
        lm = model(SINGLE, 4)
        assert lm.predict_words("a ab") == lm.predict_words("a ab", prefix="ab")
        assert lm.predict_words("a ab", prefix="b").words[0].word.startswith("b")
        assert lm.predict_words("a ab", prefix="").prefix == ""
        for prefix, says in [("ba", "must be how the context ends"), (" ab", "not the beginning of a word")]:
            with pytest.raises(InvalidValueError, match=says):
                lm.predict_words("a ab", prefix=prefix)

    def test_a_context_that_ends_inside_a_character(self):
        """`text` has the whole of it, `bytes` what is missing; and what comes next begins so."""
        lm = model([*SINGLE, b"\xc3", b"\xa9", b"\xa4", b"\xe2\x82\xac"], 2)
        found = lm.predict_words(b"a \xc3", n=3)
        assert all(("a " + w.text).encode() == b"a \xc3" + w.bytes and w.text[0] in "éä" for w in found)
        assert all(w.bytes == w.text.encode() for w in lm.predict_words("a ab", n=3))
        chars = lm.predict_chars(b"a \xc3", "éäb", fold=False)
        own = lm.next(b"a \xc3", method="beam").chars(None)
        assert chars["b"] == -math.inf and chars.outside == pytest.approx(
            1 - sum(map(math.exp, own.values()))
        )
        assert chars["é"] - chars["ä"] == pytest.approx(own["é"] - own["ä"])
        with pytest.raises(InvalidValueError, match="`top` is -1"):
            lm.next("a").chars(-1)

    def test_an_ensemble_of_one_model_twice_is_that_model(self):
        lm = model([*SINGLE, b"ab"], 6)
        both = ByteLM.ensemble([lm, lm])
        for ours, theirs in zip(both.predict_words("a "), lm.predict_words("a "), strict=True):
            assert ours.word == theirs.word and ours.logprob == pytest.approx(theirs.logprob, abs=1e-9)
        assert dict(both.predict_chars("a", "ab ")) == pytest.approx(dict(lm.predict_chars("a", "ab ")))
        assert both.expand("a", 0.1, 2).children[0].symbol == lm.expand("a", 0.1, 2).children[0].symbol

    def test_as_json(self):
        found = json.loads(json.dumps(model(SINGLE, 4).predict_words("a ").to_dict()))
        assert sum(word["probability"] for word in found["words"]) + found["remainder"] == pytest.approx(1)

    @pytest.mark.parametrize(
        ("options", "error", "says"),
        [
            ({"n": 0}, InvalidValueError, "`n`"),
            ({"n": None}, InvalidTypeError, "`n`"),
            ({"boundary": "leading"}, InvalidValueError, "trailing"),
            ({"min_prob": 2}, InvalidValueError, "`min_prob`"),
            ({"min_prob": "x"}, InvalidTypeError, "`min_prob`"),
            ({"budget": 0}, InvalidValueError, "`budget`"),
            ({"milliseconds": -1}, InvalidValueError, "`milliseconds`"),
            ({"milliseconds": "1"}, InvalidTypeError, "`milliseconds`"),
            ({"word": "("}, InvalidValueError, "regular expression"),
            ({"word": 3}, InvalidTypeError, "`word`"),
            ({"segmenter": 3}, InvalidTypeError, "`segmenter`"),
            ({"word": "a", "segmenter": list}, InvalidValueError, "Give one"),
            pytest.param(
                {"segmenter": lambda text: ["x"]}, InvalidValueError, "first part", id="no part of it"
            ),
            pytest.param({"segmenter": lambda text: None}, InvalidTypeError, "gave None", id="no parts"),
            ({"prefix": b"a"}, InvalidTypeError, "`prefix`"),
        ],
        ids=str,
    )
    def test_mistakes(self, options, error, says):
        with pytest.raises(error, match=says):
            model(SINGLE, 1).predict_words("a", **options)

    def test_the_default_budget_has_one_value(self):
        assert MOST_CONTEXTS == CONTEXTS


class TestWordRules:
    @pytest.mark.parametrize(
        ("word", "text", "end"),
        [
            (None, "don't", None),
            (None, "don't ", 5),
            (None, "cafe\u0301", None),
            (None, "می\u200cخواهم", None),
            (None, "'", 0),
            (None, "3", 0),
            (r"\w+(?:'\w+)*", "dogs'", None),
            (r"\w+(?:'\w+)*", "dogs' ", 4),
            (r"\w+(?:'\w+)*", "don't.", 5),
            (str.isalpha, "ab", None),
            (str.isalpha, "ab1", 2),
            (str.isalpha, "1", 0),
        ],
    )
    def test_where_a_word_ends(self, word, text, end):
        assert word_rule(word).end(text) == end

    def test_a_segmenter(self):
        """Pairs of characters, and marks by themselves."""
        import re

        rule = word_rule(segmenter=lambda text: re.findall(r"\w\w?|\W", text))
        assert [rule.end(text) for text in ("日", "日本", "日本語", "。", "日。")] == [None, None, 2, 0, 1]
        assert rule.close("日本") == 2

    @pytest.mark.parametrize(
        ("text", "begun"), [("a cat", "cat"), ("a ", ""), ("don't", "don't"), ("x 'tis", "tis"), ("", "")]
    )
    def test_the_word_that_a_text_stops_in(self, text, begun):
        assert begun_word(word_rule(), text) == begun

    def test_a_compiled_expression(self):
        import re

        assert word_rule(re.compile("[A-Z]+", re.IGNORECASE)).end("ab.") == 2
        assert word_rule().pattern.pattern == WORD

    @examples(10)
    @given(seed=seeds)
    def test_words_by_a_segmenter_sum_to_one(self, seed):
        """Two letters are a word, or one before something else."""

        def pairs(text):
            n = 2 if text[:2].isalpha() else 1
            return [text[:n], text[n:]]

        lm = model([*SINGLE, b"ab"], seed)
        found = lm.predict_words("", n=20, segmenter=pairs, budget=None)
        assert total(found) == pytest.approx(1.0, abs=1e-9)
        brute = Brute(lm.llm, eos=[EOS_STRING])
        ends = (b" ", b",")
        for word in found:
            text = word.word.encode()
            p = brute.prefix(text)  # two letters, and whatever follows
            if len(text) == 1:
                p = brute.ended(text) + sum(brute.prefix(text + end) for end in ends)
            assert word.logprob <= math.log(p) + 1e-9 and math.log(p) <= word.most + 1e-9


class TestChars:
    @examples(15)
    @given(merges=merges, seed=seeds, floor=st.sampled_from([0.0, 0.01, 1 / 3]))
    def test_floors_normalise(self, merges, seed, floor):
        lm = model([*SINGLE, b"A", *merges], seed)
        found = lm.predict_chars("a", "ab ", floor)
        assert sum(map(math.exp, found.values())) == pytest.approx(1.0, abs=1e-9)
        assert min(found.values()) >= (math.log(floor) if floor else -math.inf) - 1e-12
        p = lm.next("a", method="beam")
        given = {"a": math.exp(p[97]) + math.exp(p[65]), "b": math.exp(p[98]), " ": math.exp(p[32])}
        whole = sum(given.values())
        assert found.outside == pytest.approx(1 - whole, abs=1e-9)
        for symbol, logp in found.items():
            assert math.exp(logp) == pytest.approx(given[symbol] / whole * (1 - 3 * floor) + floor, abs=1e-9)
        assert list(found.values()) == sorted(found.values(), reverse=True)

    def test_symbols_of_several_bytes(self):
        lm = model([*SINGLE, b"\xc3", b"\xa9", b"\xa4", "é".encode()], 2)
        found = lm.predict_chars("a", ["é", "ä", "_"], space="_", fold=False)
        chars = lm.next("a", method="beam").chars(None)
        whole = {c: math.exp(chars[s]) for c, s in [("é", "é"), ("ä", "ä"), ("_", " ")]}
        for symbol, logp in found.items():
            assert math.exp(logp) == pytest.approx(whole[symbol] / sum(whole.values()), abs=1e-9)

    def test_nothing_is_possible(self):
        lm = model(SINGLE, 1)
        with pytest.raises(DeadEndError, match="floor"):
            lm.predict_chars("a", "xyz")
        assert lm.predict_chars("a", "xy", 0.1) == {"x": math.log(0.5), "y": math.log(0.5)}
        found = json.loads(json.dumps(lm.predict_chars("a", "xa").to_dict()))
        assert [s["symbol"] for s in found["symbols"]] == ["a", "x"]

    @pytest.mark.parametrize(
        ("options", "error", "says"),
        [
            ({"alphabet": ""}, InvalidValueError, "at least one"),
            ({"alphabet": b"ab"}, InvalidTypeError, "string"),
            ({"alphabet": ["a", ""]}, InvalidTypeError, "symbol"),
            ({"alphabet": "aba"}, InvalidValueError, "begin alike"),
            ({"alphabet": "aA"}, InvalidValueError, "fold"),
            ({"alphabet": ["a", "ab"]}, InvalidValueError, "begin alike"),
            ({"alphabet": ["ab", "a"]}, InvalidValueError, "begin alike"),
            ({"alphabet": "\ud800"}, InvalidValueError, "surrogate"),
            ({"floor": 0.5}, InvalidValueError, "1/28"),
            ({"floor": "x"}, InvalidTypeError, "floor"),
            ({"space": "_"}, InvalidValueError, "symbol of the alphabet"),
            ({"fold": 1}, InvalidTypeError, "fold"),
        ],
        ids=str,
    )
    def test_mistakes(self, options, error, says):
        with pytest.raises(error, match=says):
            model(SINGLE, 1).predict_chars("a", **options)


class TestExpand:
    @examples(12)
    @given(
        merges=merges, seed=seeds, least=st.sampled_from([0.02, 0.1]), unit=st.sampled_from(["byte", "char"])
    )
    def test_leaves_sum_to_their_parent(self, merges, seed, least, unit):
        """By brute force: every node has its probability, none that is heavy enough is left out."""
        lm = model([*SINGLE, b"\xc3", b"\xa9", *merges], seed)
        brute = Brute(lm.llm, eos=[EOS_STRING])
        root = lm.expand("a", least, 2, unit, budget=None)
        whole = brute.prefix(b"a")
        symbols = (
            [bytes([b]) for b in sorted(brute.bytes)]
            if unit == "byte"
            else [b" ", b",", b"a", b"b", b"\xc3\xa9"]
        )

        def check(node, text, depth):
            assert node.probability == pytest.approx(brute.prefix(b"a" + text) / whole, abs=1e-9)
            assert node.high - node.low == pytest.approx(node.probability)
            if depth == 0:
                assert not node.children
                return
            want = {s: brute.prefix(b"a" + text + s) / whole for s in symbols}
            heavy = [s for s, p in want.items() if p >= least]
            ended = brute.ended(b"a" + text) / whole
            assert [child.symbol for child in node.children if not child.end] == sorted(heavy)
            assert [child.probability for child in node.children if child.end] == pytest.approx(
                [ended] if ended >= least else [], abs=1e-9
            )
            if not node.children:
                return
            shared = sum(child.probability for child in node.children)
            assert shared + node.rest == pytest.approx(node.probability, abs=1e-9)
            at = node.low
            for child in node.children:
                assert child.low == pytest.approx(at)
                at = child.high
                if not child.end:
                    check(child, text + child.symbol, depth - 1)

        check(root, b"", 2)
        leaves = root.leaves()
        assert all(not leaf.children for leaf in leaves) and len(leaves) >= len(root.children)

    def test_as_json(self):
        root = model(SINGLE, 4).expand("a", 0.05, 2)
        found = json.loads(json.dumps(root.to_dict()))
        assert found["high"] == 1.0 and len(found["children"]) == len(root.children)
        assert {child.get("end", False) for child in found["children"]} <= {True, False}
        assert root.logprob == 0.0

    def test_a_budget_leaves_leaves(self):
        lm = model(SINGLE, 4)
        assert len(lm.expand("a", 0.001, 4, budget=3).leaves()) < len(lm.expand("a", 0.001, 4).leaves())

    def test_a_character_that_was_begun(self):
        lm = model([*SINGLE, b"\xc3", b"\xa9"], 2)
        (child, *_) = lm.expand(b"a\xc3", 0.001, 1, "char").children
        assert child.symbol == "é".encode()

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"min_prob": 0}, InvalidValueError),
            ({"min_prob": "x"}, InvalidTypeError),
            ({"depth": 0}, InvalidValueError),
            ({"depth": None}, InvalidTypeError),
            ({"unit": "word"}, InvalidValueError),
        ],
        ids=str,
    )
    def test_mistakes(self, options, error):
        with pytest.raises(error):
            model(SINGLE, 1).expand("a", **options)


def test_they_are_the_coroutines_too():
    lm = model(SINGLE, 2)
    assert asyncio.run(lm.asynchronous.predict_words("a ")) == lm.predict_words("a ")


class TestTypingOn:
    def test_a_letter_more_reads_no_context_anew(self, monkeypatch):
        """And says what reading all of it says."""
        lm = model([*SINGLE, b"ab"], 3)
        reads = []
        read = lm.asynchronous._read
        monkeypatch.setattr(lm.asynchronous, "_read", lambda *a, **k: (reads.append(a[0]), read(*a, **k))[1])
        typed = [lm.predict_words(text, 3, budget=20) for text in ("b a", "b ab", "b ab ")]
        assert reads == [b"b a"]
        lm.predict_words("b b", budget=1)
        assert reads == [b"b a", b"b b"]  # another text
        again = [lm.predict_words(text, 3, budget=20) for text in ("b a", "b ab", "b ab ")]
        for one, other in zip(typed, again, strict=True):
            assert [w.word for w in one] == [w.word for w in other]
        fresh = model([*SINGLE, b"ab"], 3).predict_words("b ab ", 3, budget=20)
        assert [w.logprob for w in typed[-1]] == pytest.approx([w.logprob for w in fresh], abs=1e-9)

    def test_a_letter_taken_back_is_known(self, monkeypatch):
        """And another one typed in its place is read on from what stood before it."""
        lm = model([*SINGLE, b"ab"], 3)
        reads = []
        read = lm.asynchronous._read
        monkeypatch.setattr(lm.asynchronous, "_read", lambda *a, **k: (reads.append(a[0]), read(*a, **k))[1])
        typed = ["b a", "b aa", "b aab", "b aa", "b a", "b ab", "b ab,"]
        found = [lm.predict_words(text, 3, budget=20) for text in typed]
        assert reads == [b"b a"]
        for text, one in zip(typed, found, strict=True):
            fresh = model([*SINGLE, b"ab"], 3).predict_words(text, 3, budget=20)
            assert [w.word for w in one] == [w.word for w in fresh]
            assert [w.logprob for w in one] == pytest.approx([w.logprob for w in fresh], abs=1e-9)
        lm.predict_words("b ", budget=1)  # less than was ever read
        lm.predict_words("b ", budget=1, method="tokenize")
        assert reads[1:] == [b"b ", b"b "]

    def test_what_the_model_has_forgotten_is_not_gone_on_with(self, monkeypatch):
        lm = model([*SINGLE, b"ab"], 3)
        lm.predict_words("b a", budget=1)
        reads = []
        read = lm.asynchronous._read
        monkeypatch.setattr(lm.asynchronous, "_read", lambda *a, **k: (reads.append(a[0]), read(*a, **k))[1])
        lm.predict_words("b a", budget=1)
        assert not reads
        lm.forget()
        lm.predict_words("b a", budget=1)
        assert reads == [b"b a"]

    def test_long_texts_are_read_anew_now_and_then(self, monkeypatch):
        lm = model(SINGLE, 3, BeamParams(K=2, prune_threshold=0.1))
        reads = []
        read = lm.asynchronous._read
        monkeypatch.setattr(lm.asynchronous, "_read", lambda *a, **k: (reads.append(a[0]), read(*a, **k))[1])
        for length in range(1, 70):
            lm.expand(("ab " * 25)[:length], 0.9, 1)
        assert [len(text) for text in reads] == [1, 34, 67]

    def test_a_letter_that_cannot_be_is_named_at_its_place_in_the_context(self):
        lm = model(SINGLE, 3)
        lm.predict_words("b a", budget=1)
        with pytest.raises(ImpossibleByteError, match=r"^`context` has byte 0x7a .* at offset 3"):
            lm.predict_words("b az")
