"""Errors name the argument that the caller gave, whatever the inner functions call it."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotations import AnnotationError
from toy import EOS_STRING, TOY, ToyLM

from genlm.bytes import BeamParams, ByteLM, StatefulTokenizedLM
from genlm.bytes.errors import GenlmBytesError, InvalidTypeError, InvalidValueError, bad_value, called
from genlm.bytes.score.scorer import Scorer

BAD = (None, 5, -1, 1.5, [5], [[]], object(), "nonsense", b"\xff", {}, "\ud800", True, (None,))
METHODS: dict[str, dict[str, Any]] = {
    "__init__": {},
    "beam": {"context": "a"},
    "next": {"context": "a"},
    "complete": {"prompt": "a"},
    "stream": {"prompt": "a"},
    "score": {"text": "abc"},
    "word_surprisal": {"texts": "abc"},
    "table_surprisal": {"table": [{"word": "abc"}]},
    "predict_words": {"context": "a"},
    "predict_chars": {"context": "a"},
    "expand": {"context": "a", "depth": 2},
    "byte_logprobs": {"texts": "abc"},
    "token_logprobs": {"text": "abc"},
    "tokenizations": {"text": "abc"},
    "choices": {"context": "a", "choices": ["b", "bc"], "normalise": "unconditional"},
    "special": {"name": "a"},
    "parse_special": {"text": "a"},
    "run": {},
    "forget": {},
}
"""Each method and arguments that are right."""
FLAGS = {"end", "token_healing", "valid_utf8", "echo", "logprobs", "deterministic", "reproducible", "engine"}
"""Anything is true or false."""
UNCHECKED = FLAGS | {"lora_name", "mask"}
"""What only the model, or nobody, can say of."""


def parameters(method: str) -> list[str]:
    found = [name for name in inspect.signature(getattr(ByteLM, method)).parameters if name != "self"]
    if "options" in found:
        found.remove("options")
        found += [*inspect.signature(Scorer).parameters][1:]
    return found


def call(method: str, arguments: dict[str, Any]) -> None:
    llm = ToyLM(TOY, seed=5)
    if method == "__init__":
        ByteLM(**{"llm": llm, **arguments}).complete("a", max_bytes=1)
        return
    if method in ("complete", "stream"):
        arguments = {"max_bytes": 1, **arguments}
    found = getattr(ByteLM(llm, eos=[EOS_STRING]), method)(**arguments)
    if method == "stream":
        list(found)


def test_no_method_is_left_out() -> None:
    public = {name for name, thing in vars(ByteLM).items() if inspect.isfunction(thing) and name[0] != "_"}
    assert public - {"close"} == METHODS.keys() - {"__init__"}


@pytest.mark.parametrize(
    ("method", "name"), [pytest.param(m, name, id=f"{m}-{name}") for m in METHODS for name in parameters(m)]
)
def test_every_argument_of_every_method(method: str, name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    refused = 0
    for i, value in enumerate(BAD):
        arguments = {**METHODS[method], name: value}
        if method == "byte_logprobs" and name in ("format", "texts_per_shard"):
            arguments["out"] = tmp_path / str(i)
        if name == "fim":
            arguments["suffix"] = "b"
        try:
            call(method, arguments)
        except AnnotationError:  # the method has taken it: nobody but these tests says anything
            continue
        except GenlmBytesError as error:
            refused += 1
            said = str(error)
            # Without tokens for filling in no suffix can be given, whatever it is.
            allowed = (name, "suffix") if name == "fim" else (name,)
            assert said.startswith(tuple(f"`{one}" for one in allowed)), said
    assert refused or name in UNCHECKED


@pytest.mark.parametrize(
    "value", [int, np.array([1, 2]), np.array("a"), 10**400], ids=["class", "array", "text", "huge"]
)
def test_what_only_looks_like_a_number(value: Any) -> None:
    """A class and an array have the method by which integers are known, and some integers no float holds."""
    lm = ByteLM(ToyLM(TOY, seed=5), eos=[EOS_STRING])
    calls = [
        ("budget", lambda: ByteLM.anchored(safe=lm, risky=lm, budget=value)),
        ("milliseconds", lambda: lm.predict_words("a", milliseconds=value)),
        ("space", lambda: lm.predict_chars("a", space=value)),
    ]
    if not isinstance(value, int):
        calls += [
            ("budget", lambda: lm.predict_words("a", budget=value)),
            ("depth", lambda: lm.expand("a", depth=value)),
            ("name", lambda: lm.special(value)),
            ("start", lambda: ByteLM(ToyLM(TOY), start=value).complete("a", max_bytes=1)),
            ("K", lambda: BeamParams(K=value)),
            ("max_context_length", lambda: StatefulTokenizedLM(ToyLM(TOY), [0], max_context_length=value)),
            ("context[0]", lambda: StatefulTokenizedLM(ToyLM(TOY), [value])),
        ]
    for name, asked in calls:
        with pytest.raises(GenlmBytesError) as caught:
            asked()
        assert str(caught.value).startswith(f"`{name}`"), str(caught.value)


def test_the_context_is_no_prompt() -> None:
    lm = ByteLM(ToyLM(TOY, seed=5), eos=[EOS_STRING])
    with pytest.raises(InvalidTypeError, match=r"^`context` is None"):
        lm.score("a", None)
    with pytest.raises(InvalidValueError, match=r"^`context` has byte 0x7a .* at offset 1"):
        lm.byte_logprobs("a", "az")
    with pytest.raises(InvalidTypeError, match=r"^`context\[0\]` is \{\}"):
        lm.next([{}])
    with pytest.raises(InvalidValueError, match=r"^`prompt` has byte 0x7a"):
        lm.complete("az")
    with pytest.raises(InvalidValueError, match=r"^`texts` has byte 0x7a"):
        lm.word_surprisal("az")


def test_only_the_argument_is_renamed() -> None:
    with (
        pytest.raises(InvalidValueError, match=r"^`outer\[1\]` is 5: rule of `inner`\.$"),
        called(inner="outer"),
    ):
        raise bad_value("inner[1]", 5, "rule of `inner`")
    with pytest.raises(InvalidValueError, match=r"^`inner_more`"), called(inner="outer"):
        raise bad_value("inner_more", 5, "rule")


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    lm = ByteLM(ToyLM(TOY, seed=5), eos=[EOS_STRING])
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path / "file", tmp_path / "file" / "below", f"{tmp_path}{os.sep}\0"):
        with pytest.raises(InvalidValueError, match=r"^`out` is .*folder"):
            lm.byte_logprobs("ab", out=bad)
