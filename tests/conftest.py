"""What all tests share: one loaded real model, and its vocabulary."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The first example of a test may load or compile something; a deadline would time that, not us.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def default_llm():
    """The embedded model, loaded once for the whole session."""
    from genlm.bytes.models import load_default_model

    return load_default_model(progress=False)
