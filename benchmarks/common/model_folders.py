"""The models that benchmarks run, as folders that both sides load.

Random weights serve to measure speed on a larger model than can be downloaded everywhere; they use the
embedded model's tokenizer. Made once under `benchmarks/.venvs/data/`.
"""

from __future__ import annotations

from pathlib import Path

from common.vocabularies import DATA

__all__ = ["MODELS", "model_folder"]

# Shapes of Llama models: the larger is TinyLlama's, 1.1 billion parameters.
_SHAPES = {
    "random-large": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "random-small": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
MODELS = ("smollm2", *_SHAPES)


def model_folder(name: str) -> Path:
    """The folder of a model, made on first use."""
    from genlm.bytes.models import default_model_path

    embedded = default_model_path()
    if name == "smollm2":
        return embedded
    if name not in _SHAPES:
        raise SystemExit(f"--model {name}: it must be one of {', '.join(MODELS)}")
    folder = DATA / name
    if not (folder / "config.json").exists():
        print(f"Making the model {name}")
        _make(folder, embedded, _SHAPES[name])
    return folder


def _make(folder: Path, tokenizer_of: Path, shape: dict[str, int]) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,  # the default leaves the next token's distribution nearly uniform
        **shape,
    )
    torch.manual_seed(0)
    unfinished = folder.with_name(folder.name + ".part")
    LlamaForCausalLM(config).save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.replace(folder)
