"""What commands write to stdout: exact bytes into a pipe, safe text on a terminal, JSON where asked."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from genlm.bytes.escaping import safe_json, safe_text

if TYPE_CHECKING:
    from rich.console import Console

    from genlm.bytes.generate import Alternative, Completion

__all__ = [
    "bytes_json",
    "complain",
    "completion_json",
    "number",
    "on_terminal",
    "stdout_console",
    "write",
    "write_json",
    "write_json_line",
    "write_line_end",
]


UNBROKEN = 1_000_000
"""More columns than any line has."""


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def stdout_console() -> Console:
    """What draws tables on stdout: as wide as a terminal is; elsewhere for programs that read lines.

    Rich takes a pipe for a terminal of 80 columns, cuts what is longer, in the middle of a value too, and
    fills each cell up to its column's width. Elsewhere than on a terminal no line is cut, and none ends with
    blanks. A terminal is also what is said to be one: `FORCE_COLOR`, `TTY_COMPATIBLE`.
    """
    from rich.console import Console  # which not every command needs

    class Lines(Console):
        def print(self, *drawn: Any, **how: Any) -> None:
            with self.capture() as captured:
                super().print(*drawn, **how)
            self.file.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))

    console = Console()
    return console if console.is_terminal else Lines(width=UNBROKEN)


def complain(message: str) -> None:
    """A line on stderr, escaped for terminals; that stderr is lost is no error."""
    with suppress(OSError):
        sys.stderr.write(f"genlm-bytes: {safe_text(message)}\n")
        sys.stderr.flush()


def write(text: str, exact: bytes) -> None:
    """A piece of a model's text, at once: escaped on a terminal; into a pipe or a file its exact bytes."""
    if on_terminal():
        sys.stdout.write(safe_text(text))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(exact)
    sys.stdout.flush()


def write_line_end() -> None:
    """End the line on a terminal, so that the shell's prompt has one of its own; a pipe gets nothing."""
    if on_terminal():
        sys.stdout.write("\n")
        sys.stdout.flush()


def write_json(document: dict[str, Any]) -> None:
    """A document, or an event, as one line of JSON."""
    write_json_line(json.dumps(document, ensure_ascii=False, allow_nan=False))


def write_json_line(line: str) -> None:
    """JSON without line ends, as a line: ASCII where stdout is no UTF-8, and safe on a terminal."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    if not utf8 and not line.isascii():
        line = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in line)
    # Half a character, in a string that came as JSON, has no bytes: an escape of JSON's is what it was.
    line = safe_json(line) if on_terminal() else line.encode(errors="backslashreplace").decode()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def number(x: float) -> float | None:
    """A number as JSON can hold it: None for infinities and NaN."""
    return x if math.isfinite(x) else None


def bytes_json(text: bytes) -> dict[str, str]:
    """Bytes twice: as text, with U+FFFD for what is none, and exactly."""
    return {"text": text.decode("utf-8", "replace"), "bytes_base64": base64.b64encode(text).decode()}


def completion_json(completion: Completion) -> dict[str, Any]:
    """A completion; `text` is the library's own, without a character that was cut off."""
    stop = completion.stop
    return {
        **bytes_json(completion.bytes),
        "text": completion.text,
        "logprob": number(completion.logprob),
        "finish_reason": completion.finish_reason,
        "stop": None if stop is None else stop.decode("utf-8", "replace"),
        "usage": vars(completion.usage),
        **({} if completion.log_weight is None else {"log_weight": number(completion.log_weight)}),
        **_logprobs_json(completion),
    }


def _logprobs_json(completion: Completion) -> dict[str, Any]:
    """What bytes and tokens cost, where it was asked for."""
    found: dict[str, Any] = {}
    if completion.logprobs is not None:
        found["logprobs"] = [*map(number, completion.logprobs.tolist())]
        found["end_logprob"] = None if completion.end_logprob is None else number(completion.end_logprob)
    if completion.top is not None:
        found["top"] = [*map(_alternatives_json, completion.top)]
    if completion.token_ids is not None and (found or completion.token_top is not None):
        assert completion.token_bytes is not None and completion.token_logprobs is not None
        each = zip(
            completion.token_ids, completion.token_bytes, completion.token_logprobs.tolist(), strict=True
        )
        found["tokens"] = [{"id": i, **bytes_json(text), "logprob": number(logp)} for i, text, logp in each]
        for token, top in zip(found["tokens"], completion.token_top or (), strict=False):
            token["top"] = _alternatives_json(top)
        found["prompt_token_ids"] = completion.prompt_token_ids
    return found


def _alternatives_json(found: Iterable[Alternative]) -> list[dict[str, Any]]:
    def one(alternative: Alternative) -> dict[str, Any]:
        token = {} if alternative.token_id is None else {"id": alternative.token_id}
        return {**token, **bytes_json(alternative.bytes), "logprob": number(alternative.logprob)}

    return [one(alternative) for alternative in found]
