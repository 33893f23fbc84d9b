"""A server: OpenAI's API and questions of our own over HTTP, and a page to look through."""

from genlm.bytes.serve.app import create_app
from genlm.bytes.serve.catalog import Catalog, ModelSpec, read_config, spec_of
from genlm.bytes.serve.run import is_loopback, serve
from genlm.bytes.serve.settings import Keys, Settings, read_keys

__all__ = [
    "Catalog",
    "Keys",
    "ModelSpec",
    "Settings",
    "create_app",
    "is_loopback",
    "read_config",
    "read_keys",
    "serve",
    "spec_of",
]
