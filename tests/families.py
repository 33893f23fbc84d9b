"""Tokenizers of each family, small ones built here and real ones, and a toy model over any of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from genlm.backend.tokenization import decode_vocab
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from toy import ToyLM
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from genlm.bytes.models.spellings import token_spellings

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
THINKING = (  # turn markers that are not called special, and a template that looks into messages
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|Assistant|>"
    "{{ m['content'].split('</think>')[-1] | trim }}<|end|>"
    "{% else %}<|User|>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{% endif %}"
)
JOINED = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}<|im_end|>"
    "{% if add_generation_prompt %}!{% endif %}"
)


def byte_level(prefix: bool = False, normalizer: Any = None, hole: bool = False) -> Any:
    """A byte-level BPE with a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("i", "m"),
        ("e", "n"),
        ("en", "d"),
        ("|", ">"),
        ("<", "|"),
    ]
    words = ["<s>", "</s>", *alphabet, *("".join(m) for m in merges)]
    vocab = {word: i for i, word in enumerate(words)}
    if hole:
        vocab["<|"] += 3
    fast = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    fast.decoder = decoders.ByteLevel()
    if normalizer is not None:
        fast.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>")


SCHEMES = ("llama2", "always", "first", "never")


def sentencepiece(scheme: str = "llama2", special: tuple[Any, ...] = ()) -> Any:
    """A SentencePiece-like BPE with byte fallback: every byte has a token, and letters have one more."""
    merges = [
        ("▁", "x"),
        ("▁", "="),
        ("f", "i"),
        ("fi", "b"),
        ("▁", "fib"),
        ("▁", "h"),
        ("▁h", "i"),
        ("▁", "▁"),
    ]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    words += ["▁", *"xfibh=(10)", *("".join(m) for m in merges)]
    fast = Tokenizer(
        models.BPE(
            {w: i for i, w in enumerate(words)}, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True
        )
    )
    if scheme == "llama2":
        fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        fast.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    fast.decoder = decoders.Sequence(strip)
    names = [AddedToken(name, normalized=False, special=True) for name in ("<unk>", "<s>", "</s>")]
    fast.add_special_tokens([*names, *special])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _chatml() -> Any:
    from genlm.bytes.models import default_model_path

    return AutoTokenizer.from_pretrained(default_model_path(progress=False), local_files_only=True)


def _llama3() -> Any:
    tokenizer = byte_level()
    named = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id", "python_tag"]
    names = [f"<|{name}|>" for name in (*named, *(f"reserved_special_token_{i}" for i in range(20)))]
    tokenizer.add_special_tokens({"additional_special_tokens": names, "bos_token": names[0]})
    tokenizer.chat_template = LLAMA3
    return tokenizer


def _thinking() -> Any:
    tokenizer = byte_level()
    text = [AddedToken(name, special=False, normalized=False) for name in ("<|User|>", "<|Assistant|>")]
    text += [AddedToken(name, special=False) for name in ("<think>", "</think>", "<tool_call>", "  ")]
    tokenizer.add_tokens(text)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = THINKING
    return tokenizer


def _phi3() -> Any:
    names = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    tokens = tuple(AddedToken(name, normalized=False, special=True, rstrip=True) for name in names)
    left = AddedToken("<|left|>", normalized=False, special=True, lstrip=True)
    tokenizer = sentencepiece("llama2", (*tokens, left))
    tokenizer.chat_template = PHI3
    return tokenizer


def _llama2() -> Any:
    tokenizer = sentencepiece()
    tokenizer.chat_template = LLAMA2
    return tokenizer


def mistral(name: str) -> Any:
    """A real tokenizer of mistral-common."""
    from transformers import MistralCommonBackend

    return MistralCommonBackend(tokenizer_path=str(files("mistral_common") / "data" / name))


MISTRAL = {
    "v1": "tokenizer.model.v1",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "tekken": "tekken_240911.json",
}
TEMPLATED = {"smollm2": _chatml, "llama3": _llama3, "thinking": _thinking, "phi3": _phi3, "llama2": _llama2}
FAMILIES = (*TEMPLATED, *MISTRAL)


@cache
def family(name: str) -> ToyLM:
    """A model with random probabilities over a family's vocabulary, with its tokenizer. Change nothing."""
    return model(mistral(MISTRAL[name]) if name in MISTRAL else TEMPLATED[name]())


def model(tokenizer: Any) -> ToyLM:
    """A model with random probabilities over a tokenizer's vocabulary."""
    try:
        words = [bytes(token) for token in decode_vocab(tokenizer)[0]]
    except Exception:
        words = token_spellings(tokenizer)[0]
    made = ToyLM(words, bos=tokenizer.bos_token_id, eos=tokenizer.eos_token_id)
    made.tokenizer = tokenizer
    return made


def slow(names: Sequence[str], *which: str) -> list[Any]:
    """Families to test, some of them where there is time only."""
    return [pytest.param(name, marks=pytest.mark.slow if name in which else ()) for name in names]
