"""The command line as a process: signals, the shell, versions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from cli_runner import REPOSITORY, Run, fine

from genlm.bytes.cli import app

TALKS_FOREVER = """
import asyncio, signal, sys
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
import genlm.bytes.models
from toy import FixedLM

class Slow(FixedLM):
    async def next_token_logprobs(self, ids, lora_name=None):
        if len(ids) > 6:
            await asyncio.Event().wait()
        return await super().next_token_logprobs(ids)

llm = Slow([b"a", b"<e>"], eos=1, rule=lambda context: [1.0, 0.0])
genlm.bytes.models.load_model = lambda *_, **__: llm
from genlm.bytes.cli import main
sys.argv[1:] = {args!r}
main()
"""


def start(*args: str) -> subprocess.Popen[bytes]:
    program = TALKS_FOREVER.format(tests=str(Path(__file__).parent), args=list(args))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
class TestProcess:
    def test_interrupted_in_a_stream(self) -> None:
        """What has come so far is out, the exit code is 130, and nothing is left that complains."""
        with start("complete", "aa") as process:
            assert process.stdout and process.stdout.read(3) == b"aaa"  # it is in the middle of it
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, b"") and set(out) <= set(b"a")

    def test_completion_for_the_shell(self) -> None:
        """The commands' names, without the model's libraries."""
        program = "import sys; from genlm.bytes.cli import main; main()"
        environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "_GENLM_BYTES_COMPLETE": "complete_bash",
            "COMP_WORDS": "genlm-bytes ",
            "COMP_CWORD": "1",
        }
        code = f"import sys; sys.argv[0] = 'genlm-bytes'\n{program}"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert set(app.COMMANDS) <= set(done.stdout.split()), done.stderr

    def test_the_module_is_the_command(self) -> None:
        """`python -m genlm.bytes` and `genlm-bytes`: one function, one help."""
        texts = []
        for run in (["-m", "genlm.bytes"], ["-c", "from genlm.bytes.cli import main; main()"]):
            environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}
            command = [sys.executable, *run, "complete", "--help"]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            texts.append(done.stdout.split("\n", 2)[2])  # the first lines name the program as it was called
        assert "--max-bytes" in texts[0] and texts[0] == texts[1]


class TestVersion:
    def test_version(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.metadata.version", lambda name: f"9 of {name}")
        assert fine(run("--version")).decode() == "genlm-bytes 9 of genlm-bytes\n"

    def test_not_installed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr("importlib.metadata.version", version)
        assert b"not installed" in fine(run("--version"))
