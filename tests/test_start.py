"""The token that texts begin after, chosen by name: in Python, in the harness, on the command line."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from cli_runner import Run, document, fine, llm, run  # noqa: F401
from served import asking

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import InvalidTypeError, InvalidValueError
from genlm.bytes.integrations import lm_eval as ours
from genlm.bytes.serve import Catalog, create_app, read_config, spec_of

TEXTS = ["the man and", "in an end"]


@pytest.fixture(scope="module")
def usual() -> Iterator[ByteLM]:
    with ByteLM(tiny.transformer("llama")) as lm:
        yield lm


@pytest.fixture(scope="module")
def ended(usual: ByteLM) -> Iterator[ByteLM]:
    with ByteLM(usual.llm, start="</s>") as lm:
        yield lm


def test_every_question_begins_after_it(usual: ByteLM, ended: ByteLM) -> None:
    """As contexts whose first part is the token do, which is the long way to ask."""
    end = usual.special("</s>")
    for text in TEXTS:
        wanted = usual.score(text, (end,)).logprob
        assert ended.score(text).logprob == pytest.approx(wanted, abs=1e-4)
        assert wanted != pytest.approx(usual.score(text).logprob, abs=1e-2)
        assert ended.score("d", text).logprob == pytest.approx(
            usual.score("d", (end, text)).logprob, abs=1e-4
        )
        for how in ({}, {"token_healing": False}, {"unit": "byte"}):
            made = ended.complete(text, max_bytes=6, **how)
            assert made.bytes == usual.complete((end, text), max_bytes=6, **how).bytes
        assert made.usage.prompt_tokens == usual.complete(text, max_bytes=1).usage.prompt_tokens
    rows = ended.word_surprisal(TEXTS)
    asked = usual.word_surprisal(TEXTS, context=[(end,), (end,)])
    assert [r.surprisal for r in rows] == pytest.approx([r.surprisal for r in asked], abs=1e-3)
    assert [r.naive for r in rows] == pytest.approx([r.naive for r in asked], abs=1e-3)
    # A context that names its first token itself is taken as it stands.
    first = usual.special("<s>")
    assert ended.score("the", (first,)).logprob == pytest.approx(usual.score("the").logprob, abs=1e-4)


@pytest.mark.thorough
def test_with_canonical_tokenizations(usual: ByteLM) -> None:
    params = BeamParams(canonical=True)
    with ByteLM(usual.llm, params) as plain, ByteLM(usual.llm, params, start="</s>") as ended:
        wanted = plain.score("the man", (plain.special("</s>"),)).logprob
        assert ended.score("the man").logprob == pytest.approx(wanted, abs=1e-4)


def test_members_of_an_ensemble_begin_each_after_its_own(usual: ByteLM, ended: ByteLM) -> None:
    with ByteLM.ensemble([usual, ended], "mixture") as both:
        ours = (usual.score("the").logprob, ended.score("the").logprob)
        assert min(ours) < both.score("the").logprob < max(ours)


@pytest.mark.parametrize("name", ["<|no|>", 10_000, -1, 1.5, True])
def test_what_is_no_token(usual: ByteLM, name: Any) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match="`start"):
        ByteLM(usual.llm, start=name)


def test_the_tokens_there_are_are_named(usual: ByteLM) -> None:
    with pytest.raises(InvalidValueError, match=r"no such token. Its special tokens: '<s>', '</s>'"):
        ByteLM(usual.llm, start="<|no|>")


def test_in_the_harness(usual: ByteLM, ended: ByteLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlm.bytes.models.load_model", lambda *_, **__: usual.llm)
    lm = ours.GenlmBytesLM("default", start="</s>", max_length=40)
    end = usual.special("</s>")
    answers = lm.answers
    pairs = [("", "the"), ("the m", "an and"), ("the " * 60, "man")]
    found = answers.loglikelihoods(pairs)
    assert found[0][0] == pytest.approx(usual.score("the", (end,)).logprob, abs=1e-4)
    assert found[1][0] == pytest.approx(usual.score("an and", (end, "the m")).logprob, abs=1e-4)
    assert answers.rolling(["the man"]) == pytest.approx([usual.score("the man", (end,)).logprob], abs=1e-4)
    wanted = usual.complete((end, "the m"), max_tokens=4, temperature=0)
    assert answers.generate([("the m", {"until": [], "max_gen_toks": 4})]) == [str(wanted)]
    shorter, _ = answers._shortener.for_generation(answers._prompt("the " * 60), 8)
    assert shorter.ids is None and len(shorter.text) < 240  # the chosen beginning stays


async def test_over_http(usual: ByteLM, ended: ByteLM, tmp_path: Path) -> None:
    """By its bytes, and by the tokenizer's own tokens, where an echo has these."""
    (tmp_path / "serve.toml").write_text('[models.tiny]\nstart = "</s>"\n')
    for specs in (read_config(tmp_path / "serve.toml"), [spec_of("tiny=embedded", {}, None, "</s>")]):
        catalog = Catalog(specs)
        await catalog.load(lambda *_, **__: usual.llm)
        body: Any = {"prompt": "the man", "echo": True, "logprobs": 0, "max_tokens": 0}
        with asking(create_app(catalog)) as http:
            scored = (await http.post("/v1/score", json={"text": "the man"})).json()["results"][0]
            echoed = (await http.post("/v1/completions", json={**body, "unit": "token"})).json()["choices"][0]
            ids = usual.llm.tokenizer("the man", add_special_tokens=False).input_ids
            given = {**body, "unit": "token", "prompt": ids}
            by_ids = (await http.post("/v1/completions", json=given)).json()["choices"][0]
        assert scored["logprob"] == pytest.approx(ended.score("the man").logprob, abs=1e-6)
        context = [usual.special("</s>"), *ids]
        rows = usual.llm.model(torch.tensor([context])).logits[0].detach().double().log_softmax(-1)
        wanted = [float(rows[i, token]) for i, token in enumerate(ids)]
        assert echoed["logprobs"]["token_logprobs"] == pytest.approx(wanted, abs=1e-4)
        assert by_ids["logprobs"]["token_logprobs"] == pytest.approx(wanted, abs=1e-4)


def test_on_the_command_line(run: Run, ended: ByteLM) -> None:  # noqa: F811
    found = document(run("complete", "the", "--max-bytes", "4", "--start", "</s>", "--json"))
    assert (
        base64.b64decode(found["completions"][0]["bytes_base64"]) == ended.complete("the", max_bytes=4).bytes
    )
    line = json.loads(fine(run("score", "the man", "--start", "</s>", "--json")).decode().splitlines()[0])
    usual = json.loads(fine(run("score", "the man", "--json")).decode().splitlines()[0])
    assert line["logprob"] != usual["logprob"]
    assert document(run("info", "--start", "</s>", "--json"))["start"] == [1]
    wrong = run("score", "the", "--start", "<|no|>")
    assert wrong.code == 1 and "`--start` is '<|no|>': this model has no such token" in wrong.err


@pytest.mark.real_model
def test_the_first_word_of_a_text(default_llm: Any) -> None:
    """What the documentation says: 20 bits after the chat marker, 7 after the separator of documents."""
    with ByteLM(default_llm) as chat, ByteLM(default_llm, start="<|endoftext|>") as plain:
        text = "The chef"
        assert chat.word_surprisal(text)[0].surprisal == pytest.approx(19.80, abs=0.05)
        assert plain.word_surprisal(text)[0].surprisal == pytest.approx(7.0, abs=0.6)
        assert plain.word_surprisal(text)[0].naive < 8
