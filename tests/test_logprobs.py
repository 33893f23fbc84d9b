"""What a completion gives back of log-probabilities: it is what scoring gives, and what was drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tiny
from brute import Brute
from budget import examples
from cli_runner import Run, document
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, ToyLM, vocabularies

from genlm.bytes import AsyncByteLM, BeamParams, ByteLM
from genlm.bytes.errors import GenlmBytesError, InvalidTypeError, InvalidValueError
from genlm.bytes.generate import Completion, WeightedCompletions

EXACT = BeamParams(exact=True)
WAYS: dict[str, dict[str, Any]] = {
    "token": {"unit": "token"},
    "byte": {"unit": "byte"},
    "particles": {"particles": 3},
    "mask": {"mask": lambda text: {*b"abc", 257}},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def toy(seed: int = 1, words: list[bytes] = TOY) -> ByteLM:
    return ByteLM(ToyLM(words, seed), EXACT, eos=[EOS_STRING] if EOS_STRING in words else [])


def every(found: Any) -> list[Completion]:
    return list(found) if isinstance(found, list) else [found]


@ways
@pytest.mark.parametrize("echo", [False, True])
def test_of_bytes_they_are_the_score(way: dict[str, Any], echo: bool) -> None:
    """Where bytes are drawn, and where tokens are; the end too; of the prompt with `echo`."""
    ends = 0
    for seed in range(3):
        lm, prompt = toy(seed), b"ab"
        for done in every(lm.complete(prompt, max_bytes=5, seed=seed, logprobs=True, echo=echo, **way)):
            assert done.logprobs is not None and len(done.logprobs) == len(done.bytes)
            begun = done.usage.prompt_bytes if echo else 0
            ended = done.finish_reason == "eos"
            want = lm.score(done.bytes[begun:], prompt, end=ended)
            assert done.logprobs[begun:] == pytest.approx(want.logprobs, abs=1e-12)
            assert done.end_logprob == (pytest.approx(want.end, abs=1e-12) if ended else None)
            if echo:
                assert done.logprobs[:begun] == pytest.approx(lm.score(prompt).logprobs, abs=1e-12)
            if done.token_ids is None:
                assert done.logprob == pytest.approx(want.logprob, abs=1e-9)
            else:
                assert done.logprob < want.logprob + 1e-9  # of one tokenization
            ends += ended
    assert ends


@examples(25)
@given(
    words=vocabularies(most=5, longest=3),
    seed=st.integers(0, 99),
    prompt=st.lists(st.sampled_from(b"abc"), max_size=3).map(bytes),
)
def test_of_tokens_they_are_those_of_the_sequence_drawn(words: list[bytes], seed: int, prompt: bytes) -> None:
    """With the tokens before them one sequence: its probability, by that of the prompt's bytes."""
    model = ToyLM(words, seed)
    done = ByteLM(model, EXACT).complete(prompt, max_tokens=4, seed=seed, top_logprobs=3)
    assert done.token_ids is not None and done.token_bytes is not None and done.token_logprobs is not None
    assert done.prompt_token_ids is not None and done.token_top is not None and done.logprobs is None
    assert len(done.token_ids) == done.usage.completion_tokens == 4
    assert b"".join(done.token_bytes) == done.bytes and b"" not in done.token_bytes
    ids = (*done.prompt_token_ids, *done.token_ids)
    assert b"".join(words[i] for i in ids) == prompt + done.bytes
    drawn = sum(math.log(model.probs(ids[:n])[token]) for n, token in enumerate(ids))
    assert done.token_logprobs.sum() == pytest.approx(drawn - math.log(Brute(model).prefix(list(prompt))))
    assert done.logprob == pytest.approx(done.token_logprobs.sum())
    begun = len(done.prompt_token_ids)
    for n in range(1, 4):
        probs = model.probs(ids[: begun + n])
        assert done.token_logprobs[n] == pytest.approx(math.log(probs[done.token_ids[n]]))
        want = sorted(np.log(probs), reverse=True)[:3]
        assert [found.logprob for found in done.token_top[n]] == pytest.approx(want)
        assert all(words[found.token_id or 0] == found.bytes for found in done.token_top[n])


def test_alternatives_at_the_prompts_edge_are_all_that_may_cover_it() -> None:
    """The first token's may begin in the prompt: what each would add, over all cuts; they sum to 1."""
    for seed in range(8):
        lm, words = toy(seed, [b"a", b"b", b"ab", b"abb"]), [b"a", b"b", b"ab", b"abb"]
        done = lm.complete("ab", max_tokens=1, top_logprobs=50)
        (top,), (token,), (logp,) = done.token_top, done.token_ids, done.token_logprobs  # type: ignore
        assert any(found.token_id == token and found.logprob == logp for found in top)
        for found in top:
            assert found.token_id is not None and words[found.token_id].endswith(found.bytes)
        if done.prompt_token_ids == () and done.token_bytes == (b"b",):  # abb: nothing was drawn before it
            assert sum(math.exp(found.logprob) for found in top) == pytest.approx(1.0)
            break
    else:
        raise AssertionError("no completion covers the edge")


@ways
def test_alternatives_of_bytes(way: dict[str, Any]) -> None:
    """The likeliest of the next byte's distribution, masks or not; with `echo`, of the prompt's too."""
    lm = toy()
    for done in every(
        lm.complete(b"ab", max_bytes=3, seed=2, logprobs=True, top_logprobs=2, echo=True, **way)
    ):
        assert done.top is not None and len(done.top) == len(done.bytes)
        for at, found in enumerate(done.top):
            chart = lm.next(done.bytes[:at], method="beam").materialize()
            want = sorted((-p, b) for b, p in chart.items() if b is not None)[:2]
            assert [one.logprob for one in found] == pytest.approx([-p for p, _ in want], abs=1e-9)
            assert [one.bytes for one in found] == [b"" if b == 257 else bytes([b]) for _, b in want]
            assert all(one.token_id is None for one in found)


@ways
def test_what_is_not_asked_for_is_not_computed(way: dict[str, Any]) -> None:
    """No context more; nor does asking change what is drawn."""
    asked = []
    for options in ({}, {"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}):
        model = ToyLM(TOY, 3)
        (done, *_) = every(
            ByteLM(model, EXACT, eos=[EOS_STRING]).complete("ab", max_bytes=4, seed=1, **options, **way)
        )
        asked.append((done.bytes, done.logprob, sorted(model.asked)))
        if not options:
            assert done.logprobs is done.top is done.token_top is done.end_logprob is None
    assert asked[0] == asked[1]
    assert asked[0][:2] == asked[2][:2]


@pytest.mark.parametrize("way", [WAYS["token"], WAYS["byte"], WAYS["mask"]], ids=["token", "byte", "mask"])
@pytest.mark.parametrize("stop", [None, "ab", "b"])
def test_streams_and_batches_agree(way: dict[str, Any], stop: str | None) -> None:
    """The chunks of a stream, joined, are the whole; in a batch each is as alone."""
    for seed in range(2):
        lm = toy(seed)
        options = {"max_bytes": 7, "stop": stop, "logprobs": True, "top_logprobs": 2, "echo": True, **way}
        whole = lm.complete("ab", **options)
        stream = lm.stream("ab", **options)
        chunks = list(stream)
        for other in (stream.completion, lm.complete(["c", "ab"], **options)[1]):
            assert other == whole
            for name in ("logprobs", "token_logprobs"):
                mine, theirs = getattr(whole, name), getattr(other, name)
                assert mine is theirs is None or mine.tolist() == pytest.approx(theirs.tolist(), abs=1e-12)
            assert [getattr(other, n) for n in ("token_ids", "token_bytes", "prompt_token_ids")] == [
                getattr(whole, n) for n in ("token_ids", "token_bytes", "prompt_token_ids")
            ]
        if whole.token_ids is not None:
            assert tuple(i for chunk in chunks for i in chunk.token_ids) == whole.token_ids
            assert b"".join(b for c in chunks for b in c.token_bytes) == whole.bytes[2:]
            assert tuple(top for chunk in chunks for top in chunk.token_top) == whole.token_top
        else:
            joined = np.concatenate([chunk.logprobs for chunk in chunks])
            assert joined == pytest.approx(whole.logprobs[2:])
            assert tuple(top for chunk in chunks for top in chunk.top) == whole.top[2:]


def test_a_token_that_is_cut_stands_whole() -> None:
    for seed in range(10):
        lm = toy(seed)
        done = lm.complete("c", max_bytes=2, seed=seed)
        last = TOY[done.token_ids[-1]] if done.token_ids else b""
        if done.token_bytes and len(done.token_bytes[-1]) < len(last):
            assert last.startswith(done.token_bytes[-1]) and b"".join(done.token_bytes) == done.bytes
            assert done.logprob > done.token_logprobs.sum()  # all tokens that begin so
            break
    else:
        raise AssertionError("no token was cut")


def test_ensembles() -> None:
    both = ByteLM.ensemble([toy(1), toy(2, [*TOY, b"ca"])])
    (done, *_) = every(both.complete("ab", max_bytes=4, seed=3, logprobs=True, top_logprobs=2, echo=True))
    assert done.logprobs[:2] == pytest.approx(both.score("ab").logprobs)
    assert done.logprobs[2:] == pytest.approx(both.score(done.bytes[2:], "ab").logprobs)
    assert [len(top) for top in done.top] == [2] * len(done.bytes)
    with pytest.raises(GenlmBytesError, match="has no tokens of its own"):
        both.token_logprobs("ab")


def test_what_was_given_as_tokens_has_none() -> None:
    """A special token, and what stands before it; the open text after it has."""
    lm = toy()
    done = lm.complete(("a", 6, "b"), max_bytes=2, logprobs=True, top_logprobs=1, echo=True)
    assert done.bytes.startswith(b"a<e>b")
    assert np.isnan(done.logprobs[:4]).all() and done.top[:4] == ((),) * 4
    assert done.logprobs[4] == pytest.approx(lm.score("b", ("a", 6)).logprob)
    closed = lm.complete("ab", max_bytes=2, logprobs=True, echo=True, token_healing=False)
    assert closed.logprobs[:2] == pytest.approx(lm.score("ab").logprobs)


class TestTokenLogprobs:
    def test_without_a_tokenizer_they_are_the_longest_matches(self) -> None:
        model = ToyLM(TOY, 2)
        lm = ByteLM(model, EXACT, eos=[EOS_STRING])
        found = lm.token_logprobs("abcab")
        assert found.token_ids == (2, 1) and found.token_bytes == (b"abc", b"ab")
        assert found.offsets.tolist() == [0, 3]
        want = [math.log(model.probs(())[2]), math.log(model.probs((2,))[1])]
        assert found.logprobs.tolist() == pytest.approx(want) and found.logprob == pytest.approx(sum(want))
        assert found.score.logprobs == pytest.approx(lm.score("abcab").logprobs)
        assert found.logprob < found.score.logprob and "2 tokens" in repr(found)

    def test_a_batch_and_a_token_over_the_contexts_end(self) -> None:
        lm = toy(2)
        first, second = lm.token_logprobs(["bc", ""], ["a", "b"])
        assert first.token_ids == (2,) and first.offsets.tolist() == [-1] and first.token_bytes == (b"bc",)
        assert len(second) == 0 and second.logprob == 0.0

    def test_where_there_are_none(self) -> None:
        with pytest.raises(InvalidValueError, match="do not spell it"):
            ByteLM(ToyLM([b"ab", b"a", b"b"]), EXACT).token_logprobs("abc", on_impossible="inf")
        with pytest.raises(InvalidTypeError, match="windw"):
            toy().token_logprobs("ab", windw=3)


async def test_transformers_goes_on_from_the_tokens() -> None:
    """Greedy: what it generates after the prompt's tokens and ours is what we would have drawn next."""
    import torch

    llm = tiny.transformer("gpt2")
    lm = AsyncByteLM(llm)
    done = await lm.complete("the an", max_tokens=3, valid_utf8=False)
    more = await lm.complete("the an", max_tokens=7, valid_utf8=False)
    ids = [*done.prompt_token_ids, *done.token_ids]
    made = llm.model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)[0].tolist()
    assert made == [*more.prompt_token_ids, *more.token_ids]


class TestCommand:
    def test_a_document(self, run: Run, lm: ByteLM) -> None:
        args = ("complete", "the", "--max-bytes", "5", "--json", "--echo")
        plain = document(run(*args))["completions"][0]
        assert "logprobs" not in plain and "tokens" not in plain
        found = document(run(*args, "--logprobs", "--top-logprobs", "2"))["completions"][0]
        want = lm.complete("the", max_bytes=5, logprobs=True, top_logprobs=2, echo=True)
        assert found["logprobs"] == pytest.approx(want.logprobs.tolist(), abs=1e-3)
        assert [len(top) for top in found["top"]] == [2] * len(want.bytes)
        assert [token["id"] for token in found["tokens"]] == list(want.token_ids)
        assert [len(token["top"]) for token in found["tokens"]] == [2] * len(want.token_ids)
        assert found["prompt_token_ids"] == list(want.prompt_token_ids)
        only = document(run("complete", "the", "--max-bytes", "5", "--json", "--top-logprobs", "1"))
        assert "logprobs" not in only["completions"][0] and "top" in only["completions"][0]["tokens"][0]

    @pytest.mark.parametrize("option", [("--logprobs",), ("--top-logprobs", "2")])
    def test_they_are_for_programs(self, run: Run, option: tuple[str, ...]) -> None:
        done = run("complete", "the", *option)
        assert done.code == 2 and option[0] in done.err and "--json" in done.err


def test_weighted_completions_stay_such() -> None:
    found = toy().complete("ab", max_bytes=3, particles=4, seed=1, logprobs=True)
    assert isinstance(found, WeightedCompletions) and len(found.posterior)
    assert all(len(done.logprobs) == len(done.bytes) for done in found)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_refused(count: Any) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match="`top_logprobs`"):
        toy().complete("ab", top_logprobs=count)
