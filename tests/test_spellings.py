"""Vocabularies that genlm-backend does not read, and what a model says about its ends and its size."""

from __future__ import annotations

import copy
import math
import shutil
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from families import MISTRAL, byte_level, mistral, sentencepiece, slow
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from toy import ToyLM
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from genlm.bytes import AsyncByteLM, BeamParams, ByteLM
from genlm.bytes.errors import InvalidValueError, UnsupportedModelError
from genlm.bytes.models import load_model
from genlm.bytes.models.spellings import token_spellings, tokens_decoded
from genlm.bytes.vocab import end_strings, logits_count, start_context

EXACT = BeamParams(K=10**6, prune_threshold=0.0)


def word_piece():
    words = ["[UNK]", "[CLS]", "[SEP]", "the", "##s", "cat"]
    fast = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="[CLS]", eos_token="[SEP]")


def save(tokenizer, folder, size=None):
    """A folder with a tiny model for a tokenizer."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    size = max(tokenizer.get_vocab().values()) + 1 if size is None else size
    LlamaForCausalLM(LlamaConfig(vocab_size=size, num_hidden_layers=1, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


KINDS = {
    "plain": byte_level,
    "prefix": lambda: byte_level(prefix=True),
    "lower": lambda: byte_level(normalizer=normalizers.Lowercase()),
    "accents": lambda: byte_level(
        normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    ),
    "hole": lambda: byte_level(hole=True),
    "sentencepiece": sentencepiece,
}


class TestLoading:
    @pytest.mark.parametrize("kind", KINDS)
    def test_works(self, kind, tmp_path):
        tokenizer = KINDS[kind]()
        llm = load_model(save(tokenizer, tmp_path), progress=False)
        lm = ByteLM(llm, BeamParams(K=5, prune_threshold=0.05))
        assert len(lm.complete("the", max_bytes=4, seed=1).bytes) == 4
        assert lm.score("the end").logprob < 0
        vocab = llm.tokenizer.get_vocab()
        for token in llm.byte_vocab:
            if token.token_id in vocab.values():
                name = llm.tokenizer.convert_ids_to_tokens(token.token_id)
                assert len(bytes(token)) == len(name) or kind == "sentencepiece"
            else:
                assert bytes(token) == b"" and kind == "hole"

    def test_a_hole_is_never_taken(self, tmp_path):
        tokenizer = byte_level(hole=True)
        lm = ByteLM(load_model(save(tokenizer, tmp_path), progress=False), EXACT)
        missing = set(range(len(lm.llm.byte_vocab))) - set(tokenizer.get_vocab().values())
        assert missing
        done = lm.complete("<", max_tokens=20, seed=3, temperature=2.0, valid_utf8=False)
        assert done.usage.completion_tokens == 20

    def test_word_piece_is_refused(self, tmp_path):
        with pytest.raises(
            UnsupportedModelError, match=r"a WordPiece tokenizer .* Use a model with a byte-level"
        ):
            load_model(save(word_piece(), tmp_path), progress=False)

    def test_what_genlm_backend_decodes_by_is_put_back(self, tmp_path):
        from genlm.backend.llm import base
        from genlm.backend.tokenization import decode_vocab

        assert base.decode_vocab is decode_vocab
        load_model(save(byte_level(), tmp_path), progress=False)
        assert base.decode_vocab is decode_vocab
        with tokens_decoded(), tokens_decoded():  # two threads that load: they need not end in order
            with pytest.raises(ZeroDivisionError), tokens_decoded():
                raise ZeroDivisionError
            assert base.decode_vocab is not decode_vocab
        assert base.decode_vocab is decode_vocab

    @pytest.mark.thorough
    def test_tekken(self, tmp_path):
        """The folder of a model of Mistral's: `tekken.json` and no other tokenizer."""
        from transformers import MistralConfig, MistralForCausalLM

        shutil.copy(files("mistral_common") / "data" / MISTRAL["tekken"], tmp_path / "tekken.json")
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
        config = MistralConfig(vocab_size=131_072, num_hidden_layers=1, **sizes)
        MistralForCausalLM(config).save_pretrained(tmp_path)
        lm = ByteLM(load_model(tmp_path, progress=False), BeamParams(K=5, prune_threshold=0.05))
        turn = [{"role": "user", "content": "hi [/INST]"}]
        assert len(lm.complete(turn, max_bytes=4, seed=1).bytes) == 4


class TestSpellings:
    def test_against_genlm_backend(self):
        """Where both read a vocabulary, they read the same."""
        from genlm.backend.tokenization import decode_vocab

        for tokenizer in (byte_level(), sentencepiece(), tiny.tokenizer()):
            assert token_spellings(tokenizer)[0] == [bytes(token) for token in decode_vocab(tokenizer)[0]]

    @pytest.mark.parametrize("name", slow(MISTRAL, "tekken"))
    def test_mistral_common(self, name):
        tokenizer = mistral(MISTRAL[name])
        words, names = token_spellings(tokenizer)
        assert len(words) == len(names) == len(tokenizer)
        for text in ("x = fib(10) 東京", "naïve\n\t  \u3000 1998"):
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert b"".join(words[i] for i in ids).removeprefix(b" ") == text.encode()
        assert words[tokenizer.eos_token_id] == b"</s>"

    def test_letters_that_stand_for_no_byte(self):
        tokenizer = byte_level()
        tokenizer.backend_tokenizer.model = models.BPE({"a": 0, "東": 1}, [])
        with pytest.raises(UnsupportedModelError, match="'東' is not written in byte letters"):
            token_spellings(tokenizer)

    def test_no_tokenizer_at_all(self):
        with pytest.raises(UnsupportedModelError, match=r"a SimpleNamespace with no decoder"):
            token_spellings(SimpleNamespace())
        with pytest.raises(UnsupportedModelError, match="no decoder"):
            token_spellings(SimpleNamespace(get_vocab=lambda: {"a": 0}))


class TestEnds:
    """Chat models often name a second token in their generation settings, and only there."""

    WORDS = (b"a", b"<e>", b"<turn>", b"<more>")

    def model(self, **attributes):
        llm = ToyLM(list(self.WORDS), eos=1)
        vars(llm).update(attributes)
        return llm

    @pytest.mark.parametrize("said", [2, [2], {2}, (2, 2)])
    def test_transformers(self, said):
        config = SimpleNamespace(eos_token_id=said)
        assert end_strings(self.model(model=SimpleNamespace(generation_config=config))) == {b"<e>", b"<turn>"}

    @pytest.mark.parametrize("said", [{"eos_token_id": [2, 3]}, {"eos_token_id": 2}, {}])
    @pytest.mark.parametrize("where", ["model_config", "vllm_config"])
    def test_vllm(self, said, where):
        config = SimpleNamespace(try_get_generation_config=lambda: said)
        inner = {"model_config": config, "vllm_config": SimpleNamespace(model_config=config)}
        engine = SimpleNamespace(llm_engine=SimpleNamespace(**{where: inner[where]}))
        ids = said.get("eos_token_id", [])
        want = {self.WORDS[i] for i in ([ids] if isinstance(ids, int) else ids)}
        assert end_strings(self.model(llm_engine=engine)) == {b"<e>"} | want

    def test_vllm_that_cannot_read_them(self, caplog):
        def fails():
            raise OSError("no such file")

        config = SimpleNamespace(try_get_generation_config=fails)
        engine = SimpleNamespace(llm_engine=SimpleNamespace(model_config=config))
        assert end_strings(self.model(llm_engine=engine)) == {b"<e>"}
        assert "generation settings could not be read: no such file" in caplog.text

    def test_sglang(self):
        config = SimpleNamespace(hf_eos_token_id={2}, hf_generation_config=SimpleNamespace(eos_token_id=[3]))
        scheduler = SimpleNamespace(model_config=config)
        assert end_strings(self.model(model=scheduler)) == set(self.WORDS[1:])

    def test_mlx(self):
        llm = self.model()
        llm.tokenizer.eos_token_ids = {1, 3}
        assert end_strings(llm) == {b"<e>", b"<more>"}

    async def test_a_chat_stops(self):
        """Whatever is drawn, a completion never goes on after such a token."""
        config = SimpleNamespace(try_get_generation_config=lambda: {"eos_token_id": [2]})
        engine = SimpleNamespace(llm_engine=SimpleNamespace(model_config=config))
        lm = AsyncByteLM(self.model(llm_engine=engine), BeamParams(K=5))
        for seed in range(20):
            done = await lm.complete("a", max_bytes=200, seed=seed)
            assert b"<turn>" not in done.bytes and b"<e>" not in done.bytes


class TestBeginnings:
    @pytest.fixture(scope="class")
    @classmethod
    def nothing(cls):
        tokenizer = copy.deepcopy(tiny.tokenizer())
        tokenizer.bos_token = tokenizer.eos_token = None
        return tokenizer

    def test_the_models_configuration(self, nothing):
        from genlm.backend.llm import AsyncTransformer

        model = tiny.model("llama")
        llm = AsyncTransformer(model, nothing)
        assert start_context(llm) == [model.config.bos_token_id]
        model.config.bos_token_id = None
        assert start_context(llm) == [model.config.eos_token_id]

    async def test_none_is_an_error_with_a_way_out(self, nothing):
        from genlm.backend.llm import AsyncTransformer

        model = tiny.model("llama")
        model.config.bos_token_id = model.config.eos_token_id = None
        lm = AsyncByteLM(AsyncTransformer(model, nothing), BeamParams(K=5, prune_threshold=0.05), eos=[])
        for ask in (lm.complete("the"), lm.score("the"), lm.next(b"")):
            with pytest.raises(
                UnsupportedModelError, match=r"nothing to start after. Begin each prompt with"
            ):
                await ask
        assert len((await lm.complete((0, "the"), max_bytes=2)).bytes) == 2


class TestTokensBeyondTheLogits:
    """A tokenizer with more tokens than its model was built for."""

    @pytest.fixture(scope="class")
    @classmethod
    def lm(cls):
        from genlm.backend.llm import AsyncTransformer

        tokenizer = copy.deepcopy(tiny.tokenizer())
        tokenizer.add_tokens([AddedToken("<more>", special=False), AddedToken("and the", special=False)])
        return AsyncByteLM(
            AsyncTransformer(tiny.model("llama"), tokenizer), BeamParams(K=8, prune_threshold=0.02)
        )

    def test_the_count(self, lm):
        assert logits_count(lm.llm) == len(lm.llm.tokenizer) - 2
        assert logits_count(ToyLM([b"a"])) is None

    @pytest.mark.parametrize("text", ["the<more>", "<more>", "and the and the"])
    async def test_their_text_is_read_by_others(self, lm, text):
        plain = AsyncByteLM(tiny.transformer("llama"), BeamParams(K=8, prune_threshold=0.02))
        # The text is cut inside what spells them: elsewhere than its tokenizer cuts it, for "and the".
        same = ("beam", "tokenize", "heal") if "<" in text else ("beam",)
        for method in same:
            one, other = [(await it.next(text, method=method)).ps for it in (lm, plain)]
            assert one == pytest.approx(other, abs=1e-4)
        for method in ("tokenize", "heal"):
            assert np.isfinite((await lm.next(text, method=method)).ps[ord(" ")])
        asked = {"max_bytes": 4, "token_healing": False}
        one, other = [await it.complete(text, **asked) for it in (lm, plain)]
        assert (one.text == other.text) if "<" in text else len(one.bytes) == 4
        rows = [(await it.word_surprisal(text, spans=[(0, len(text))]))[0] for it in (lm, plain)]
        assert rows[0].surprisal == pytest.approx(rows[1].surprisal, abs=1e-4)
        assert math.isnan(rows[0].naive) and math.isfinite(rows[1].naive)

    async def test_their_id_is_refused(self, lm):
        with pytest.raises(InvalidValueError, match=r"`prompt\[1\]` is .*the model was built for"):
            await lm.complete(("the", lm.special("<more>")))

    async def test_a_model_that_does_not_say(self):
        """Then a token that has no logit has probability zero wherever it is met."""
        words = [b"a", b"b", b"ab", b"abab"]
        short, whole = ToyLM(words[:3]), ToyLM(words, logits=3)

        class Tokenizer:
            bos_token_id = eos_token_id = None

            def encode(self, text, add_special_tokens):
                return [3] * (len(text) // 4) if text.startswith("abab") else []

        whole.tokenizer = Tokenizer()
        want = (await AsyncByteLM(short, EXACT, eos=[]).next("abababab", method="beam")).ps
        for method in ("beam", "tokenize", "heal"):
            found = await AsyncByteLM(whole, EXACT, eos=[]).next("abababab", method=method)
            assert found.ps == pytest.approx(want, abs=1e-9)
        rows = await AsyncByteLM(whole, EXACT, eos=[]).word_surprisal("abababab", spans=[(0, 8)])
        assert rows[0].surprisal > 0 and math.isnan(rows[0].naive)
