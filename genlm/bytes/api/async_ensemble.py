"""`AsyncEnsemble`: several models asked as one. `AsyncByteLM.ensemble` and its like make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genlm.bytes.api.async_lm import AsyncByteLM
from genlm.bytes.ensemble import EnsembleState, Operation
from genlm.bytes.errors import GenlmBytesError, bad_type, bad_value, called
from genlm.bytes.options import Options
from genlm.bytes.prompt.prompt import Prompt, as_bytes
from genlm.bytes.util.gather import gather

if TYPE_CHECKING:
    from genlm.bytes.generate import Read

__all__ = ["AsyncEnsemble", "Each"]

TEXT = str | bytes | bytearray | memoryview


class Each(tuple[Any, ...]):
    """A context that is another for each member, and whole: what stands before all text is in it."""


class AsyncEnsemble(AsyncByteLM):
    """Several models as one; everything that a model can be asked.

    Text is the same for all members. A prompt of messages each reads by its own template; ids are for members
    to whom they mean the same. A log-probability is the ensemble's: of each byte by its normalised
    distribution. Sums over a model's own tokens (`naive`) do not exist.

    Args:
        members: the models.
        operation: what makes their distributions one.
        contexts: what stands before the text for each of them; None for nothing.
        floor: see `Ensembles.ensemble`.
    """

    def __init__(
        self,
        members: Sequence[AsyncByteLM],
        operation: Operation,
        contexts: Sequence[Any] | None = None,
        floor: float = 0.0,
    ) -> None:
        if contexts is not None:
            if isinstance(contexts, TEXT) or not isinstance(contexts, Sequence):
                raise bad_type("contexts", contexts, "must be a list with a context for each member")
            if len(contexts) != len(members):
                raise bad_value("contexts", contexts, f"must be {len(members)}, one for each member")
        self.members = list(members)
        self.operation = operation
        self.contexts = None if contexts is None else list(contexts)
        self.floor = floor
        self.params = members[0].params
        self._closed = False

    @property
    def llm(self) -> Any:
        """The members' models."""
        return tuple(member.llm for member in self.members)

    def special(self, name: str) -> int:
        """Refused: each member has tokens of its own.

        Raises:
            GenlmBytesError: always.
        """
        raise _other_tokens(name)

    def parse_special(self, text: str) -> tuple[str | int, ...]:
        """Refused likewise."""
        raise _other_tokens(text)

    async def beam(self, context: Any = b"", *, method: str = "beam") -> Any:
        """The `EnsembleState` after a context; see `AsyncByteLM.beam`."""
        return (await self._read(context, method=method)).beam

    def _described(self) -> dict[str, Any]:
        rule = {name: repr(value) for name, value in sorted(vars(self.operation).items())}
        members = [{**member._described(), "params": repr(member.params)} for member in self.members]
        together = {"op": type(self.operation).__name__, **rule, "contexts": repr(self.contexts)}
        return {"model": together | {"members": members}, "floor": self.floor}

    def _checked(self, options: Mapping[str, Any], **counts: Any) -> Options:
        if options.get("unit") == "token":
            rule = "the members have no tokens in common: an ensemble is drawn from byte by byte"
            raise bad_value("unit", "token", rule, "Leave it out.")
        return Options.of({**options, "unit": "byte"}, **counts)

    async def _read(
        self,
        context: Any,
        *,
        name: str = "context",
        method: str = "beam",
        healing: bool = True,
        **infill: Any,
    ) -> Read:
        from genlm.bytes.generate import Read

        self._open()
        with called(prompt=name, bs=name):
            if isinstance(context, TEXT) and healing and infill.get("suffix") is None:
                prompts, text, start = await self._begun(context)
                stops = dict.fromkeys(stop for prompt in prompts for stop in prompt.stops)
                return Read(await start.prefill(text, method=method), text, tuple(stops))
            asked = [self._joined(i, context) for i in range(len(self.members))]
            options = {"name": name, "method": method, "healing": healing, **infill}
            reads = await gather(
                member._read(one, **options) for member, one in zip(self.members, asked, strict=True)
            )
            stops = dict.fromkeys(stop for read in reads for stop in read.stops)
            return Read(self._state([read.beam for read in reads]), reads[0].text, tuple(stops))

    async def _begin(self, context: Any) -> tuple[Prompt, Any]:
        """For scoring: the text that is still to be read, and the state before it."""
        if isinstance(context, TEXT):
            prompts, text, start = await self._begun(context)
            return replace(prompts[0], ids=None, text=text, lead=b""), start
        read = await self._read(context)
        return Prompt(None, b"", read.text, read.stops), read.beam

    async def _begun(self, text: Any) -> tuple[list[Prompt], bytes, EnsembleState]:
        """The prompts; what is the same for all, still to be read; each member after its own context."""
        shared = as_bytes("prompt", text)

        async def one(i: int) -> tuple[Prompt, bytes, Any]:
            prompt, start = await self.members[i]._begin(self._joined(i, shared))
            # A prompt leaves out a spelled beginning of the sequence: then less than the text is left.
            own = prompt.text.removesuffix(shared) if prompt.text.endswith(shared) else b""
            return prompt, prompt.text[len(own) :], await start.prefill(own) if own else start

        found = await gather(one(i) for i in range(len(self.members)))
        prompts, rests, starts = map(list, zip(*found, strict=True))
        return prompts, rests[0] if len(set(rests)) == 1 else shared, self._state(starts)

    def _joined(self, i: int, context: Any) -> Any:
        """What a member is to read: its own context, and what comes after it."""
        if isinstance(context, Each):
            return context[i]
        own = "" if self.contexts is None else self.contexts[i]
        if isinstance(own, TEXT) and not as_bytes("contexts", own):
            return context
        if not isinstance(context, TEXT):
            raise bad_type(
                "prompt", context, "must be str or bytes: each member has a context of its own already"
            )
        text = as_bytes("prompt", context)
        if isinstance(own, TEXT):
            return as_bytes(f"contexts[{i}]", own) + text
        if isinstance(own, tuple) or not any(isinstance(part, dict) for part in own):
            return (*own, text)
        prompt = self.members[i]._parse(own)
        return replace(prompt, text=prompt.text + text)

    def _state(self, members: Sequence[Any]) -> EnsembleState:
        return EnsembleState(members, self.operation, floor=self.floor)

    def _open(self) -> None:
        if self._closed:
            raise GenlmBytesError("this ensemble has been closed: make a new one, or leave `with` later.")

    def _open_trie(self) -> Any:
        self._open()
        return self.members[0]._open_trie()

    async def forget(self, *, deterministic: bool | None = None, reproducible: bool | None = None) -> None:
        """Have each member forget what it has read; see `AsyncByteLM.forget`."""
        self._open()
        for member in self.members:
            await member.forget(deterministic=deterministic, reproducible=reproducible)

    async def close(self) -> None:
        """End the ensemble. Its members stay open."""
        self._closed = True

    def __repr__(self) -> str:
        kind = type(self.operation).__name__
        return f"{type(self).__name__}({kind}, {', '.join(repr(member) for member in self.members)})"


def _other_tokens(text: str) -> GenlmBytesError:
    return GenlmBytesError(
        f"{text!r} is other tokens for each member of an ensemble. Ask a member, and give what stands before "
        "the text as `contexts`, one for each."
    )
