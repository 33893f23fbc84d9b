"""Given continuations compared, and minimal pairs from files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute import Brute
from cli_runner import Run, document, fine
from toy import EOS_STRING, TOY, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams, ByteLM
from genlm.bytes.errors import GenlmBytesError, InvalidTypeError, InvalidValueError
from genlm.bytes.score import PAIRS_AT_ONCE, Choices, ChoicesTable, Pair, PairTotals, score_pairs

EXACT = BeamParams(exact=True)
GIVEN = ["b", b"abc", "bb", "ca"]


def toy(seed: int = 1, words: list[bytes] = TOY) -> ByteLM:
    return ByteLM(ToyLM(words, seed), EXACT, eos=[EOS_STRING] if EOS_STRING in words else [])


def test_choices_are_scores() -> None:
    """Of one context; to the closed form, too."""
    lm, brute = (
        toy(words=[b"a", b"b", b"c", b"ab", b"bca"]),
        Brute(ToyLM([b"a", b"b", b"c", b"ab", b"bca"], 1)),
    )
    found = lm.choices("a", GIVEN)
    assert isinstance(found, Choices) and found.choices == tuple(GIVEN)
    texts = [g if isinstance(g, bytes) else g.encode() for g in GIVEN]
    want = [math.log(brute.prefix(list(b"a" + text)) / brute.prefix(list(b"a"))) for text in texts]
    assert found.logprobs == pytest.approx(want, abs=1e-9)
    assert found.values == pytest.approx([lm.score(text, "a").logprob for text in texts])
    assert found.posterior == pytest.approx(np.exp(want) / np.exp(want).sum())
    order = sorted(range(4), key=lambda i: -want[i])
    assert [found.ranks[i] for i in order] == [1, 2, 3, 4] and found.best == GIVEN[order[0]]
    by_length = lm.choices("a", GIVEN, "length")
    assert by_length.values == pytest.approx([w / len(t) for w, t in zip(want, texts, strict=True)])
    less = lm.choices("a", GIVEN, "unconditional").values
    assert less == pytest.approx(
        [w - math.log(brute.prefix(list(t))) for w, t in zip(want, texts, strict=True)]
    )
    other = lm.choices("a", GIVEN, "unconditional", baseline="c").values
    assert other == pytest.approx([w - lm.score(t, "c").logprob for w, t in zip(want, texts, strict=True)])
    assert lm.choices("a", GIVEN).logprobs == pytest.approx(found.logprobs)


def test_ends_count_where_asked() -> None:
    lm = toy()
    found = lm.choices("a", ["", "b"], end=True)
    assert found.logprobs == pytest.approx([lm.score(t, "a", end=True).logprob for t in ("", "b")])


def test_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several contexts, each read once: the same choices for all, or a list for each; equals share a rank."""
    lm = toy()
    read: list[Any] = []
    begin = lm.asynchronous._begin

    async def counted(context: Any) -> Any:
        read.append(context)
        return await begin(context)

    monkeypatch.setattr(lm.asynchronous, "_begin", counted)
    same = lm.choices(["a", "b", "a"], GIVEN)
    assert read == ["a", "b"]
    own = lm.choices(["a", "b"], [GIVEN, ["c", "c"]])
    assert isinstance(own, ChoicesTable) and len(own) == 2 and len(same) == 3
    for table, i in ((same, 0), (own, 0), (same, 2)):
        assert table[i].logprobs == pytest.approx(lm.choices("a", GIVEN).logprobs, abs=1e-12)
    assert own[1].ranks.tolist() == [1, 1] and own[1].best == "c"
    frame = own.to_dataframe()
    assert frame["context"].tolist() == [0, 0, 0, 0, 1, 1] and frame["rank"].tolist()[-2:] == [1, 1]
    assert own.to_tsv().splitlines()[0] == "context\tindex\tchoice\tlogprob\tvalue\tposterior\trank"
    assert len(own.to_tsv().splitlines()) == 7 and "'b'" in repr(own[0])


def test_one_context_is_a_table_too(tmp_path: Path) -> None:
    found, several = toy().choices("a", GIVEN), toy().choices(["a"], GIVEN)
    columns = ["choice", "logprob", "value", "posterior", "rank"]
    frame = found.to_dataframe()
    assert list(frame) == columns and frame["choice"].tolist() == ["b", "abc", "bb", "ca"]
    assert frame.equals(several.to_dataframe()[columns])
    path = tmp_path / "one.tsv"
    assert found.to_tsv(path).splitlines()[0].split("\t") == columns and path.read_text() == found.to_tsv()
    assert several.to_tsv(path) == path.read_text() != found.to_tsv()


async def test_coroutines_and_ensembles() -> None:
    found = await AsyncByteLM(ToyLM(TOY, 1), EXACT).choices("a", GIVEN)
    assert found.logprobs == pytest.approx(toy().choices("a", GIVEN).logprobs)
    both = AsyncByteLM.ensemble([AsyncByteLM(ToyLM(TOY, 1)), AsyncByteLM(ToyLM(TOY, 2))])
    several = await both.choices("a", GIVEN, "unconditional")
    scores = await both.score(["b", "abc"], "a")
    assert several.logprobs[:2] == pytest.approx([score.logprob for score in scores])


def test_the_impossible() -> None:
    lm = toy()
    with pytest.raises(GenlmBytesError, match=r"`choices` has byte 0x78"):
        lm.choices("a", ["b", "x"])
    found = lm.choices("a", ["b", "x"], on_impossible="inf")
    assert found.posterior.tolist() == [1.0, 0.0] and found.ranks.tolist() == [1, 2]
    assert lm.choices("a", ["b", "x"], "unconditional", on_impossible="inf").ranks.tolist() == [1, 2]
    assert np.isnan(lm.choices("a", ["x"], on_impossible="inf").posterior).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"choices": []}, "at least one"),
        ({"choices": "ab"}, "must be a list"),
        ({"choices": ["a", 5]}, r"choices\[1\]"),
        ({"choices": ["a", ""]}, "is empty"),
        ({"choices": [["a"], ["b"]]}, "2 lists for 1 contexts"),
        ({"choices": ["a"], "normalise": "bytes"}, "normalise"),
        ({"choices": [""], "end": True, "normalise": "length"}, "no length"),
        ({"choices": ["a"], "baseline": "c"}, r"`baseline` is .*unconditional"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match=said):
        toy().choices("a", **options)


def test_pairs() -> None:
    lm = toy()
    given = [Pair(str(i), b"ab", b"ca", b"a") for i in range(3)] + [Pair("t", b"a", b"a")]
    found = list(score_pairs(lm, iter(given)))
    assert [one.pair for one in found] == given
    want = lm.score(["ab", "ca"], ["a", "a"])
    assert found[0].margin == pytest.approx(want[0].logprob - want[1].logprob)
    assert found[0].correct == (want[0].logprob > want[1].logprob) and not found[3].correct
    totals = PairTotals()
    for one in found:
        totals = totals.after(one)
    assert (totals.pairs, totals.ties) == (4, 1) and totals.accuracy == (0.75 if found[0].correct else 0.0)
    assert totals.mean_margin == pytest.approx(sum(one.margin for one in found) / 4)
    assert math.isnan(PairTotals().accuracy)


def written(path: Path, count: int = 3) -> Path:
    rows = [
        {
            "sentence_good": f"the {'an' * (i + 1)}",
            "sentence_bad": f"an {'the' * (i + 1)}",
            "UID": "xy"[i % 2],
        }
        for i in range(count)
    ]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(
            "\n".join("\t".join(row) for row in [rows[0], *(row.values() for row in rows)]) + "\n"
        )
    return path


class TestCommand:
    def test_tables_and_objects(self, run: Run, lm: ByteLM, tmp_path: Path) -> None:
        """BLiMP's shape; accuracy and margins in all and by group."""
        table, objects = written(tmp_path / "a.tsv"), written(tmp_path / "a.jsonl")
        found = document(run("pairs", str(objects), "--group", "UID", "--json"))
        assert found == document(run("pairs", str(table), "--group", "UID", "--json"))
        rows = [json.loads(line) for line in objects.read_text().splitlines()]
        margins = [lm.score(r["sentence_good"]).logprob - lm.score(r["sentence_bad"]).logprob for r in rows]
        assert found["pairs"] == 3 and found["margin"] == pytest.approx(sum(margins) / 3, abs=1e-3)
        assert found["accuracy"] == pytest.approx(sum(margin > 0 for margin in margins) / 3)
        assert {name: one["pairs"] for name, one in found["groups"]["UID"].items()} == {"x": 2, "y": 1}
        shown = fine(run("pairs", str(table), "--group", "UID")).decode().splitlines()
        assert [line.split("\t")[0] for line in shown] == ["group", "all", "x", "y"]

    @pytest.mark.parametrize("suffix", [".tsv", pytest.param(".jsonl", marks=pytest.mark.thorough)])
    def test_gone_on_with(
        self, run: Run, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After an interrupt, and where the table has grown: the bytes of a run without an end."""
        monkeypatch.setattr("genlm.bytes.score.pairs.PAIRS_AT_ONCE", 2)
        monkeypatch.setattr("genlm.bytes.score.PAIRS_AT_ONCE", 2)
        table = written(tmp_path / "a.tsv", 5)
        whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
        want = document(run("pairs", str(table), "--out", str(whole), "--json", "--group", "UID"))
        args = ("pairs", str(table), "--out", str(out), "--json", "--group", "UID")
        written(table, 3)
        assert document(run(*args))["pairs"] == 3
        written(table, 5)
        with monkeypatch.context() as patch:
            from genlm.bytes.resumable import Growing

            def stop(self: Any, state: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(Growing, "finish", stop)
            assert run(*args).code == 130
        assert document(run(*args)) == want
        assert out.read_bytes() == whole.read_bytes() and document(run(*args)) == want
        table.write_text(table.read_text().replace("the an", "the na"))
        assert "other pairs" in run(*args).err
        assert "normalise" in run(*args, "--normalise", "length").err
        assert document(run(*args, "--overwrite"))["pairs"] == 5

    def test_refused(self, run: Run, tmp_path: Path) -> None:
        table, objects = written(tmp_path / "a.tsv"), written(tmp_path / "a.jsonl")
        for option in ("good", "bad", "id", "group", "context-column"):
            for file in (table, objects):
                done = run("pairs", str(file), f"--{option}", "nowhere")
                assert done.code == 1 and f"`--{option}` is 'nowhere'" in done.err
                assert "which has " in done.err and ("line 1" in done.err) == (file == objects)
        for args, said in (
            (("--overwrite",), "--out"),
            (("--out", str(tmp_path / "x.csv")), ".jsonl"),
            (("--context", "a", "--context-column", "UID"), "not both"),
            (("--bad", "sentence_good"), "is the column of --good"),
        ):
            done = run("pairs", str(table), *args)
            assert done.code in (1, 2) and said in done.err
        assert run("pairs", "-").code == 2
        table.write_text("yes\tno\nthe\tan\nthe\t\n")
        done = run("pairs", str(table), "--good", "yes", "--bad", "no")
        assert "`--bad` is 'no': is empty in pair 2" in done.err and not done.loaded
        assert run("pairs", str(table), "--good", "yes", "--bad", "no", "--group", "yes", "--end").code == 0

    def test_contexts(self, run: Run, lm: ByteLM, tmp_path: Path) -> None:
        table = tmp_path / "a.csv"
        table.write_text("id,before,yes,no\nq,the ,an,the\n")
        names = ("--good", "yes", "--bad", "no", "--id", "id")
        out = tmp_path / "o.jsonl"
        own = document(
            run("pairs", str(table), *names, "--context-column", "before", "--json", "--out", str(out))
        )
        assert own == document(run("pairs", str(table), *names, "--context", "the ", "--json"))
        want = lm.choices("the ", ["an", "the"]).logprobs
        assert "q" in document(run("pairs", str(table), *names, "--group", "id", "--json"))["groups"]["id"]
        row = json.loads(out.read_text())
        assert row["pair"] == "q" and [row["good"], row["bad"]] == pytest.approx(want.tolist(), abs=1e-3)


def test_as_many_pairs_a_batch_as_are_said() -> None:
    model = ToyLM(TOY, 1)
    lm = ByteLM(model, EXACT)
    given = [Pair(str(i), b"ab", b"ca") for i in range(PAIRS_AT_ONCE + 1)]
    assert len({one.margin for one in score_pairs(lm, given)}) == 1
