"""llama.cpp as a library: imported when a model is loaded, and silent.

llama-cpp-python is optional, and comes as source that a compiler must build. llama.cpp writes pages to stderr
while it loads a model. It has one log for the whole process: here that goes to Python's logging (the logger
is this module's name, at debug level), and what it complains of is kept for errors of ours to quote.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from threading import Lock
from typing import Any

from genlm.bytes.errors import MissingDependencyError

__all__ = ["complaints", "library"]

_logger = logging.getLogger(__name__)
_said: list[str] = []
_one_at_a_time = Lock()
_CALLBACKS: list[Any] = []  # C holds a pointer to it, for as long as the process lives
_WARN, _ERROR, _CONTINUED = 3, 4, 5
"""`ggml_log_level`."""

WAY_OUT = (
    'python -m pip install "genlm-bytes[llamacpp]" (it compiles for some minutes; '
    'CMAKE_ARGS="-DGGML_NATIVE=OFF" makes it run on other machines too)'
)


@cache
def library() -> Any:
    """The low-level API of llama-cpp-python, initialized.

    Raises:
        MissingDependencyError: it is not installed, or its library cannot be loaded here.
    """
    _without_the_rest()
    try:
        found: Any = import_module("llama_cpp.llama_cpp")
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":
            raise
        raise MissingDependencyError(f"GGUF files need llama-cpp-python: {WAY_OUT}.") from None
    except (ImportError, OSError, RuntimeError) as error:
        why = " ".join(str(error).split())[:300]
        raise MissingDependencyError(
            f"llama-cpp-python is installed and cannot be loaded ({why}). Build it again: {WAY_OUT}."
        ) from None
    _CALLBACKS.append(found.llama_log_callback(_hear))
    found.llama_log_set(_CALLBACKS[-1], None)
    found.llama_backend_init()
    return found


def _without_the_rest() -> None:
    """Leave what `import llama_cpp` brings beside the low-level API until somebody asks for it.

    That are SQLite, a cache on disk, jinja and chat formats: a third of a second that nothing here needs.
    """
    spec = None if "llama_cpp" in sys.modules else find_spec("llama_cpp")
    if spec is None or spec.loader is None:
        return
    loader = spec.loader
    package: Any = module_from_spec(spec)

    def whole(name: str) -> Any:
        vars(package).pop("__getattr__", None)
        low: Any = import_module("llama_cpp.llama_cpp")
        listen = low.llama_log_set
        low.llama_log_set = lambda *_: None  # it would put its own log in place of ours, which prints
        try:
            loader.exec_module(package)
        finally:
            low.llama_log_set = listen
        package.llama_log_set = listen
        return getattr(package, name)

    package.__getattr__ = whole
    sys.modules["llama_cpp"] = package


def _hear(level: int, text: bytes, _: Any) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if line and level != _CONTINUED:  # what is continued are dots of progress
        _logger.debug("%s", line)
        if level in (_WARN, _ERROR):
            _said.append(line)
            del _said[:-32]


@contextmanager
def complaints() -> Iterator[list[str]]:
    """The warnings and errors that llama.cpp writes meanwhile; for one caller at a time."""
    with _one_at_a_time:
        _said.clear()
        yield _said
