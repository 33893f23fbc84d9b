"""The pages about serving: their lines are typed, and their figures are the library's."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import app_of, on_a_port

import genlm.bytes

DOCS = Path(genlm.bytes.__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("serving*.md"))


def lines() -> list[tuple[str, str]]:
    """Each line to type, and what comes out, with `…` for what is left out."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)^```", text, re.MULTILINE)
    return found


@pytest.fixture(scope="module")
def where(default_llm: Any) -> Iterator[str]:
    with on_a_port(app_of(default_llm)) as url:
        yield url


@pytest.mark.thorough
@pytest.mark.real_model
@pytest.mark.parametrize("line, expected", lines())
def test_outputs_are_real(line: str, expected: str, where: str) -> None:
    typed = line.replace("localhost:8000", where.removeprefix("http://"))
    said = subprocess.run(["sh", "-c", typed], check=True, capture_output=True, text=True).stdout
    at = 0
    for piece in (piece.strip() for piece in expected.split("…")):
        assert piece in said[at:], (piece, said[at:])
        at = said.index(piece, at) + len(piece)


@pytest.mark.skipif(not PAGES, reason="no documentation here")
def test_the_tables_name_what_there_is() -> None:
    from genlm.bytes.serve.completions import CompletionBody
    from genlm.bytes.serve.questions import NextBody, PredictBody, ScoreBody

    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    for path, body in (
        ("completions", CompletionBody),
        ("score", ScoreBody),
        ("next", NextBody),
        ("predict", PredictBody),
    ):
        (row,) = re.findall(rf"^\| `POST /v1/{path}` \| (.*) \|$", text, re.MULTILINE)
        named = set(re.findall(r"`(\w+)`", row)) - {"byte", "char"}
        assert named and named <= set(body.model_fields)
    assert len(lines()) >= 5
    (config,) = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert set(tomllib.loads(config)["models"]) == {"small", "exact", "both"}


@pytest.mark.thorough
def test_the_evaluation_harness_gets_our_own_models_figures(llm: Any, tmp_path: Path) -> None:
    """Stock `local-completions`, which knows nothing but the address: as our model in this process."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from genlm.bytes import ByteLM
    from genlm.bytes.integrations.lm_eval import model_class

    rows = [
        {"start": "the and", "choices": [" the", " in", "the"], "answer": i % 3, "number": i}
        for i in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "small.yaml").write_text(
        f"task: small\ndataset_path: json\ndataset_kwargs:\n  data_files: {tmp_path}/rows.jsonl\n"
        "test_split: train\noutput_type: multiple_choice\ndoc_to_text: '{{start}}{{number}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: answer\ntarget_delimiter: ''\n"
        "metric_list:\n  - metric: acc\n"
    )
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)

    def answers(model: Any, args: Any = None) -> list[Any]:
        found = lm_eval.simple_evaluate(
            model=model, model_args=args, tasks=["small"], task_manager=tasks, bootstrap_iters=0
        )
        return [pair for sample in found["samples"]["small"] for pair in sample["filtered_resps"]]

    with on_a_port(app_of(llm)) as url:
        theirs = answers("local-completions", f"model=tiny,base_url={url}/v1/completions")
    with ByteLM(llm) as lm:
        ours = answers(model_class()(lm=lm))
    assert len(ours) == 9
    for (logp, greedy), (own, own_greedy) in zip(theirs, ours, strict=True):
        assert float(logp) == pytest.approx(float(own), abs=1e-4) and str(greedy) == str(own_greedy)
