"""`ByteLM`: the front door with plain methods, for scripts, notebooks, threads and R."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from genlm.bytes.api.async_lm import AsyncByteLM
from genlm.bytes.api.loop import run
from genlm.bytes.byte_lm import BeamParams, ByteBeamState

if TYPE_CHECKING:
    import torch

    from genlm.bytes.api.sync_results import NextBytes, SyncStream
    from genlm.bytes.generate import Completion, Mask
    from genlm.bytes.score import Score, WordSurprisals

__all__ = ["ByteLM"]

T = TypeVar("T")


class ByteLM:
    """A byte-level language model, ready to be asked, in plain calls.

    The work is done on one background event loop a process, so the methods can be called from scripts, from
    notebooks whose own loop is running, from several threads at once, and from R through reticulate.
    Ctrl-C cancels what a call has begun.

    Args:
        llm: a `genlm.backend` `AsyncLM`, or anything with its interface.
        params: settings of the beam; None means `BeamParams()`.
        eos: spellings of the tokens that end a sequence. None takes those of `params`, or, where it has
            none, the model's own; an empty list means that nothing does.
        trie_opts: see `ByteBeamState.initial`.
        engine: see `ByteBeamState.initial`.
        lora_name: see `ByteBeamState.initial`.
        max_context_length: see `ByteBeamState.initial`.

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
    ) -> None:
        self.asynchronous = AsyncByteLM(
            llm,
            params,
            eos=eos,
            trie_opts=trie_opts,
            engine=engine,
            lora_name=lora_name,
            max_context_length=max_context_length,
        )

    @classmethod
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
        **llm_opts: Any,
    ) -> Self:
        """A model by name; see `AsyncByteLM.from_pretrained`."""
        from genlm.bytes.models import load_model

        llm = load_model(
            name_or_path, device=device, dtype=dtype, backend=backend, progress=progress, **llm_opts
        )
        return cls(llm, params, eos=eos)

    @property
    def llm(self) -> Any:
        """The model."""
        return self.asynchronous.llm

    @property
    def params(self) -> BeamParams:
        """The settings of the beam."""
        return self.asynchronous.params

    def special(self, name: str) -> int:
        """The id of a special token by its name; see `AsyncByteLM.special`."""
        return self.asynchronous.special(name)

    def parse_special(self, text: str) -> tuple[str | int, ...]:
        """A text with special tokens spelled out, as a prompt; see `AsyncByteLM.parse_special`."""
        return self.asynchronous.parse_special(text)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the background loop: `lm.run(beam << 97)`, `lm.run(beam.logp_next())`."""
        return run(coroutine)

    # -- asking ---------------------------------------------------------------------------------------

    def beam(self, context: Any = b"", *, method: str = "beam") -> ByteBeamState:
        """The beam after a context; see `AsyncByteLM.beam`. Its own methods are coroutines: see `run`."""
        return run(self.asynchronous.beam(context, method=method))

    def next(self, context: Any = b"", *, method: str = "tokenize") -> NextBytes:
        """Natural log-probabilities of the next byte, `[258]`, the end last; `.chars()` for characters.

        Args:
            context: as for `complete`.
            method: how the context is read; see `ByteBeamState.prefill`.
        """
        from genlm.bytes.api.sync_results import NextBytes

        return NextBytes(run(self.asynchronous.next(context, method=method)))

    def complete(
        self,
        prompt: Any,
        *,
        max_bytes: int | None = None,
        max_tokens: int | None = None,
        stop: str | bytes | Sequence[str | bytes] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        n: int = 1,
        best_of: int | None = None,
        unit: Literal["token", "byte"] | None = None,
        token_healing: bool = True,
        method: str = "tokenize",
        valid_utf8: bool = True,
        mask: Callable[[bytes], Any] | Mask | None = None,
        echo: bool = False,
        suffix: str | bytes | None = None,
        fim: Sequence[str | int | None] | None = None,
    ) -> Completion | list[Any]:
        """Continue a text from wherever it stops; or each of a list of texts, as one batch.

        Everything as for `AsyncByteLM.complete`.
        """
        return run(
            self.asynchronous.complete(
                prompt,
                max_bytes=max_bytes,
                max_tokens=max_tokens,
                stop=stop,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                seed=seed,
                n=n,
                best_of=best_of,
                unit=unit,
                token_healing=token_healing,
                method=method,
                valid_utf8=valid_utf8,
                mask=mask,
                echo=echo,
                suffix=suffix,
                fim=fim,
            )
        )

    def stream(self, prompt: Any, **options: Any) -> SyncStream:
        """A completion as it comes: `for chunk in lm.stream("…"): print(chunk, end="")`.

        Args:
            prompt: as for `complete`, but one.
            **options: as for `complete`, without `n` and `best_of`.

        Returns:
            An iterator; its `completion` holds the whole when it has ended.
        """
        from genlm.bytes.api.sync_results import SyncStream

        return SyncStream(self.asynchronous.stream(prompt, **options))

    # -- scoring --------------------------------------------------------------------------------------

    def score(
        self, text: Any, context: Any = b"", *, end: bool = False, **options: Any
    ) -> Score | list[Score]:
        """How probable each byte of a text is, given what is before it; see `AsyncByteLM.score`."""
        return run(self.asynchronous.score(text, context, end=end, **options))

    def word_surprisal(
        self,
        texts: Any,
        words: Sequence[Any] | None = None,
        spans: Sequence[Any] | None = None,
        *,
        sep: str | None = " ",
        boundary: Literal["trailing", "leading", "none"] | None = None,
        base: float = 2,
        context: Any = b"",
        punctuation: bool | str = False,
        **options: Any,
    ) -> WordSurprisals:
        """The surprisal of each word of some texts; see `AsyncByteLM.word_surprisal`."""
        return run(
            self.asynchronous.word_surprisal(
                texts,
                words,
                spans,
                sep=sep,
                boundary=boundary,
                base=base,
                context=context,
                punctuation=punctuation,
                **options,
            )
        )

    def byte_logprobs(
        self,
        texts: Any,
        context: Any = b"",
        *,
        out: str | os.PathLike[str] | None = None,
        format: Literal["npz", "safetensors"] = "npz",
        texts_per_shard: int = 64,
        **options: Any,
    ) -> Any:
        """Natural log-probabilities of every next byte, `[n, 257]`; see `AsyncByteLM.byte_logprobs`."""
        return run(
            self.asynchronous.byte_logprobs(
                texts, context, out=out, format=format, texts_per_shard=texts_per_shard, **options
            )
        )

    # -- ending ---------------------------------------------------------------------------------------

    def forget(self, *, deterministic: bool | None = None, reproducible: bool | None = None) -> None:
        """Forget what has been read; see `AsyncByteLM.forget`."""
        run(self.asynchronous.forget(deterministic=deterministic, reproducible=reproducible))

    def close(self) -> None:
        """Let the model go. It may be called again."""
        run(self.asynchronous.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.llm).__name__}, {self.params!r})"
