"""The pages about serving: their lines are typed, and their figures are the library's."""

from __future__ import annotations

import json
import re
import shutil
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


def block(page: str, language: str) -> str:
    """An example of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(found)


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


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("node") is None, reason="no node here: on Debian, apt-get install nodejs")
def test_javascript(llm: Any) -> None:
    import httpx2

    body = {"prompt": "The capital of Fra", "unit": "char", "top": 5}
    with on_a_port(app_of(llm)) as url:
        program = block("serving-http.md", "javascript").replace("http://127.0.0.1:8000", url)
        command = ["node", "--input-type=module", "-"]
        said = subprocess.run(command, input=program, check=True, capture_output=True, text=True).stdout
        rows = httpx2.post(f"{url}/v1/next", json=body).json()["next"]
    for line, row in zip(said.splitlines(), rows, strict=True):
        text, _, probability = line.rpartition(" ")
        assert text == row["text"] and float(probability) == pytest.approx(row["probability"])


def r_has(*packages: str) -> bool:
    """Whether there is an R, with these packages."""
    if shutil.which("Rscript") is None:
        return False
    found = "; ".join(f"stopifnot(requireNamespace('{package}', quietly = TRUE))" for package in packages)
    return subprocess.run(["Rscript", "-e", found], capture_output=True, check=False).returncode == 0


@pytest.mark.thorough
def test_r(llm: Any) -> None:
    if not r_has("httr2", "jsonlite"):
        pytest.skip("no R with httr2 here: on Debian, apt-get install r-cran-httr2 r-cran-jsonlite")
    import httpx2

    body = {"text": "The chef cooked dinner.", "words": True}
    with on_a_port(app_of(llm)) as url:
        program = block("serving-http.md", "r").replace("http://127.0.0.1:8000", url)
        said = subprocess.run(
            ["Rscript", "-"], input=program, check=True, capture_output=True, text=True
        ).stdout
        words = httpx2.post(f"{url}/v1/score", json=body).json()["results"][0]["words"]
    for row, word in zip(said.splitlines()[1:], words, strict=True):
        _, text, surprisal = row.split()
        assert text == word["word"] and float(surprisal) == pytest.approx(word["surprisal"], rel=1e-4)


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "genlm-bytes.service"
    unit.write_text(block("serving.md", "ini").replace("/opt/genlm-bytes/bin/genlm-bytes", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if unit.name in line], done.stderr


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
