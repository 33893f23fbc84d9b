"""`watch` on small models: documents, drawings, pages, keys."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Run, Terminal, events, exact, fine
from rich.console import Console

from genlm.bytes import ByteLM
from genlm.bytes.cli import watch as watching


class TestWatch:
    def test_a_line_for_each_byte(self, run: Run, lm: ByteLM) -> None:
        found = events(run("watch", "the a", "--json", "--context", "in ", "--top", "3"))
        assert [exact(event) for event in found] == [b"in the a"[:n] for n in range(3, 9)]
        last = found[-1]
        assert len(last["next"]) == 3
        for candidate in last["candidates"]:
            tokens = [*last["shared"], *candidate["tokens"], candidate["partial"]]
            assert b"".join(map(exact, tokens)) == b"in the a"
        shares = [candidate["share"] for candidate in last["candidates"]]
        assert sum(shares) + last["others"]["share"] == pytest.approx(1)

    def test_text(self, run: Run) -> None:
        text = fine(run("watch", "the")).decode()
        assert text.count("logp") == 8 and text.index("0 bytes") < text.index("3 bytes")  # heads and columns
        assert "\x1b" not in text

    def test_most(self, run: Run) -> None:
        found = events(run("watch", "the a", "--json", "--most", "1", "--K", "9", "--top", "0"))
        assert all(len(event["candidates"]) == 1 and event["next"] == [] for event in found)
        assert any(event["others"]["number"] for event in found)

    def test_a_page(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page = tmp_path / "beam.html"
        errors = Terminal()
        assert fine(run("watch", "the <b>", "--html", str(page))) == b""
        assert page.read_text(encoding="utf-8").count("<section") == 8
        monkeypatch.setattr(sys, "stderr", errors)
        assert run("watch", "the", "--html", str(page)).code == 0
        assert f"{page}: 4 beams" in errors.written()

    def test_a_page_is_not_made_over_something_else(self, run: Run, tmp_path: Path) -> None:
        page = tmp_path / "notes.txt"
        page.write_text("mine")
        done = run("watch", "the", "--html", str(page))
        assert (done.code, done.loaded, done.err.count("\n")) == (1, [], 1)
        assert "`--html` is" in done.err and "--overwrite" in done.err and page.read_text() == "mine"
        assert fine(run("watch", "the", "--html", str(page), "--overwrite")) == b""
        assert fine(run("watch", "a", "--html", str(page))) == b""  # one of ours is made anew
        text = page.read_text(encoding="utf-8")
        assert text.count("<section") == 2 and list(tmp_path.iterdir()) == [page]
        assert run("watch", "a", "--overwrite").code == 2

    @pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
    def test_a_device_is_no_page(self, run: Run, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        done = run("watch", "a", "--html", str(tmp_path / "pipe"))
        assert (done.code, done.loaded) == (1, []) and "is a device" in done.err
        assert (tmp_path / "pipe").is_fifo()

    def test_a_page_that_cannot_be_written(self, run: Run, tmp_path: Path) -> None:
        done = run("watch", "a", "--html", str(tmp_path / "absent" / "page.html"))
        assert (done.code, done.err.count("\n")) == (1, 1) and "cannot be written" in done.err

    @pytest.mark.parametrize(
        "keys, places",
        [
            ("q", [0]),
            ([" ", "\x1b[C", "h", "q"], [0, 1, 2, 1]),
            (["h", "G", "l", "x", "g", "\x1b"], [0, 0, 3, 3, 3, 0]),
        ],
    )
    def test_keys(self, lm: ByteLM, keys: Any, places: list[int]) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
        made = []
        views = watching._views(lm, lm.beam(), b"the", 5, 0)
        counted = (made.append(view) or view for view in views)
        shown = []
        pressed = iter(keys)

        def key() -> str:
            screen = console.file.getvalue()  # type: ignore[attr-defined]
            shown.append(int(screen.rsplit(" / 3", 1)[0].split()[-1].removeprefix("\x1b[2m")))
            return next(pressed)

        watching.browse(counted, 4, console, key)
        assert shown == places and len(made) == max(places) + 1  # read as far as was looked
        out = console.file.getvalue()  # type: ignore[attr-defined]
        assert out.count("\x1b[?1049h") == out.count("\x1b[?1049l") == 1

    def test_an_interrupt_leaves_the_screen(self, lm: ByteLM) -> None:
        console = Console(file=io.StringIO(), force_terminal=True)

        def key() -> str:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            watching.browse(watching._views(lm, lm.beam(), b"a", 5, 0), 2, console, key)
        assert console.file.getvalue().endswith("\x1b[?25h\x1b[?1049l")  # type: ignore[attr-defined]

    def test_the_terminal_steps(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal()
        monkeypatch.setattr("typer.getchar", lambda: "q")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert run("watch", "the", "--quiet", typed=True).code == 0
        assert "0 / 3" in terminal.written() and "\x1b[?1049h" in terminal.written()
