"""Tables with a row a word: aligned with their texts, scored, and given back row for row."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import InvalidTypeError, InvalidValueError
from genlm.bytes.score.align import ALIGNMENTS, align, alignments
from genlm.bytes.score.word_rows import added_names, figure_names

TEXT = "“Don’t go — not yet,” she said. The dog’s new (red) ball didn't roll…"


@pytest.fixture(scope="module")
def lm() -> Iterator[ByteLM]:
    """It reads every byte, at little cost."""
    llm = ToyLM([*(bytes([b]) for b in range(256)), b"<e>"], seed=1, eos=256)
    with ByteLM(llm, BeamParams(exact=True)) as lm:
        yield lm


def found(text: str, words: list[str], how: Any = "exact", sep: str | None = " ") -> list[str | None]:
    regions, _ = align(text, words, alignments(how), sep)
    return [None if r is None else text[r.start : r.end] + "~" * (r.kind == "part") for r in regions]


class TestAlignment:
    @pytest.mark.parametrize(
        "words, how, there",
        [
            (["she", "said."], "exact", ["she", "said."]),
            (["\"Don't", "go"], "exact", [None, "go"]),
            (["\"Don't", "go"], "quotes", ["“Don’t", "go"]),
            (["Do", "n't", "go"], "quotes", ["Do~", "n’t", "go"]),
            (["dog", "'s", "new"], ["quotes"], ["dog~", "’s", "new"]),
            (["dog", "new"], "quotes", ["dog", "new"]),
            (["go", "--", "not"], "dashes", ["go", "—", "not"]),
            (["said.The", "dog"], "spaces", ["said. The", "dog"]),
            (["THE", "BALL"], "case", ["The", "ball"]),
            (["roll..."], "forms", ["roll…"]),
            (["new", "-LRB-", "red", "-RRB-"], "penn", ["new", "(~", "red", ")"]),
            (["``", "Do", "n't", "go"], "loose", ["“~", "Do~", "n’t", "go"]),
            (["do", "nt"], "case", [None, None]),  # "Don’t" is not made of these
        ],
    )
    def test_what_may_differ(self, words: list[str], how: Any, there: list[str | None]) -> None:
        assert found(TEXT, words, how) == there

    def test_a_wrong_word_does_not_carry_the_others_along(self) -> None:
        """A typing mistake that happens to stand further on."""
        text = "the man came form? no: from the far form of the house and sat down by the fire"
        words = text.split()
        words[5] = "form"  # for "from"; the next "form" is three words on
        assert found(text, words).count(None) == 1

    @given(st.integers(0, 10**6), st.integers(1, 60))
    def test_rows_that_are_missing_or_wrong(self, seed: int, count: int) -> None:
        """Of a text of few words, that often recur: most are found, and each stands as it is written."""
        draw = random.Random(seed)
        text = [draw.choice(["the", "a", "dog", "man", "saw", "it", "often"]) for _ in range(count)]
        kept = [i for i in range(count) if draw.random() < 0.8]
        words = [text[i] if draw.random() < 0.9 else "zzz" for i in kept]
        regions, looked = align(" ".join(text), words, frozenset())
        shown = [None if r is None else " ".join(text)[r.start : r.end] for r in regions]
        assert all(s in (None, w) for s, w in zip(shown, words, strict=True))
        assert shown.count(None) == words.count("zzz") == len(looked)
        starts = [r.start for r in regions if r is not None]
        assert starts == sorted(set(starts))

    def test_scripts_without_separators(self) -> None:
        assert found("昨日の夜、駅前で", ["昨日", "の", "夜", "駅前", "で"], sep="") == [
            "昨日",
            "の",
            "夜",
            "駅前",
            "で",
        ]

    def test_texts_that_do_not_belong_together_end(self) -> None:
        draw = random.Random(1)
        text = " ".join(draw.choice("abcdefgh") for _ in range(400))
        words = [draw.choice("abcdefgh") for _ in range(400)]
        assert len(found(text, words)) == 400

    @pytest.mark.parametrize("wrong", ["lose", ["quotes", "x"], 3])
    def test_what_is_no_way(self, wrong: Any) -> None:
        with pytest.raises((InvalidValueError, InvalidTypeError), match="`align`"):
            alignments(wrong)

    def test_names(self) -> None:
        assert alignments("loose") == set(ALIGNMENTS) and alignments("case,quotes") == {"case", "quotes"}


def rows(*words: str, **more: Any) -> list[dict[str, Any]]:
    return [{"item": "1", "zone": i, "word": w, **more} for i, w in enumerate(words, 1)]


class TestTables:
    def test_each_word_costs_what_it_costs_in_its_text(self, lm: ByteLM) -> None:
        """Rows of two readers, in any order, one of them not complete."""
        texts = {"a": "The chef cooked dinner.", "b": "It burnt."}
        table = [
            {"who": who, "item": item, "zone": i, "word": word}
            for who in (1, 2)
            for item, text in texts.items()
            for i, word in enumerate(text.split(), 1)
        ]
        del table[7]
        random.Random(0).shuffle(table)
        done = lm.table_surprisal(table, text_id="item", position="zone")
        plain = lm.word_surprisal(list(texts.values()))
        costs = {(list(texts)[r.text], r.index + 1): (r.surprisal, r.naive) for r in plain}
        assert [{k: row[k] for k in table[0]} for row in done] == table  # nothing dropped, moved or changed
        for row in done:
            assert (row["surprisal"], row["naive"]) == pytest.approx(costs[row["item"], row["zone"]])
            assert row["matched"] == row["word"]
        assert not done.unmatched and len(done.scores) == 2

    def test_contexts_of_texts(self, lm: ByteLM) -> None:
        table = rows("It", "burnt.", before="Oh. ") + rows("It", "burnt.", item="2", before="No? ")
        done = lm.table_surprisal(table, text_id="item", context_column="before")
        for at, context in ((0, "Oh. "), (2, "No? ")):
            one = lm.word_surprisal("It burnt.", context=context)
            assert [r["surprisal"] for r in done[at : at + 2]] == pytest.approx([r.surprisal for r in one])
        same = lm.table_surprisal(rows("It", "burnt."), context="Oh. ")
        assert same[1]["surprisal"] == pytest.approx(done[1]["surprisal"])

    @pytest.mark.parametrize("texts", [{"1": "I don’t know."}, "sentence"])
    def test_parts_of_a_word_sum_to_the_word(self, lm: ByteLM, texts: Any) -> None:
        table = rows("I", "do", "n't", "know.", sentence="I don’t know.")
        done = lm.table_surprisal(table, text_id="item", texts=texts, align="quotes")
        whole = lm.word_surprisal("I don’t know.")
        assert [row["kind"] for row in done] == ["word", "part", "word", "word"]
        assert done[1]["surprisal"] + done[2]["surprisal"] == pytest.approx(whole[1].surprisal)
        assert done[3]["surprisal"] == pytest.approx(whole[2].surprisal)
        assert done[2]["matched"] == "n’t"

    def test_words_of_the_treebank_are_joined(self, lm: ByteLM) -> None:
        words = ["``", "It", "is", "n't", "Bo", "'s", "-LRB-", "yet", "-RRB-", ",", "''", "he", "said", "."]
        done = lm.table_surprisal(rows(*words), align="penn")
        assert done.scores[0].text.decode() == "\"It isn't Bo's (yet),\" he said."
        assert [row["kind"] for row in done if row["word"] in ("is", "Bo", "he")] == ["part", "part", "word"]

    def test_words_that_are_not_there_are_listed(self, lm: ByteLM) -> None:
        table = rows("The", "cheef", "cooked", "dinner")
        with pytest.raises(InvalidValueError) as told:
            lm.table_surprisal(table, text_id="item", position="zone", texts={1: "The chef cooked dinner."})
        said = str(told.value)
        assert (
            "text '1', row 2, position 2: 'cheef' is not at or after character 3" in said and "loose" in said
        )
        done = lm.table_surprisal(table, texts={1: "The chef cooked dinner."}, on_unmatched="missing")
        assert "1 word of the table is not in its text" in said
        assert [row["surprisal"] is None for row in done] == [False, True, False, False]
        assert [(u.row, u.word, u.start) for u in done.unmatched] == [(1, "cheef", 3)]
        frame = done.to_dataframe()
        assert frame["surprisal"].isna().tolist() == [False, True, False, False]
        assert done.to_tsv().splitlines()[2].startswith("1\t2\tcheef\t\t")

    def test_rows_that_are_missing_are_told_of(self, lm: ByteLM) -> None:
        table = [row for row in rows("The", "chef", "cooked", "dinner.") if row["zone"] != 1]
        with pytest.raises(InvalidValueError, match="lacks position 1 of text '1'"):
            lm.table_surprisal(table, text_id="item", position="zone")
        joined = lm.table_surprisal(table, text_id="item", position="zone", on_missing="ignore")
        assert joined.scores[0].text == b"chef cooked dinner."
        whole = lm.table_surprisal(
            table, text_id="item", position="zone", texts={"1": "The chef cooked dinner."}
        )
        plain = lm.word_surprisal("The chef cooked dinner.")
        assert [row["surprisal"] for row in whole] == pytest.approx([row.surprisal for row in plain][1:])

    @pytest.mark.parametrize("texts", [None, {"1": "The chef who won the award cooked."}])
    @pytest.mark.parametrize("lacking", [(), (3, 12, 20)])
    @pytest.mark.parametrize("columns", [("zone", "who"), ("who",), ("zone",)])
    def test_several_readers_are_not_one_text(
        self, lm: ByteLM, columns: tuple[str, ...], lacking: tuple[int, ...], texts: Any
    ) -> None:
        """Whichever column tells of them, with rows missing and, where words are numbered, in any order."""
        words = "The chef who won the award cooked.".split()
        table = [
            {"who": who, "rt": 200 + 7 * i * ord(who[0]), "zone": i, "word": word, "length": len(word)}
            for who in ("ann", "bo", "cy")
            for i, word in enumerate(words, 1)
        ]
        table = [row for at, row in enumerate(table) if at not in lacking]
        if "zone" in columns:
            random.Random(1).shuffle(table)
        kept = [{k: v for k, v in row.items() if k not in {"zone", "who"} - {*columns}} for row in table]
        with pytest.raises(InvalidValueError, match=f"`position` is None.*{columns[0]!r}"):
            lm.table_surprisal(kept, texts=texts)
        if "zone" in columns:
            assert len(lm.table_surprisal(kept, position="zone", texts=texts).scores[0].text) == 34

    @pytest.mark.parametrize(
        "text",
        [
            "the cat sat on the mat . | the dog sat on the mat .",  # sentences that are alike
            "to be or not to be that is | the question whether it is nobler",
            "no no no no | no no no no",
            "bye baby bye | bye baby bye bye | oh",
        ],
    )
    def test_one_text_is_one(self, lm: ByteLM, text: str) -> None:
        """Columns of a sentence, of a word's length and frequency, and of its sense, are no readers."""
        sentences = [s.split() for s in text.split(" | ")]
        words = [word for s in sentences for word in s]
        table = [
            {
                "word": w,
                "sentence": n,
                "at": i,
                "length": len(w),
                "of": words.count(w),
                "type": words.index(w),
            }
            for n, s in enumerate(sentences)
            for i, w in enumerate(s)
        ]
        if len(set(words)) == 1:
            table = [{"word": row["word"], "length": row["length"]} for row in table]
        assert lm.table_surprisal(table).scores[0].text.decode() == " ".join(words)

    @pytest.mark.parametrize(
        "table, told",
        [
            (
                rows("a", "b") + rows("x"),
                r"is also 'a' at position 1 of text '1', in row 1, and this is row 3",
            ),
            ([{"item": 1, "zone": "?", "word": "a"}], "`column 'zone'` is '.': is no number"),
            ([{"item": 1, "zone": 1, "word": float("nan")}], "keep_default_na"),
            ([{"item": 1, "zone": 1, "word": 7}], "`column 'word'` is 7 .*row 1.*dtype={'word': str}"),
            ([{"item": 1, "zone": 1, "word": ""}], "`column 'word'` is '': is empty in row 1, of text '1'"),
            ([{"item": 1, "word": "a"}], "`position` is 'zone': is no column"),
            ("words.tsv", "`table` is 'words.tsv' .a str.: must be a DataFrame"),
        ],
    )
    def test_tables_that_contradict_themselves(self, lm: ByteLM, table: Any, told: str) -> None:
        with pytest.raises((InvalidValueError, InvalidTypeError), match=told):
            lm.table_surprisal(table, text_id="item", position="zone")

    def test_a_dataframe_keeps_what_it_has(self, lm: ByteLM) -> None:
        frame = pandas.DataFrame(rows("It", "burnt."), index=[7, 3])
        frame["rt"], frame["surprisal"] = [251.5, None], [1, 2]
        out = lm.table_surprisal(frame).to_dataframe()
        assert out.index.tolist() == [7, 3] and out["surprisal_input"].tolist() == [1, 2]
        assert out["rt"].dtype == frame["rt"].dtype and out["zone"].equals(frame["zone"])
        again = lm.table_surprisal(out).to_dataframe()
        assert again["surprisal"].tolist() == pytest.approx(out["surprisal"].tolist())
        assert not again.columns.duplicated().any()

    def test_entropy_and_rank(self, lm: ByteLM) -> None:
        """Where they are asked for; what the next row goes on with has no rank."""
        table = rows("Do", "n't", "go", "x")
        options = {"texts": {"1": "Don't go"}, "text_id": "item", "on_unmatched": "missing"}
        found = lm.table_surprisal(table, **options, entropy="char", rank=True, budget=1)
        names = ["entropy", "word_entropy", "word_entropy_most", "rank", "rank_most"]
        assert found.to_tsv().split("\n")[0].split("\t")[-5:] == names == [*found[0]][-5:]
        assert [*found.to_dataframe().columns][-5:] == names
        plain = lm.word_surprisal("Don't go", entropy="char", rank=True, budget=1)
        assert {name: found[2][name] for name in names} == {name: getattr(plain[1], name) for name in names}
        assert found[0]["rank"] != found[0]["rank"] and found[0]["entropy"] > 0 and found[3]["rank"] is None
        assert "entropy" not in lm.table_surprisal(table, **options)[0]

    def test_ids_that_pandas_has_made_floats(self, lm: ByteLM) -> None:
        found = lm.table_surprisal(rows("go", item=2.0), text_id="item", texts={2: "Do go"})
        assert found.scores[0].text == b"Do go"

    def test_names_stay_apart(self) -> None:
        names = added_names(["surprisal", "surprisal_input", "word"], figure_names())
        assert names["word"] == "word" and len({*names.values()}) == 3 and "surprisal" not in names.values()
