"""The command line in this process, on small models: what the tests of the commands share."""

from __future__ import annotations

import base64
import copy
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

import genlm.bytes
from genlm.bytes import ByteLM
from genlm.bytes.cli import main

REPOSITORY = Path(genlm.bytes.__file__).parents[2]
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


@pytest.fixture(scope="session")
def llm() -> Any:
    """A small random model with a chat template."""
    from genlm.backend.llm import AsyncTransformer

    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = TEMPLATE
    return AsyncTransformer(tiny.model("llama"), tokenizer)


class Terminal(io.TextIOWrapper):
    """A standard stream that says it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(llm: Any, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> Run:
    """The command line on that model, in this process: its exit code, stdout, stderr, how it loaded."""
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, stdin: bytes = b"", typed: bool = False, model: Any = llm) -> SimpleNamespace:
        loaded: list[tuple[Any, dict[str, Any]]] = []

        def load(name: Any, **options: Any) -> Any:
            loaded.append((name, options))
            return model

        monkeypatch.setattr("genlm.bytes.models.load_model", load)
        piped = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", Terminal() if typed else piped)
        monkeypatch.setattr(sys, "argv", ["genlm-bytes", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsysbinary.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err.decode(), loaded=loaded)

    return run


def fine(done: SimpleNamespace) -> bytes:
    """Stdout of a command that went well and had nothing to remark."""
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def document(done: SimpleNamespace) -> dict[str, Any]:
    (line,) = fine(done).decode().splitlines()
    return json.loads(line)


def events(done: SimpleNamespace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fine(done).decode().splitlines()]


def exact(document: dict[str, Any]) -> bytes:
    return base64.b64decode(document["bytes_base64"])


@pytest.fixture(scope="session")
def lm(llm: Any) -> Iterator[ByteLM]:
    with ByteLM(llm) as lm:
        yield lm
