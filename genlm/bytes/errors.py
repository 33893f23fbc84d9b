"""Every exception that this library raises for its users.

All derive from `GenlmBytesError`, so one `except` clause catches what is ours, and each also
derives from the built-in exception that the documented API promises (`ValueError`, `TypeError`, …).
A message names the argument, the value it had, the rule it broke and what to do instead.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

__all__ = [
    "AssertedValueError",
    "BudgetExceededError",
    "DeadEndError",
    "EmptyBeamError",
    "GenlmBytesError",
    "ImpossibleByteError",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingDependencyError",
    "ModelOutputError",
    "ModelStateError",
    "ModelUnavailableError",
    "NotMaterializedError",
    "UnsupportedModelError",
]


class GenlmBytesError(Exception):
    """Base class of all errors raised by `genlm.bytes`."""


class InvalidValueError(GenlmBytesError, ValueError):
    """An argument has the right type and a value that breaks a rule."""


class AssertedValueError(InvalidValueError, AssertionError):
    """A value that release 0.2.0 refused by an assertion: whoever catches that catches this."""


class InvalidTypeError(GenlmBytesError, TypeError):
    """An argument has the wrong type, or two arguments exclude each other."""


class NotMaterializedError(GenlmBytesError, ValueError):
    """Masses were read from a state before `await state.materialize()`."""


class EmptyBeamError(GenlmBytesError, ValueError, AssertionError):
    """A question was asked of a beam in which no hypothesis is left."""


class DeadEndError(GenlmBytesError, ValueError):
    """Every particle has met a byte after which its mask, or its models, permit nothing.

    Attributes:
        offset: after how many new bytes the last one did.
    """

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.offset)


class BudgetExceededError(GenlmBytesError, RuntimeError):
    """An exact computation would keep more hypotheses than it was allowed."""


class ImpossibleByteError(InvalidValueError):
    """No hypothesis of the beam can read the next byte of a known context.

    Attributes:
        byte: the symbol that could not be read: 0..255, or a multi-byte atomic unit.
        offset: its offset in the context, in bytes.
        producible: whether any token of the model contains the byte at all.
    """

    def __init__(self, message: str, *, byte: int | bytes, offset: int, producible: bool) -> None:
        super().__init__(message)
        self.byte = byte
        self.offset = offset
        self.producible = producible

    def __reduce__(self) -> Any:
        """Arguments by name are lost on the way to another process unless they are named here."""
        return _remade, (type(self), str(self), self.byte, self.offset, self.producible)


def _remade(
    kind: type[ImpossibleByteError], message: str, byte: int | bytes, offset: int, producible: bool
) -> ImpossibleByteError:
    return kind(message, byte=byte, offset=offset, producible=producible)


class ModelUnavailableError(GenlmBytesError, RuntimeError):
    """A model could not be fetched, verified, converted or loaded."""


class ModelOutputError(GenlmBytesError, ValueError):
    """A model gave something else than natural log-probabilities, one for each token id."""


class ModelStateError(GenlmBytesError, RuntimeError):
    """A model has been brought into a state in which its figures would mean nothing."""


class UnsupportedModelError(GenlmBytesError, ValueError):
    """The engine cannot run this model over a tree of contexts."""


class MissingDependencyError(GenlmBytesError, ImportError):
    """An optional package is needed for this call."""


def optional(module: str, user: str, install: str) -> Any:
    """Import an optional module; where it is missing, the error says who needs it and what installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f"{user} needs the package {package}. Run: pip install {install}"
        ) from error


def training(model: Any) -> ModelStateError:
    """The error of a Hugging Face model that drops out units at random."""
    return ModelStateError(
        f"{type(model).__name__} is in training mode, in which it drops out units at random: "
        "log-probabilities are read in evaluation mode only. Call `model.eval()`."
    )


def bad_value(argument: str, value: Any, rule: str, instead: str = "") -> InvalidValueError:
    """An `InvalidValueError` worded in the house style."""
    return InvalidValueError(_sentence(argument, value, rule, instead))


def bad_asserted(argument: str, value: Any, rule: str, instead: str = "") -> AssertedValueError:
    """An `AssertedValueError` worded in the house style."""
    return AssertedValueError(_sentence(argument, value, rule, instead))


def bad_type(argument: str, value: Any, rule: str, instead: str = "") -> InvalidTypeError:
    """An `InvalidTypeError` worded in the house style; the type of `value` is named too."""
    return InvalidTypeError(_sentence(argument, value, rule, instead, f" (a {type(value).__name__})"))


def check_names(
    given: Iterable[str], known: Iterable[str], elsewhere: Callable[[str], str] = lambda _: ""
) -> None:
    """Refuse an option that does not exist; `elsewhere` may say of one where it belongs."""
    names = list(known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            meant = elsewhere(name) or (f"Did you mean `{close[0]}`?" if close else "")
            known_are = f"Known are {', '.join(names)}."
            raise InvalidTypeError(f"`{name}` is no option here. {meant}{' ' if meant else ''}{known_are}")


def names_checked(
    options: Callable[[], Iterable[str]] = tuple, elsewhere: Callable[[str], str] = lambda _: ""
) -> Callable[[C], C]:
    """Have the methods of a class refuse arguments that they have not by an error of ours, before all else.

    Args:
        options: the names that `**options` of a method stands for.
        elsewhere: see `check_names`.
    """

    def checked(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        _, *parameters = signature.parameters.values()
        own = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        more = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if more not in ([], ["options"]):
            return function

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            if not given.keys() <= set(own):
                check_names(given, [*own, *(options() if more else ())], elsewhere)
            try:
                return function(*args, **given)
            except TypeError:
                try:
                    signature.bind(*args, **given)
                except TypeError as error:  # it was the call
                    placed = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
                    named = ", ".join(name for name in own if name not in placed)
                    name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
                    said = f"`{name}` cannot be called so: {error}. Its arguments are {', '.join(placed)}"
                    raise InvalidTypeError(f"{said}{named and '; by name only '}{named}.") from None
                raise

        @functools.wraps(function)
        async def call_later(*args: Any, **given: Any) -> Any:
            return await call(*args, **given)

        return call_later if inspect.iscoroutinefunction(function) else call

    def decorated(cls: C) -> C:
        for name, member in list(vars(cls).items()):
            inner = member.__func__ if isinstance(member, classmethod) else member
            if inspect.isfunction(inner) and (name == "__init__" or name[0] != "_"):
                setattr(cls, name, checked(inner) if inner is member else classmethod(checked(inner)))
        return cls

    return decorated


@contextmanager
def called(**names: str) -> Iterator[None]:
    """Have errors of ours about an inner function's argument name that of the function which users called."""
    try:
        yield
    except GenlmBytesError as error:
        message = str(error)
        for inner, outer in names.items():
            if re.match(rf"`{inner}[`\[]", message):
                error.args = (f"`{outer}{message[len(inner) + 1 :]}",)
                break
        raise


def _sentence(argument: str, value: Any, rule: str, instead: str, note: str = "") -> str:
    shown = repr(value)
    if len(shown) > 120:
        shown = shown[:117] + "..."
    return f"`{argument}` is {shown}{note}: {rule}." + (f" {instead}" if instead else "")
