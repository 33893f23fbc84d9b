"""What the tutorial's kernel should not show: a warning with the path of whoever builds the site."""

from __future__ import annotations

import os
from typing import Any


def on_startup(**_: Any) -> None:
    """Called by MkDocs once; kernels inherit the environment."""
    known = os.environ.get("PYTHONWARNINGS")
    # tqdm asks for ipywidgets, which a page without a kernel could not use.
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [known, "ignore:IProgress not found"]))
