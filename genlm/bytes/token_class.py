"""The class of tokens, without the seconds that importing `genlm.backend` takes.

A vocabulary is made of `genlm.backend.tokenization.Token`s, bytes with an id. To import any module of that
package is to import all of it, torch, transformers and numba included, and the class needs none of them. So
the file that defines it is imported by itself, under its own name: whoever imports the package afterwards
gets the same class.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genlm.backend.tokenization import Token

__all__ = ["token_class"]

_MODULE = "genlm.backend.tokenization.token"


def token_class() -> type[Token]:
    """`genlm.backend.tokenization.Token`."""
    if _MODULE not in sys.modules and not _imported_alone():
        import_module(_MODULE)
    found: type[Token] = vars(sys.modules[_MODULE])["Token"]
    return found


def _imported_alone() -> bool:
    package = find_spec("genlm.backend")
    file = Path(package.origin or "").parent / "tokenization" / "token.py" if package else None
    if file is None or not file.is_file():  # it lies elsewhere in another version
        return False
    spec = spec_from_file_location(_MODULE, file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[_MODULE] = module
    return True
