"""Tables and drawings on stdout: as wide as a terminal is; where there is none, for programs that read lines.

Rich takes a pipe for a terminal of 80 columns, cuts what is longer, in the middle of a value too, and fills
each cell up to its column's width. Elsewhere than on a terminal no line is cut, and none ends with blanks.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console

__all__ = ["stdout_console"]

UNBROKEN = 1_000_000
"""More columns than any line has."""


def stdout_console() -> Console:
    """What draws on stdout. A terminal is also what is said to be one: `FORCE_COLOR`, `TTY_COMPATIBLE`."""
    console = Console()
    return console if console.is_terminal else _Lines(width=UNBROKEN)


class _Lines(Console):
    """Draws whole lines, without the blanks at their ends."""

    def print(self, *drawn: Any, **how: Any) -> None:
        with self.capture() as captured:
            super().print(*drawn, **how)
        self.file.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))
