"""Models for a machine without a network: shapes of published ones, random weights, a vocabulary of 128k.

Random weights make every next token equally likely, and then a beam has nothing to choose by. So the head is
given the pairs of tokens of the text that will be read: the model expects that text, about as much as a
trained one would, and nothing else. What is measured is time and round-off, never what such a model says.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from genlm.backend.llm import AsyncTransformer, base
from genlm.backend.tokenization import Token

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "benchmarks/texts/english.txt").read_bytes()

SHAPES: dict[str, dict[str, Any]] = {
    "1B": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "8B": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "tiny": {
        "vocab_size": 50_000,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
}


base.decode_vocab = cache(base.decode_vocab)  # seconds, for each model that is served


@cache
def tokenizer() -> Any:
    """SmolLM2's, from the folder that travels with the script."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / ".carry/tokenizer")


def tokens_of(text: bytes, tok: Any) -> list[int]:
    return [tok.bos_token_id, *tok.encode(text.decode(), add_special_tokens=False)]


def llama(shape: str, device: str, dtype: torch.dtype, **options: Any) -> Any:
    """A Llama of that shape, made where it will run; it expects `TEXT`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    given = {"max_position_embeddings": 16_384, "tie_word_embeddings": False, **SHAPES[shape], **options}
    config = LlamaConfig(**given)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    _expect(model, tokens_of(TEXT, tokenizer()))
    return model


@torch.no_grad()
def _expect(model: Any, ids: list[int]) -> None:
    """Raise the probability of each token of a text after the one before it to about a third."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embedding.normal_(0.0, 1.0)
    pairs = sorted(set(pairwise(ids)))
    at = torch.tensor(pairs, device=head.device)
    before = torch.nn.functional.normalize(embedding[at[:, 0]].float(), dim=-1)
    some = torch.tensor([ids[:200]], device=head.device)
    hidden = model.model(some).last_hidden_state[0].float()
    along = torch.nn.functional.normalize(embedding[some[0]].float(), dim=-1)
    inner = float((hidden * along).sum(-1).median())
    wanted = float(np.log(len(head) / 2)) + 0.5
    grown = head.float().index_add_(0, at[:, 1], before * (wanted / inner))
    head.copy_(grown.to(head.dtype))


def served(model: Any) -> Any:
    """The model as `genlm-backend` serves it, with a token for every id (two words, beyond its own)."""
    tok = tokenizer()
    llm = AsyncTransformer(model, tok)
    known = [bytes(token) for token in llm.byte_vocab]
    words = [word for word in known if 2 <= len(word) <= 8 and word.strip(b" ").isalpha()]
    rng, seen, vocab = np.random.default_rng(0), set(known), list(llm.byte_vocab)
    while len(vocab) < model.config.vocab_size:
        one, other = rng.integers(0, len(words), 2)
        made = words[one] + words[other].strip()
        if made not in seen:
            seen.add(made)
            vocab.append(Token(token_id=len(vocab), byte_string=made))
    llm.byte_vocab = vocab
    return llm
