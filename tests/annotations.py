"""Annotations that hold: every call into `genlm.bytes` is checked while the tests run.

`install()` puts an import hook in front of `genlm.bytes`. Once a module has been executed, its
functions, methods, properties and dataclass constructors are replaced by ones that compare arguments and
results with their annotations: beartype judges types, jaxtyping shapes and dtypes, and an axis named
twice in one signature (`"batch nodes"`) must have one size.

Why not jaxtyping's own hook: it compares the coroutine that an `async def` returns with the annotation
of what it is awaited for, and beartype refuses `Self` in a method that is decorated by itself.

What happens to a wrong argument: the function is called all the same. It may refuse the argument with an
error of its own, which is what users see and what tests of error paths want to see; if it does not, the
call fails with `AnnotationError`. Names that a module imports under `TYPE_CHECKING` are not checked.
"""

from __future__ import annotations

import inspect
import random
import sys
import typing
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import chain
from types import FunctionType, ModuleType
from typing import Any

import beartype._check.code.codemain as generator
import numpy as np
import torch
from beartype import BeartypeConf, FrozenDict
from beartype.door import is_bearable
from beartype.roar import BeartypeException
from jaxtyping import jaxtyped

PACKAGE = "genlm.bytes"
# numpy's scalars are numbers, and an int is a float. (An override that mentions its own key is a union.)
CONF = BeartypeConf(
    hint_overrides=FrozenDict({int: int | np.integer, float: float | int | np.floating | np.integer})
)

# beartype looks at one random item of a list. Drawn from the global `random`, that would change what a
# seeded test draws next, and hypothesis refuses it inside strategies.
assert hasattr(generator, "getrandbits")
generator.getrandbits = random.Random(0).getrandbits  # type: ignore[attr-defined]

counts = {"functions": 0, "annotations": 0}
unchecked: list[str] = []
"""Annotations that are skipped, with the reason."""


class AnnotationError(TypeError):
    """An argument or a result is not what its annotation says."""


def install() -> None:
    """Check all modules of the package that are imported from now on."""
    early = [name for name in sys.modules if name == PACKAGE or name.startswith(PACKAGE + ".")]
    assert not early, f"imported before the hook could be installed: {early}"
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != PACKAGE and not fullname.startswith(PACKAGE + "."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                setattr(module, name, checked(value))
            elif isinstance(value, type) and value.__module__ == module.__name__:
                _check_class(value)


def _check_class(cls: type) -> None:
    for name, value in list(vars(cls).items()):
        if isinstance(value, type) and value.__qualname__ == f"{cls.__qualname__}.{name}":
            _check_class(value)
        elif isinstance(value, FunctionType) and value.__module__ == cls.__module__:
            setattr(cls, name, checked(value, cls))
        elif isinstance(value, classmethod | staticmethod):
            setattr(cls, name, type(value)(checked(value.__func__, cls)))
        elif isinstance(value, property) and value.fget is not None:
            new = property(checked(value.fget, cls), value.fset, value.fdel, value.__doc__)
            setattr(cls, name, new)
        elif isinstance(value, cached_property):
            value.func = checked(value.func, cls)


def checked(fn: Callable[..., Any], owner: type | None = None) -> Callable[..., Any]:
    """`fn` with its annotations enforced; `fn` itself where it has none that can be."""
    hints = _hints(fn, owner)
    if not hints:
        return fn
    counts["functions"] += 1
    counts["annotations"] += len(hints)
    signature = inspect.signature(fn)
    parameters = signature.parameters.values()
    gathers = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    where = f"{fn.__module__}.{fn.__qualname__}"

    def wrong_argument(args: Any, kwargs: Any) -> str | None:
        if not gathers:  # `bind` would take longer than most functions; a wrong call fails by itself
            for name, value in chain(zip(places, args, strict=False), kwargs.items()):
                if name in hints and not _fits(value, hints[name], where):
                    return _complaint(where, f"argument `{name}`", value, hints[name])
            return None
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return None  # the call itself will say so
        for name, value in bound.items():
            values = [(name, value)]
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                values = [(name, one) for one in value]
            elif kind is inspect.Parameter.VAR_KEYWORD:  # all of one kind, or each by its name (`Unpack`)
                values = [(name if name in hints else key, one) for key, one in value.items()]
            for key, one in values:
                if key in hints and not _fits(one, hints[key], where):
                    return _complaint(where, f"argument `{key}`", one, hints[key])
        return None

    def check_result(result: Any) -> None:
        if "return" in hints and not _fits(result, hints["return"], where):
            raise AnnotationError(_complaint(where, "its result", result, hints["return"]))

    if inspect.iscoroutinefunction(fn):

        @wraps(fn)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            # Other tasks run while we wait: each check is a context of its own, never held over an await.
            with _axes():
                wrong = wrong_argument(args, kwargs)
            result = await fn(*args, **kwargs)
            if wrong:
                raise AnnotationError(wrong)
            with _axes():
                wrong_argument(args, kwargs)
                check_result(result)
            return result

        return asynchronous

    @wraps(fn)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        with _axes():
            wrong = wrong_argument(args, kwargs)
            result = fn(*args, **kwargs)
            if wrong:
                raise AnnotationError(wrong)
            check_result(result)
        return result

    return synchronous


def _axes() -> AbstractContextManager[None]:
    """Within it, an axis name stands for one size."""
    return jaxtyped("context")  # type: ignore[arg-type]


def _hints(fn: Callable[..., Any], owner: type | None) -> dict[str, Any]:
    """The annotations of `fn` as objects that can be checked."""
    found: dict[str, Any] = {}
    names: dict[str, Any] = {"Self": owner, owner.__name__: owner} if owner else {}
    names |= {"torch": torch, "Tensor": torch.Tensor}  # which modules that can do without import late
    # The constructor of a named tuple is made in a module of its own, where no name means anything.
    scope = vars(sys.modules[owner.__module__]) if owner else fn.__globals__
    hints = [(name, hint, scope) for name, hint in fn.__annotations__.items()]
    for name, hint, scope in hints:  # which grows by the options that are unpacked
        where = f"{fn.__module__}.{fn.__qualname__}({name})"
        if name == "return" and (hasattr(fn, "__wrapped__") or inspect.isasyncgenfunction(fn)):
            continue  # a context manager's annotation is that of the generator inside
        if isinstance(hint, typing.ForwardRef):  # beartype would look its name up again at every call
            hint = hint.__forward_arg__
        try:
            value = eval(hint, scope, names) if isinstance(hint, str) else hint
            if typing.get_origin(value) is typing.Unpack:
                options = typing.get_args(value)[0]
                inner = vars(sys.modules[options.__module__])
                hints += [(key, option, inner) for key, option in options.__annotations__.items()]
                continue
            value = type(None) if value is None else value
            if value is Any or value in (typing.NoReturn, typing.Never):
                continue
            is_bearable(None, value, conf=CONF)  # what cannot be judged is found here, not at some call
        except (NameError, TypeError, AttributeError, BeartypeException) as error:
            reason = str(error) if isinstance(error, NameError) else f"{type(error).__name__}: {error}"
            unchecked.append(f"{where}: {hint}: {reason}")
            continue
        found[name] = value
    return found


def _fits(value: Any, hint: Any, where: str) -> bool:
    try:
        return is_bearable(value, hint, conf=CONF)
    except BeartypeException as error:  # such as a type variable bound to a name that is not there
        unchecked.append(f"{where}: {hint}: {type(error).__name__}")
        return True


def _complaint(where: str, what: str, value: Any, hint: Any) -> str:
    shape = f" of shape {tuple(value.shape)} and dtype {value.dtype}" if hasattr(value, "shape") else ""
    return f"{where}: {what} is a {type(value).__name__}{shape}, {repr(value)[:200]}; annotated {hint}"
