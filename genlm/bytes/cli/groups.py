"""Options that several commands share, written once.

A group is a frozen dataclass whose fields are typer options with defaults:

    @dataclass(frozen=True)
    class Colours:
        dark: Annotated[bool, typer.Option(help="Darker.")] = False

A command takes it as one parameter, and `grouped` turns that into the options themselves:

    def paint(colours: Colours, shared: Shared) -> None: ...

    app.command("paint")(grouped(paint))

A field may be a group itself.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, get_type_hints

__all__ = ["grouped"]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each dataclass among its parameters replaced by that class's fields.

    Arguments and options appear in the order of the parameters.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    parameters = _spread(own)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(**_gathered(own, given))

    del run.__wrapped__  # typer reads the signature and the annotations, and these are no longer its own
    run.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return run


def _spread(parameters: Iterable[inspect.Parameter]) -> list[inspect.Parameter]:
    found = list[inspect.Parameter]()
    for parameter in parameters:
        within = _fields(parameter.annotation)
        found += _spread(within) if within else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    return found


def _gathered(parameters: Iterable[inspect.Parameter], given: dict[str, Any]) -> dict[str, Any]:
    found = dict[str, Any]()
    for parameter in parameters:
        kind, within = parameter.annotation, _fields(parameter.annotation)
        found[parameter.name] = kind(**_gathered(within, given)) if within else given[parameter.name]
    return found


def _fields(kind: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass, as parameters; of anything else none."""
    if not dataclasses.is_dataclass(kind):
        return []
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in dataclasses.fields(kind)
    ]
