"""`genlm-bytes serve`: what is typed, what is wrong with it; a server that starts and ends in good order."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Run
from served import asking

import genlm.bytes
from genlm.bytes.cli.serve import serve
from genlm.bytes.errors import InvalidValueError
from genlm.bytes.serve import Catalog, create_app, read_config, spec_of

REPOSITORY = Path(genlm.bytes.__file__).parents[2]
EXAMPLES = [line.strip() for line in (serve.__doc__ or "").split("Examples:")[1].splitlines() if line.strip()]
CONFIG = """
[models.one]
path = "embedded"
[models.other]
tolerance = 1e-4
[models.both]
ensemble = ["one", "other"]
op = "sum"
weights = [0.3, 0.7]
"""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command would have served."""
    calls: list[Any] = []

    def record(catalog: Any, settings: Any, load: Any, **given: Any) -> None:
        given["say"]("http://127.0.0.1:1")
        calls.append((catalog, settings, given))

    monkeypatch.setattr("genlm.bytes.serve.serve", record)
    return calls


@pytest.mark.parametrize("line", EXAMPLES)
def test_its_examples(line: str, run: Run, served: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("keys.txt").write_text("key\n")
    done = run(*shlex.split(line)[1:])
    assert done.code == 0 and len(served) == 1 and not done.loaded
    assert b"http://127.0.0.1:1" in done.out


def test_the_examples_of_a_service(run: Run, served: list[Any], tmp_path: Path) -> None:
    """The unit's line, and the container's."""
    text = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
    (tmp_path / "keys").write_text("key\n")
    (unit,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    (container,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    for words in (
        shlex.split(unit.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))),
        json.loads(container),
    ):
        assert run(*words[1:]).code == 0
    (_, unit_settings, _), (_, container_settings, where) = served
    assert unit_settings.keys.allow("key") and not unit_settings.keys.allow("other")
    assert where["host"] == "0.0.0.0" and "localhost" in container_settings.hosts


def test_loopback_is_asked_by_its_own_names_only(run: Run, served: list[Any]) -> None:
    run("serve")
    done = run("serve", "--host", "0.0.0.0")
    (_, local, _), (_, everywhere, _) = served
    assert {"localhost", "127.0.0.1"} <= set(local.hosts) and everywhere.hosts == ()
    assert "--api-key" in done.err


@pytest.mark.parametrize(
    "args, word",
    [
        (["--api-key", "absent"], "absent"),
        (["--config", "absent"], "absent"),
        (["--model", "a=embedded", "--model", "a=embedded"], "two models"),
        (["--max-concurrent", "0"], "`--max-concurrent`"),
        (["--timeout", "nan"], "`--timeout`"),
        (["--cors", "foo"], "`--cors` is 'foo'"),
        (["--model", "a", "--config", "b"], "not both"),
        (["--port", "99999"], "`--port`"),
        (["--K", "0"], "`--K`"),
    ],
)
def test_mistakes_are_a_line(run: Run, args: list[str], word: str) -> None:
    done = run("serve", *args)
    assert done.code in (1, 2) and word in done.err and done.err.count("\n") == 1 and not done.loaded


def test_names() -> None:
    assert spec_of(None, {}, None).name == "SmolLM2-135M-Instruct"
    assert (spec_of("a=embedded", {}, None).path, spec_of("a=b=c", {}, None).path) == (None, "b=c")
    assert spec_of("dir/model.gguf", {}, None).name == "model.gguf"


async def test_a_file_of_models(llm: Any, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(CONFIG)
    loaded = []

    def load(name: Any, **options: Any) -> Any:
        loaded.append(name)
        return llm

    catalog = Catalog(read_config(path))
    await catalog.load(load)
    assert loaded == [None] and catalog.names == ["one", "other", "both"] and not catalog.loading
    with asking(create_app(catalog)) as http:
        body = {
            "model": "both",
            "prompt": "th",
            "max_bytes": 3,
            "temperature": 0,
            "logprobs": 1,
            "echo": True,
        }
        said = (await http.post("/v1/completions", json=body)).json()
        ids = await http.post("/v1/completions", json={"model": "both", "prompt": [5]})
        chat = {"model": "both", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        answer = await http.post("/v1/chat/completions", json=chat)
    own: Any = await catalog.get("both")[1].complete("th", max_bytes=3, temperature=0)
    assert said["choices"][0]["text"] == "th" + own.text
    assert len(said["choices"][0]["logprobs"]["tokens"]) >= 2 + len(own.bytes)
    assert ids.status_code == 400 and answer.status_code == 200
    for wrong, told in (
        ("[models.a]\nensemble = ['b']", "[models.a] cannot be: 'ensemble' is ['b']"),
        ("models = 3", "must have a table"),
        ("[", "must be TOML"),
        ("[models.a]\npth = 1", "[models.a] cannot be: 'pth' is no option here. Did you mean 'path'?"),
        ("[models.a]\nK = 0", "Pass e.g. K = 5"),
    ):
        path.write_text(wrong)
        with pytest.raises(InvalidValueError) as refused:
            read_config(path)
        assert told in str(refused.value) and str(path) in str(refused.value)


@pytest.mark.thorough
@pytest.mark.real_model
def test_it_starts_answers_and_ends_with_what_runs_finished(tmp_path: Path) -> None:
    """In a process of its own, as people start it; told to end while it writes."""
    import httpx2

    command = [sys.executable, "-m", "genlm.bytes", "serve", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            (where,) = re.findall(r"^(http\S+)  page", process.stdout.readline())
            with httpx2.Client(base_url=where, timeout=120) as http:
                while http.get("/health").status_code == 503:
                    pass
                body = {"prompt": "Once upon a ti", "max_tokens": 20, "temperature": 0}
                whole = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
                with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
                    lines = stream.iter_lines()
                    first = next(lines)
                    process.send_signal(signal.SIGTERM)
                    rest = list(lines)
            assert first.startswith("data: ") and rest[-2:] == ["data: [DONE]", ""]
            assert whole.startswith("me")
            assert process.wait(60) in (0, -signal.SIGTERM, 143)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
