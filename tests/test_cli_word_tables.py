"""`score` on tables that have a row for each word: in, aligned, and out again row for row."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Run, events, fine, llm, run  # noqa: F401
from toy import ToyLM

from genlm.bytes import ByteLM

ROWS = [
    ("1", "b", "2", "burnt.", "400"),
    ("1", "a", "1", "The", "210"),
    ("2", "a", "3", "it's", "0.10"),
    ("1", "a", "2", "chef", "NA"),
    ("2", "b", "1", "It", "150"),
    ("1", "a", "3", "it's", "250"),
    ("1", "b", "1", "It", "151"),
]
HEAD = ("who", "item", "zone", "word", "surprisal")


@pytest.fixture
def toy() -> Any:
    return ToyLM([*(bytes([b]) for b in range(256)), b"<e>"], seed=1, eos=256)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("rts.tsv", [HEAD, *ROWS])
    write("bad.tsv", [("item", "text"), ("a",)])
    write("other.tsv", [("item", "text"), ("a", "A cook"), ("b", "It burnt.")])
    write("texts.tsv", [("item", "body"), ("a", "The chef – it’s"), ("b", "It burnt.")])


def write(name: str, rows: Any, dialect: str = "excel-tab") -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, dialect, lineterminator="\n").writerows(rows)


def read(name: str, dialect: str = "excel-tab") -> list[dict[str, str]]:
    with Path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, dialect=dialect))


WORDS = ("--word-column", "word", "--id", "item", "--position", "zone")


def test_rows_come_back_as_they_were(run: Run, toy: Any) -> None:  # noqa: F811
    fine(run("score", "--file", "rts.tsv", *WORDS, "--bits", "--out", "out.tsv", model=toy))
    out = read("out.tsv")
    own = ["who", "item", "zone", "word", "surprisal_input"]
    assert list(out[0])[:6] == [*own, "matched"]
    assert [tuple(row[name] for name in own) for row in out] == ROWS  # 0.10 stays 0.10, NA stays NA
    with ByteLM(toy) as lm:
        plain = [*lm.word_surprisal(["It burnt.", "The chef it's"])]
    costs = {("ba"[r.text], str(r.index + 1)): r.surprisal for r in plain}
    for row in out:
        assert float(row["surprisal"]) == pytest.approx(costs[row["item"], row["zone"]], rel=1e-6)
    piped = run("score", "--file", "rts.tsv", *WORDS, "--bits", model=toy)
    assert fine(piped).decode().splitlines()[:-1] == Path("out.tsv").read_text().splitlines()
    assert not Path("out.tsv.part").exists()
    # The same again is done already; another table is another matter.
    fine(run("score", "--file", "rts.tsv", *WORDS, "--bits", "--out", "out.tsv", model=toy))
    write("rts.tsv", [HEAD, *ROWS[:-1], (*ROWS[-1][:-1], "152")])
    changed = run("score", "--file", "rts.tsv", *WORDS, "--bits", "--out", "out.tsv", model=toy)
    assert changed.code == 1 and "--overwrite" in changed.err


def test_whole_texts(run: Run, toy: Any) -> None:  # noqa: F811
    given = (*WORDS, "--texts", "texts.tsv", "--column", "body")
    wrong = run("score", "--file", "rts.tsv", *given, model=toy)
    assert wrong.code == 1 and "2 words" not in wrong.err
    assert "text 'a', row 3, position 3: \"it's\" is not at or after character 8" in wrong.err
    fine(run("score", "--file", "rts.tsv", *given, "--align", "quotes", "--out", "out.csv", model=toy))
    out = read("out.csv", "excel")
    assert [row["matched"] for row in out if row["word"] == "it's"] == ["it’s", "it’s"]
    assert [row["who"] for row in out] == [row[0] for row in ROWS]
    told = run("score", "--file", "rts.tsv", *given, "--on-unmatched", "missing", "--out", "m.tsv", model=toy)
    assert told.code == 0 and "1 word of the table is not in its text" in told.err
    assert "in row 3, of text 'a'" in told.err.replace("\n", " ")
    assert [row["surprisal"] == "" for row in read("m.tsv")] == [row[3] == "it's" for row in ROWS]


def test_entropy_rank_and_a_second_reading(run: Run, toy: Any) -> None:  # noqa: F811
    """Columns where they are asked for; one of that name that was there before keeps apart."""
    write("ranked.tsv", [(*HEAD[:-1], "rank"), *ROWS])
    asked = ("--entropy", "byte", "--rank", "--budget", "2", "--check")
    done = fine(run("score", "--file", "ranked.tsv", *WORDS, *asked, "--out", "out.tsv", model=toy)).decode()
    assert "read again at tolerance" in done and "surprisals moved by" in done
    out, added = read("out.tsv"), ["entropy", "word_entropy", "word_entropy_most", "rank", "rank_most"]
    assert list(out[0])[-5:] == added and [row["rank_input"] for row in out] == [row[4] for row in ROWS]
    with ByteLM(toy) as lm:
        given = {"entropy": True, "rank": True, "budget": 2, "base": math.e}
        plain = lm.word_surprisal(["It burnt.", "The chef it's"], **given)
    figures = {("ba"[r.text], str(r.index + 1)): [getattr(r, name) for name in added] for r in plain}
    for row in out:
        found = [float(row[name]) for name in added]
        assert found == pytest.approx(figures[row["item"], row["zone"]], rel=1e-6)
    fine(run("score", "--file", "rts.tsv", *WORDS, "--out", "plain.tsv", model=toy))
    assert not {*added} & {*read("plain.tsv")[0]}


def test_a_run_that_was_cut_goes_on(run: Run, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("genlm.bytes.cli.scoring.files.EVERY", 1)
    fine(run("score", "--file", "rts.tsv", *WORDS, "--out", "whole.tsv", model=toy))
    from genlm.bytes.cli.scoring.files import Files

    add, added = Files.add, []

    def once(self: Files, result: Any) -> None:
        if added:
            raise OSError(28, "No space left on device")
        added.append(result)
        add(self, result)

    monkeypatch.setattr(Files, "add", once)
    assert run("score", "--file", "rts.tsv", *WORDS, "--out", "out.tsv", model=toy).code == 1
    assert Path("out.tsv.part").exists() and not Path("out.tsv").exists()
    monkeypatch.setattr(Files, "add", add)
    fine(run("score", "--file", "rts.tsv", *WORDS, "--out", "out.tsv", model=toy))
    assert Path("out.tsv").read_bytes() == Path("whole.tsv").read_bytes()


def test_a_column_of_contexts(run: Run, toy: Any) -> None:  # noqa: F811
    write("c.tsv", [("before", "text"), ("Oh. ", "It burnt."), ("No? ", "It burnt."), ("", "It burnt.")])
    given = ("--column", "text", "--context-column", "before", "--json")
    found = events(run("score", "--file", "c.tsv", *given, model=toy))[:3]
    Path("c.jsonl").write_text('{"before": "Oh. ", "text": "It burnt."}\n')
    again = events(run("score", "--file", "c.jsonl", "--field", "text", *given[2:], model=toy))[0]
    with ByteLM(toy) as lm:
        wanted = [lm.score("It burnt.", context).logprob for context in ("Oh. ", "No? ", "")]
    assert [one["logprob"] for one in found] == pytest.approx(wanted)
    assert again["logprob"] == pytest.approx(wanted[0])
    assert "before" not in found[0]
    rows = [("item", "before", "word"), ("1", "Oh. ", "It"), ("1", "Oh. ", "burnt."), ("2", "No? ", "It")]
    write("w.tsv", rows)
    line = ("--word-column", "word", "--id", "item", "--context-column", "before", "--json")
    first = events(run("score", "--file", "w.tsv", *line, model=toy))[0]
    assert first["logprob"] == pytest.approx(wanted[0])


@pytest.mark.parametrize(
    "args, told",
    [
        (("--word-column", "ward"), "`--word-column` is 'ward': is not in the head line of rts.tsv"),
        ((*WORDS[:2], "--id", "ward"), "`--id` is 'ward': is not in the head line"),
        ((*WORDS[:4], "--position", "ward"), "`--position` is 'ward': is not in the head line"),
        ((*WORDS, "--texts", "absent"), "`--texts` is 'absent': cannot be read"),
        ((*WORDS, "--texts", "bad.tsv"), "`--texts` is 'bad.tsv': has 1 fields in the row of line 2"),
        ((*WORDS, "--texts", "other.tsv"), "--on-unmatched missing leaves such words"),
        (("--align", "quotes", "--column", "word"), "needs --word-column"),
        (("--word-column", "word", "--words"), "not together"),
        (("--word-column", "word", "--lines"), "is for tables"),
        ((*WORDS, "--align", "loos"), "`--align` is 'loos': is none of"),
        ((*WORDS, "--texts", "texts.tsv"), "`--column` is 'text': is not in the head line"),
        (("--column", "word", "--context-column", "x"), "`--context-column` is 'x': is not in the head line"),
        (("--context-column", "x"), "needs --column or --field"),
    ],
)
def test_what_is_wrong_is_said(run: Run, toy: Any, args: tuple[str, ...], told: str) -> None:  # noqa: F811
    done = run("score", "--file", "rts.tsv", *args, model=toy)
    assert done.code in (1, 2) and told in done.err.replace("\n", " "), done.err
    assert not done.loaded


def test_several_readers_without_positions(run: Run, toy: Any) -> None:  # noqa: F811
    words = enumerate("The chef cooked dinner.".split(), 1)
    write("many.tsv", [("zone", "word", "who"), *((i, word, who) for i, word in words for who in "abc")])
    done = run("score", "--file", "many.tsv", "--word-column", "word", model=toy)
    assert (done.code, done.loaded) == (1, [])
    assert "`--position` is None" in done.err and "as 'zone' does" in done.err


@pytest.mark.parametrize(
    "head, rows, told",
    [
        (
            ("item", "word"),
            ["a It", "a burnt.", "b The", "b chef"],
            "4 rows are the words of 1 text; --id item makes 2",
        ),
        (("n", "word"), ["1 It", "2 burnt."], "2 rows are the words of 1 text."),
        (("who", "word"), ["a It", "b It", "a burnt.", "b sank"], "4 rows are the words of 1 text."),
    ],
)
def test_without_id_it_is_said_how_many_words_are_one_text(
    run: Run,  # noqa: F811
    toy: Any,
    head: tuple[str, ...],
    rows: list[str],
    told: str,
) -> None:
    """And which column may tell of several; nothing where --id is given, or quiet is asked for."""
    write("w.tsv", [head, *(row.split() for row in rows)])
    line = ("score", "--file", "w.tsv", "--word-column", "word")
    done = run(*line, model=toy)
    assert done.code == 0 and f"without --id all {told}" in done.err and done.err.count("\n") == 1
    fine(run(*line, "--quiet", model=toy))
    fine(run(*line, "--id", head[0], model=toy))
