r"""Text of somebody else's making (a model's, a file's, a file name), safe to show.

It can hold any character: an escape sequence that a terminal obeys, a letter that turns the reading
direction, half a character. What is shown of it are visible characters; all others become escape sequences
as in Python (`\x1b`, `\u202e`), so that nothing hides.
"""

from __future__ import annotations

import json
import unicodedata

__all__ = ["one_line", "safe_json", "safe_text"]

JOINERS = "\u200c\u200d"
"""Invisible, and part of ordinary text: of Persian and Hindi words, and of emoji."""
SPACE = "␣"


def safe_text(text: str, keep: str = "\n\t") -> str:
    r"""The text with every character that a terminal might obey as an escape sequence.

    Args:
        text: any text.
        keep: control characters that stay as they are.

    Examples:
        >>> print(safe_text("naïve\x1b[31m red\u202e"))
        naïve\x1b[31m red\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or _visible(c) else _escaped(c) for c in text)


def one_line(text: bytes) -> str:
    r"""Bytes in one visible line: spaces as `␣`, bytes that are no text and control characters escaped.

    Different bytes give different lines: `\xff` is a byte, `\u00ff` would be a character.

    Examples:
        >>> print(one_line("a é\n".encode()), one_line(b"\xc3|"), one_line(b"\\n"))
        a␣é\n \xc3| \\n
    """
    # A byte that is no UTF-8 becomes a surrogate here, and so stays apart from a spelled-out `\xc3`.
    shown = text.decode("utf-8", "surrogateescape").replace("\\", "\\\\").replace(SPACE, "\\u2423")
    return "".join(c if _visible(c) else _escaped(c) for c in shown.replace(" ", SPACE))


def _visible(c: str) -> bool:
    # Other: control, format, surrogate, private, unassigned. Separators: lines and paragraphs.
    return c in JOINERS or not ((kind := unicodedata.category(c)).startswith("C") or kind in ("Zl", "Zp"))


def safe_json(document: str) -> str:
    r"""JSON with every character that a terminal might obey as an escape sequence of JSON: the same values.

    Examples:
        >>> print(safe_json('{"a": "é\u202e"}'))
        {"a": "é\u202e"}
    """
    if document.isascii() and document.isprintable():
        return document
    return "".join(c if _visible(c) else json.dumps(c)[1:-1] for c in document)


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # a byte, as `surrogateescape` stands it in
        return f"\\x{ord(c) - 0xDC00:02x}"
    if "\x80" <= c <= "\xff":
        return f"\\u{ord(c):04x}"
    return c.encode("unicode_escape").decode()
