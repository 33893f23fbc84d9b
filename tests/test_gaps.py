"""Paths that no other test takes: rare models, rare machines, rare turns."""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
import runpy
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, BatchingToy, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteBeamState, TokenByteTrie
from genlm.bytes.backends.async_lm import cached
from genlm.bytes.backends.hf_tree.kv_cache import KVCache
from genlm.bytes.byte_lm import draft
from genlm.bytes.byte_lm.constants import ToleranceConstants
from genlm.bytes.byte_lm.draft import Drafter
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.tolerance import ToleranceRule
from genlm.bytes.contexts.tree import ContextTree
from genlm.bytes.engine import Engine, adopt
from genlm.bytes.errors import (
    EmptyBeamError,
    GenlmBytesError,
    ImpossibleByteError,
    ModelUnavailableError,
    UnsupportedModelError,
)
from genlm.bytes.models import convert, embedded, load_model, progress
from genlm.bytes.trie import EOS, TrieMode, sums
from genlm.bytes.vocab import shared_trie


def test_the_package_is_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["genlm-bytes", "--no-such-option"])
    monkeypatch.delitem(sys.modules, "genlm.bytes.__main__", raising=False)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("genlm.bytes", run_name="__main__")
    assert caught.value.code == 2
    assert runpy.run_module("genlm.bytes", run_name="imported")["main"]  # which runs nothing


# --- the beam -------------------------------------------------------------------------------------


async def test_a_text_that_only_an_end_could_go_on_with() -> None:
    """`<` is the beginning of the end token and of no other: read as text, and then there is nothing."""
    params = BeamParams(K=5, eos_byte_strings={EOS_STRING})
    beam = await (await ByteBeamState.initial(ToyLM(TOY), params)).prefill(b"<")
    assert [state.weight for state in beam] == [-math.inf] and beam.logZ == -math.inf
    with pytest.raises(EmptyBeamError, match="no candidate of the beam has a next byte"):
        await beam.logp_next()


async def test_an_end_token_read_as_text() -> None:
    params = BeamParams(K=5, eos_byte_strings={EOS_STRING})
    (start,) = await ByteBeamState.initial(ToyLM(TOY), params)
    text = start.with_mode(TrieMode.WITHOUT_EOS)
    assert start.logp_next[EOS] > -math.inf and text.logp_next[EOS] == -math.inf
    assert start << ord("<") is None
    for byte in EOS_STRING:
        text = text << byte
    trie = start.trie.trie
    assert text.get_all_EOT() == trie.tokens_ending_at(text.node) and text.get_EOT() is not None
    assert [state.lm_state.context for state in text.extend_all()] == [[6]]


@examples(40)
@given(vocabularies(complete=False), st.text("abc", min_size=1, max_size=12), st.integers(0, 9))
async def test_reading_ahead_changes_nothing(words: list[bytes], text: str, seed: int) -> None:
    """Vocabularies in which an extension that is known cannot always read the next byte."""
    params = BeamParams(K=4, prune_threshold=0.01)
    found = []
    for kind in (ToyLM, BatchingToy):
        llm = kind(words, seed=seed, dtype=torch.float32)
        start = await ByteBeamState.initial(llm, params, initial_context=[])
        try:
            beam = await start.prefill(text.encode())
        except ImpossibleByteError as error:
            found.append((error.offset, error.byte))
        else:
            found.append([(round(s.weight, 3), s.lm_state.context, s.partial) for s in beam])
    assert found[0] == found[1]


async def test_a_draft_of_probability_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `ab` the model rules `a` out, which the drafted path goes on with."""

    class Model(BatchingToy):
        def probs(self, context: Sequence[int]) -> np.ndarray:
            return np.array([0.0, 1.0, 0.0] if list(context) == [2] else [0.4, 0.3, 0.3])

    resume, asked = Drafter.resume, []

    async def at_most_a_hundred_times(self: Any, index: int, model: Any) -> Any:
        asked.append(index)
        assert len(asked) < 100, "it would never end"
        return await resume(self, index, model)

    monkeypatch.setattr(Drafter, "resume", at_most_a_hundred_times)
    llm = Model([b"a", b"b", b"ab"], dtype=torch.float32)
    start = await ByteBeamState.initial(llm, BeamParams(K=5, heal=False), initial_context=[])
    assert (await start.prefill(b"aba")).logZ == pytest.approx(math.log(0.4 * 0.3 * 0.7))


async def test_a_known_extension_that_cannot_read_on() -> None:
    llm = BatchingToy([b"a", b"ab", b"abc"], dtype=torch.float32)
    start = await ByteBeamState.initial(llm, BeamParams(K=5), initial_context=[])
    for context in ([], [0], [1]):
        await cached(llm).next_token_logprobs(context)
    beam = await start.prefill(b"abc")
    assert [(state.lm_state.context, bytes(state.partial)) for state in beam] == [([], b"abc")]


class TestGuess:
    TRIE = TokenByteTrie(ToyLM([b"a", b"abb", b"b", b"xy"]).byte_vocab)

    def guess(self, text: bytes, encode: Any = None) -> list[int]:
        llm = SimpleNamespace(tokenizer=SimpleNamespace(encode=encode) if encode else None)
        return draft_tokens(llm, self.TRIE, text)

    def test_no_tokenizer(self) -> None:
        assert self.guess(b"abba") == [1, 0]
        assert draft_tokens(object(), self.TRIE, b"abba") == [1, 0]
        assert draft_tokens(ToyLM(TOY), self.TRIE, b"abba") == [1, 0]  # one that cannot encode

    def test_back_to_the_longest_end(self) -> None:
        assert self.guess(b"abab") == [0, 2, 0, 2]

    def test_as_far_as_tokens_go(self) -> None:
        assert self.guess(b"ab?a") == [0, 2]
        assert self.guess(b"ax") == [0] and self.guess(b"xa") == []
        assert self.guess(b"") == []

    def test_a_tokenizer_that_spells_it(self) -> None:
        assert self.guess(b"abb", lambda text, add_special_tokens: [0, 2, 2]) == [0, 2, 2]
        assert self.guess(b"ab\xff", lambda text, add_special_tokens: [0, 2]) == [0, 2]

    def test_a_tokenizer_that_normalises_or_knows_more(self) -> None:
        assert self.guess(b"abb", lambda text, add_special_tokens: [2]) == [1]
        assert self.guess(b"abb", lambda text, add_special_tokens: [99]) == [1]


# --- the engine -----------------------------------------------------------------------------------


class TestEngine:
    def test_asked_again_nothing_runs(self) -> None:
        engine = Engine(tiny.transformer("llama"))
        first = engine.next_token_logprobs_sync([0, 5, 6])
        forwards = engine.statistics().forwards
        assert torch.equal(engine.next_token_logprobs_sync([0, 5, 6]), first)
        assert engine.statistics().forwards == forwards

    def test_a_model_that_returns_all_logits(self) -> None:
        llm = tiny.transformer("llama")
        want = Engine(llm).batch_next_token_logprobs_sync([[0, 5], [0, 5, 6], [0, 7]])
        forward = llm.model.forward

        def older(
            input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None
        ):
            return forward(input_ids, attention_mask, position_ids, past_key_values, use_cache=use_cache)

        llm.model.forward = older
        engine = Engine(llm)
        assert not engine.backend.runner._keeps_logits
        torch.testing.assert_close(engine.batch_next_token_logprobs_sync([[0, 5], [0, 5, 6], [0, 7]]), want)

    @pytest.mark.parametrize(
        "how, match", [("fails", "trial run failed: KeyError: 'odd'"), ("ignores", "off by")]
    )
    async def test_a_model_that_fails_or_ignores_the_mask(
        self, how: str, match: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Refused with the reason, and served by plain forwards."""
        llm = tiny.transformer("llama")
        forward = llm.model.forward

        def changed(input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
            if how == "fails" and position_ids is not None:
                raise KeyError("odd")
            return forward(input_ids, None, position_ids, past_key_values, **kwargs)

        llm.model.forward = changed
        with pytest.raises(UnsupportedModelError, match=match):
            Engine(llm)
        with caplog.at_level(logging.WARNING):
            served = adopt(llm)
        assert served is not llm and adopt(llm) is served
        got = await served.next_token_logprobs([0, 5, 6])
        torch.testing.assert_close(got, llm.next_token_logprobs_uncached([0, 5, 6]))
        assert match in caplog.text and "LlamaForCausalLM runs without the engine" in caplog.text


def test_slots_before_the_first_forward() -> None:
    """Nothing is known of the layers' shapes yet, so slots cost nothing and no bound applies."""
    cache = KVCache(2, torch.device("cpu"), most_bytes=1)
    assert cache.nbytes == 0 and cache.get_max_length() == -1
    tree = ContextTree()
    cache.prepare([tree.find([i]) for i in range(100)])
    assert cache.used == 100 <= cache.capacity
    assert cache.nbytes == 0 and cache.evictions == 0


# --- the trie -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", TrieMode)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_rows_compiled_and_plain_agree(mode: TrieMode, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that numba compiles, run as the Python that it is."""
    trie = TokenByteTrie(ToyLM(TOY).byte_vocab, eos_byte_strings=[EOS_STRING])
    weights = np.random.default_rng(0).random((batch, len(TOY))).astype(np.float32)
    summed, most = trie.batch_weight_sum(weights, mode), trie.batch_weight_max(weights)
    monkeypatch.setattr(sums, "_compiled", lambda: sums._rows)
    torch.testing.assert_close(torch.as_tensor(trie.batch_weight_sum(weights, mode)), torch.as_tensor(summed))
    torch.testing.assert_close(torch.as_tensor(trie.batch_weight_max(weights)), torch.as_tensor(most))


def test_nowhere_to_keep_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    asked = []

    def njit(**options: Any) -> Any:
        asked.append(options.get("cache", False))
        if options.get("cache"):
            return lambda plain: (_ for _ in ()).throw(RuntimeError("cannot cache: no locator available"))
        return lambda plain: plain

    monkeypatch.setattr(numba, "njit", njit)
    assert sums._compiled.__wrapped__().__name__ == "_rows"
    assert asked == [True, False]


def test_a_vocabulary_replaced_under_a_model() -> None:
    llm = ToyLM(TOY)
    first = shared_trie(llm, [], None)
    assert shared_trie(llm, [], None) is first
    llm.byte_vocab = ToyLM([b"x", b"y"]).byte_vocab
    assert shared_trie(llm, [], None).trie.decode[0] == b"x"


# --- the models -----------------------------------------------------------------------------------


@contextmanager
def converters(monkeypatch: pytest.MonkeyPatch, saved: str) -> Any:
    """transformers, with a tokenizer that comes back from disk as `saved`."""

    class Saved(SimpleNamespace):
        def save_pretrained(self, out: Path) -> None:
            for name in ("config.json", "model.safetensors"):
                (Path(out) / name).write_text("{}")

    def tokenizer(place: Path, **_: Any) -> Saved:
        text = saved if (Path(place) / "config.json").exists() else "as in the file"
        return Saved(backend_tokenizer=SimpleNamespace(to_str=lambda: text))

    model = Saved(config=SimpleNamespace(quantization_config="Q4"), hf_quantizer="one")
    hf = SimpleNamespace(
        AutoTokenizer=SimpleNamespace(from_pretrained=tokenizer),
        AutoModelForCausalLM=SimpleNamespace(from_pretrained=lambda *_, **__: model),
        tqdm=None,
    )
    with monkeypatch.context() as patch:
        patch.setattr(convert, "import_module", lambda name: hf)
        yield model


@pytest.mark.parametrize("saved", ["as in the file", "something else"])
def test_a_tokenizer_that_saving_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, saved: str) -> None:
    """It would make every probability wrong without a word, so the folder is not kept."""

    def fetched(work: Path, report: Any) -> Path:
        (work / "it.gguf").write_bytes(b"GGUF")
        return work / "it.gguf"

    monkeypatch.setenv("GENLM_BYTES_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "fetch_gguf", fetched)
    with converters(monkeypatch, saved) as model:
        if saved == "as in the file":
            folder = embedded.default_model_path(progress=False)
            assert json.loads((folder / "manifest.json").read_text())["files"]
            assert model.hf_quantizer is None and not vars(model.config)
        else:
            with pytest.raises(ModelUnavailableError, match="saved tokenizer differs"):
                embedded.default_model_path(progress=False)
            assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])


def test_another_process_built_it_meanwhile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter([False, True])
    monkeypatch.setenv("GENLM_BYTES_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "_intact", lambda folder: next(answers))
    monkeypatch.setattr(embedded, "_build", lambda *_: pytest.fail("built twice"))
    assert embedded.default_model_path(progress=False).parent == tmp_path
    assert not list(answers)


def test_a_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it says itself, an ImportError, is no failure of the model."""
    import genlm.backend

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("To use the vLLM-based AsyncLM model, install vLLM.")

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(genlm.backend, "load_model_by_name", missing)
    with pytest.raises(ImportError, match="install vLLM") as caught:
        load_model(tmp_path, backend="vllm")
    assert not isinstance(caught.value, GenlmBytesError)


def test_accelerate_may_choose_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import genlm.backend

    asked: list[Any] = []
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(genlm.backend, "load_model_by_name", lambda *_, **options: asked.append(options))
    load_model(tmp_path, device="auto")
    (options,) = asked
    assert options["llm_opts"]["hf_opts"] == {"device_map": "auto", "torch_dtype": "auto"}


@pytest.mark.parametrize(
    "of_the_hub, of_transformers",
    [
        (True, True),
        (False, True),
        (False, False),
        (True, False),
    ],
)
def test_quiet_leaves_bars_as_the_user_had_them(of_the_hub: bool, of_transformers: bool) -> None:
    from huggingface_hub import utils as hub
    from transformers.utils import logging as hf

    def state() -> tuple[bool, bool]:
        return hf.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()

    before = state()
    try:
        (hf.enable_progress_bar if of_transformers else hf.disable_progress_bar)()
        (hub.enable_progress_bars if of_the_hub else hub.disable_progress_bars)()
        for bars in (True, False):
            with progress.quiet(bars=bars):
                pass
            assert state() == (of_transformers, of_the_hub)
    finally:
        (hf.enable_progress_bar if before[0] else hf.disable_progress_bar)()
        (hub.enable_progress_bars if before[1] else hub.disable_progress_bars)()


@pytest.mark.parametrize("seed", [2, 5, 27])
async def test_a_wrong_draft_asks_for_no_crowd(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads on with what is known may be a beam that cannot read the text, to which all deferred ones
    look heavy. These are not asked for, and the beam that comes out is the same."""
    words = [bytes(p) for n in (1, 2, 3) for p in itertools.product(b"ab", repeat=n)] + [b"c"]
    draw = random.Random(seed)
    before, after = (bytes(draw.choices(b"ab", k=k)) for k in (16, 6))
    found = []
    for crowd in (2, 10**9):
        monkeypatch.setattr(draft.Drafter, "most", crowd)
        llm = BatchingToy(words, seed=seed, dtype=torch.float32)
        rule = ToleranceRule(0.02, constants=ToleranceConstants(nats_per_probe=7.6))
        start = await ByteBeamState.initial(llm, BeamParams(rule=rule), initial_context=[])
        beam = await start.prefill(before + b"c" + after)
        found.append((len(llm.asked), [(round(s.weight, 3), s.lm_state.context) for s in beam]))
    (few, beam_of_few), (many, beam_of_many) = found
    assert beam_of_few == beam_of_many and 1.5 * few < many
