"""How a test writes down calls, so that two interpreters can make the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Array", "Builtin", "Function", "Mode", "Program", "Ref", "Slice", "Tok"]


@dataclass(frozen=True)
class Ref:
    """The value of a step."""

    name: str


@dataclass(frozen=True)
class Tok:
    token_id: int
    byte_string: bytes


@dataclass(frozen=True)
class Mode:
    value: str


@dataclass(frozen=True)
class Function:
    """One of the functions that the worker knows by name."""

    name: str


@dataclass(frozen=True)
class Slice:
    start: int | None
    stop: int | None
    step: int | None = None


@dataclass(frozen=True)
class Builtin:
    name: str


@dataclass(frozen=True)
class Array:
    kind: str  # "ndarray", "tensor" or "tensor32"
    numbers: Any


@dataclass
class Program:
    """Steps, in order. Each method writes one and returns the name of its value."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    def _add(self, *do: Any, nodes: tuple[str, Ref] | None = None, opaque: bool = False) -> Ref:
        ref = Ref(f"v{len(self.steps)}")
        step: dict[str, Any] = {"do": do, "as": ref.name}
        if nodes is not None:
            step["nodes"] = (nodes[0], nodes[1].name)
        if opaque:
            step["opaque"] = True
        self.steps.append(step)
        return ref

    def find(self, module: str, name: str) -> Ref:
        return self._add("find", f"genlm.bytes{'.' if module else ''}{module}", name)

    def new(self, where: str, *args: Any, **kwargs: Any) -> Ref:
        """The object that a public name makes of some arguments: `"trie:TokenByteTrie"`."""
        module, name = where.split(":")
        return self.call(self.find(module, name), None, *args, **kwargs)

    def call(self, target: Any, name: str | None, *args: Any, **kwargs: Any) -> Ref:
        how = {k: kwargs.pop(k) for k in ("nodes", "opaque") if k in kwargs}
        kwargs = {k: plain(v) for k, v in kwargs.items()}
        return self._add("call", plain(target), name, [plain(x) for x in args], kwargs, **how)

    def get(self, target: Any, name: str, **how: Any) -> Ref:
        return self._add("get", plain(target), name, **how)

    def set(self, target: Any, name: str, value: Any) -> Ref:
        return self._add("set", plain(target), name, plain(value))

    def op(self, name: str, *args: Any, **how: Any) -> Ref:
        return self._add("op", name, [plain(x) for x in args], **how)

    def model(self, vocab: Any, **kwargs: Any) -> Ref:
        return self._add("model", plain(vocab), kwargs, opaque=True)

    def node(self, trie: Ref, *path: Any) -> Ref:
        return self._add("node", plain(trie), [plain(edge) for edge in path], nodes=("node", trie))

    def gather(self, *calls: tuple[Ref, str, list[Any]]) -> Ref:
        found = [[plain(r), name, [plain(x) for x in args], {}] for r, name, args in calls]
        return self._add("gather", found, opaque=True)

    def do(self, what: str, *args: Any, **how: Any) -> Ref:
        return self._add(what, *[plain(x) for x in args], **how)


def plain(x: Any) -> Any:
    """A value as the worker reads it."""
    if isinstance(x, Ref):
        return {"ref": x.name}
    if isinstance(x, bytes):
        return {"bytes": x.hex()}
    if isinstance(x, float) and not math.isfinite(x):
        return {"float": repr(x)}
    if isinstance(x, Tok):
        return {"token": [x.token_id, x.byte_string.hex()]}
    if isinstance(x, Mode):
        return {"mode": x.value}
    if isinstance(x, Function):
        return {"function": x.name}
    if isinstance(x, Builtin):
        return {"class": x.name}
    if isinstance(x, Slice):
        return {"slice": [x.start, x.stop, x.step]}
    if isinstance(x, Array):
        return {x.kind: plain(x.numbers)}
    if isinstance(x, tuple):
        return {"tuple": [plain(y) for y in x]}
    if isinstance(x, set):
        return {"set": [plain(y) for y in sorted(x)]}
    if isinstance(x, dict):
        return {"dict": [[plain(k), plain(v)] for k, v in x.items()]}
    if isinstance(x, list):
        return [plain(y) for y in x]
    return x
