"""GGUF files on llama.cpp: a tree of contexts against plain decoding, vocabularies, texts, errors.

Small files are written here (`tiny_gguf.py`); what needs the embedded model runs under `make thorough`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tiny_gguf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.contexts.conformance import check_backend
from genlm.bytes.errors import (
    InvalidTypeError,
    InvalidValueError,
    ModelUnavailableError,
    UnsupportedModelError,
)
from genlm.bytes.models import default_gguf_path, describe_model, load_default_model, load_model

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: `make thorough` does that", exc_type=ImportError
)

from genlm.bytes.backends.llama_cpp.lm import LlamaCppLM
from genlm.bytes.backends.llama_cpp.options import LlamaCppOptions

TEXT = "the cat and the hat"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("gguf")

    @cache
    def file(architecture: str = "llama", vocabulary: str = "byte_level") -> Path:
        path = folder / f"{architecture}-{vocabulary}.gguf"
        return tiny_gguf.write(path, architecture, getattr(tiny_gguf, vocabulary))

    return file


@pytest.fixture
def llm(files: Callable[..., Path]) -> Any:
    return load_model(files(), n_threads=1)


class Plain:
    """llama.cpp by itself: one sequence, one context, from its beginning."""

    def __init__(self, path: Path) -> None:
        from genlm.bytes.backends.llama_cpp.library import library
        from genlm.bytes.backends.llama_cpp.session import Session

        self.lib, self.session = library(), Session(path, LlamaCppOptions(n_threads=1))
        self.context = self.session._c.context

    def logprobs(self, ids: Sequence[int], one_by_one: bool = False) -> torch.Tensor:
        self.session.clear()
        for part in [[i] for i in ids] if one_by_one else [list(ids)]:
            tokens = (self.lib.llama_token * len(part))(*part)
            assert self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(tokens, len(part))) == 0
        logits = self.lib.llama_get_logits_ith(self.context, -1)[: self.session.n_vocab]
        return torch.log_softmax(torch.tensor(logits).double(), 0).float()


# -- the tree -------------------------------------------------------------------------------------------

ARCHITECTURES = ["llama", "gemma2"]
contexts = st.lists(st.integers(3, 5), min_size=1, max_size=2 * tiny_gguf.WINDOW + 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tree_gives_what_plain_decoding_gives(files: Callable[..., Path], architecture: str) -> None:
    """Whatever shares the batch and whatever has been given up. Few sequences and cells, so much is."""
    path = files(architecture)
    plain = Plain(path)
    options = LlamaCppOptions(n_ctx=256, n_seq_max=8, n_threads=1, n_batch=16, max_bytes=4000)
    llm = LlamaCppLM(path, options)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(st.lists(contexts, min_size=1, max_size=12))
    def compare(wanted: list[list[int]]) -> None:
        found = llm.batch_next_token_logprobs_sync(wanted)
        for at in (0, -1):
            assert (found[at] - plain.logprobs(wanted[at])).abs().max() <= 1e-5
        one_by_one = plain.logprobs(wanted[-1], one_by_one=True)
        assert (found[-1] - one_by_one).abs().max() <= 1e-5

    compare()
    statistics = llm.statistics()
    assert statistics.evictions > 100 and statistics.tokens_reused > 0
    assert statistics.slots <= llm.backend.session.n_cells == 256


def test_a_sliding_window_loses_nothing(files: Callable[..., Path]) -> None:
    """Contexts that branch off others long before their ends, after the cells have been packed anew."""
    path, random = files("gemma2"), Random(1)
    plain, want = Plain(path), dict[tuple[int, ...], torch.Tensor]()
    llm = LlamaCppLM(path, LlamaCppOptions(n_ctx=256, n_seq_max=8, n_batch=16, n_threads=1, max_bytes=4000))

    def tokens(most: int, last: int) -> list[int]:
        return [random.randint(3, last) for _ in range(random.randint(1, most))]

    for _ in range(160):
        last, most = random.choice([3, 4, 5]), random.choice([1, 2, 3, 5, 8, 20])
        base = tokens(most, last)
        wanted = [
            base[: random.randint(0, most)] + tokens(most, last) for _ in range(random.choice([1, 2, 12]))
        ]
        rows = llm.batch_next_token_logprobs_sync(wanted)
        for ids, row in zip(wanted, rows, strict=True):
            if (key := tuple(ids)) not in want:
                want[key] = plain.logprobs(ids)
            assert (row - want[key]).abs().max() <= 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_it_keeps_a_backends_promises(files: Callable[..., Path], architecture: str) -> None:
    def make() -> Any:
        return LlamaCppLM(files(architecture), LlamaCppOptions(n_seq_max=6, n_threads=1)).backend

    await check_backend(make, [[1], [1, 5], [1, 5, 2], [1, 5, 3], [1, 4], [0], [0, 5, 5, 1, 2]], atol=1e-5)


def test_a_longer_text_than_a_batch_and_a_full_cache(files: Callable[..., Path]) -> None:
    plain, llm = Plain(files()), LlamaCppLM(files(), LlamaCppOptions(n_ctx=256, n_batch=32, n_threads=1))
    ids = [3 + i % 7 for i in range(150)]
    for end in range(150, 60, -7):
        row = llm.next_token_logprobs_sync([*ids[:end], 9, 8])
        assert (row - plain.logprobs([*ids[:end], 9, 8])).abs().max() <= 1e-5
        llm.next_token_logprobs_sync([end, *range(3, 20)])
    assert llm.statistics().evictions and llm.backend.sequences.filled <= 256


def test_adapters_share_a_cache_and_no_figures(files: Callable[..., Path], tmp_path: Path) -> None:
    llm: Any = load_model(files(), n_threads=1)
    before = llm.next_token_logprobs_sync([3, 4])
    llm.add_new_lora(tiny_gguf.write_adapter(tmp_path / "lora.gguf"), "one")
    adapted = llm.next_token_logprobs_sync([3, 4], "one")
    assert (adapted - before).abs().max() > 1e-2
    assert torch.equal(llm.next_token_logprobs_sync([3, 4]), before)
    llm.clear_cache()
    assert torch.equal(llm.next_token_logprobs_sync([3, 4], "one"), adapted)
    llm.remove_lora("one")
    with pytest.raises(InvalidValueError, match="`lora_name` is 'one': there is no such adapter"):
        llm.next_token_logprobs_sync([3, 5], "one")
    with pytest.raises(InvalidValueError, match=r"`lora_path` .* no LoRA adapter"):
        llm.add_new_lora(files(), "two")


def test_an_adapter_that_is_always_on(files: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny_gguf.write_adapter(tmp_path / "lora.gguf")
    named: Any = load_model(files(), n_threads=1)
    named.add_new_lora(path, "one")
    always: Any = load_model(files(), n_threads=1, lora=path)
    assert torch.equal(always.next_token_logprobs_sync([3, 4]), named.next_token_logprobs_sync([3, 4], "one"))
    with pytest.raises(InvalidValueError, match=r"`lora` is .*no LoRA adapter of this model"):
        load_model(files(), lora=files())


@pytest.mark.parametrize("architecture, lora", [("llama", "lora.gguf"), ("gemma2", None)])
def test_cells_double_as_they_are_needed(
    files: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    lora: str | None,
) -> None:
    """And figures stay, also those of an adapter."""
    from genlm.bytes.backends.llama_cpp import session

    path = lora and tiny_gguf.write_adapter(tmp_path / lora)
    file, options = files(architecture), LlamaCppOptions(n_ctx=1024, n_threads=1, lora=path)
    whole = LlamaCppLM(file, options)
    monkeypatch.setattr(session, "FIRST_CELLS", 256)
    llm = LlamaCppLM(file, options)
    seen = set[int]()
    for first in range(3, 20):
        wanted = [[first, *range(3, 63), last] for last in range(3, 9)]
        rows = llm.batch_next_token_logprobs_sync(wanted)
        assert torch.equal(rows, whole.batch_next_token_logprobs_sync(wanted))
        seen.add(llm.backend.session.cells)
    assert sorted(seen) == [256, 768, 1024]
    assert llm.statistics().tokens_run == whole.statistics().tokens_run, "nothing is run again"
    assert llm.backend.session.cells * llm.backend.session.cell_bytes <= llm.statistics().cache_bytes


def test_memory_is_bounded_unless_said_otherwise(files: Callable[..., Path]) -> None:
    llm: Any = load_model(files(), n_threads=1)
    assert llm.rows.most_bytes <= 2**28 and llm.backend.session.cells <= llm.backend.session.n_cells
    assert load_model(files(), n_threads=1, max_bytes=5000).rows.most_bytes == 5000  # type: ignore[attr-defined]


# -- vocabularies ---------------------------------------------------------------------------------------


def test_a_byte_level_vocabulary(llm: Any) -> None:
    tokenizer = llm.tokenizer
    words = [bytes(token) for token in llm.byte_vocab]
    assert {bytes([b]) for b in range(256)} <= set(words) and words[-1] == b""
    assert b"".join(words[i] for i in tokenizer.encode("naïve 🙂\n")) == "naïve 🙂\n".encode()
    assert words[:3] == [b"<|end|>", b"<|begin|>", b"<tool>"]
    assert tokenizer.all_special_tokens[:2] == ["<|end|>", "<|begin|>"]
    assert not tokenizer.added_tokens_decoder[2].special
    assert 0 in tokenizer.eos_token_ids and tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert tokenizer.encode("a<|end|>")[-1] == 0
    assert 0 not in tokenizer.encode("a<|end|>", split_special_tokens=True)
    assert tokenizer.decode(tokenizer.encode("a<|end|>"), skip_special_tokens=True) == "a"
    facts = describe_model(llm)
    assert facts.family == "byte-level BPE" and facts.architecture == "llama" and facts.chat_template
    assert facts.context_length == tiny_gguf.LONGEST and facts.logits == len(words) == facts.tokens


def test_a_sentencepiece_vocabulary(files: Callable[..., Path]) -> None:
    llm: Any = load_model(files(vocabulary="sentencepiece"), n_threads=1)
    words = [bytes(token) for token in llm.byte_vocab]
    ids = llm.tokenizer.encode("the cat")
    assert ids[0] == 1 and b"".join(words[i] for i in ids[1:]) == b" the cat", (
        "a BOS, and a space before a text"
    )
    assert words[3 + ord("x")] == b"x"
    with ByteLM(llm, BeamParams(K=5)) as lm:
        assert lm.score("the cat").logprob < 0
        assert torch.as_tensor(lm.next("the ca").ps).exp().sum() == pytest.approx(1.0, abs=1e-4)


def test_filling_in_the_middle(llm: Any) -> None:
    assert llm.tokenizer.fim_token_ids is not None
    with ByteLM(llm, BeamParams(K=3)) as lm:
        assert lm.complete("the ", suffix=" hat", max_bytes=4) is not None


def test_a_conversation(llm: Any) -> None:
    from genlm.bytes.prompt.chat import parse_messages

    message = {"role": "user", "content": "the <|end|> cat"}
    prompt = parse_messages(llm, [message])
    assert prompt.spelled == b"<|begin|>user: the <|end|> cat<|end|><|begin|>assistant: "
    assert prompt.ids is not None and prompt.ids.count(0) == 1, "what is said ends no turn"
    with ByteLM(llm, BeamParams(K=3)) as lm:
        assert len(lm.complete([message], max_bytes=5).bytes) <= 5


@pytest.mark.parametrize(
    "template, match",
    [
        ("{{ ''.__class__.__mro__ }}", "refuses these messages"),
        ("{{ raise_exception('no roles') }}", "no roles"),
        ("{% for", "refuses these messages"),
    ],
)
def test_a_template_is_rendered_in_a_sandbox(llm: Any, template: str, match: str) -> None:
    from genlm.bytes.prompt.chat import parse_messages

    llm.tokenizer.chat_template = template
    with pytest.raises(InvalidValueError, match=match):
        parse_messages(llm, [{"role": "user", "content": "a"}])


def test_a_template_is_rendered_as_transformers_does() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    from genlm.bytes.backends.llama_cpp.chat_template import render

    template = (
        "{%- for m in messages %}\n  {% if m.role == 'stop' %}{% break %}{% endif %}\n"
        "{{ m | tojson }}{% generation %} {{ m.content }}{% endgeneration %}\n{% endfor %}{{ bos_token }}"
    )
    messages = [{"role": "user", "content": "é <b>"}, {"role": "stop", "content": ""}]
    want, _ = render_jinja_template(conversations=[messages], chat_template=template, bos_token="B")
    assert render(template, messages, False, {"bos_token": "B"}) == want[0]


# -- errors ---------------------------------------------------------------------------------------------


def spoilt(files: Callable[..., Path], tmp_path: Path, what: str) -> Path:
    path, good = tmp_path / f"{what}.gguf", files().read_bytes()
    data = {
        "text": b"This is a text.\n" * 100,
        "empty": b"",
        "header": good[:40],
        "half": good[: len(good) // 2],
        "keys": good[:24] + b"\xff" * 64 + good[88:],
        "version": good[:4] + (99).to_bytes(4, "little") + good[8:],
        "architecture": good.replace(b"llama", b"lhama"),
        "twice": good.replace(b"\x01\0\0\0\0\0\0\0A", b"\x01\0\0\0\0\0\0\0B"),
    }
    path.write_bytes(data[what])
    return path


@pytest.mark.parametrize(
    "what, match",
    [
        ("text", "it begins with b'This'"),
        ("empty", "it is empty"),
        ("header", "damaged, in its header"),
        ("keys", "damaged, in its header"),
        ("version", "version is 99"),
        ("half", "half.gguf' failed: "),
        ("twice", "are both b'B', and must be distinct"),
        ("architecture", "unknown model architecture: 'lhama'"),
    ],
)
def test_a_file_that_is_no_model_is_one_error(
    files: Callable[..., Path], tmp_path: Path, what: str, match: str, capfd: Any
) -> None:
    with pytest.raises(ModelUnavailableError, match=match):
        load_model(spoilt(files, tmp_path, what))
    assert capfd.readouterr().err == "", "llama.cpp is silent"


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("vocabulary", ["byte_level", "sentencepiece"])
def test_damage_anywhere_is_an_error_of_ours_or_none(
    files: Callable[..., Path], tmp_path: Path, vocabulary: str
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(files(vocabulary=vocabulary).read_bytes())
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(Path(__file__).with_name("garbled_gguf.py")),
        path,
        "1",
        "150",
    ]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # else it starts a debugger
    ran = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    tally = json.loads(ran.stdout)
    assert set(tally) == {"loaded", "refused"} and tally["refused"] > 50


def test_other_files(files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genlm.bytes.backends.llama_cpp.library import library

    with pytest.raises(ModelUnavailableError, match="it holds a LoRA adapter"):
        load_model(tiny_gguf.write_adapter(tmp_path / "lora.gguf"))
    with pytest.raises(ModelUnavailableError, match="No such file"):
        load_model(tmp_path / "absent.gguf")
    with pytest.raises(UnsupportedModelError, match=r"it is recurrent: .* running state"):
        load_model(files("mamba"))
    with monkeypatch.context() as patched:
        patched.setattr(library(), "llama_model_is_hybrid", lambda _: True)
        with pytest.raises(UnsupportedModelError, match=r"it is hybrid: .*Load it as a Hugging Face model"):
            load_model(files())
    with pytest.raises(InvalidValueError, match="`backend` is 'hf': a file is read by 'llamacpp' only"):
        load_model(files(), backend="hf")
    with pytest.raises(InvalidValueError, match=r"`name_or_path` is .* reads a GGUF file"):
        load_model("somebody/something", backend="llamacpp")


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"n_ctxs": 5}, InvalidTypeError, "Did you mean `n_ctx`"),
        ({"n_ctx": 0}, InvalidValueError, "`n_ctx` is 0"),
        ({"n_seq_max": 257}, InvalidValueError, "at most 256"),
        ({"n_threads": "two"}, InvalidTypeError, "`n_threads` is 'two'"),
        ({"type_k": "f8"}, InvalidValueError, "`type_k` is 'f8': must be one of 'f16'"),
        ({"type_v": "f8"}, InvalidValueError, "`type_v` is 'f8'"),
        ({"n_gpu_layers": None}, InvalidTypeError, "`n_gpu_layers`"),
        ({"lora": 1}, InvalidTypeError, "`lora` is 1 .* must be the path"),
        ({"device": "cpu"}, InvalidValueError, "only 'hf' takes `device`"),
    ],
)
def test_options(files: Callable[..., Path], options: dict[str, Any], error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        load_model(files(), **options)


def test_contexts_that_cannot_be_read(llm: Any, files: Callable[..., Path]) -> None:
    for ids, match in (
        ([], "at least one token"),
        ([99999], "tokens are 0"),
        ([3] * (tiny_gguf.LONGEST + 1), f"at most {tiny_gguf.LONGEST} tokens"),
    ):
        with pytest.raises(InvalidValueError, match=match):
            llm.next_token_logprobs_sync(ids)


def test_keys_and_values_of_other_types(files: Callable[..., Path]) -> None:
    want = load_model(files(), n_threads=1).next_token_logprobs_sync([3, 4, 5])  # type: ignore[attr-defined]
    other: Any = load_model(files(), n_threads=1, type_k="f32", type_v="f16")
    assert (other.next_token_logprobs_sync([3, 4, 5]) - want).abs().max() < 0.3


def test_canonical_tokenizations_work_or_are_refused(llm: Any) -> None:
    with ByteLM(llm, BeamParams(K=3, canonical=True)) as lm:
        try:
            assert lm.score(TEXT).logprob < 0
        except UnsupportedModelError as error:
            assert "canonical tokenizations cannot be told" in str(error)


# -- what is imported, and the command line -------------------------------------------------------------


def test_a_command_on_a_file_imports_no_transformers(files: Callable[..., Path]) -> None:
    program = """
import sys
from genlm.bytes import ByteLM
with ByteLM.from_pretrained(sys.argv[1], n_threads=1) as lm:
    lm.complete("the c", max_bytes=4)
    lm.complete([{"role": "user", "content": "a"}], max_bytes=4)
    lm.score("the cat")
heavy = ("torch", "transformers", "genlm.backend", "numba", "scipy", "pandas")
print([name for name in heavy if name in sys.modules])
from genlm.backend.tokenization import Token
assert type(lm.llm.byte_vocab[0]) is Token
"""
    run = [sys.executable, "-c", program, str(files())]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


COMMANDS = """
import sys
from genlm.bytes.cli import main
sys.argv[1:] = ["COMMAND", "the c", "--model", sys.argv[1], "--threads", "1", "--json", *sys.argv[2:]]
try:
    main()
finally:
    heavy = "torch transformers genlm.backend numba scipy pandas IPython diskcache sqlite3 filelock".split()
    others = ["genlm.bytes.cli." + name for name in ("complete", "score", "next", "chat", "pairs")]
    found = {name for name in sys.modules if name in (*heavy, *others, "rich")}
    print(found - {"genlm.bytes.cli.COMMAND"}, len([m for m in sys.modules if m.startswith("genlm.bytes")]))
    import llama_cpp
    assert llama_cpp.Llama.__module__ == "llama_cpp.llama", "the rest comes when somebody asks"
    assert llama_cpp.llama_cpp.llama_model_load_from_file
"""


@pytest.mark.parametrize(
    "command, options, also, most",
    [
        ("complete", ["--max-bytes", "4"], set(), 130),
        ("score", [], {"rich"}, 175),
        pytest.param("next", [], {"rich"}, 175, marks=pytest.mark.slow),
    ],
)
def test_a_command_imports_what_it_needs(
    files: Callable[..., Path], command: str, options: list[str], also: set[str], most: int
) -> None:
    """A command on a file answers within two seconds. No clock here, but what takes time."""
    run = [sys.executable, "-c", COMMANDS.replace("COMMAND", command), str(files()), *options]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found, ours = re.fullmatch(r"(set\(\)|{.*}) (\d+)", done.stdout.splitlines()[-1]).groups()  # type: ignore[union-attr]
    assert eval(found) == also and int(ours) < most


@pytest.fixture
def typed(
    files: Callable[..., Path], capfdbinary: Any, monkeypatch: Any
) -> Callable[..., tuple[int, str, str]]:
    """The command line on a file: exit code, stdout and stderr."""
    from genlm.bytes.cli import main

    def typed(*words: str, model: Any = None) -> tuple[int, str, str]:
        line = ["genlm-bytes", words[0], "--model", str(model or files()), *words[1:]]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfdbinary.readouterr()
        return int(ended.value.code or 0), out.decode(), err.decode()

    return typed


def test_the_command_line(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for words in (["complete", "the c", "--max-bytes", "4"], ["info", "--json"], ["score", "the cat"]):
        code, out, err = typed(*words)
        assert not code and err == "", err
        if words[0] == "info":
            assert json.loads(out)["architecture"] == "llama"
    adapter = str(tiny_gguf.write_adapter(tmp_path / "lora.gguf"))
    plain, adapted = (typed("score", "the cat", *more)[1] for more in ([], ["--lora", adapter]))
    assert plain != adapted
    code, out, err = typed("complete", "the", "--lora", "absent.gguf")
    assert code == 1 and "`--lora` is" in err and "no LoRA adapter of this model" in err
    given = ["--context-length", "64", "--threads", "1", "--gpu-layers", "0", "--kv-type", "f32"]
    assert typed("score", "the cat", *given)[0] == 0


@pytest.mark.parametrize(
    "given, match",
    [
        (["--context-length", "0"], "`--context-length` is 0: must be at least 1"),
        (["--kv-type", "f8"], "`--kv-type` is 'f8': must be one of 'f16'"),
        (["--backend", "hf"], "`--backend` is 'hf': a file is read by 'llamacpp' only"),
    ],
)
def test_mistakes_on_the_command_line(
    typed: Callable[..., tuple[int, str, str]], given: list[str], match: str
) -> None:
    code, out, err = typed("score", "the cat", *given)
    assert code == 1 and out == "" and err.count("\n") == 1 and match in err, err


@pytest.mark.parametrize("command", ["score", "complete", "next", "info"])
def test_other_models_have_no_such_options(typed: Callable[..., tuple[int, str, str]], command: str) -> None:
    for model in ("somebody/something", "."):
        code, _, err = typed(command, *(["a"] if command != "info" else []), "--threads", "2", model=model)
        assert code == 1 and "`--threads` is 2: only models on llama.cpp have it" in err
    with pytest.raises(InvalidValueError, match=r"`n_ctx` is 8: only models on llama\.cpp have it"):
        load_default_model(n_ctx=8)


# -- the embedded model ---------------------------------------------------------------------------------

embedded = [pytest.mark.thorough, pytest.mark.xdist_group("llama.cpp")]


@pytest.fixture(scope="module")
def smollm2() -> Any:
    return load_default_model(backend="llamacpp", progress=False)


class TestEmbedded:
    pytestmark = embedded

    def test_it_is_the_model_of_the_float32_weights(self, smollm2: Any, default_llm: Any) -> None:
        """docs/api/backends.md states the total variation."""
        ids = smollm2.tokenizer.encode(
            "It was a bright cold day in April, and the clocks were striking thirteen."
        )
        assert ids == list(default_llm.tokenizer.encode(ids and smollm2.tokenizer.decode(ids)))
        words = [bytes(token) for token in default_llm.byte_vocab]
        assert [bytes(token) for token in smollm2.byte_vocab] == words
        rows = smollm2.batch_next_token_logprobs_sync([ids[:n] for n in range(1, len(ids) + 1)])
        want = default_llm.batch_next_token_logprobs_sync([ids[:n] for n in range(1, len(ids) + 1)])
        apart = (rows.exp() - want.exp()).abs().sum(1) / 2
        assert apart.mean() < 0.06 and apart.max() < 0.25

    def test_texts(self, smollm2: Any) -> None:
        with ByteLM(smollm2) as lm:
            assert lm.complete("The capital of Fra", max_bytes=12, temperature=0.0).text.startswith("nce")
            answer = lm.complete([{"role": "user", "content": "Say hello."}], max_bytes=30, temperature=0.0)
            assert "ello" in answer.text
            assert lm.score("The capital of France is Paris.").bits_per_byte < 2

    def test_canonical(self, smollm2: Any) -> None:
        with ByteLM(smollm2, BeamParams(K=5, canonical=True)) as lm:
            score = lm.score("The capital of France is Paris.")
        with ByteLM(smollm2, BeamParams(K=5)) as lm:
            assert score.logprob == pytest.approx(
                lm.score("The capital of France is Paris.").logprob, abs=1.0
            )

    def test_the_tree(self, smollm2: Any) -> None:
        plain = Plain(Path(default_gguf_path(progress=False)))
        ids = smollm2.tokenizer.encode("It was a bright cold day in April.")
        wanted = [[*ids[:n], 500 + n] for n in range(1, len(ids))] + [ids]
        for one, row in zip(wanted, smollm2.batch_next_token_logprobs_sync(wanted), strict=True):
            assert (row - plain.logprobs(one)).abs().max() <= 1e-5

    def test_a_file_in_another_place(self, tmp_path: Path) -> None:
        copy = shutil.copy(default_gguf_path(progress=False), tmp_path / "name with spaces é.gguf")
        with ByteLM.from_pretrained(copy, n_ctx=256, n_threads=1) as lm:
            assert lm.score("a b").logprob < 0


def test_the_rest_of_the_package_never_has_the_log() -> None:
    """What is freed while it is imported would be told of on stderr: by chance, when garbage is collected."""
    program = """
from genlm.bytes.backends.llama_cpp.library import library
low, called = library(), []
low.llama_log_set = listen = lambda *given: called.append(given)
import llama_cpp
assert llama_cpp.Llama.__module__ == "llama_cpp.llama"
assert low.llama_log_set is llama_cpp.llama_log_set is listen and not called, called
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
