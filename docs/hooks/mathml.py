"""Formulas as MathML, made when the site is built: pages need no script and no network to show them.

Only the TeX that these pages use is known; any other command fails the build and is added here.
"""

from __future__ import annotations

import html
import re
from typing import Any

SYMBOLS = {
    "mid": "∣", "in": "∈", "cdot": "·", "dots": "…", "le": "≤", "ge": "≥", "times": "×", "infty": "∞",
    "alpha": "α", "tau": "τ", "sum": "∑", "prod": "∏", "to": "→", "approx": "≈", "ne": "≠",
}  # fmt: skip
NAMES = {"log", "exp", "min", "max"}
SPACES = {"\\,": 0.17, "\\ ": 0.25, "\\;": 0.28, "\\quad": 1.0}
STACKED = "∑∏"

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]|\d+(?:\.\d+)?|\S")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Called by MkDocs with each page's HTML."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    tex = html.unescape(found[2]).strip()[2:-2]
    display = ' display="block"' if found[1] == "div" else ""
    return f"<math{display}>{_Reader(tex).row()}</math>"


class _Reader:
    def __init__(self, tex: str) -> None:
        # `\text{…}` keeps its spaces, so it is one token.
        self.tokens = [t for t in re.findall(r"\\text\{[^}]*\}|" + _TOKEN.pattern, tex)][::-1]

    def row(self, end: str | None = None) -> str:
        parts = []
        while self.tokens and self.tokens[-1] != end:
            parts.append(self.scripted())
        if end is not None:
            self.tokens.pop()
        return f"<mrow>{''.join(parts)}</mrow>"

    def scripted(self) -> str:
        base = self.atom()
        scripts: dict[str, str] = {}
        while self.tokens and self.tokens[-1] in "_^":
            kind = self.tokens.pop()
            scripts[kind] = self.atom()
        if not scripts:
            return base
        below, above = ("munder", "mover") if any(s in base for s in STACKED) else ("msub", "msup")
        tag = {"_": below, "^": above, "_^": below + above.removeprefix("m")}["".join(sorted(scripts, reverse=True))]
        return f"<{tag}>{base}{scripts.get('_', '')}{scripts.get('^', '')}</{tag}>"

    def atom(self) -> str:
        token = self.tokens.pop()
        name = token.removeprefix("\\")
        if token == "{":
            return self.row("}")
        if token == r"\frac":
            return f"<mfrac>{self.atom()}{self.atom()}</mfrac>"
        if token.startswith(r"\text{"):
            return f"<mtext>{html.escape(token[6:-1])}</mtext>"
        if token in SPACES:
            return f'<mspace width="{SPACES[token]}em"/>'
        if token.startswith("\\"):
            if name in NAMES:
                return f'<mi>{name}</mi><mspace width="0.17em"/>'
            return f"<mo>{SYMBOLS[name]}</mo>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        return f"<mn>{token}</mn>" if token[0].isdigit() else f"<mo>{html.escape(token)}</mo>"
