"""How bytes are shown to people, and tables to notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np

from genlm.bytes.errors import bad_type, bad_value

__all__ = ["escape", "format_byte", "format_table"]


def format_table(rows: Iterable[Iterable[Any]], headings: Iterable[Any] | None = None) -> str:
    """An HTML table for notebooks.

    A cell that can draw itself (`_repr_html_`, `_repr_svg_`, `_repr_image_svg_xml`) does; of any other
    value, and of headings, the text is shown, escaped.

    Args:
        rows: the rows, each as its cells.
        headings: a bold first row, none if None or empty.

    Examples:
        >>> format_table([["<b>", 1]])
        '<table><tr><td><pre>&lt;b&gt;</pre></td><td><pre>1</pre></td></tr></table>'
    """
    head = "".join(f"<td>{html.escape(str(h))}</td>" for h in headings or ())
    lines = [f'<tr style="font-weight: bold;">{head}</tr>'] if head else []
    lines += ["<tr>" + "".join(f"<td>{_cell(x)}</td>" for x in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def escape(x: bytes | bytearray | str | int) -> str:
    r"""A text in one visible line: a space becomes `␣`, and what cannot be printed an escape sequence.

    Args:
        x: bytes, a string, or one byte as its number.

    Raises:
        ValueError: a number that is no byte.
        TypeError: any other type.

    Examples:
        >>> print(escape(b"a b\n\xff"), escape("\u00ff\t"), escape(97))
        a␣b\n\xff ÿ\t a
    """
    if isinstance(x, int | np.integer):
        if not 0 <= x < 256:
            raise bad_value("x", x, "a number must be a byte 0..255")
        x = bytes([x])
    if isinstance(x, bytes | bytearray):
        return repr(bytes(x))[2:-1].replace(" ", "␣")
    if isinstance(x, str):
        return repr(x)[1:-1].replace(" ", "␣")
    raise bad_type("x", x, "must be bytes, a string, or a byte as its number")


def format_byte(byte_val: Any) -> str:
    r"""A byte as Python writes it; anything that is no byte, as `str` does.

    Examples:
        >>> print(format_byte(97), format_byte(10), format_byte(257))
        b'a' b'\n' 257
    """
    is_byte = isinstance(byte_val, int | np.integer) and 0 <= byte_val < 256
    return repr(bytes([byte_val])) if is_byte else str(byte_val)


def _cell(x: Any) -> str:
    for method in ("_repr_html_", "_repr_svg_", "_repr_image_svg_xml"):
        draw = None if isinstance(x, type) else getattr(x, method, None)
        if draw is not None:
            return str(draw())
    return f"<pre>{html.escape(str(x))}</pre>"
