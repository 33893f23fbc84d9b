"""`AsyncByteLM`: complete, stream, look at the next byte; as coroutines."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from genlm.bytes.api.comparisons import Comparisons
from genlm.bytes.api.ensembles import Ensembles
from genlm.bytes.api.predicting import Predicting
from genlm.bytes.api.scoring import Scoring
from genlm.bytes.byte_lm import BeamParams, ByteBeamState
from genlm.bytes.errors import (
    GenlmBytesError,
    UnsupportedModelError,
    bad_type,
    bad_value,
    called,
    names_checked,
)
from genlm.bytes.options import GenerationOptions, Options, beam_setting, check_model_options, spelled_out
from genlm.bytes.trie import TokenByteTrie
from genlm.bytes.vocab import byte_vocab, end_strings, shared_trie, start_context

if TYPE_CHECKING:
    import torch

    from genlm.bytes.ensemble import Operation
    from genlm.bytes.generate import Completion, Read, Stream
    from genlm.bytes.generate.next_bytes import AsyncNextBytes
    from genlm.bytes.prompt import Prompt

__all__ = ["AsyncByteLM"]


@names_checked(elsewhere=beam_setting)
class AsyncByteLM(Ensembles, Scoring, Comparisons, Predicting):
    """A byte-level language model, ready to be asked. Its methods are coroutines; `ByteLM` has plain ones.

    Args:
        llm: a `genlm.backend` `AsyncLM`, or anything with its interface.
        params: settings of the beam; None means `BeamParams()`.
        eos: spellings of the tokens that end a sequence. None takes those of `params`, or, where it has
            none, the model's own; an empty list means that nothing does.
        trie_opts: see `ByteBeamState.initial`.
        engine: see `ByteBeamState.initial`.
        lora_name: see `ByteBeamState.initial`.
        max_context_length: see `ByteBeamState.initial`.
        start: the token that texts begin after, by its name or id, in place of the tokenizer's own; a chat
            template, and a context that begins with a token, go their own ways.

    Examples:
        async with await AsyncByteLM.from_pretrained() as lm:
            print(await lm.complete("The capital of Fra", max_bytes=20))
    """

    _begins: list[int] | None = None
    """What `start` says, as ids."""

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
        byte_vocab(llm)
        params = BeamParams() if params is None else params
        if not isinstance(params, BeamParams):
            raise bad_type("params", params, "must be BeamParams")
        if trie_opts is not None and not isinstance(trie_opts, Mapping):
            raise bad_type("trie_opts", trie_opts, "must be a mapping of options")
        if eos is not None or not params.eos_byte_strings:
            ends: Any = end_strings(llm) if eos is None else eos
            with called(eos_byte_strings="eos"):
                params = dataclasses.replace(params, eos_byte_strings=ends, eos_tokens=None)
        self.llm = llm
        self.params = params
        self._trie_opts = trie_opts
        self._initial_opts: dict[str, Any] = {
            "engine": engine,
            "lora_name": lora_name,
            "max_context_length": max_context_length,
        }
        if start is not None:
            from genlm.bytes.prompt.start import start_ids

            self._begins = start_ids(llm, start)
        self._start: ByteBeamState | None = None
        self._trie: TokenByteTrie | None = None
        self._closed = False

    @classmethod
    async def from_pretrained(
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
        """A model by name: the embedded one, a folder or GGUF file on disk, or one from the model hub.

        Args:
            name_or_path: None or `'embedded'` for the embedded SmolLM2-135M-Instruct, an existing folder, a
                GGUF file, or a hub name.
            params: see the class.
            device: `'cpu'`, `'cuda'`, …; by default CUDA if there is any, else the CPU.
            dtype: `'float32'`, `'bfloat16'`, …; by default float32 on a CPU and as stored elsewhere.
            backend: `'hf'` (default), `'llamacpp'` (the default for a file), `'vllm'`, `'sgl'`, `'mlx'` or
                `'mock'`.
            progress: whether to show progress bars on stderr.
            eos: see the class.
            start: see the class.
            **llm_opts: options for the backend's model class.

        Raises:
            ModelUnavailableError: there is no such model, it cannot be reached, or its folder is incomplete.
            ValueError: `device`, `dtype` or `backend` is not among those allowed.
        """
        from genlm.bytes.models import load_model

        check_model_options(llm_opts)
        llm = await asyncio.to_thread(
            load_model,
            name_or_path,
            device=device,
            dtype=dtype,
            backend=backend,
            progress=progress,
            **llm_opts,
        )
        return cls(llm, params, eos=eos, start=start)

    @classmethod
    def _together(cls, members: Sequence[Self], rule: Operation, contexts: Any, floor: float) -> AsyncByteLM:
        from genlm.bytes.api.async_ensemble import AsyncEnsemble

        return AsyncEnsemble(members, rule, contexts, floor)

    # -- asking ---------------------------------------------------------------------------------------

    async def beam(self, context: Any = b"", *, method: str = "beam") -> ByteBeamState:
        """The beam after a context, for all that `ByteBeamState` can do.

        Args:
            context: see `complete`.
            method: how the context is read; see `complete`.
        """
        beam: ByteBeamState = (await self._read(context, method=method)).beam
        return beam

    async def next(self, context: Any = b"", *, method: str = "tokenize") -> AsyncNextBytes:
        """Natural log-probabilities of the next byte, `[258]`, the end last; `.chars()` for characters.

        Args:
            context: see `complete`.
            method: how the context is read; see `complete`.
        """
        from genlm.bytes.generate.next_bytes import AsyncNextBytes

        read = await self._read(context, method=method)
        return AsyncNextBytes(await read.beam.logp_next(), read.beam, read.text)

    @spelled_out
    async def complete(
        self,
        prompt: Any,
        *,
        n: int = 1,
        best_of: int | None = None,
        particles: int | None = None,
        ess_threshold: float = 0.5,
        **options: Unpack[GenerationOptions],
    ) -> Completion | list[Any]:
        """Continue a text from wherever it stops; or each of a list of texts, as one batch.

        Args:
            prompt: str; bytes; chat messages, `[{"role": …, "content": …}, …]`, where a last message of
                the assistant is continued; parts, a tuple or list of text and special tokens' ids; or a
                list of prompts (a list without ids and messages).
            n: how many completions of each prompt.
            best_of: draw this many and give the `n` of the highest log-probability a byte.
            particles: draw so many together, by sequential Monte Carlo over bytes: from the distribution over
                strings that a mask, or the product of several models, leaves.
            ess_threshold: the particles are resampled where their effective number is a smaller share.
            **options: see `GenerationOptions`.

        Returns:
            A `Completion`; a list of them if `n` is above 1; `WeightedCompletions` with `particles`; and for
            a list of prompts a list of these.

        Raises:
            ValueError: an option out of range, a prompt that the model cannot read.
            TypeError: an option or a prompt of the wrong type, or an option that does not exist.
            DeadEndError: all particles have met a dead end.
        """
        from genlm.bytes.byte_lm.speculation import side_by_side
        from genlm.bytes.generate import complete, draw_particles
        from genlm.bytes.prompt import is_batch
        from genlm.bytes.util.gather import gather

        counts = {"n": n, "best_of": best_of, "particles": particles, "ess_threshold": ess_threshold}
        checked = self._checked(options, **counts)

        async def one(single: Any) -> Completion | list[Completion]:
            read = await self._read(single, name="prompt", **checked.reading)
            draw = complete if checked.particles is None else draw_particles
            found = await draw(read, checked)
            await self._measure(found, single, read, checked)
            return found if checked.n > 1 or checked.particles is not None else found[0]

        if is_batch(prompt):
            with side_by_side(len(prompt)):
                return list(await gather(one(single) for single in prompt))
        return await one(prompt)

    @spelled_out
    def stream(self, prompt: Any, **options: Unpack[GenerationOptions]) -> Stream:
        """A completion as it comes: `async for chunk in lm.stream("…"): print(chunk, end="")`.

        Args:
            prompt: as for `complete`, but one.
            **options: see `GenerationOptions`.

        Returns:
            A `Stream`; its `completion` holds the whole when it has ended.
        """
        from genlm.bytes.generate import Stream

        checked = self._checked(options)

        async def finish(read: Read, completion: Completion) -> Completion:
            await self._measure(found := [completion], prompt, read, checked)
            return found[0]

        return Stream(lambda: self._read(prompt, name="prompt", **checked.reading), checked, finish=finish)

    # -- reading --------------------------------------------------------------------------------------

    def _described(self) -> dict[str, Any]:
        """What tells this model from others, as JSON values: its `model`, and how it is asked."""
        config = getattr(getattr(self.llm, "model", None), "config", None)
        model = str(getattr(config, "_name_or_path", "") or type(self.llm).__name__)
        kind = str(getattr(getattr(self.llm, "model", None), "dtype", None))
        begins = {} if self._begins is None else {"start": self._begins}
        opts = {"trie_opts": repr(self._trie_opts), **self._initial_opts, **begins}
        return {"model": model, "dtype": kind, **opts}

    def special(self, name: str) -> int:
        """The id of a special token by its name, for contexts of parts: `("…", lm.special("<s>"), "…")`.

        Args:
            name: how the token is written, as `"<|im_end|>"`.

        Raises:
            ValueError: the model has no such token.
        """
        from genlm.bytes.prompt.prompt import special_token

        found = special_token(self.llm, name)
        if found is None:
            raise bad_value("name", name, "this model has no such token")
        return found

    def parse_special(self, text: str) -> tuple[str | int, ...]:
        """A text in which special tokens are spelled out, as a prompt of parts: text, and their ids.

        Text is otherwise text: `<|im_end|>` in a prompt or a message ends no turn. This is for prompt formats
        written by hand. Never pass it what others wrote: add their text as parts of its own.

        Args:
            text: the text.

        Raises:
            TypeError: it is no str.

        Examples:
            start = lm.parse_special("<|im_start|>user\\n")
            end = lm.parse_special("<|im_end|>\\n<|im_start|>assistant\\n")
            await lm.complete((*start, question, *end))
        """
        from genlm.bytes.prompt.special_tokens import parse_special

        if not isinstance(text, str):
            raise bad_type("text", text, "must be a str")
        return parse_special(self.llm, self._open_trie(), text)

    def _checked(self, options: Mapping[str, Any], **counts: Any) -> Options:
        return Options.of(options, **counts)

    async def _read(
        self,
        context: Any,
        *,
        name: str = "context",
        method: str = "beam",
        healing: bool = True,
        suffix: str | bytes | None = None,
        fim: Sequence[str | int | None] | None = None,
    ) -> Read:
        from genlm.bytes.generate import Read
        from genlm.bytes.prompt.infill import infill
        from genlm.bytes.prompt.read import read_text

        trie = self._open_trie()
        with called(prompt=name, bs=name):
            if suffix is not None:
                prompt = infill(self.llm, trie, context, suffix, fim, healing, self._begins)
            else:
                prompt = self._parse(context)
                prompt = prompt if healing else prompt.closed(self.llm, trie, self._begins)
            start = await self._start_of(prompt)
            return Read(await read_text(start, prompt.text, method), prompt.spelled, prompt.stops)

    async def _measure(self, found: list[Completion], prompt: Any, read: Read, checked: Options) -> None:
        """Put bytes' log-probabilities into completions, if they are asked for."""
        if checked.by_byte_logprobs:
            from genlm.bytes.score.completed import measured

            await measured(found, read, checked, None if checked.suffix else partial(self._begin, prompt))

    def _open_trie(self) -> TokenByteTrie:
        if self._closed:
            raise GenlmBytesError("this model has been closed: make a new one, or leave `with` later.")
        if self._trie is None:
            self._trie = shared_trie(self.llm, self.params.eos_byte_strings or (), self._trie_opts).trie
        return self._trie

    async def _start_of(self, prompt: Prompt) -> ByteBeamState:
        """The beam that a prompt's text is to be read with."""
        if prompt.ids is None and not prompt.lead:
            if self._start is None:
                start = await self._initial(None)
                if self._start is None:  # of several who ask at once, all have the same
                    self._start = start
            return self._start
        start = await self._initial(prompt.ids)
        return await start.prefill(prompt.lead) if prompt.lead else start

    async def _begin(self, context: Any) -> tuple[Prompt, ByteBeamState]:
        prompt = self._parse(context)
        return prompt, await self._start_of(prompt)

    def _parse(self, context: Any) -> Prompt:
        from genlm.bytes.prompt import parse_context

        return parse_context(self.llm, self._open_trie(), context, self._begins)

    async def _initial(self, ids: Sequence[int] | None) -> ByteBeamState:
        ids = self._begins if ids is None else ids
        nothing = not (start_context(self.llm) if ids is None else ids)
        if nothing and hasattr(getattr(self.llm, "model", None), "config"):
            raise UnsupportedModelError(
                "this model's tokenizer has no BOS and no EOS token, so a text has nothing to start after. "
                'Begin each prompt with a token, `(token_id, "…")`, or set `tokenizer.bos_token`.'
            )
        return await ByteBeamState.initial(
            self.llm, self.params, self._trie_opts, initial_context=ids, **self._initial_opts
        )

    # -- ending ---------------------------------------------------------------------------------------

    async def forget(self, *, deterministic: bool | None = None, reproducible: bool | None = None) -> None:
        """Forget what has been read: what is asked next is computed as if nothing had been asked before.

        Args:
            deterministic: whether the same questions are to be answered with the same last digits from here
                on, see `Engine.deterministic`; None leaves it as it is.
            reproducible: older name of `deterministic`.
        """
        from genlm.bytes.backends.async_lm import cached
        from genlm.bytes.contexts.cached_lm import CachedLM

        self._open_trie()
        if self._start is not None:
            await self._start.cleanup()
            self._start = None
        llm = self.llm
        if self._initial_opts["engine"] and not isinstance(llm, CachedLM):
            from genlm.bytes.engine import adopt  # brings transformers

            llm = adopt(llm)
        model = cached(llm)
        deterministic = reproducible if deterministic is None else deterministic
        if deterministic is not None:
            model.deterministic = deterministic
        await asyncio.to_thread(model.clear_cache)

    async def close(self) -> None:
        """Finish what the trie still works on, and let the model go. It may be called again."""
        self._closed = True
        if self._start is not None:
            await self._start.cleanup()
            self._start = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.llm).__name__}, {self.params!r})"
