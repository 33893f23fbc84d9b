"""Small GGUF files with random weights: a few architectures, tokenizers of two kinds, an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS, WINDOW, LONGEST = 64, 4, 2, 96, 2, 8, 200
TEMPLATE = (
    "{% for m in messages %}<|begin|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant: {% endif %}"
)
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6


def letters() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]


def byte_level() -> tuple[str, list[tuple[str, int, float]], list[str]]:
    """A byte-level BPE with control, user-defined and unused tokens."""
    merges = ["t h", "th e", "a n", "an d", "Ġ the", "Ġ and", "i n", "c a"]
    words = [(word, _NORMAL, 0.0) for word in (*letters(), *(m.replace(" ", "") for m in merges))]
    special = [("<|end|>", _CONTROL, 0.0), ("<|begin|>", _CONTROL, 0.0), ("<tool>", _USER, 0.0)]
    fim = [(f"<|fim_{part}|>", _CONTROL, 0.0) for part in ("prefix", "suffix", "middle")]
    return "gpt2", [*special, *words, *fim, ("[unused]", _UNUSED, 0.0)], merges


def sentencepiece() -> tuple[str, list[tuple[str, int, float]], list[str]]:
    """Pieces with scores, and a token for each byte."""
    pieces = ["▁", "t", "h", "e", "a", "n", "d", "c", "▁t", "th", "▁th", "▁the", "▁c", "at", "▁cat", "an"]
    special = [("<unk>", _UNKNOWN, 0.0), ("<s>", _CONTROL, 0.0), ("</s>", _CONTROL, 0.0)]
    data = [(f"<0x{b:02X}>", _BYTE, 0.0) for b in range(256)]
    return "llama", [*special, *data, *((p, _NORMAL, -float(i)) for i, p in enumerate(pieces))], []


def write(path: Path, architecture: str = "llama", vocabulary: Any = byte_level) -> Path:
    """A model file.

    Args:
        path: where.
        architecture: `llama`, `gemma2` (every other layer has a sliding window) or `mamba` (recurrent).
        vocabulary: `byte_level` or `sentencepiece`.
    """
    import gguf

    kind, tokens, merges = vocabulary()
    out = gguf.GGUFWriter(path, architecture)
    out.add_type("model")
    out.add_context_length(LONGEST)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    if architecture == "gemma2":
        out.add_sliding_window(WINDOW)
        out.add_key_length(WIDTH // HEADS)
        out.add_value_length(WIDTH // HEADS)
    if architecture == "mamba":
        out.add_ssm_conv_kernel(4)
        out.add_ssm_inner_size(2 * WIDTH)
        out.add_ssm_state_size(4)
        out.add_ssm_time_step_rank(4)
    out.add_tokenizer_model(kind)
    if kind == "gpt2":
        out.add_tokenizer_pre("gpt-2")
        out.add_token_merges(merges)
    out.add_token_list([name for name, _, _ in tokens])
    out.add_token_scores([score for _, _, score in tokens])
    out.add_token_types([token_type for _, token_type, _ in tokens])
    begin, end = (1, 2) if kind == "llama" else (0, 0)
    out.add_bos_token_id(begin)
    out.add_eos_token_id(end)
    out.add_add_bos_token(kind == "llama")
    if kind == "llama":
        out.add_add_space_prefix(True)
    else:
        out.add_chat_template(TEMPLATE)
    _weights(out, architecture, len(tokens))
    _close(out)
    return path


def write_adapter(path: Path) -> Path:
    """A LoRA adapter for the `llama` model."""
    import gguf

    out = gguf.GGUFWriter(path, "llama")
    out.add_type("adapter")
    out.add_string("adapter.type", "lora")
    out.add_float32("adapter.lora.alpha", 2.0)
    random = np.random.default_rng(7)
    for layer in range(LAYERS):
        for part, shape in (("a", (2, WIDTH)), ("b", (WIDTH, 2))):
            weights = random.normal(0, 0.5, shape).astype(np.float32)
            out.add_tensor(f"blk.{layer}.attn_q.weight.lora_{part}", weights)
    _close(out)
    return path


def _weights(out: Any, architecture: str, vocabulary: int) -> None:
    from gguf import GGMLQuantizationType, quants

    # Products with quantized weights are the same for one token as for many; those with floats nearly.
    random, kind = np.random.default_rng(0), GGMLQuantizationType.Q8_0

    def matrix(name: str, *shape: int) -> None:
        weights = random.normal(0, 1.5 / np.sqrt(shape[-1]), shape).astype(np.float32)
        if shape[-1] % 32 or "ssm" in name:
            out.add_tensor(name, weights)
        else:
            out.add_tensor(name, quants.quantize(weights, kind), raw_dtype=kind)

    def ones(name: str, *shape: int) -> None:
        out.add_tensor(name, np.ones(shape, np.float32))

    matrix("token_embd.weight", vocabulary, WIDTH)
    if architecture != "gemma2":
        matrix("output.weight", vocabulary, WIDTH)
    ones("output_norm.weight", WIDTH)
    kv = WIDTH // HEADS * KV_HEADS
    for i in range(LAYERS):
        ones(f"blk.{i}.attn_norm.weight", WIDTH)
        if architecture == "mamba":
            matrix(f"blk.{i}.ssm_in.weight", 4 * WIDTH, WIDTH)
            matrix(f"blk.{i}.ssm_conv1d.weight", 2 * WIDTH, 4)
            ones(f"blk.{i}.ssm_conv1d.bias", 2 * WIDTH)
            matrix(f"blk.{i}.ssm_x.weight", 4 + 2 * 4, 2 * WIDTH)
            matrix(f"blk.{i}.ssm_dt.weight", 2 * WIDTH, 4)
            ones(f"blk.{i}.ssm_dt.bias", 2 * WIDTH)
            out.add_tensor(f"blk.{i}.ssm_a", -np.ones((2 * WIDTH, 4), np.float32))
            ones(f"blk.{i}.ssm_d", 2 * WIDTH)
            matrix(f"blk.{i}.ssm_out.weight", WIDTH, 2 * WIDTH)
            continue
        for name, rows in (("q", WIDTH), ("k", kv), ("v", kv), ("output", WIDTH)):
            matrix(f"blk.{i}.attn_{name}.weight", rows, WIDTH)
        ones(f"blk.{i}.ffn_norm.weight", WIDTH)
        if architecture == "gemma2":
            ones(f"blk.{i}.post_attention_norm.weight", WIDTH)
            ones(f"blk.{i}.post_ffw_norm.weight", WIDTH)
        matrix(f"blk.{i}.ffn_gate.weight", HIDDEN, WIDTH)
        matrix(f"blk.{i}.ffn_up.weight", HIDDEN, WIDTH)
        matrix(f"blk.{i}.ffn_down.weight", WIDTH, HIDDEN)


def _close(out: Any) -> None:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
