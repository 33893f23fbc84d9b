"""`next` and `demo` on small models, and `info`."""

from __future__ import annotations

import io
import json
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from cli_runner import Run, document, exact, fine
from toy import TOY, ToyLM

from genlm.bytes import ByteLM
from genlm.bytes.cli import demo
from genlm.bytes.models import describe_model


class TestNext:
    def test_is_what_the_model_says(self, run: Run, lm: ByteLM) -> None:
        found = document(run("next", "the an", "--top", "258", "--json"))["next"]
        p = lm.next("the an")
        assert len(found) == sum(x > -math.inf for x in p.ps[[*range(256), 257]])
        for entry in found:
            assert entry["logprob"] == pytest.approx(p[257 if "eos" in entry else entry["byte"]], abs=1e-4)
            assert entry["probability"] == pytest.approx(math.exp(entry["logprob"]))
        assert sum(entry["probability"] for entry in found) == pytest.approx(1)
        logs = [entry["logprob"] for entry in found]
        assert logs == sorted(logs, reverse=True)
        assert sum("eos" in entry for entry in found) == 1

    def test_characters(self, run: Run, lm: ByteLM) -> None:
        found = document(run("next", "-", "--chars", "--top", "4", "--json", stdin=b"the caf\xc3"))["next"]
        expected = lm.next(b"the caf\xc3").chars(4)
        assert [entry.get("text") for entry in found] == list(expected)
        assert [entry["logprob"] for entry in found] == pytest.approx(list(expected.values()), abs=1e-4)

    def test_for_people(self, run: Run) -> None:
        lines = fine(run("next", "the", "--top", "3")).decode().splitlines()
        assert lines[0].split() == ["byte", "hex", "probability", "logprob"] and len(lines) == 4
        assert all("█" in line for line in lines[1:])
        assert fine(run("next", "the", "--chars")).decode().split()[0] == "character"

    def test_the_end(self, run: Run) -> None:
        toy = ToyLM(TOY, eos=6)
        assert "EOS" in fine(run("next", "a", "--top", "9", model=toy)).decode()


class TestDemo:
    def test_document(self, run: Run, lm: ByteLM) -> None:
        found = document(run("demo", "--json"))
        assert found["question"].startswith("An apple") and len(found["next"]) == 5
        assert [row["prompt"] for row in found["completions"]] == list(demo.CUT_PROMPTS)
        assert all(row["by_bytes"] or row["by_tokens"] for row in found["completions"])

    def test_json_where_stdout_has_a_code_page(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a code page cannot hold is escaped, and not lost."""
        latin = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", latin)
            assert run("next", "日本", "--json").code == 0
        latin.flush()
        assert json.loads(latin.buffer.getvalue().decode("ascii"))["prompt"]["text"] == "日本"  # type: ignore[attr-defined]


class TestInfo:
    def test_a_vocabulary_with_everything_odd(self, run: Run) -> None:
        odd = ToyLM([b"a", b"ab", b"", b"a", b"\xff"], ids=[0, 2, 3, 5, 9], bos=2, eos=9)
        found = document(run("info", "--json", model=odd))
        assert found["duplicates"] == [{"text": "a", "bytes_base64": "YQ==", "ids": [0, 5]}]
        assert found["empty"] == [3] and found["tokens"] == 5 and found["longest"] == 2
        assert found["without_token"] == [b for b in range(256) if b not in b"a\xff"]
        assert found["absent"] == [b for b in range(256) if b not in b"ab\xff"]
        assert found["start"] == [2] and [exact(end) for end in found["ends"]] == [b"\xff"]
        assert found["parameters"] is found["context_length"] is None and found["chat_template"] is False
        lines = fine(run("info", model=odd)).decode()
        assert "1: a (0, 5)" in lines and "255: " not in lines and "254: 00, 01" in lines

    def test_a_transformer(self, run: Run, llm: Any) -> None:
        found = document(run("info", "--json", "-m", "somewhere"))
        assert found["model"] == "somewhere" and found["architecture"] == "LlamaForCausalLM"
        assert found["context_length"] == tiny.LONGEST and found["chat_template"] is True
        assert found["parameters"] == llm.model.num_parameters()
        assert found["tokens"] == len(llm.byte_vocab) and found["logits"] == len(tiny.tokenizer())
        assert found["special"] == {"<s>": 0, "</s>": 1} and found["family"] == "byte-level BPE"
        assert (found["dtype"], found["device"]) == ("float32", "cpu")
        assert found["absent"] == found["without_token"] == []
        for name in ((), ("-m", "embedded")):
            head = fine(run("info", *name)).decode().splitlines()[0]
            assert head.split() == ["model", "smollm2-135m-instruct"]

    def test_families(self) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        def family(model: Any, pre: Any = None, decoder: Any = None) -> str:
            fast = Tokenizer(model)
            if pre is not None:
                fast.pre_tokenizer = pre
            if decoder is not None:
                fast.decoder = decoder
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast)
            return describe_model(
                SimpleNamespace(byte_vocab=ToyLM(TOY).byte_vocab, tokenizer=tokenizer)
            ).family

        words = {"a": 0, "[UNK]": 1}
        llama = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        assert family(models.BPE(vocab=words, merges=[], byte_fallback=True), decoder=llama) == (
            "SentencePiece BPE with byte fallback"
        )
        unigram = models.Unigram([("a", 0.0)], 0, False)
        assert family(unigram, pre_tokenizers.Metaspace()) == "SentencePiece Unigram"
        split = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
        assert family(models.BPE(vocab=words, merges=[]), split) == "byte-level BPE"
        assert family(models.WordPiece(words), pre_tokenizers.Whitespace()) == "WordPiece"
