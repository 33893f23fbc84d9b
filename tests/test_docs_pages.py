"""Pages of the documentation whose examples are run as written, and whose claims are looked up."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import pydoc
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import pytest
from genlm.backend.tokenization import Token
from toy import EOS_STRING, TOY, ToyLM

import genlm.bytes
from genlm.bytes import BeamParams, LazyTrieState, TokenByteTrie
from genlm.bytes.cli import main

REPOSITORY = Path(genlm.bytes.__file__).parents[2]
DOCS = REPOSITORY / "docs"
COMING = DOCS / "coming-from-0.2.0.md"

pytestmark = pytest.mark.skipif(not COMING.exists(), reason="no documentation here")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.exists() else ""  # as in a source distribution


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


async def run(page: Path, llm: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A page's examples, one after another, as in a notebook; on a model that is loaded already."""
    for loader in ("load_default_model", "load_model"):
        monkeypatch.setattr(f"genlm.bytes.models.{loader}", lambda *_, **__: llm)
    namespace: dict[str, Any] = {"__name__": page.stem}
    for i, source in enumerate(blocks(page, "python")):
        code = compile(source, f"{page.name}, example {i + 1}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result
    return namespace


@pytest.mark.parametrize(
    "page", [DOCS / "concepts.md", DOCS / "api" / "rules.md"], ids=lambda page: page.name
)
async def test_examples_print_what_they_say(page, monkeypatch, capsys):
    await run(page, None, monkeypatch)
    said = [
        line for block in blocks(page, "python") for line in re.findall(r"^# -> (.*)$", block, re.MULTILINE)
    ]
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.real_model
async def test_the_home_page_runs(default_llm, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    found = await run(DOCS / "index.md", default_llm, monkeypatch)
    said = capsys.readouterr().out
    assert "nce is Paris" in said and "b'octor" in said
    assert found["start"].params == BeamParams()  # the defaults, not settings that lose bytes


def test_the_page_on_scoring_runs(monkeypatch, tmp_path):
    """Its examples but Ray's, on a model of bytes and two words; and arguments inside its sentences."""
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_bytes(b"a b\nb\n")
    llm = ToyLM([*(bytes([b]) for b in range(256)), b"<|endoftext|>", b"The", b" of"], seed=1, eos=256)
    page = tmp_path / "scoring.md"
    examples = [source for source in blocks(DOCS / "scoring.md", "python") if "ray" not in source]
    assert len(examples) == 8
    page.write_text("".join(f"```python\n{source}```\n" for source in examples), encoding="utf-8")
    found = asyncio.run(run(page, llm, monkeypatch))
    assert found["rows"].records()[0]["word"] == found["words"].word[0] == "The"
    assert sum(cut.posterior for cut in found["cuts"]) == pytest.approx(1.0) and len(found["cuts"]) > 1
    given = re.findall(r'`(words=\["do".*?)`', text_of(DOCS / "scoring.md"))
    assert given
    for arguments in given:
        rows = found["lm"].word_surprisal("I don't know.", **eval(f"dict({arguments})"))
        assert [row.word for row in rows] == ["do", "n't"]


@pytest.mark.slow
def test_the_page_on_reading_times_runs(monkeypatch, tmp_path, capsys):
    """On a model of single bytes: what was simulated is found, by the command and, if it is there, by R."""
    monkeypatch.chdir(tmp_path)
    llm = ToyLM([*(bytes([b]) for b in range(256)), b"<|endoftext|>"], seed=1, eos=256)
    found = asyncio.run(run(DOCS / "reading-times.md", llm, monkeypatch))
    assert found["data"].rt.notna().all() and len(found["data"]) == len(found["rts"])
    fit, error = found["fit"].params["surprisal"], found["fit"].bse["surprisal"]
    assert abs(fit - 4) < 4 * error and error < 2
    assert len(found["used"]) < len(found["data"]) - 20 * 12
    lines = [f"{item}\t{text}\n" for item, text in found["texts"].items()]
    Path("texts.tsv").write_text("item\ttext\n" + "".join(lines), encoding="utf-8")
    (shell,) = blocks(DOCS / "reading-times.md", "sh")
    monkeypatch.setattr(sys, "argv", shlex.split(shell.replace("\\\n", "")))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and sys.argv[0] == "genlm-bytes", capsys.readouterr().err
    scored = pandas.read_csv("scored.tsv", sep="\t", keep_default_na=False)
    assert scored.surprisal.tolist() == pytest.approx([row["surprisal"] for row in found["scored"]], rel=1e-5)
    r = shutil.which("Rscript")
    if r is None or subprocess.run([r, "-e", "library(lme4)"], capture_output=True).returncode:
        return
    code = blocks(DOCS / "reading-times.md", "r")[0] + 'cat("found", fixef(fit)["surprisal"])\n'
    Path("page.R").write_text(code, encoding="utf-8")
    done = subprocess.run([r, "page.R"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == pytest.approx(fit, abs=error)


@pytest.mark.real_model
async def test_the_page_on_ensembles_runs(default_llm, monkeypatch):
    found = await run(DOCS / "ensembles.md", default_llm, monkeypatch)
    assert sum(found["drawn"].posterior.values()) == pytest.approx(1.0)


@pytest.mark.real_model
async def test_the_page_on_predicting_runs(default_llm, monkeypatch):
    found = await run(DOCS / "predicting.md", default_llm, monkeypatch)
    words = found["found"]
    assert words[0].word == "tea" and sum(w.probability for w in words) + words.remainder == pytest.approx(1)


def test_the_home_page_begins_as_the_readme():
    """The same line first, and the same settings: none, before any word about cheaper ones."""
    (line,) = re.findall(r"^\*\*(.*?)\*\*", text_of(REPOSITORY / "README.md"), re.MULTILINE)[:1]
    home = text_of(DOCS / "index.md")
    assert home.startswith(f"# GenLM Bytes\n\n**{line}**")
    ours, theirs = ("".join(blocks(page, "python")) for page in (DOCS / "index.md", REPOSITORY / "README.md"))
    assert "BeamParams(" not in ours + theirs
    assert ours.splitlines()[:5] == theirs.splitlines()[:5]


@pytest.mark.parametrize(
    "page", [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda p: p.name
)
def test_settings_that_lose_bytes_are_nowhere_shown_without_saying_so(page):
    """Where the lossy settings stand in a page, that they lose or drop something stands near by."""
    text = text_of(page)
    for found in re.finditer(r"prune_threshold=0\.05", text):
        around = text[max(0, found.start() - 500) : found.end() + 500]
        assert re.search(r"\blos(e|es|ing|t)\b|\bdrop|in place of|before =", around), around


@pytest.mark.real_model
async def test_the_page_for_those_who_come_from_the_release_runs(default_llm, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = await run(COMING, default_llm, monkeypatch)
    named = re.search(r"(-\d+\.\d+) in place of (-\d+\.\d+)", text_of(COMING))
    assert named is not None
    lost = found["lost"]
    assert [lost["before"], lost["now"]] == pytest.approx([float(x) for x in named.groups()], abs=0.01)
    assert lost["before"] < lost["now"] <= lost["finer"]


async def test_its_comparison_goes_on_where_settings_fail(capsys):
    """A user's text may be one that the old settings cannot read at all."""
    source = blocks(COMING, "python")[-1].split("\n\nllm = ")[0]
    namespace: dict[str, Any] = {}
    exec(compile(source, COMING.name, "exec"), namespace)
    toy = ToyLM(TOY, seed=3)
    lost = await namespace["compare"](toy, b"az", now=BeamParams(), K=BeamParams(K=5))
    assert set(lost.values()) == {float("-inf")}
    assert capsys.readouterr().out.count("no token of this model contains that byte") == 2


def test_its_figures_are_those_of_the_results():
    """Of the benchmark that is named, on one row."""
    rows = re.findall(
        r"^\| .* \| (.+?) \| (.+?) \| `benchmarks/run.py (\w+)` \|$", text_of(COMING), re.MULTILINE
    )
    assert len(rows) == 5
    results = text_of(REPOSITORY / "benchmarks" / "RESULTS.md")
    for theirs, ours, benchmark in rows:
        section = results.split(f"<!-- {benchmark}: begin -->")[1].split(f"<!-- {benchmark}: end -->")[0]
        assert any(f"| {ours} | {theirs} |" in line for line in section.splitlines()), (ours, theirs)
    lost = re.search(r"it loses (\d+) bytes", text_of(COMING))
    assert lost is not None
    assert re.search(
        rf"^\| `K=5, prune_threshold=0.05` \|.*\| {lost[1]} \|$", text_of(DOCS / "exactness.md"), re.M
    )


SERVED = "16 at once against one by one, throughput"


@pytest.mark.parametrize(
    "page, said, benchmark, row, column",
    [
        (
            "performance.md",
            r"writing 16 at once is (\S+) times",
            "reading",
            "16 prompts at once, write 50 bytes; one by one",
            3,
        ),
        (
            "performance.md",
            r"through the server (\d\.\d)",
            "serving",
            SERVED,
            1,
        ),
        ("serving.md", r"16 write (\S+) times", "serving", SERVED, 1),
    ],
)
def test_what_many_at_once_gain_is_what_was_measured(page, said, benchmark, row, column):
    """On each page that says so, by the row of the benchmark."""
    found = re.search(said, text_of(DOCS / page))
    results = text_of(REPOSITORY / "benchmarks" / "RESULTS.md")
    section = results.split(f"<!-- {benchmark}: begin -->")[1].split(f"<!-- {benchmark}: end -->")[0]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {row} |")]
    measured = re.match(r"[\d.]+", line.split("|")[column + 1].strip())
    assert found and measured and float(found[1]) == round(float(measured[0]), 1)


def test_the_size_of_a_batch_is_said():
    from genlm.bytes.cli.scoring.files import EVERY
    from genlm.bytes.score.corpus import BYTES

    said = f"a batch at a time, at most {EVERY} texts or {BYTES >> 10} KiB of them"
    assert said in text_of(DOCS / "command-line.md")


def test_both_names_work_and_those_warn_that_are_said_to():
    """The page's table of names, row by row."""
    table = re.search(r"^\| older \| newer .*?\n\n", text_of(COMING), re.DOTALL | re.MULTILINE)
    assert table is not None
    said = [[c.strip() for c in row.split("|")[1:-1]] for row in table[0].splitlines()[2:] if row]
    warns = {(older, where.split(",")[0]): answer == "yes" for older, _, where, answer in said}
    tokens = [Token(0, b"a"), Token(1, b"ab"), Token(2, EOS_STRING)]
    made = partial(TokenByteTrie, tokens)
    tries = [
        ("`eos_tokens`", "`BeamParams`", lambda: BeamParams(K=5, eos_tokens=[b"a"])),
        ("`eos_tokens`", "`TokenByteTrie`", lambda: made(eos_tokens=[EOS_STRING]).eos_tokens),
        ("`atomic_tokens`", "`TokenByteTrie`", lambda: made(atomic_tokens=[b"a"]).atomic_tokens),
        ("`eot_token`", "`TokenByteTrie`", lambda: made(eot_token="end").eot_token),
        ("`bytes` as entries of `decode`", "`TokenByteTrie`", lambda: TokenByteTrie([b"a", b"b"])),
        ("`state.get_EOT()`", "`LazyTrieState`", lambda: LazyTrieState.get_EOT),
        ("`state.extend()`", "`LazyTrieState`", lambda: LazyTrieState.extend),
        ("`trie.word2leaf[b\"a\"]`", "`TokenByteTrie`; the older where one token spells it",
         lambda: made().word2leaf[b"a"]),
    ]  # fmt: skip
    assert {(older, where) for older, where, _ in tries} == set(warns)
    for older, where, use in tries:
        if warns[older, where]:
            with pytest.warns(DeprecationWarning):
                assert use()
        else:
            assert use() is not None  # warnings are errors here


CLIENT = """
import warnings
from genlm.bytes import BeamParams

def test_older():
    BeamParams(K=5, eos_tokens=[b"a"])

def test_newer():
    BeamParams(K=5, eos_byte_strings=[b"a"])

def test_of_another_library():
    warnings.warn("the other is old", {kind}, stacklevel=2)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "nth, expected", [(0, "3 passed"), (1, "2 failed, 1 passed"), (2, "1 failed, 2 passed")]
)
def test_its_commands_find_older_names(tmp_path, nth, expected):
    """On a client with one, a newer one, and another library's warning."""
    (tmp_path / "test_client.py").write_text(CLIENT.format(kind="DeprecationWarning"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    lines = [line[2:] for block in blocks(COMING, "console") for line in block.splitlines()]
    assert len(lines) == 3
    command = [
        sys.executable,
        *shlex.split(lines[nth])[1:],
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert expected in said.stdout, said.stdout + said.stderr
    assert "'eos_tokens' is deprecated" in said.stdout


ATTRIBUTES = """
import json, sys, griffe

package = griffe.load("genlm.bytes", search_paths=["."], extensions=griffe.load_extensions(sys.argv[1]))
found = [package[name.removeprefix("genlm.bytes.")] for name in sys.argv[2:]]
classes = [c for c in (c.final_target if c.is_alias else c for c in found) if c.is_class]
print(json.dumps({c.path: [name for name, m in c.members.items() if m.is_attribute] for c in classes}))
"""
"""What is said to be an attribute of each documented class, by those who read the source."""


def test_what_an_object_can_do_is_in_its_reference():
    """Methods that are made by a call (`complete = _plain(…)`) are found by no reader of the source."""
    pytest.importorskip("griffe", reason="the documentation's tools are not installed")
    names = [
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)", text_of(page), re.M)
    ]
    # Elsewhere: Python 3.11 cannot parse modules where other threads do (CPython issue 106905).
    read = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ATTRIBUTES, str(DOCS / "hooks" / "plain_methods.py"), *names],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    attributes = json.loads(read.stdout)
    assert len(attributes) > 30
    lacking = [
        f"{path}.{name}"
        for path, found in attributes.items()
        for name in found
        if inspect.isfunction(vars(pydoc.locate(path)).get(name))
    ]
    assert not lacking
