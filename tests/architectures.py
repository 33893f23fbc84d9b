"""Small random models of the causal architectures that transformers knows, from their default configurations.

What a configuration names is made small; what it does not name is left alone. Some need more (`ALSO`).
"""

from __future__ import annotations

from typing import Any

import tiny
import torch

LONGEST, WINDOW, LAYERS = 128, 6, 4
MOST_PARAMETERS = 20_000_000

_SIZES: dict[int, str] = {
    len(tiny.tokenizer()): "vocab_size decoder_vocab_size vocab_size_per_layer_input",
    32: "hidden_size n_embd d_model embedding_size emb_dim word_embed_proj_dim",
    48: "intermediate_size n_inner ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff",
    LAYERS: """num_hidden_layers n_layer n_layers num_layers decoder_layers num_attention_heads n_head n_heads
        num_heads attention_heads decoder_attention_heads encoder_attention_heads num_experts
        num_local_experts n_routed_experts moe_num_experts linear_num_value_heads index_topk laurel_rank
        mamba_n_heads mamba_d_state""",
    8: """head_dim v_head_dim qk_rope_head_dim qk_nope_head_dim index_head_dim linear_key_head_dim
        global_head_dim linear_value_head_dim hidden_size_per_layer_input rotary_dim""",
    16: """moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size kv_lora_rank
        q_lora_rank mamba_d_head""",
    LONGEST: "max_position_embeddings n_positions n_ctx max_seq_len",
    WINDOW: "sliding_window attention_chunk_size local_attention",
    2: """num_key_value_heads num_experts_per_tok moe_k moe_topk linear_num_key_heads max_window_layers
        num_kv_shared_layers num_global_key_value_heads index_n_heads""",
    1: """encoder_layers eos_token_id n_group topk_group n_shared_experts num_shared_experts is_decoder
        first_k_dense_replace moe_layer_start_index moe_layer_interval mamba_n_groups""",
    3: "moe_layer_end_index",
    0: "pad_token_id bos_token_id add_cross_attention",
}
SMALL = {name: size for size, names in _SIZES.items() for name in names.split()}

UNSET = ("sliding_window", "num_experts")
"""Left alone where the default configuration has none."""

_MLA = {
    "head_dim": None,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
ALSO: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"), _MLA),
    **dict.fromkeys(("minicpm3", "youtu", "kimi_linear"), _MLA),
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False, "head_dim": None},
    "falcon_h1": {"mamba_expand": 2, "mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"expand": 2, "num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "prophetnet": {"num_hidden_layers": None, "num_decoder_layers": LAYERS, "num_encoder_layers": 1},
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 16)},
    "roberta": {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1},
    "xlnet": {"max_position_embeddings": None},
}
"""By the name of the architecture; None leaves what the configuration says."""


class NotBuilt(Exception):
    """An architecture of which no small model is made so simply."""


def configuration(kind: str) -> Any:
    """The default configuration of an architecture, made small."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[kind]
    default = cls()
    said = default.to_dict()
    options = {
        name: bool(size) if isinstance(said.get(name), bool) else size
        for name, size in SMALL.items()
        if (name in said or hasattr(default, name)) and not (said.get(name) is None and name in UNSET)
    }
    for name, other in (cls.attribute_map or {}).items():
        if other in options:
            options.pop(name, None)
    for name in ("layer_types", "mlp_layer_types"):
        kinds = list(dict.fromkeys(said.get(name) or ()))
        if kinds:
            options[name] = [kinds[i % len(kinds)] for i in range(LAYERS)]
    options |= ALSO.get(kind, {})
    return cls(**{name: value for name, value in options.items() if value is not None})


def model(kind: str) -> Any:
    """A small model with random weights.

    Raises:
        NotBuilt: it is no text model, or takes more than a few small sizes.
    """
    from transformers import AutoModelForCausalLM

    try:
        config = configuration(kind)
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if sum(weights.numel() for weights in made.parameters()) > MOST_PARAMETERS:
            raise NotBuilt("it is large")
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    except Exception as error:
        raise NotBuilt(f"{type(error).__name__}: {error}") from error
    return tiny.sharpened(made)
