"""Where the time of our side goes: seconds by kind of work, each second counted once.

**Idea.** The functions of a kind are wrapped. A call pauses whatever wrapped call is around it, so a kind
has the time spent in its own functions but not in those of other kinds that they call. Time outside all
of them is the caller's to compute.

**Cost.** About a microsecond a call; the profiled run is somewhat slower than the timed ones.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["Stopwatch", "instrumented"]

MODEL, HEAD, SOFTMAX = "model: layers", "model: output head", "log-softmax"
ENGINE, MASSES, GUESS = "engine", "masses", "tokenizer"


class Stopwatch:
    """`seconds[kind]`, while `enter` and `leave` are called around work of a kind."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = time.perf_counter()

    def enter(self, kind: str) -> None:
        self._settle()
        self._open.append(kind)

    def leave(self) -> None:
        self._settle()
        self._open.pop()

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def around(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(kind)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return timed


@contextmanager
def instrumented(llm: Any) -> Iterator[Stopwatch]:
    """A stopwatch fed by the model, the engine, the masses and the tokenizer. Undone at the end."""
    from genlm.bytes import contexts
    from genlm.bytes.backends import hf_tree
    from genlm.bytes.byte_lm import draft, tokenized_prefill
    from genlm.bytes.trie import masses

    stopwatch = Stopwatch()
    undo: list[Callable[[], None]] = []

    def replace(owner: Any, name: str, value: Any) -> None:
        undo.append(functools.partial(setattr, owner, name, inspect.getattr_static(owner, name)))
        setattr(owner, name, value)

    on_gpu = llm.model.device.type == "cuda"

    def leave(*_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()  # else the time would be that of starting the work
        stopwatch.leave()

    for kind, module in ((MODEL, llm.model), (HEAD, llm.model.get_output_embeddings())):
        hooks = (
            module.register_forward_pre_hook(lambda *_, kind=kind: stopwatch.enter(kind)),
            module.register_forward_hook(leave),
        )
        undo += [hook.remove for hook in hooks]
    for module in (*_modules(hf_tree), *_modules(contexts)):
        for owner in _classes(module):
            _wrap(stopwatch, ENGINE, owner, replace)
    for owner in _classes(masses):
        _wrap(stopwatch, MASSES, owner, replace)
    for module in (draft, tokenized_prefill):
        if hasattr(module, "draft_tokens"):
            replace(module, "draft_tokens", stopwatch.around(GUESS, module.draft_tokens))
    replace(torch, "log_softmax", stopwatch.around(SOFTMAX, torch.log_softmax))
    try:
        yield stopwatch
    finally:
        for step in reversed(undo):
            step()


def _modules(package: Any) -> list[Any]:
    names = [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
    return [package, *map(importlib.import_module, names)]


def _classes(module: Any) -> list[type]:
    return [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]


def _wrap(stopwatch: Stopwatch, kind: str, owner: type, replace: Callable[[Any, str, Any], None]) -> None:
    """Wrap the methods of a class. Coroutines are left out: they mostly wait."""
    for name, value in list(vars(owner).items()):
        inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        special = name.startswith("__") and name != "__init__"
        if not inspect.isfunction(inner) or special or inspect.iscoroutinefunction(inner):
            continue
        wrapped = stopwatch.around(kind, inner)
        replace(owner, name, type(value)(wrapped) if inner is not value else wrapped)
