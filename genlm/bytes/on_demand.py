"""A package whose names are imported when they are first asked for.

`import genlm.bytes` comes before everything else here, `genlm-bytes --help` and the shell's completion
included, and torch takes seconds to import. So the package lists its names with the modules that define
them, and imports a module with the first of its names (PEP 562).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["on_demand"]


def on_demand(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package that imports each name's module on demand.

    Its submodules are attributes too, whether or not anything has imported them.

    Raises:
        AttributeError: from `__getattr__`, for anything else.
    """

    def get(name: str) -> Any:
        if name in names:
            value = getattr(import_module(names[name]), name)
            setattr(sys.modules[package], name, value)  # the next time nothing is looked up
            return value
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return get, listing
