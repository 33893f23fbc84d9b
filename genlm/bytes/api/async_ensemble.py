"""`AsyncEnsemble`: several models asked as one. `AsyncByteLM.ensemble` and its like make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genlm.bytes.api.async_lm import AsyncByteLM
from genlm.bytes.ensemble import EnsembleState, Operation
from genlm.bytes.errors import GenlmBytesError, bad_type, bad_value, called, names_checked
from genlm.bytes.options import Options
from genlm.bytes.prompt.prompt import Prompt, as_bytes
from genlm.bytes.util.gather import gather

if TYPE_CHECKING:
    from genlm.bytes.generate import Read

__all__ = ["AsyncEnsemble", "Each"]

TEXT = str | bytes | bytearray | memoryview


class Each(tuple[Any, ...]):
    """A context that is another for each member, and whole: what stands before all text is in it."""


@names_checked()
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
        penalty = options.get("repetition_penalty")
        if penalty not in (None, 1.0):
            rule = "it is a penalty on tokens, and several models as one are drawn from byte by byte"
            raise bad_value("repetition_penalty", penalty, rule, "Leave it out.")
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
                prompts, text, start = await self._begun(context, method)
                stops = dict.fromkeys(stop for prompt in prompts for stop in prompt.stops)
                return Read(await start.prefill(text, method=method), text, tuple(stops))
            asked = [self._joined(i, context) for i in range(len(self.members))]
            for i, one in enumerate(asked):
                if (
                    infill.get("suffix") is not None
                    and isinstance(context, TEXT)
                    and not isinstance(one, TEXT)
                ):
                    rule = "must be str or bytes where there is a `suffix`: it stands before the prefix"
                    raise bad_type(f"contexts[{i}]", (self.contexts or [])[i], rule)
            options = {"name": name, "method": method, "healing": healing, **infill}
            once = sorted(set(firsts := self._firsts(asked)))
            found = await gather(self.members[i]._read(asked[i], **options) for i in once)
            reads = [found[once.index(i)] for i in firsts]
            stops = dict.fromkeys(stop for read in reads for stop in read.stops)
            texts = {read.text for read in reads}
            text = (
                texts.pop() if len(texts) == 1 or not isinstance(context, TEXT) else as_bytes(name, context)
            )
            return Read(self._state([read.beam for read in reads]), text, tuple(stops))

    async def _begin(self, context: Any) -> tuple[Prompt, Any]:
        """For scoring: the text that is still to be read, and the state before it."""
        if isinstance(context, TEXT):
            prompts, text, start = await self._begun(context)
            return replace(prompts[0], ids=None, text=text, lead=b""), start
        read = await self._read(context)
        return Prompt(None, b"", read.text, read.stops), read.beam

    async def _begun(self, text: Any, method: str = "beam") -> tuple[list[Prompt], bytes, EnsembleState]:
        """The prompts; what is the same for all, still to be read; each member after its own context.

        A context that one model reads for several members it reads once, and where whole beams read, what
        several contexts begin with too.
        """
        shared = as_bytes("prompt", text)
        asked = [self._joined(i, shared) for i in range(len(self.members))]
        firsts = self._firsts(asked)

        async def begin(i: int) -> tuple[Prompt, bytes, bytes, Any]:
            prompt, start = await self.members[i]._begin(asked[i])
            # A prompt leaves out a spelled beginning of the sequence: then less than the text is left.
            own = prompt.text.removesuffix(shared) if prompt.text.endswith(shared) else b""
            return prompt, own, prompt.text[len(own) :], start

        once = sorted(set(firsts))
        begun = dict(zip(once, await gather(map(begin, once)), strict=True))
        states = await _read_each([(start, own) for _, own, _, start in begun.values()], method)
        after = dict(zip(begun, states, strict=True))
        rests = {rest for _, _, rest, _ in begun.values()}
        prompts = [begun[i][0] for i in firsts]
        return prompts, rests.pop() if len(rests) == 1 else shared, self._state([after[i] for i in firsts])

    def _firsts(self, asked: Sequence[Any]) -> list[int]:
        """For each member the first of the same model that is to read the same."""
        pairs = list(zip(self.members, asked, strict=True))
        return [
            next(i for i, (m, c) in enumerate(pairs) if m is member and c == one) for member, one in pairs
        ]

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


async def _read_each(contexts: Sequence[tuple[Any, bytes]], method: str) -> list[Any]:
    """Each state after a text. What one is to read several times is read once, if it is read by the beam:
    along the tokenizer's path there is little to be spared."""
    found = list(contexts)
    if method == "beam":
        for state in {id(state): state for state, _ in contexts}.values():
            alike = [i for i, (one, _) in enumerate(contexts) if one is state]
            first, last = (which(contexts[i][1] for i in alike) for which in (min, max))
            unlike = (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
            common = next(unlike, len(first))  # of the least and the greatest: so of all
            if len(alike) > 1 and common:
                after = await state.prefill(first[:common])
                for i in alike:
                    found[i] = after, contexts[i][1][common:]

    async def one(state: Any, text: bytes) -> Any:
        return await state.prefill(text, method=method) if text else state

    return await gather(one(*context) for context in found)


def _other_tokens(text: str) -> GenlmBytesError:
    return GenlmBytesError(
        f"{text!r} is other tokens for each member of an ensemble. Ask a member, and give what stands before "
        "the text as `contexts`, one for each."
    )
