"""Language models by name, and one that needs no model hub."""

from genlm.bytes.models.describe import ModelFacts, describe_model
from genlm.bytes.models.embedded import DEFAULT_MODEL, default_gguf_path, default_model_path, is_embedded
from genlm.bytes.models.load import check_options, load_default_model, load_model

__all__ = [
    "DEFAULT_MODEL",
    "ModelFacts",
    "check_options",
    "default_gguf_path",
    "default_model_path",
    "describe_model",
    "is_embedded",
    "load_default_model",
    "load_model",
]
