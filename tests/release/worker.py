"""Performs public calls under whichever interpreter runs it, and says what came of them in plain data.

One JSON document a line: a program comes in (`programs.py` makes them), the outcomes of its steps go out.
Plain Python and what `genlm-bytes` of either generation depends on, nothing else: both run this file.

A step's outcome holds the value in a form that does not depend on how it is stored: family of the type and
content. Node numbers are each generation's own affair, so steps that speak of nodes name them by the path
that leads there. An exception is the set of built-in exceptions that would catch it.
"""

from __future__ import annotations

import asyncio
import builtins
import copy
import importlib
import inspect
import json
import math
import operator
import os
import pickle
import random
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from genlm.backend.tokenization import Token

FUNCTIONS = {
    "first": lambda key: key[0],
    "length": len,
    "is_a": lambda key: str(key).startswith("a"),
    "double": lambda value: value * 2,
    "exp": math.exp,
    "upper": lambda key: str(key).upper(),
    "style": lambda key, value: f"<{value:.2f}>",
    "likeliest": lambda probs: max(
        sorted(probs, key=repr), key=lambda key: (round(float(probs[key]), 9), repr(key))
    ),
    "negated": lambda key: [-x for x in key.encode()],
}

OPERATIONS = {
    "getitem": (operator.getitem, "__getitem__"),
    "setitem": (operator.setitem, "__setitem__"),
    "delitem": (operator.delitem, "__delitem__"),
    "lshift": (operator.lshift, "__lshift__"),
    "add": (operator.add, "__add__"),
    "mul": (operator.mul, "__mul__"),
    "or": (operator.or_, "__or__"),
    "ror": (lambda x, y: y | x, "__ror__"),
    "ior": (operator.ior, "__ior__"),
    "eq": (operator.eq, "__eq__"),
    "req": (lambda x, y: y == x, "__eq__"),
    "ne": (operator.ne, "__ne__"),
    "lt": (operator.lt, "__lt__"),
    "le": (operator.le, "__le__"),
    "gt": (operator.gt, "__gt__"),
    "ge": (operator.ge, "__ge__"),
    "contains": (operator.contains, "__contains__"),
    "len": (len, "__len__"),
    "list": (list, "__iter__"),
    "dict": (dict, "__iter__"),
    "reversed": (lambda x: list(reversed(x)), "__reversed__"),
    "bool": (bool, "__len__"),
    "str": (str, "__str__"),
    "repr": (repr, "__repr__"),
    "hash": (lambda x: isinstance(hash(x), int), "__hash__"),
    "copy": (copy.copy, "__copy__"),
    "deepcopy": (copy.deepcopy, "__deepcopy__"),
    "pickle": (lambda x: pickle.loads(pickle.dumps(x)), "__reduce__"),
    "float": (float, "__float__"),
    "format": (lambda x, spec: format(x, spec), "__format__"),
    "sorted": (lambda x: sorted(x, key=repr), "__iter__"),
    "isinstance": (isinstance, "__instancecheck__"),
    "call": (lambda x, *args: x(*args), "__call__"),
}


# -- what both generations are given ------------------------------------------------------------------


class Tokenizer:
    def __init__(self, bos: int | None, eos: int | None) -> None:
        self.bos_token_id = bos
        self.eos_token_id = eos


class Model:
    """A model whose distributions are a function of the context, the same on both sides."""

    def __init__(
        self,
        vocab: list[Token],
        seed: int,
        bos: int | None = 0,
        eos: int | None = None,
        zeros: float = 0.0,
        dtype: str = "float32",
        extra: int = 0,
    ) -> None:
        self.byte_vocab = vocab
        self.tokenizer = Tokenizer(bos, eos)
        self.seed, self.zeros, self.dtype = seed, zeros, getattr(torch, dtype)
        self.size = max(token.token_id for token in vocab) + 1 + extra

    def logps(self, ids: Sequence[int]) -> torch.Tensor:
        rng = random.Random(f"{self.seed}:{list(map(int, ids))}")
        p = [rng.random() ** 2 + 1e-2 for _ in range(self.size)]
        if self.zeros:
            p = [0.0 if rng.random() < self.zeros else x for x in p]
            p[rng.randrange(self.size)] += 0.1
        return torch.log(torch.tensor(p, dtype=torch.float64) / sum(p)).to(self.dtype)

    async def next_token_logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        return self.logps(ids)

    async def batch_next_token_logprobs(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.stack([self.logps(ids) for ids in batch])


class Duck:
    """A model after some tokens of somebody's own making: what a candidate needs, and no more."""

    def __init__(self, model: Model, ids: tuple[int, ...] = ()) -> None:
        self._model, self._ids = model, ids

    async def logp_next(self) -> torch.Tensor:
        return self._model.logps(self._ids)

    def __lshift__(self, token: int) -> Duck:
        return Duck(self._model, (*self._ids, int(token)))

    def __repr__(self) -> str:
        return "duck"


def subclass(**methods: Any) -> Any:
    """A byte-level model of somebody's own: what `StatefulByteLM` asks for and no more."""
    from genlm.bytes.byte_lm.lm_state import StatefulByteLM
    from genlm.bytes.util import LazyByteProbs

    class Own(StatefulByteLM):
        def __init__(self, text: bytes = b"") -> None:
            self.text = text

        async def __lshift__(self, b: int) -> Own:
            return Own(self.text + bytes([b]))

        async def logp_next(self) -> LazyByteProbs:
            ps = np.full(258, -np.inf)
            ps[97 + len(self.text) % 3] = np.log(0.75)
            ps[100] = np.log(0.25)
            return LazyByteProbs(ps)

        def prune(self) -> Own:
            return self

        async def prefill(self, bs: bytes) -> Own:
            return Own(self.text + bytes(bs))

    return Own()


# -- nodes by the path that leads to them --------------------------------------------------------------


def paths(trie: Any) -> dict[int, str]:
    trie = getattr(trie, "trie", trie)
    found, todo = {int(trie.root): "/"}, [int(trie.root)]
    while todo:
        node = todo.pop()
        for edge, child in trie.children[node].items():
            label = f"EOT:{edge[1]}" if isinstance(edge, tuple) else f"{edge}"
            found[int(child)] = f"{found[node].rstrip('/')}/{label}"
            todo.append(int(child))
    return found


def by_path(form: str, value: Any, names: dict[int, str]) -> Any:
    """A value that speaks of nodes, with the nodes named."""
    if form == "node":
        return names.get(int(value), f"no node {value}")
    if form == "nodes":
        return [names.get(int(node), f"no node {node}") for node in value]
    if form == "vector":
        return {names[node]: x for node, x in enumerate(np.asarray(value).tolist())}
    if form == "matrix":
        return [by_path("vector", row, names) for row in np.asarray(value)]
    if form == "keys":
        return {names[int(node)]: x for node, x in value.items()}
    if form == "values":
        return {key: names[int(node)] for key, node in value.items()}
    if form == "sequence":
        return {names[node]: by_path("values", edges, names) for node, edges in enumerate(value)}
    if form == "firsts":
        return sorted((names[int(node)], int(x)) for node, x in value)
    if form == "seconds":
        return sorted((int(x), names[int(node)]) for x, node in value)
    raise ValueError(form)


# -- values in plain form ------------------------------------------------------------------------------


def show(value: Any, depth: int = 0) -> Any:
    """A value as its family and content."""
    if depth > 8:
        return {"deep": type(value).__name__}
    inner = lambda x: show(x, depth + 1)  # noqa: E731
    kind = type(value)
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, Enum):
        return {"enum": value.value}
    if isinstance(value, int | np.integer):
        return {"int": int(value)}
    if isinstance(value, float | np.floating):
        return {"float": repr(float(value))}
    if isinstance(value, str):
        return {"str": value}
    if isinstance(value, Token):
        return {"token": [value.token_id, bytes(value).hex()]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, torch.Tensor | np.ndarray):
        family = "tensor" if isinstance(value, torch.Tensor) else "ndarray"
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        numbers = [repr(float(x)) for x in value.ravel().tolist()]
        return {family: numbers, "shape": list(value.shape), "dtype": value.dtype.kind}
    if kind.__module__.startswith("genlm.bytes") and kind.__name__ in SHOWN:
        return {kind.__name__: inner(SHOWN[kind.__name__](value))}
    if kind.__name__ == "DataFrame":
        return {
            "frame": [inner(list(value.columns)), sorted(map(repr, inner(value.values.tolist())["list"]))]
        }
    if kind.__name__ == "Digraph":
        return {"drawing": [value.source.count("->"), len(value.body)]}
    if isinstance(value, Mapping):
        return {"dict": sorted(([inner(k), inner(v)] for k, v in value.items()), key=repr)}
    if isinstance(value, tuple):
        return {"tuple": [inner(x) for x in value]}
    if isinstance(value, set | frozenset):
        return {"set": sorted((inner(x) for x in value), key=repr)}
    if isinstance(value, Sequence):
        return {"list": [inner(x) for x in value]}
    if kind.__name__ in ("dict_items", "dict_keys", "ItemsView", "KeysView"):
        return {"set": sorted((inner(x) for x in value), key=repr)}
    if kind.__name__ in ("dict_values", "ValuesView"):
        return {"values": sorted((inner(x) for x in value), key=repr)}
    if inspect.isclass(value):
        return {"class": value.__name__}
    return {"object": kind.__name__ if not kind.__module__.startswith("genlm.bytes") else "ours"}


def state(s: Any) -> Any:
    return {
        "partial": list(s.partial),
        "weight": float(s.weight),
        "mode": s.mode,
        "terminated": bool(s.terminated),
        "context": list(getattr(s.lm_state, "context", [])),
    }


def beam(b: Any) -> Any:
    """Its candidates; those that differ in nothing but rounding may come in any order."""
    by = sorted(
        (state(s) for s in b.states), key=lambda s: (repr(s["context"]), s["partial"], s["terminated"])
    )
    ordered = all(x.weight >= y.weight for x, y in zip(b.states, b.states[1:], strict=False))
    return {"states": by, "ordered": ordered, "logZ": float(b.logZ), "params": b.params}


SHOWN = {
    "LazyTrieState": state,
    "ByteBeamState": beam,
    "StatefulTokenizedLM": lambda s: [list(s.context), s.max_context_length],
    "LazyByteProbs": lambda p: [p.log_space, [float(p[b]) for b in (*range(256), None, 257)]],
    "BeamParams": lambda p: {
        name: getattr(p, name)
        for name in ("K", "prune_threshold", "verbose", "eos_byte_strings", "heal", "log_prune_threshold")
    },
    "TokenHealer": lambda h: [h.max_backoff, h.max_splits, h.verbose],
    "Chart": lambda c: {"zero": c.zero, "entries": dict(c)},
    "TokenByteTrie": lambda t: sorted(paths(t).values()),
    "AsyncTokenByteTrie": lambda t: sorted(paths(t).values()),
    "Own": lambda m: m.text,
}


def failure(error: BaseException) -> Any:
    kinds = [k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins"]
    return {
        "error": [k for k in kinds if k not in ("object", "BaseException", "Exception")],
        "message": str(error),
    }


# -- the programs ----------------------------------------------------------------------------------------


class Skipped(Exception):
    """A step needs the value of one that failed."""


class Run:
    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.visited: set[tuple[str, str]] = set()
        self.attributes: dict[str, set[str]] = {}

    def read(self, x: Any) -> Any:
        """A value as `programs.plain` wrote it."""
        if isinstance(x, list):
            return [self.read(y) for y in x]
        if not isinstance(x, dict):
            return x
        ((kind, content),) = x.items()
        if kind == "ref":
            if content not in self.names:
                raise Skipped(content)
            return self.names[content]
        if kind == "bytes":
            return bytes.fromhex(content)
        if kind == "float":
            return float(content)
        if kind == "token":
            return Token(content[0], bytes.fromhex(content[1]))
        if kind == "mode":
            from genlm.bytes.trie import TrieMode

            return TrieMode(content)
        if kind == "function":
            return FUNCTIONS[content]
        if kind == "slice":
            return slice(*content)
        if kind == "class":
            return getattr(builtins, content)
        content = self.read(content)
        if kind == "ndarray":
            return np.array(content, np.float64)
        if kind == "tensor":
            return torch.tensor(content, dtype=torch.float64)
        if kind == "tensor32":
            return torch.tensor(content, dtype=torch.float32)
        if kind == "dict":
            return {k: v for k, v in content}
        return {"tuple": tuple, "set": set, "list": list}[kind](content)

    async def step(self, step: dict[str, Any]) -> Any:
        what, *rest = step["do"]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = await getattr(self, f"do_{what}")(*rest)
            except Skipped as needed:
                return {"skipped": str(needed)}
            except Exception as error:
                out = failure(error)
            else:
                if "as" in step:
                    self.names[step["as"]] = value
                self.note(value)
                try:
                    out = {"value": self.shown(value, step)}
                except Exception as error:
                    out = {"unshowable": failure(error)}
        warned = {w.category.__name__ for w in caught} & {"DeprecationWarning"}
        return {**out, "warned": sorted(warned)}

    def shown(self, value: Any, step: dict[str, Any]) -> Any:
        if step.get("opaque"):
            return None
        if "nodes" in step and value is not None:
            form, trie = step["nodes"]
            value = by_path(form, value, paths(self.names[trie]))
        return show(value)

    def note(self, value: Any) -> None:
        """Which attributes objects of the library have of their own."""
        kind = type(value)
        if isinstance(value, tuple | list):
            for x in value[:3]:
                self.note(x)
        if kind.__module__.startswith("genlm.bytes") and hasattr(value, "__dict__"):
            own = {name for name in vars(value) if not name.startswith("_")}
            self.attributes.setdefault(kind.__name__, set()).update(own)

    def visit(self, target: Any, name: str) -> None:
        if inspect.isclass(target) or inspect.ismodule(target):
            self.visited.add((target.__name__, name))
        for kind in type(target).__mro__:
            self.visited.add((kind.__name__, name))

    async def do_find(self, module: str, name: str) -> Any:
        found = getattr(importlib.import_module(module), name)
        self.visited.add((module, name))
        return found

    async def do_call(self, target: Any, name: str | None, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target = self.read(target)
        if name is None:
            self.visit(target, "__init__")
        else:
            self.visit(target, name)
            target = getattr(target, name)
        value = target(*[self.read(x) for x in args], **{k: self.read(v) for k, v in kwargs.items()})
        # A guard: what never answers is an outcome like any other, with the program that led to it.
        return await asyncio.wait_for(value, 60) if inspect.isawaitable(value) else value

    async def do_get(self, target: Any, name: str) -> Any:
        target = self.read(target)
        self.visit(target, name)
        return getattr(target, name)

    async def do_set(self, target: Any, name: str, value: Any) -> Any:
        setattr(self.read(target), name, self.read(value))

    async def do_op(self, name: str, args: list[Any]) -> Any:
        function, dunder = OPERATIONS[name]
        values = [self.read(x) for x in args]
        self.visit(values[0], dunder)
        value = function(*values)
        return await asyncio.wait_for(value, 60) if inspect.isawaitable(value) else value

    async def do_model(self, vocab: Any, kwargs: dict[str, Any]) -> Any:
        return Model(self.read(vocab), **kwargs)

    async def do_duck(self, model: Any) -> Any:
        return Duck(self.read(model))

    async def do_own(self) -> Any:
        return subclass()

    async def do_node(self, trie: Any, path: list[Any]) -> Any:
        trie = self.read(trie)
        trie = getattr(trie, "trie", trie)
        node = trie.root
        for edge in path:
            edge = self.read(edge)
            edges = trie.children[node]
            node = edges[edge] if not isinstance(edge, str) else edges[(trie.eot_sentinel, int(edge))]
        return node

    async def do_number_of_nodes(self, trie: Any, value: float) -> Any:
        """One number a node."""
        return [value] * len(self.read(trie).children)

    async def do_together(self, calls: list[Any]) -> Any:
        """Several calls at once: what each gives, or its error."""
        found = await asyncio.gather(*(self.do_call(*call) for call in calls), return_exceptions=True)
        return [failure(x)["error"] if isinstance(x, Exception) else x for x in found]

    async def do_surface(self, modules: list[str]) -> Any:
        return surface(modules)

    async def program(self, steps: list[dict[str, Any]]) -> list[Any]:
        outcomes = [await self.step(step) for step in steps]
        for value in self.names.values():
            if type(value).__name__ in ("AsyncTokenByteTrie", "ByteBeamState"):
                stop = value.cleanup()
                try:
                    await stop
                except Exception as error:
                    outcomes.append(failure(error))
        return outcomes


# -- what there is ---------------------------------------------------------------------------------------


def surface(modules: list[str]) -> Any:
    """Every public name of some modules, every public member of their classes, and all signatures."""
    names: dict[str, Any] = {}
    classes: dict[str, Any] = {}
    for module in map(importlib.import_module, modules):
        for name in dir(module):
            value = getattr(module, name)
            home = getattr(value, "__module__", None)
            if name.startswith("_"):
                continue
            own = str(home).startswith("genlm.bytes")
            names[f"{module.__name__}:{name}"] = {
                "module": inspect.ismodule(value) and value.__name__,
                "own": own,
                "plain": isinstance(value, int | str | float),
                "signature": signature(value) if own and callable(value) else None,
            }
            if inspect.isclass(value) and own:
                classes[value.__name__] = {
                    member: signature(getattr(value, member))
                    for member in dir(value)
                    if public(member) and not same_as_object(value, member)
                }
    return {"str": json.dumps({"names": names, "classes": classes})}


def public(member: str) -> bool:
    return not member.startswith("_") or bool(re.fullmatch(r"__\w+__", member)) or member == "_repr_html_"


def same_as_object(kind: type, member: str) -> bool:
    """Whether a member is what every object, enum, dataclass or abstract class has."""
    return inspect.getattr_static(kind, member) is inspect.getattr_static(object, member, None)


def signature(value: Any) -> Any:
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        [p.name, p.kind.name, p.default is not p.empty, shown_default(p.default)]
        for p in parameters
        if p.name != "self"
    ]


def shown_default(default: Any) -> Any:
    return "a function" if inspect.isfunction(default) else repr(default)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not be taken for an answer
    print(json.dumps({"ready": importlib.import_module("genlm.bytes").__file__}), file=answers, flush=True)
    for line in sys.stdin:
        run, (number, steps) = Run(), json.loads(line)
        outcomes = asyncio.run(run.program(steps))
        answer = {
            "number": number,
            "outcomes": outcomes,
            "visited": sorted(run.visited),
            "attributes": {kind: sorted(names) for kind, names in run.attributes.items()},
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
