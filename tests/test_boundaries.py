"""Prompts that stop anywhere, on the real model; and the page that explains completion, run as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from toy import EOS_STRING, FixedLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import InvalidValueError

PAGE = Path(__file__).parents[1] / "docs" / "completing.md"
BEGINNING, NEW_BYTES = "The capital of France is", 40


@pytest.fixture(scope="module")
def lm(default_llm):
    return ByteLM(default_llm)


@pytest.fixture(scope="module")
def whole(lm):
    """What the model writes if the prompt ends where a token does."""
    return BEGINNING + lm.complete(BEGINNING, max_bytes=NEW_BYTES).text


@pytest.mark.real_model
class TestBoundaries:
    @pytest.mark.slow
    def test_cut_anywhere_the_text_goes_on_as_it_would_have(self, lm, whole):
        """The greedy text, cut at every third byte, is restored; without healing it is not."""
        cuts = range(len(BEGINNING) + 1, len(BEGINNING) + NEW_BYTES - 12, 3)
        prompts, rest = [whole[:cut] for cut in cuts], [whole[cut : cut + 8] for cut in cuts]
        healed = [c.text for c in lm.complete(prompts, max_bytes=8)]
        assert sum(a == b for a, b in zip(healed, rest, strict=True)) >= 0.9 * len(prompts)
        plain = [c.text for c in lm.complete(prompts, max_bytes=8, token_healing=False)]
        assert sum(a == b for a, b in zip(plain, rest, strict=True)) < 0.7 * len(prompts)

    @pytest.mark.parametrize(
        ("prompt", "beginning"),
        [
            ("The capital of Fra", "nce"),
            ("The first man on the moon was Neil Arm", "strong"),
            ("The capital of France is ", "Paris"),
            ("def add(a, b):\n    return a +", " b"),
            ("for i in ran", "ge("),
            ("See https:/", "/"),
            ("if a == b:\n    return a\nif c =", "= "),
            ("1, 2, 3, 4, 5, 6, 7, 8, 9, 1", "0"),
            ("int main() {\n    print", '("'),
        ],
    )
    def test_prompts_that_stop_in_the_middle(self, lm, prompt, beginning):
        assert lm.complete(prompt, max_bytes=12).text.startswith(beginning)

    @pytest.mark.parametrize("prompt", ["", "\t", "a \n\n\n", "a\x00b\x00", "<|im_e", "<|im_end|>", b"\xc3"])
    def test_odd_prompts_are_completed(self, lm, prompt):
        completion = lm.complete(prompt, max_bytes=6)
        assert completion.finish_reason in ("length", "eos")
        completion.text.encode()

    def test_an_answer_goes_on_from_where_it_stops(self, lm):
        question = {"role": "user", "content": "What is the capital of France?"}
        said = {"role": "assistant", "content": "The capital of Fra"}
        assert lm.complete([question, said], max_bytes=60).text == "nce is Paris."
        assert "Paris" in lm.complete([question], max_bytes=60).text


def test_a_long_prompt():
    """20 kB, without recursion."""
    unit = b" ab"
    llm = FixedLM([100 * unit, b"a", b"b", b" "], rule=lambda context: [0.5, 0.2, 0.1, 0.2])
    lm = ByteLM(llm, BeamParams(K=1, prune_threshold=0.2))
    completion = lm.complete(unit * 7000, max_bytes=4)
    assert (len(completion.bytes), completion.usage.prompt_bytes) == (4, 21000)


@pytest.mark.parametrize("prompt", ["a<e", "a<", "<e", "<e><e"])
@pytest.mark.parametrize("unit", ["token", "byte"])
@pytest.mark.parametrize(
    "params", [BeamParams(K=1, prune_threshold=0.5), BeamParams(), BeamParams(exact=True)]
)
def test_a_prompt_that_stops_inside_an_end(prompt, unit, params):
    """The likeliest way on is the token that ends the sequence; but the bytes were given as text."""

    def rule(context):
        return [0.05, 0.05, 0.05, 0.8, 0.05]

    llm = FixedLM([b"a", b"<", b"e", EOS_STRING, b">"], rule=rule)
    lm = ByteLM(llm, params, eos=[EOS_STRING])
    completion = lm.complete(prompt, max_bytes=3, unit=unit)
    assert completion.finish_reason == "eos"
    assert completion.bytes == b""
    only_so = ByteLM(FixedLM([b"a", EOS_STRING], rule=lambda context: [0.2, 0.8]), eos=[EOS_STRING])
    assert only_so.complete("a<", unit=unit).finish_reason == "dead_end"


@pytest.mark.thorough
@pytest.mark.real_model
def test_the_page_runs_as_written(default_llm, monkeypatch, capsys):
    monkeypatch.setattr("genlm.bytes.models.load_model", lambda *_, **__: default_llm)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 8
    namespace: dict[str, object] = {"__name__": "page"}
    for i, block in enumerate(blocks):
        code = compile(block, f"completing.md, example {i + 1}", "exec", dont_inherit=True)
        if "suffix=" in block:  # the embedded model has no tokens for it
            with pytest.raises(InvalidValueError, match="no known tokens for filling in the middle"):
                exec(code, namespace)
        else:
            exec(code, namespace)
    said = capsys.readouterr().out
    assert said.startswith("nce is Paris\n") and said.endswith('{"age":36}\n')
