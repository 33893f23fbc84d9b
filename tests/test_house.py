"""The house rules: what importing costs, what each module exports, who may import whom."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import annotations as enforced
import pytest
from budget import QUICK

import genlm.bytes

PACKAGE = Path(genlm.bytes.__file__).parent
REPOSITORY = PACKAGE.parents[1]
MODULES = sorted(
    [genlm.bytes.__name__]
    + [
        m.name
        for m in pkgutil.walk_packages([str(PACKAGE)], "genlm.bytes.")
        if not m.name.endswith("__main__")
    ]
)
FILES = sorted(PACKAGE.rglob("*.py"))

OPTIONAL = """
    IPython arsenal fastapi filelock genlm.backend gguf graphviz jinja2 llguidance lm_eval matplotlib numba
    pandas platformdirs prometheus_client pyarrow ray rich safetensors starlette tokenizers transformers typer
    uvicorn
""".split()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tracked() -> list[Path]:
    """The files that git knows, or would take."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout
    return [path for name in names.decode().split("\0") if name and (path := REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def loaded():
    """What the names of `genlm.bytes` add to torch's and numpy's modules, and all, in a fresh interpreter."""
    program = """
import json, sys
import numpy, torch
before = set(sys.modules)
from genlm.bytes import *
print(json.dumps(sorted(set(sys.modules) - before)))
print(json.dumps(sorted(sys.modules)))
"""
    run = [sys.executable, "-W", "error", "-c", program]
    said = subprocess.run(run, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert said.stderr == ""
    added, everything = map(json.loads, said.stdout.splitlines())
    return added, everything


class TestImport:
    def test_no_optional_dependency(self, loaded):
        _, everything = loaded
        early = [name for name in OPTIONAL if name in everything]
        assert not early, f"`from genlm.bytes import *` loads {early}: import them where they are used"

    def test_names_are_loaded_on_demand(self):
        """The package itself loads next to nothing: the command line answers `--help` without torch."""
        program = """
import sys
import genlm.bytes
heavy = {"torch", "numpy", "jaxtyping"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert set(genlm.bytes.__all__) <= set(dir(genlm.bytes))
genlm.bytes.util.escape(b"")
assert "torch" not in sys.modules
assert genlm.bytes.BeamParams(K=1) == genlm.bytes.byte_lm.params.BeamParams(K=1)
for absent in ("no_such_name", "_no_such_name"):
    try:
        getattr(genlm.bytes, absent)
    except AttributeError as error:
        assert absent in str(error)
    else:
        raise AssertionError(absent)
"""
        run = [sys.executable, "-W", "error", "-c", program]
        done = subprocess.run(run, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_on_demand(self):
        from genlm.bytes.on_demand import on_demand

        get, listing = on_demand("genlm.bytes", {"Chart": "genlm.bytes.util"})
        assert get("Chart") is genlm.bytes.util.Chart is vars(genlm.bytes)["Chart"]
        assert get("errors") is importlib.import_module("genlm.bytes.errors")
        assert {"Chart", "__all__"} <= set(listing())
        for absent in ("no_such_name", "_private"):
            with pytest.raises(AttributeError, match=absent):
                get(absent)

    def test_on_demand_and_for_the_type_checker_are_the_same(self):
        (block,) = (node for node in tree(PACKAGE / "__init__.py").body if isinstance(node, ast.If))
        declared = {name.name: node.module for node in block.body for name in node.names}
        assert set(declared) == set(genlm.bytes.__all__)
        for name, module in declared.items():
            assert getattr(genlm.bytes, name) is getattr(importlib.import_module(module), name)

    def test_little_of_our_own(self, loaded):
        """No clock, which would measure the machine: the parts that a first `import` must not load."""
        added, _ = loaded
        ours = [name for name in added if name.startswith("genlm.bytes")]
        for part in ("cli", "models", "engine", "backends.hf_tree", "generate", "score"):
            assert f"genlm.bytes.{part}" not in ours
        assert len(ours) <= 69
        # Beyond torch and numpy as they stand: jaxtyping, parts of numpy and of the standard library.
        others = {name.split(".")[0] for name in added} - {"genlm"} - set(sys.stdlib_module_names)
        assert others <= {"jaxtyping", "numpy"}, others


class TestExports:
    @pytest.mark.parametrize("name", MODULES)
    def test_all_is_there_and_true(self, name):
        module = importlib.import_module(name)
        assert module.__doc__, f"{name} has no docstring"
        assert hasattr(module, "__all__"), f"{name} has no __all__"
        assert len(module.__all__) == len(set(module.__all__))
        missing = [export for export in module.__all__ if not hasattr(module, export)]
        assert not missing

    @pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=relative)
    def test_init_files_only_re_export(self, path):
        lazily = ("TYPE_CHECKING", "(__getattr__, __dir__)") if path.parent == PACKAGE else ()
        for node in tree(path).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) in lazily:
                continue
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in lazily:
                continue
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            exports = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            imports = isinstance(node, ast.Import | ast.ImportFrom)
            assert docstring or exports or imports, f"{path}:{node.lineno} is more than a re-export"

    def test_public_things_are_documented(self):
        bare = []
        for name in MODULES:
            module = importlib.import_module(name)
            for export in module.__all__:
                thing = getattr(module, export)
                if inspect.isclass(thing) or inspect.isfunction(thing):
                    bare += [] if inspect.getdoc(thing) else [f"{name}.{export}"]
        assert not bare

    def test_documented_import_paths(self):
        """The table at the head of the public contract."""
        table = {
            "genlm.bytes": "ByteBeamState BeamParams LazyTrieState StatefulTokenizedLM TokenByteTrie "
            "AsyncTokenByteTrie Chart ByteLM AsyncByteLM",
            "genlm.bytes.trie": "TokenByteTrie AsyncTokenByteTrie TrieMode TrieOp EOS",
            "genlm.bytes.util": "LazyByteProbs Chart logsumexp format_table escape format_byte",
            "genlm.bytes.byte_lm": "BeamParams ByteBeamState LazyTrieState StatefulTokenizedLM "
            "StatefulByteLM TokenHealer",
            "genlm.bytes.byte_lm.beam": "BeamParams ByteBeamState",
            "genlm.bytes.byte_lm.trie_state": "LazyTrieState TrieMode EOS",
            "genlm.bytes.byte_lm.lm_state": "StatefulTokenizedLM StatefulByteLM",
            "genlm.bytes.byte_lm.heal": "TokenHealer",
        }
        for module, names in table.items():
            for name in names.split():
                assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
        from genlm.bytes.trie import EOS

        assert EOS == 257
        beam = importlib.import_module("genlm.bytes.byte_lm.beam")
        assert beam.ByteBeamState is genlm.bytes.ByteBeamState


def layers() -> list[str]:
    """The parts of the library as DEVELOPING.md lists them: each imports from those above it."""
    house = (REPOSITORY / "DEVELOPING.md").read_text(encoding="utf-8")
    listed = house.split("```\ngenlm/bytes/\n")[1].split("```")[0]
    return re.findall(r"^  (\w+)(?:/|\.py) ", listed, re.MULTILINE)


LAYERS = layers()
# A notebook asks a beam to draw itself: the one place that looks up, inside a function.
UPWARDS = {("byte_lm", "viz"), ("ensemble", "viz")}
# The command line is a client like any other. These are what clients may import.
FOR_CLIENTS = {
    "genlm.bytes", "genlm.bytes.byte_lm", "genlm.bytes.trie", "genlm.bytes.util", "genlm.bytes.models",
    "genlm.bytes.errors", "genlm.bytes.generate", "genlm.bytes.generate.grammar", "genlm.bytes.score",
    "genlm.bytes.engine", "genlm.bytes.escaping", "genlm.bytes.options", "genlm.bytes.resumable",
    "genlm.bytes.viz", "genlm.bytes.integrations.ray", "genlm.bytes.ensemble", "genlm.bytes.serve",
}  # fmt: skip


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and name of each module of ours that a file imports at run time."""
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found.append((node.lineno, node.module or ""))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(path))
    return [(line, name) for line, name in found if name.split(".")[:2] == ["genlm", "bytes"]]


def part_of(module: str) -> str:
    return ".".join(module.split(".")[2:3])


class TestDirection:
    def test_layers_name_every_part(self):
        parts = {relative(p).split("/")[0].removesuffix(".py") for p in FILES} - {"__init__"}
        unknown = parts - set(LAYERS)
        assert not unknown, f"say in DEVELOPING.md where {unknown} belong"

    @pytest.mark.parametrize("path", FILES, ids=relative)
    def test_imports_go_down(self, path):
        part = relative(path).split("/")[0].removesuffix(".py")
        if part == "__init__":
            return  # the public API of everything
        rank = {name: i for i, name in enumerate(LAYERS)}
        for line, module in imports(path):
            other = part_of(module)
            where = f"{relative(path)}:{line}: {part} imports {module}"
            if part == "cli" and other != "cli":
                assert module in FOR_CLIENTS, f"{where}, which is not public"
            elif other == part:
                continue
            else:
                assert other, f"{where}: name the module, not the package"
                assert rank[other] < rank[part] or (part, other) in UPWARDS, f"{where}, which lies above it"


class TestPackaging:
    def test_genlm_is_a_namespace(self):
        assert not (PACKAGE.parent / "__init__.py").exists()
        assert importlib.import_module("genlm").__file__ is None
        assert importlib.import_module("genlm.backend")

    def test_wheel(self, tmp_path):
        """What a built wheel holds, and nothing of another package of the namespace."""
        code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
        run = [sys.executable, "-c", code, str(tmp_path)]
        said = subprocess.run(run, cwd=REPOSITORY, check=True, capture_output=True, text=True)
        with zipfile.ZipFile(tmp_path / said.stdout.splitlines()[-1]) as wheel:
            names = wheel.namelist()
        assert "genlm/bytes/py.typed" in names
        code_files = [n for n in names if ".dist-info/" not in n]
        assert all(n.startswith("genlm/bytes/") for n in code_files), code_files
        templates = list(PACKAGE.rglob("templates/*.html"))
        assert templates
        assert {f"genlm/bytes/{relative(p)}" for p in [*FILES, *templates]} <= set(names)

    def test_versions_are_pinned(self):
        """`make` installs what constraints.txt says: one exact version of each package."""
        lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
        pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in pins}
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        wanted = [
            *project["dependencies"],
            *(r for e in project["optional-dependencies"].values() for r in e),
        ]
        names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", r).group()).lower() for r in wanted}
        assert names - {"genlm-bytes"} <= pinned

    def test_no_package_index_is_named(self):
        """Which index a package comes from is the business of whoever installs it."""
        hosts = """
            pypi|org pythonhosted|org pypi|python|org pytorch|org anaconda|org npmjs|org deb|debian|org
            jfrog|io
        """.replace("|", ".").split()
        options = ["--" + "index-url", "--" + "extra-index-url", "--" + "find-links", "--" + "trusted-host"]
        found = []
        for path in tracked():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            found += [f"{path}: {bad}" for bad in (*hosts, *options) if bad in text]
        assert not found

    def test_library_code_does_not_print(self):
        """ruff's T20 says so too; this also covers code that is excluded from ruff."""
        calls = [
            f"{relative(path)}:{node.lineno}"
            for path in FILES
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert not calls


@pytest.mark.skipif(QUICK, reason="annotations are checked by make thorough, and where tests are run alone")
class TestAnnotations:
    """That `tests/annotations.py` does what it says: otherwise its silence would mean nothing."""

    def test_most_are_enforced(self):
        for name in MODULES:
            importlib.import_module(name)
        assert enforced.counts["functions"] > 200
        assert enforced.counts["annotations"] > 400
        reasons = [line for line in enforced.unchecked if "is not defined" not in line]
        # What is left are type variables bound to a name that exists for the type checker only.
        assert not [line for line in reasons if "ForwardRef" not in line]

    def test_a_wrong_argument_is_caught_unless_the_function_refuses_it(self):
        from genlm.bytes import BeamParams
        from genlm.bytes.errors import InvalidTypeError, bad_value

        with pytest.raises(enforced.AnnotationError, match="argument `instead`"):
            bad_value("x", 1, "must be 2", instead=3)
        with pytest.raises(InvalidTypeError, match="`K` is"):
            BeamParams(K="5")

    async def test_shapes_results_and_coroutines(self):
        import numpy as np
        from jaxtyping import Float

        def add(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            return np.add.outer(a, b)[0] if len(a) == len(b) else a

        async def later(x: int) -> str:
            return x if x else ""

        # The test's own names are not global: the hints are given as objects.
        add.__annotations__ = dict.fromkeys(("a", "b", "return"), Float[np.ndarray, " n"])
        sum_of = enforced.checked(add)
        assert sum_of(np.ones(2), np.ones(2)).shape == (2,)
        with pytest.raises(enforced.AnnotationError, match=r"`b` is a ndarray of shape \(3,\)"):
            sum_of(np.ones(2), np.ones(3))
        with pytest.raises(enforced.AnnotationError, match=r"`a` is a ndarray .* int64"):
            sum_of(np.ones(2, int), np.ones(2))
        late = enforced.checked(later)
        assert await late(0) == ""
        with pytest.raises(enforced.AnnotationError, match="its result is a int"):
            await late(1)


@pytest.mark.real_model
class TestReadme:
    def blocks(self) -> list[str]:
        text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
        return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)

    def test_there_are_examples(self):
        assert self.blocks()

    async def test_examples_run_as_written(self, default_llm, monkeypatch, tmp_path):
        """One after another in one namespace, as in a notebook: with `await` at the top level."""
        monkeypatch.chdir(tmp_path)
        # The first example loads the model; it is given the one that is loaded already.
        for loader in ("load_default_model", "load_model"):
            monkeypatch.setattr(f"genlm.bytes.models.{loader}", lambda *_, **__: default_llm)
        namespace: dict[str, object] = {"__name__": "readme"}
        for i, source in enumerate(self.blocks()):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(source, f"README.md, example {i + 1}", "exec", flags, dont_inherit=True)
            result = eval(code, namespace)
            if inspect.iscoroutine(result):
                await result
