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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from genlm.bytes.cli.output import complain
from genlm.bytes.escaping import safe_text

if TYPE_CHECKING:
    from genlm.bytes import BeamParams, ByteLM

__all__ = ["Shared"]

PANEL = "Model, beam, output"
EMBEDDED = "the embedded SmolLM2-135M-Instruct"


def _option(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=PANEL)


@dataclass(frozen=True)
class Shared:
    """Options of every command. `K`, `threshold` and `tolerance` are those of `BeamParams`."""

    name: Annotated[
        str | None,
        _option("--model", "-m", help=f"A model folder, GGUF file or hub name; {EMBEDDED} if not given."),
    ] = None
    K: Annotated[int | None, _option("--K", help="The most candidates that the beam keeps.")] = None
    threshold: Annotated[
        float | None,
        _option("--threshold", help="Drop candidates below this share of the beam; needs --K."),
    ] = None
    tolerance: Annotated[
        float | None,
        _option("--tolerance", help="Candidates below this share wait; 0.0005 if none of these is given."),
    ] = None
    device: Annotated[
        str | None, _option("--device", help="cpu, cuda, cuda:1, mps, auto; CUDA if there is any.")
    ] = None
    dtype: Annotated[
        str | None,
        _option("--dtype", help="float32, bfloat16, float16, auto; float32 on a CPU, else as stored."),
    ] = None
    as_json: Annotated[
        bool, _option("--json", help="Machine-readable: one document, or a line an event when streaming.")
    ] = False
    quiet: Annotated[
        bool, _option("--quiet", "-q", help="No progress and no remarks on stderr; errors only.")
    ] = False

    @property
    def remarks(self) -> bool:
        """Whether progress and remarks are wanted: somebody watches, and has not asked for quiet."""
        return not self.quiet and sys.stderr.isatty()

    def params(self, default: BeamParams | None = None) -> BeamParams:
        """The beam's settings.

        Args:
            default: those of the command, where no option says anything about them.

        Raises:
            ValueError: a value out of range, or options that exclude each other.
        """
        from genlm.bytes import BeamParams

        if default is not None and self.K is self.threshold is self.tolerance is None:
            return default
        return BeamParams(K=self.K, prune_threshold=self.threshold or 0.0, tolerance=self.tolerance)

    @contextmanager
    def model(self, default: BeamParams | None = None) -> Iterator[ByteLM]:
        """The model, loaded, and let go at the end.

        Args:
            default: see `params`.
        """
        with self.working("Starting"):
            from genlm.bytes import ByteLM
            from genlm.bytes.models import load_model

            params = self.params(default)
            if self.remarks and not (self.name or "").lower().endswith(".gguf"):
                _import_backend()
        llm = load_model(self.name, device=self.device, dtype=self.dtype, progress=self.remarks)
        with ByteLM(llm, params) as lm:
            yield lm

    def working(self, what: str) -> AbstractContextManager[Any]:
        """A spinner on stderr while something takes its time; nothing where nobody watches."""
        return Console(stderr=True).status(f"{what} …") if self.remarks else nullcontext()

    def remark(self, text: str) -> None:
        """A line on stderr for whoever watches."""
        if self.remarks:
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
