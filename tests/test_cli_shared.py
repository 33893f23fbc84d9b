"""Every command: its examples, the options and the ways to give a text that all have."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from cli_runner import Run, Terminal, document, exact, fine
from test_cli_docs import PAGE

from genlm.bytes import BeamParams
from genlm.bytes.byte_lm.tokenized_prefill import METHODS
from genlm.bytes.cli import app
from genlm.bytes.cli.complete import complete
from genlm.bytes.cli.groups import grouped
from genlm.bytes.cli.shared import Shared
from genlm.bytes.options import GenerationOptions, Method


def examples() -> list[str]:
    """Every line of the commands' help that is there to be typed."""
    found = []
    for command in map(app.command, app.COMMANDS):
        lines = (command.__doc__ or "").split("Examples:")[1].splitlines()
        found += [line.strip() for line in lines if line.strip()]
    return found


GIVEN = {
    "notes.txt": "The land. And then the",
    "corpus.txt": "The land. And then the",
    "blimp.jsonl": "".join(
        json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": "a"}) + "\n"
        for good, bad in (("the land", "the the"), ("an and", "and an"))
    ),
    "items.tsv": "yes\tno\tsentence_good\tsentence_bad\tbefore\nan\tand\tan\tand\tthe \n",
    "rts.tsv": "item\tzone\tword\n1\t1\tThe\n1\t2\tland.\n",
}
"""The files that examples read."""


class TestExamples:
    def test_each_command_has_some(self) -> None:
        for name in app.COMMANDS:
            assert any(f"genlm-bytes {name}" in line for line in examples())

    # `--ray` starts processes, and libraries that warn: test_ray.py runs it; `serve` does not end.
    @pytest.mark.parametrize("line", [s for s in examples() if "--ray" not in s and "bytes serve" not in s])
    def test_they_run(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
        """As typed, but in this process: the shell runs what stands before a `|`."""
        monkeypatch.chdir(tmp_path)
        for given, text in GIVEN.items():
            Path(given).write_text(text)
        before, pipe, command = line.rpartition(" | ")
        stdin = subprocess.run(["sh", "-c", before], check=True, capture_output=True).stdout if pipe else b""
        command, _, _ = command.partition(" > ")
        name, *args = shlex.split(command)
        assert name == "genlm-bytes"
        done = run(*args, stdin=stdin)
        written = [path for path in tmp_path.iterdir() if path.name not in GIVEN]
        talks_to_nobody = args == ["chat"]  # its input is at its end
        assert fine(done) or written or talks_to_nobody
        assert bool(written) == bool({"--html", "--out"} & {*args})
        assert b"\x1b[" not in done.out


TEXTS = ("next", "complete", "chat", "watch", "score")
"""The commands that take a text."""


class TestShared:
    @pytest.mark.parametrize(
        "args, params",
        [
            ([], BeamParams()),
            (["--K", "7"], BeamParams(K=7)),
            (["--K", "7", "--threshold", "0.01"], BeamParams(K=7, prune_threshold=0.01)),
            (["--tolerance", "0.01"], BeamParams(tolerance=0.01)),
            (["--K", "7", "--tolerance", "0.01"], BeamParams(K=7, tolerance=0.01)),
            (["--canonical"], BeamParams(canonical=True)),
            (["--canonical", "--K", "7"], BeamParams(K=7, canonical=True)),
        ],
    )
    def test_beam(self, run: Run, monkeypatch: pytest.MonkeyPatch, args: list[str], params: Any) -> None:
        seen = []
        monkeypatch.setattr(
            "genlm.bytes.api.lm.ByteLM.__enter__", lambda self: (seen.append(self.params), self)[1]
        )
        fine(run("next", "the", *args))
        (used,) = seen
        settings = ("K", "prune_threshold", "tolerance", "canonical")
        assert [getattr(used, name) for name in settings] == [getattr(params, name) for name in settings]

    def test_the_default_tolerance_is_named(self) -> None:
        default = f"; {BeamParams().tolerance:g} if none of these"
        assert default in get_type_hints(Shared, include_extras=True)["tolerance"].__metadata__[0].help
        assert default in PAGE.read_text(encoding="utf-8")

    def test_a_commands_own_default_gives_way(self) -> None:
        own = BeamParams(K=5, prune_threshold=0.05)
        assert Shared().params(own) is own
        assert Shared(tolerance=0.5).params(own) == BeamParams(tolerance=0.5)
        assert Shared(canonical=True).params(own) == replace(own, canonical=True)

    def test_model_device_dtype(self, run: Run) -> None:
        done = run("info", "-m", "name", "--device", "cpu", "--dtype", "bfloat16")
        assert done.loaded == [("name", {"device": "cpu", "dtype": "bfloat16", "progress": False})]
        assert run("info").loaded == [(None, {"device": None, "dtype": None, "progress": False})]

    def test_every_command_has_them(self) -> None:
        import inspect

        names = {
            "names",
            "op",
            "weights",
            "K",
            "threshold",
            "tolerance",
            "canonical",
            "device",
            "dtype",
            "as_json",
            "quiet",
        }
        for name in app.COMMANDS:
            if name == "serve":  # several models are several there, and it writes no results
                continue
            assert names <= set(inspect.signature(grouped(app.command(name))).parameters)

    @pytest.mark.parametrize(
        "args, word",
        [
            (["--K", "0"], "`--K` is 0"),
            (["--threshold", "0.1"], "`--threshold` is 0.1: goes with `--K`, "),
            (["--threshold", "1.5", "--K", "5"], "`--threshold`"),
            (["--tolerance", "nan"], "`--tolerance`"),
            (["--tolerance", "7"], "Pass e.g. 1e-3, or exact=True"),
            (["--tolerance", "0.1", "--threshold", "0.1"], "`--threshold`"),
        ],
    )
    def test_mistakes_are_found_before_a_model_is_loaded(self, run: Run, args: list[str], word: str) -> None:
        for command in (*([name, "a"] for name in TEXTS), ["info"], ["demo"]):
            done = run(*command, *args)
            assert (done.code, done.out, done.loaded) == (1, b"", [])
            assert done.err.startswith("genlm-bytes: ") and word in done.err and done.err.count("\n") == 1

    def test_progress_for_whoever_watches(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for args, watched in ((), True), (("--quiet",), False):
            terminal = Terminal()
            monkeypatch.setattr(sys, "stderr", terminal)
            done = run("complete", "the", "--max-bytes", "3", *args)
            assert (done.code, len(done.out), done.loaded[0][1]["progress"]) == (0, 3, watched)
            assert ("[length: 3 bytes" in terminal.written()) == watched
            if not watched:
                assert not terminal.written()


class TestGroups:
    def test_choices_are_the_librarys(self) -> None:
        assert sorted(METHODS) == sorted(get_args(Method))

    def test_every_option_of_a_completion_is_an_option_here_and_says_what_it_does(self) -> None:
        parameters = inspect.signature(grouped(complete)).parameters
        spelled = {"token_healing": "healing", "mask": "regex"}
        for name in (*GenerationOptions.__annotations__, "n", "best_of"):
            help = parameters[spelled.get(name, name)].annotation.__metadata__[0].help
            assert re.fullmatch(r"[A-Z0-9].{8,}\.", help), name


class TestText:
    def test_from_everywhere(self, run: Run, tmp_path: Path) -> None:
        text = b"caf\xc3"
        (tmp_path / "text").write_bytes(text)
        ways = [
            run("next", os.fsdecode(text), "--json"),
            run("next", "-", "--json", stdin=text),
            run("next", "--file", str(tmp_path / "text"), "--json"),
            run("next", "-", "--chomp", "--json", stdin=text + b"\r\n"),
        ]
        documents = [document(done) for done in ways]
        assert all(exact(found["prompt"]) == text for found in documents)
        assert len({json.dumps(found["next"]) for found in documents}) == 1

    def test_a_newline_is_text(self, run: Run) -> None:
        assert exact(document(run("next", "-", "--json", stdin=b"the\n"))["prompt"]) == b"the\n"
        one_only = document(run("next", "-", "--json", "--chomp", stdin=b"the\n\n"))
        assert exact(one_only["prompt"]) == b"the\n"

    def test_empty_is_a_text(self, run: Run) -> None:
        assert len(document(run("next", "", "--json"))["next"]) == 10

    @pytest.mark.parametrize(
        "args, word",
        [([], "--file"), (["a", "--file", "b"], "not both")],
    )
    def test_none_or_two(self, run: Run, args: list[str], word: str) -> None:
        for command in ("next", "complete", "watch"):
            done = run(command, *args)
            assert (done.code, done.out, done.loaded) == (2, b"", []) and word in done.err
            assert done.err.count("\n") == 1 and "Try: " in done.err and "--help" in done.err

    @pytest.mark.parametrize("name, word", [("absent", "No such file"), (".", "directory")])
    def test_an_unreadable_file(self, run: Run, name: str, word: str) -> None:
        done = run("complete", "--file", name)
        assert (done.code, done.out, done.loaded) == (1, b"", []) and done.err.count("\n") == 1
        assert "`--file` is" in done.err and word in done.err and "Traceback" not in done.err
