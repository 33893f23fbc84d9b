"""`ByteLM`: the front door with plain methods, for scripts, notebooks, threads and R."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from genlm.bytes.api.async_lm import AsyncByteLM
from genlm.bytes.api.ensembles import Ensembles
from genlm.bytes.api.loop import run
from genlm.bytes.api.scoring import scoring_options
from genlm.bytes.byte_lm import BeamParams
from genlm.bytes.errors import names_checked
from genlm.bytes.options import GenerationOptions, beam_setting, check_model_options, spelled_out

if TYPE_CHECKING:
    import torch

    from genlm.bytes.api.sync_results import NextBytes, SyncStream
    from genlm.bytes.ensemble import Operation

__all__ = ["ByteLM"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")


def _plain(
    method: Callable[Concatenate[AsyncByteLM, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[ByteLM, P], T]:
    """A coroutine method as a plain one, with the same arguments and the same documentation."""

    @functools.wraps(method)
    def call(self: ByteLM, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found: T = run(getattr(self.asynchronous, method.__name__)(*args, **kwargs))
        return found

    return call


def _documented(method: Callable[..., Any]) -> Callable[[F], F]:
    """The documentation of a coroutine for a plain method: `help` has the arguments themselves."""

    def documented(function: F) -> F:
        function.__doc__ = (method.__doc__ or "").replace("await ", "")
        return function

    return documented


@names_checked(scoring_options, beam_setting)
class ByteLM(Ensembles):
    """A byte-level language model, ready to be asked, in plain calls.

    The work is done on one background event loop a process, so the methods can be called from scripts, from
    notebooks whose own loop is running, from several threads at once, and from R through reticulate.
    Ctrl-C cancels what a call has begun.

    Its arguments are those of `AsyncByteLM`.

    Examples:
        with ByteLM.from_pretrained() as lm:
            print(lm.complete("The capital of Fra", max_bytes=20))
    """

    def __init__(
        self,
        llm: Any,
        params: BeamParams | None = None,
        *,
        eos: Iterable[bytes] | None = None,
        trie_opts: Mapping[str, Any] | None = None,
        engine: bool = True,
        lora_name: str | None = None,
        max_context_length: int | None = None,
        start: str | int | None = None,
    ) -> None:
        self.asynchronous = AsyncByteLM(
            llm,
            params,
            eos=eos,
            trie_opts=trie_opts,
            engine=engine,
            lora_name=lora_name,
            max_context_length=max_context_length,
            start=start,
        )

    @classmethod
    @_documented(AsyncByteLM.from_pretrained)
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        params: BeamParams | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        backend: str | None = None,
        progress: bool = True,
        eos: Iterable[bytes] | None = None,
        start: str | int | None = None,
        **llm_opts: Any,
    ) -> Self:
        """A model by name; see `AsyncByteLM.from_pretrained`."""
        from genlm.bytes.models import load_model

        check_model_options(llm_opts)
        llm = load_model(
            name_or_path, device=device, dtype=dtype, backend=backend, progress=progress, **llm_opts
        )
        return cls(llm, params, eos=eos, start=start)

    @classmethod
    def _together(cls, members: Sequence[Self], rule: Operation, contexts: Any, floor: float) -> Self:
        made = cls.__new__(cls)
        together = [member.asynchronous for member in members]
        made.asynchronous = AsyncByteLM._together(together, rule, contexts, floor)
        return made

    @property
    def llm(self) -> Any:
        """The model."""
        return self.asynchronous.llm

    @property
    def params(self) -> BeamParams:
        """The settings of the beam."""
        return self.asynchronous.params

    @_documented(AsyncByteLM.special)
    def special(self, name: str) -> int:
        """The id of a special token by its name; see `AsyncByteLM.special`."""
        return self.asynchronous.special(name)

    @_documented(AsyncByteLM.parse_special)
    def parse_special(self, text: str) -> tuple[str | int, ...]:
        """A text with special tokens spelled out, as a prompt; see `AsyncByteLM.parse_special`."""
        return self.asynchronous.parse_special(text)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the background loop: `lm.run(beam << 97)`, `lm.run(beam.logp_next())`."""
        return run(coroutine)

    # -- asking ---------------------------------------------------------------------------------------

    beam = _plain(AsyncByteLM.beam)
    complete = _plain(AsyncByteLM.complete)

    def next(self, context: Any = b"", *, method: str = "tokenize") -> NextBytes:
        """Natural log-probabilities of the next byte, `[258]`, the end last; `.chars()` for characters.

        Args:
            context: as for `complete`.
            method: how the context is read; see `ByteBeamState.prefill`.
        """
        from genlm.bytes.api.sync_results import NextBytes

        return NextBytes(run(self.asynchronous.next(context, method=method)))

    @spelled_out
    def stream(self, prompt: Any, **options: Unpack[GenerationOptions]) -> SyncStream:
        """A completion as it comes: `for chunk in lm.stream("…"): print(chunk, end="")`.

        Args:
            prompt: as for `complete`, but one.
            **options: see `GenerationOptions`.

        Returns:
            An iterator; its `completion` holds the whole when it has ended.
        """
        from genlm.bytes.api.sync_results import SyncStream

        return SyncStream(self.asynchronous.stream(prompt, **options))

    predict_words = _plain(AsyncByteLM.predict_words)
    predict_chars = _plain(AsyncByteLM.predict_chars)
    expand = _plain(AsyncByteLM.expand)

    # -- scoring --------------------------------------------------------------------------------------

    score = _plain(AsyncByteLM.score)
    word_surprisal = _plain(AsyncByteLM.word_surprisal)
    table_surprisal = _plain(AsyncByteLM.table_surprisal)
    byte_logprobs = _plain(AsyncByteLM.byte_logprobs)
    choices = _plain(AsyncByteLM.choices)
    tokenizations = _plain(AsyncByteLM.tokenizations)
    token_logprobs = _plain(AsyncByteLM.token_logprobs)

    # -- ending ---------------------------------------------------------------------------------------

    forget = _plain(AsyncByteLM.forget)
    close = _plain(AsyncByteLM.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.llm).__name__}, {self.params!r})"


ByteLM.__doc__ = (ByteLM.__doc__ or "").replace(
    "Its arguments are those of `AsyncByteLM`.\n",
    "Args:\n" + (AsyncByteLM.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0] + "\n",
)
