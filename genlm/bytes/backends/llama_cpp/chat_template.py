"""A chat template that came with a file, rendered in jinja's sandbox, as transformers renders it.

A template is a program by whoever made the file. The sandbox keeps it from changing what it is given and from
anything outside; time it may take. What templates expect is the environment that transformers gives them:
blocks trimmed, `break` and `continue`, `raise_exception`, `strftime_now`, a `tojson` that escapes nothing,
and a tag that marks the assistant's words, which is read over here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

__all__ = ["render"]


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    variables: Mapping[str, Any],
) -> str:
    """A conversation as one text.

    Args:
        template: the template.
        messages: the messages.
        add_generation_prompt: go on to where the assistant speaks.
        variables: what else the template may use: `bos_token`, `tools`, …

    Raises:
        jinja2.TemplateError: the template is none, or refuses the messages.
    """
    given = {"tools": None, "documents": None, **variables, "add_generation_prompt": add_generation_prompt}
    return str(_compiled(template).render(messages=messages, **given))


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}`: what it holds, and nothing around it."""

        tags = {"generation"}  # noqa: RUF012 — jinja's own way

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(
            value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
        )

    loop_controls = "jinja2.ext.loopcontrols"
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loop_controls]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made.from_string(template)
