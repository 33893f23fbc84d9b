"""`ByteLM`'s methods in the reference: they are made of `AsyncByteLM`'s, which its source does not show."""

from __future__ import annotations

from typing import Any

import griffe


class PlainMethods(griffe.Extension):
    """`complete = _plain(AsyncByteLM.complete)` is a method, with the signature and the text of the other."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe with the whole package."""
        plain, coroutines = pkg["bytes.api.lm.ByteLM"], pkg["bytes.api.async_lm.AsyncByteLM"]
        for name, member in list(plain.members.items()):
            if isinstance(member, griffe.Attribute) and str(member.value) == f"_plain(AsyncByteLM.{name})":
                method = coroutines[name]
                plain.set_member(
                    name,
                    griffe.Function(
                        name,
                        parameters=method.parameters,
                        returns=method.returns,
                        docstring=method.docstring,
                        lineno=member.lineno,
                        endlineno=member.endlineno,
                        analysis="static",
                    ),
                )
