"""What errors say of Python's arguments, as it is typed: `max_bytes` is `--max-bytes`, `boundary="none"` is
`--boundary none`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args

from typer.models import OptionInfo

from genlm.bytes.cli.groups import grouped

__all__ = ["as_typed"]

OTHER = {"prune_threshold": "threshold", "token_healing": "healing", "words": "word_list"}
"""Arguments whose options have other names."""
VALUE = re.compile(r"""(?<![\w.(])(\w+)=(?:"([^"]*)"|'([^']*)'|(True|False)|(-?\d[\d.e+-]*\d|\d))""")


def as_typed(message: str, command: Callable[..., None]) -> str:
    """An error's message for who typed a command; what is no option of it stays.

    Examples:
        >>> from genlm.bytes.cli.app import command
        >>> as_typed('`boundary` is 3: no. Use boundary="none".', command("score"))
        '`--boundary` is 3: no. Use --boundary none.'
    """
    known = _options(command)

    def value(found: re.Match[str]) -> str:
        name, quoted, single, flag, number = found.groups()
        on, off = known.get(OTHER.get(name, name), ("", ""))
        if flag is not None:
            return (on if flag == "True" else off) or found[0]
        given = quoted if quoted is not None else single if single is not None else number
        return f"{on} {given or repr(given)}" if on else found[0]

    def name(found: re.Match[str]) -> str:
        on, _ = known.get(OTHER.get(found[1], found[1]), ("", ""))
        return f"`{on}{found[2]}" if on else found[0]

    return re.sub(r"`(\w+)([\[`])", name, VALUE.sub(value, message))


def _options(command: Callable[..., None]) -> dict[str, tuple[str, str]]:
    """How each argument is typed, and how its contrary is, if it is; by its name, and by its option's."""
    found = dict[str, tuple[str, str]]()
    for parameter in inspect.signature(grouped(command)).parameters.values():
        info: Any = next((one for one in get_args(parameter.annotation) if isinstance(one, OptionInfo)), None)
        if info is None:
            continue
        given = (info.default, *(info.param_decls or ()))  # in an annotation the first is the default
        named = [one for one in given if isinstance(one, str) and one.startswith("-")]
        spelled = named or [f"--{parameter.name.replace('_', '-')}"]
        on, _, off = next((one for one in spelled if one.startswith("--")), spelled[0]).partition("/")
        found[parameter.name] = found[on.lstrip("-").replace("-", "_")] = on, off
    return found
