"""Small Hugging Face models of many kinds, with random weights, over a byte-level tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

WINDOW = 6
LONGEST = 128


@cache
def tokenizer() -> Any:
    """A byte-level BPE with a few merges, a beginning and an end of sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("Ġ", "the"), ("Ġ", "and"), ("i", "n")]
    words = ["<s>", "</s>", *alphabet, *("".join(m) for m in merges)]
    bpe = models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges)
    fast = Tokenizer(bpe)
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>")


_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": LONGEST,
}
GROUPED = {**_SMALL, "num_key_value_heads": 2, "head_dim": 8}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": LONGEST}),
    "gpt_neox": ("GPTNeoX", _SMALL),
    "opt": ("OPT", {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "llama": ("Llama", GROUPED),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": WINDOW}),
    "gemma2": (
        "Gemma2",
        {**GROUPED, "sliding_window": WINDOW, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0},
    ),
    "gemma3": ("Gemma3", {**GROUPED, "sliding_window": WINDOW}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", GROUPED),
    "phi3": ("Phi3", {**GROUPED, "pad_token_id": 0}),
    "falcon": ("Falcon", {**_SMALL, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    "mixtral": ("Mixtral", {**GROUPED, "num_local_experts": 4}),
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
}
"""Each kind's class prefix and configuration. `mamba` is recurrent; `bloom` biases attention by distance."""


def model(kind: str, dtype: torch.dtype = torch.float32, attention: str | None = None) -> Any:
    """A model with random weights, large enough that contexts matter."""
    name, options = KINDS[kind]
    name = {"Gemma3": "Gemma3Text"}.get(name, name)
    return built(name, dtype, attention, **options)


def built(name: str, dtype: torch.dtype = torch.float32, attention: str | None = None, **options: Any) -> Any:
    """A model of a class's name, such as `Llama`, with random weights and a configuration of one's own."""
    import transformers

    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer()), **options)
    heads = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM", "Bert": "BertLMHeadModel"}
    build = getattr(transformers, heads.get(name, f"{name}ForCausalLM"))
    if attention:
        config._attn_implementation = attention
    torch.manual_seed(0)
    made = build(config).to(dtype).eval()
    return sharpened(made)


def sharpened(made: Any) -> Any:
    """The model with weights of a larger spread: the usual 0.02 leaves every distribution flat."""
    with torch.no_grad():
        for name, weights in made.named_parameters():
            if weights.dim() > 1:
                weights.mul_(8.0 if "embed" not in name else 3.0)
    return made


def transformer(kind: str, **options: Any) -> Any:
    """The model as `genlm-backend` serves it."""
    from genlm.backend.llm import AsyncTransformer

    return AsyncTransformer(model(kind, **options), tokenizer())


def served(name: str, **options: Any) -> Any:
    """`built`, as `genlm-backend` serves it."""
    from genlm.backend.llm import AsyncTransformer

    return AsyncTransformer(built(name, **options), tokenizer())
