"""Models that give something else than log-probabilities, or fail, or change under our hands: what is wrong
is said where it arises, by an error that names the model; and what comes after is right again."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from toy import ToyLM

from genlm.bytes import AsyncByteLM, BeamParams, ByteBeamState, ByteLM
from genlm.bytes.byte_lm import LazyTrieState, StatefulTokenizedLM
from genlm.bytes.contexts.rows import ROOM, checked_row
from genlm.bytes.engine import Engine, adopt
from genlm.bytes.errors import GenlmBytesError, ImpossibleByteError, ModelOutputError, ModelStateError
from genlm.bytes.trie import AsyncTokenByteTrie

WORDS = [b"a", b"b", b"c", b" ", b"ab", b"ab ", b"cab"]
THIRD = 2  # the token whose entry is spoiled


def third(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda row: torch.where(torch.arange(len(row)) == THIRD, value, row)


class Tokenizer:
    """The longest matches."""

    bos_token_id = eos_token_id = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        ids, rest = [], text.encode()
        while rest:
            word = max((w for w in WORDS if rest.startswith(w)), key=len)
            ids.append(WORDS.index(word))
            rest = rest[len(word) :]
        return ids


@dataclass(eq=False)
class Given(ToyLM):
    """A toy whose rows are made into something else from the n-th on."""

    made: Callable[[torch.Tensor], Any] = lambda row: row
    since: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tokenizer = Tokenizer()

    async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
        assert all(i < self.size for i in token_ids), "asked about a token that it does not have"
        row = torch.log(torch.from_numpy(self.probs(token_ids))).float()
        self.asked.append(tuple(token_ids))
        return self.made(row) if len(self.asked) > self.since else row


def answers(llm: Any) -> dict[str, Callable[[], Any]]:
    """Ways to ask a model something."""
    lm = ByteLM(llm)
    return {
        "score": lambda: lm.score("ab cab", "ab ").logprob,
        "one tokenization": lambda: lm.next("ab cab ab c", method="tokenize")[97],
        "words": lambda: [word.surprisal for word in lm.word_surprisal("ab cab ab")],
        "naive": lambda: [word.naive for word in lm.word_surprisal("ab cab ab")],
        "tokens": lambda: lm.complete("ab c", max_bytes=4, temperature=0.0).text,
        "bytes": lambda: lm.complete("ab c", max_bytes=4, temperature=0.0, unit="byte").text,
    }


@cache
def usual() -> dict[str, Any]:
    return {name: ask() for name, ask in answers(Given(WORDS)).items()}


FINE: dict[str, Callable[[torch.Tensor], Any]] = {
    "list": lambda row: row.tolist(),
    "tuple": lambda row: tuple(row.tolist()),
    "array": lambda row: row.numpy(),
    "array that is read only": lambda row: np.broadcast_to(row.numpy(), row.shape),
    "half": lambda row: row.half(),
    "array of halves": lambda row: row.numpy().astype(np.float16),
    "bfloat16": lambda row: row.bfloat16(),
    "double": lambda row: row.double(),
    "with a gradient": lambda row: row.clone().requires_grad_(),
    "not contiguous": lambda row: row.repeat_interleave(2)[::2],
    "padded": lambda row: torch.cat([row, torch.full((5,), -torch.inf)]),
    "rounded": lambda row: row + ROOM / 2,
}
WRONG: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "None": (lambda row: None, "gave a NoneType: None"),
    "text": (lambda row: "abc", "gave a str: 'abc'"),
    "mapping": (lambda row: {0: 0.0}, "gave a dict"),
    "ragged": (lambda row: [0.0, [0.0]], "gave a list"),
    "integers": (lambda row: row.long(), "a tensor of torch.int64"),
    "list of integers": (lambda row: [0] * len(row), r"gave a list: \[0, 0"),
    "complex": (lambda row: row.to(torch.complex64), "a tensor of torch.complex64"),
    "a batch of one": (lambda row: row[None], r"a tensor of shape \(1, 7\).*Return one row"),
    "scalar": (lambda row: row[0], r"a tensor of shape \(\)"),
    "nothing": (lambda row: row[:0], r"a tensor of shape \(0,\)"),
    "on no device": (lambda row: row.to("meta"), "the meta device"),
    "nan": (lambda row: row * torch.nan, "nan as 7 of its 7 log-probabilities, the first for token 0"),
    "one nan": (third(torch.nan), "nan as 1 of its 7 log-probabilities, the first for token 2"),
    "one infinity": (third(torch.inf), "inf as the log-probability of token 2"),
    "logits": (lambda row: row + 8.0, "as the log-probability of token .*Apply a log-softmax"),
    "probabilities": (lambda row: row.exp() / 3, "sum to"),
    "low logits": (lambda row: row - 8.0, "sum to 0.000335"),
    "too few": (lambda row: row[:2], "sum to 0.*Normalise them"),
}


@pytest.mark.parametrize("how", FINE)
def test_what_a_model_may_give(how: str) -> None:
    for name, ask in answers(Given(WORDS, made=FINE[how])).items():
        want = usual()[name]
        assert ask() == (want if isinstance(want, str) else pytest.approx(want, abs=0.9)), name


@pytest.mark.parametrize("since", [0, 2])
@pytest.mark.parametrize("how", WRONG)
def test_what_it_may_not(how: str, since: int) -> None:
    """Every question is answered by the same error, at the first such row."""
    made, match = WRONG[how]
    for name in list(answers(ToyLM(WORDS)))[since:]:
        llm = Given(WORDS, made=made, since=since)
        with pytest.raises(
            ModelOutputError, match=f"Given gave.*{match}" if "gave" not in match else match
        ) as got:
            answers(llm)[name]()
        assert isinstance(got.value, GenlmBytesError) and isinstance(got.value, ValueError)
        assert "one natural log-probability for each token id" in str(got.value)


def test_by_choice_numbers_are_taken_as_they_are() -> None:
    params = BeamParams(K=3, check_model=False)
    (off,) = [ByteLM(Given(WORDS, made=lambda row: row - 8.0), params).score("ab")]
    assert off.logprob < -8.0
    with pytest.raises(ModelOutputError, match=r"shape \(1, 7\)"):  # which is no number
        ByteLM(Given(WORDS, made=lambda row: row[None]), params).score("ab")
    with pytest.raises(TypeError, match="`check_model` is 1"):
        BeamParams(check_model=1)  # type: ignore[arg-type]


async def test_a_token_model_by_itself_looks_at_nothing_unless_asked() -> None:
    llm = Given(WORDS, made=lambda row: torch.zeros(7))
    assert (await (StatefulTokenizedLM.initial(llm, []) << 1).logp_next()).sum() == 0
    with pytest.raises(ModelOutputError, match="sum to 7"):
        await (StatefulTokenizedLM.initial(llm, [], check_model=True) << 1).logp_next()


async def test_states_of_ones_own_are_looked_at_too() -> None:
    class State:
        async def logp_next(self) -> Any:
            return [[0.0]]

    state = LazyTrieState.initial(State(), AsyncTokenByteTrie.from_vocab(ToyLM(WORDS).byte_vocab))
    with pytest.raises(ModelOutputError, match="State gave a tensor of shape"):
        await state.materialize()


@pytest.mark.parametrize("size", [100, 49_152, 262_144])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_round_off_is_no_mistake(size: int, dtype: torch.dtype) -> None:
    """A log-softmax taken in any precision, of flat and of steep logits."""
    draw = torch.Generator().manual_seed(0)
    for spread, shift in [(0.0, 0.0), (1e-3, 30.0), (3.0, 0.0), (8.0, 15.0)]:
        logits = (torch.randn(size, generator=draw) * spread + shift).to(dtype)
        rounded = logits - torch.logsumexp(logits.float(), 0).to(dtype)
        for row in (torch.log_softmax(logits.float(), 0).to(dtype), rounded):
            assert checked_row(None, row) is not None
        if spread:
            with pytest.raises(ModelOutputError):
                checked_row(None, logits + 1.0)


def test_a_context_that_nothing_may_follow() -> None:
    assert checked_row(None, torch.full((7,), -torch.inf)) is not None


def test_every_row_is_looked_at() -> None:
    row = torch.full((49_152,), -1.0)
    with pytest.raises(ModelOutputError, match=r"sum to 1\.808e"):
        checked_row(None, row)
    row[40_000] = torch.nan
    with pytest.raises(ModelOutputError, match="the first for token 40000"):
        checked_row(None, row)


def test_no_model_at_all() -> None:
    class Half:
        byte_vocab = ToyLM(WORDS).byte_vocab

        def next_token_logprobs(self, token_ids: Any) -> Any:
            return torch.zeros(7)

    with pytest.raises(ModelOutputError, match=r"`next_token_logprobs` of Half gave a Tensor.*async def"):
        ByteLM(Half()).score("ab")
    del Half.next_token_logprobs
    with pytest.raises(TypeError, match="must be a model with an async method `next_token_logprobs"):
        ByteLM(Half()).score("ab")

    class Broken(Given):
        async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> Any:
            return self.no_such_thing  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="no_such_thing"):
        ByteLM(Broken(WORDS)).score("ab")


# --- ids beyond the logits ------------------------------------------------------------------------


@pytest.mark.parametrize("question", answers(ToyLM(WORDS)))
def test_tokens_beyond_the_logits_have_probability_zero(question: str) -> None:
    """The tokenizer's own path goes over them. The model is never asked what follows one."""
    few = Given(WORDS, logits=4)
    want = Given(WORDS[:4], logits=4)
    got, expected = answers(few)[question](), answers(want)[question]()
    if question == "naive":  # the tokens of the one tokenizer have no figure; the other's have
        assert np.isnan(got).all()
    else:
        assert got == expected if isinstance(got, str) else got == pytest.approx(expected)


def test_a_byte_that_only_such_tokens_have() -> None:
    for name, ask in answers(Given(WORDS, logits=3)).items():
        with pytest.raises(ImpossibleByteError):
            pytest.fail(f"{name}: {ask()}")


# --- a model that is changed ----------------------------------------------------------------------


@pytest.fixture
def llama() -> Any:
    return tiny.transformer("llama")


@torch.no_grad()
def plain(llm: Any, ids: list[int]) -> torch.Tensor:
    return torch.log_softmax(llm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].float(), -1)


IDS = [1, 2, 3, 4]


def test_training_mode_is_an_error(llama: Any) -> None:
    engine = Engine(llama)
    engine.next_token_logprobs_sync(IDS)
    llama.model.train()
    with pytest.raises(ModelStateError, match=r"LlamaForCausalLM is in training mode.*Call `model.eval\(\)`"):
        engine.next_token_logprobs_sync([*IDS, 5])
    llama.model.eval()
    torch.testing.assert_close(engine.next_token_logprobs_sync([*IDS, 5]), plain(llama, [*IDS, 5]))


async def test_training_mode_without_the_engine() -> None:
    llm = tiny.transformer("bloom")
    beam = await ByteBeamState.initial(llm, BeamParams(K=2))
    llm.model.train()
    with pytest.raises(ModelStateError, match="BloomForCausalLM is in training mode"):
        await beam.prefill(b"the")


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a step": lambda model: torch.optim.SGD(model.parameters(), 0.5).step(),
    "loaded": lambda model: model.load_state_dict({k: -v for k, v in model.state_dict().items()}),
    "scaled": lambda model: model.get_input_embeddings().weight.mul_(1.5),
    "halved": lambda model: model.half(),
    "other precision": lambda model: model.to(torch.bfloat16),
    "doubled": lambda model: model.double(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("trees", [True, False])
def test_changed_weights_are_noticed(llama: Any, change: str, trees: bool, caplog: Any) -> None:
    engine = Engine(llama, trees=trees)
    before = engine.next_token_logprobs_sync(IDS)
    for weight in llama.model.parameters():
        weight.grad = torch.ones_like(weight)
    with torch.no_grad(), caplog.at_level(logging.INFO, "genlm.bytes"):
        CHANGES[change](llama.model)
        got = engine.next_token_logprobs_sync([*IDS, 5])
    # In half precision round-off depends on the order of sums.
    near = 0.12 if llama.model.dtype in (torch.half, torch.bfloat16) else 1e-3
    torch.testing.assert_close(got, plain(llama, [*IDS, 5]), atol=near, rtol=0.0)
    again = engine.next_token_logprobs_sync(IDS)
    assert not torch.equal(again, before)
    torch.testing.assert_close(again, plain(llama, IDS), atol=near, rtol=0.0)
    assert caplog.text.count("its contexts are computed again") == 1


def test_no_more_of_an_engine_whose_model_became_unfit(llama: Any, monkeypatch: Any) -> None:
    engine = Engine(llama)
    llama.model.double()
    monkeypatch.setattr(llama.model.config, "layer_types", ["linear_attention"], raising=False)
    with pytest.raises(GenlmBytesError, match="linear_attention"):
        engine.next_token_logprobs_sync(IDS)
    monkeypatch.undo()
    torch.testing.assert_close(engine.next_token_logprobs_sync(IDS), plain(llama, IDS))


def test_logits_that_are_no_numbers(llama: Any) -> None:
    """The error names the model; who asked for something else in that forward has it."""
    engine = Engine(llama)
    weight = llama.model.get_input_embeddings().weight
    was = weight[7].clone()
    with torch.no_grad():
        weight[7] = torch.inf
    bad, good = asyncio.run(_both(engine, [[1, 7], [1, 2]]))
    assert isinstance(bad, ModelOutputError) and "LlamaForCausalLM gave nan" in str(bad)
    torch.testing.assert_close(good, plain(llama, [1, 2]), atol=1e-4, rtol=0.0)
    with torch.no_grad():
        weight[7] = was
    torch.testing.assert_close(
        engine.next_token_logprobs_sync([1, 7]), plain(llama, [1, 7]), atol=1e-4, rtol=0.0
    )


async def _both(engine: Engine, contexts: list[list[int]]) -> list[Any]:
    return await engine.outcomes([engine.node(ids) for ids in contexts])


# --- failing and cancelled ------------------------------------------------------------------------


class Slow(Given):
    """A toy that waits a few passes of the loop before it answers, and fails at its n-th question."""

    fails_at = 0

    async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> Any:
        for _ in range(len(token_ids) % 3 + 1):
            await asyncio.sleep(0)
        if self.fails_at and len(self.asked) + 1 == self.fails_at:
            self.asked.append(())
            raise RuntimeError("device lost")
        return await super().next_token_logprobs(token_ids)


def jobs(llm: Any) -> dict[str, Callable[[], Any]]:
    lm = AsyncByteLM(llm, BeamParams(K=4, prune_threshold=0.01))
    texts = ["ab cab", "cab ab", "abc", "c"]
    return {
        "complete": lambda: lm.complete(["ab", "ca"], max_bytes=3, temperature=0.0, unit="byte"),
        "several": lambda: lm.complete("ab c", n=3, seed=1, max_bytes=3),
        "score": lambda: lm.score(texts),
        "words": lambda: lm.word_surprisal(texts),
        "next": lambda: lm.next("ab cab ab c"),
    }


def shown(found: Any) -> str:
    return repr([getattr(one, "logprobs", one) for one in found] if isinstance(found, list) else found)


JOBS = [
    pytest.param(name, marks=() if name in ("complete", "score") else pytest.mark.slow)
    for name in jobs(ToyLM(WORDS))
]


async def cancelled_after(job: Callable[[], Any], passes: int) -> bool:
    """Begin something and cancel it after so many passes of the loop; whether it had ended before."""
    task = asyncio.ensure_future(job())
    for _ in range(passes):
        if task.done():
            break
        await asyncio.sleep(0)
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(asyncio.all_tasks()) == 1, "something was left running"
    return ended


@pytest.mark.parametrize("name", JOBS)
async def test_cancelled_at_every_point(name: str) -> None:
    """Nothing is left behind, no coroutine unawaited, and the next answer is right."""
    want = shown(await jobs(Slow(WORDS))[name]())
    job = jobs(Slow(WORDS))[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        passes, ended = 0, False
        while not ended:
            ended = await cancelled_after(job, passes)
            passes += 1 + passes // 6
        gc.collect()
    assert passes > 10 and shown(await job()) == want


@pytest.mark.parametrize("name", JOBS)
async def test_a_model_that_fails_at_its_nth_question(name: str) -> None:
    """The model's own error comes out, and the next answer is right."""
    want = shown(await jobs(Slow(WORDS))[name]())
    for n in (1, 2, 9):
        llm = Slow(WORDS)
        llm.fails_at = n
        job = jobs(llm)[name]
        try:
            found = await job()
        except RuntimeError as error:
            assert "device lost" in str(error) and len(llm.asked) >= n
        else:
            assert shown(found) == want and len(llm.asked) < n
        llm.fails_at = 0
        assert shown(await job()) == want
    gc.collect()  # an error that nobody asked for would be a warning now


@pytest.mark.parametrize("name", ["several", "score", "words"])
async def test_the_engine_under_cancellation_and_failure(name: str, llama: Any, monkeypatch: Any) -> None:
    """As above, through an engine whose forwards fail now and then."""
    engine = adopt(llama)
    lm = AsyncByteLM(llama, BeamParams(K=3, prune_threshold=0.01))
    texts = ["the and", "and in", "th"]
    ask: dict[str, Callable[[], Any]] = {
        "several": lambda: lm.complete("the an", n=2, seed=1, max_bytes=2),
        "score": lambda: lm.score(texts),
        "words": lambda: lm.word_surprisal(texts),
    }
    engine.deterministic = True
    await ask[name]()  # which leaves the beam that each begins with behind
    engine.clear_cache()
    want = shown(await ask[name]())
    real, count = engine.backend.runner.model, 0

    def unsteady(*args: Any, **given: Any) -> Any:
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise RuntimeError("device lost")
        return real(*args, **given)

    for passes in (1, 5, 40, 200, 1000):
        engine.clear_cache()
        monkeypatch.setattr(engine.backend.runner, "model", unsteady)
        task = asyncio.ensure_future(ask[name]())
        for _ in range(passes):
            await asyncio.sleep(0)
        task.cancel()
        (found,) = await asyncio.gather(task, return_exceptions=True)
        assert (
            isinstance(found, asyncio.CancelledError) or "device lost" in str(found) or shown(found) == want
        )
        monkeypatch.undo()
    engine.clear_cache()
    assert shown(await ask[name]()) == want
