"""What every command takes: which model, which beam, where, and how to speak.

A command has one parameter `shared: Shared`, and asks it for the model:

    def score(text: TextInput, shared: Shared) -> None:
        source = text.read()
        with shared.model() as lm, shared.working("Scoring"):
            ...

Mistakes in these options are found before a model is loaded.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genlm.bytes.cli.gguf import GGUF
from genlm.bytes.cli.output import complain
from genlm.bytes.escaping import safe_text

if TYPE_CHECKING:
    from genlm.bytes import BeamParams, ByteLM

__all__ = ["Shared", "beam_params"]

_option = partial(typer.Option, rich_help_panel="Model, beam, output")


def beam_params(
    K: int | None, threshold: float | None, tolerance: float | None, canonical: bool
) -> BeamParams:
    """The beam's settings as they were typed.

    Raises:
        ValueError: one is wrong, or goes not with the others.
    """
    from genlm.bytes import BeamParams
    from genlm.bytes.errors import bad_value

    if threshold and K is tolerance is None:  # that `K` is None says nothing to who has not typed it
        rule = "goes with `K`, how many hypotheses the beam keeps at most"
        raise bad_value("prune_threshold", threshold, rule, "Add K=5, or give a `tolerance` in its place.")
    return BeamParams(K=K, prune_threshold=threshold or 0.0, tolerance=tolerance, canonical=canonical)


@dataclass(frozen=True)
class Shared:
    """Options of every command. `K`, `threshold`, `tolerance` and `canonical` are those of `BeamParams`."""

    names: Annotated[
        list[str] | None,
        _option(
            "--model",
            "-m",
            help="A model folder, GGUF file or hub name, or `embedded`; the embedded "
            "SmolLM2-135M-Instruct if not given. Several are one.",
        ),
    ] = None
    op: Annotated[
        str | None,
        _option("--op", help="How several are one: prod, sum, mixture, min, max, harmonic, or a power."),
    ] = None
    weights: Annotated[str | None, _option("--weights", help="Of several models, with commas: 0.7,0.3.")] = (
        None
    )
    K: Annotated[int | None, _option("--K", help="The most hypotheses that the beam keeps.")] = None
    threshold: Annotated[
        float | None,
        _option("--threshold", help="Drop hypotheses below this share of the beam; needs --K."),
    ] = None
    tolerance: Annotated[
        float | None,
        _option("--tolerance", help="Hypotheses below this share wait; 0.0005 if none of these is given."),
    ] = None
    canonical: Annotated[
        bool, _option("--canonical", help="Count only tokenizations that the tokenizer itself makes.")
    ] = False
    device: Annotated[
        str | None, _option("--device", help="cpu, cuda, cuda:1, mps, auto; CUDA if there is any.")
    ] = None
    dtype: Annotated[
        str | None,
        _option("--dtype", help="float32, bfloat16, float16, auto; float32 on a CPU, else as stored."),
    ] = None
    gguf: GGUF = field(default_factory=GGUF)
    start: Annotated[
        str | None, _option("--start", help="The token that texts begin after, as <|endoftext|>.")
    ] = None
    as_json: Annotated[
        bool, _option("--json", help="Machine-readable: one document, or a line an event when streaming.")
    ] = False
    quiet: Annotated[
        bool, _option("--quiet", "-q", help="No progress and no remarks on stderr; errors only.")
    ] = False

    @property
    def name(self) -> str | None:
        """The model's name; of several, all and how they are one."""
        names = self.names or []
        together = "" if len(names) < 2 else f", {self.op or 'prod'}, {self.weights or 'equal weights'}"
        return ", ".join(names) + together or None

    def single(self, why: str) -> str | None:
        """The name of the only model.

        Raises:
            typer.BadParameter: there are several.
        """
        if len(self.names or ()) > 1:
            raise typer.BadParameter(why, param_hint="--model")
        return self.name

    @property
    def remarks(self) -> bool:
        """Whether progress and remarks are wanted: somebody watches, and has not asked for quiet."""
        return not self.quiet and sys.stderr.isatty()

    def params(self, default: BeamParams | None = None) -> BeamParams:
        """The beam's settings. What is wrong with the model's is said here too, before it is loaded.

        Args:
            default: those of the command, where no option says anything about them.
        """
        self.gguf.options(self.every_name)
        if default is not None and self.K is self.threshold is self.tolerance is None:
            return replace(default, canonical=True) if self.canonical else default
        return beam_params(self.K, self.threshold, self.tolerance, self.canonical)

    @contextmanager
    def model(self, default: BeamParams | None = None) -> Iterator[ByteLM]:
        """The model, loaded, and let go at the end."""
        with self.working("Starting"):
            from genlm.bytes import ByteLM
            from genlm.bytes.models import load_model

            params = self.params(default)
            names = self.every_name
            op, weights = self.together()
            options = self.gguf.options(names)
            on_llama = self.gguf.backend == "llamacpp"
            if self.remarks and not all(on_llama or (n or "").lower().endswith(".gguf") for n in names):
                _import_backend()
        options |= {"device": self.device, "dtype": self.dtype, "progress": self.remarks}
        load: Any = partial(load_model, **options)
        llms = {name: load(name) for name in dict.fromkeys(names)}  # a name that is there twice is one model
        with ExitStack() as stack:
            members = [stack.enter_context(ByteLM(llms[name], params, start=self.start)) for name in names]
            if len(members) == 1:
                yield members[0]
            else:
                yield stack.enter_context(ByteLM.ensemble(members, op, weights))

    @property
    def every_name(self) -> list[str | None]:
        """The name of each model; None for the embedded one."""
        return list(self.names or ()) or [None]

    def together(self) -> tuple[str | float, list[float] | None]:
        """`--op` and `--weights`, checked before anything is loaded."""
        count = len(self.every_name)
        if count == 1 and (self.op is not None or self.weights is not None):
            hint = "--weights" if self.op is None else "--op"
            raise typer.BadParameter("there is one model only: give --model twice", param_hint=hint)
        try:
            weights = [float(word) for word in self.weights.split(",")] if self.weights else None
        except ValueError:
            raise typer.BadParameter("must be numbers with commas between", param_hint="--weights") from None
        op: str | float = self.op or "prod"
        with suppress(ValueError):
            op = float(op)
        if count > 1:
            from genlm.bytes.ensemble import operation

            operation(op, count, weights)
        return op, weights

    def working(self, what: str) -> AbstractContextManager[Any]:
        """A spinner on stderr while something takes its time; nothing where nobody watches."""
        if not self.remarks:
            return nullcontext()
        from rich.console import Console

        return Console(stderr=True).status(f"{what} …")

    def remark(self, text: str) -> None:
        """A line on stderr for whoever watches."""
        if self.remarks:
            from rich.console import Console

            said = safe_text(text)
            Console(stderr=True, highlight=False).print(said, style="dim", markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line on stderr for everybody who has not asked for quiet."""
        if not self.quiet:
            complain(text)


def _import_backend() -> None:
    """Import transformers, which takes seconds: loading a model would, where no spinner turns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import genlm.backend.llm  # noqa: F401
