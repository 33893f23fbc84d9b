"""Chats and long contexts for an ensemble: what `Chats` and `Shortener` do for one model, for each member.

Text is the same for all members, and is shortened to what the one with the least room reads. Messages each
member reads by its own template: these are shortened for each by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genlm.bytes.api.async_ensemble import AsyncEnsemble, Each
from genlm.bytes.integrations.lm_eval_chat import Chats, Rendered
from genlm.bytes.integrations.lm_eval_context import Shortener
from genlm.bytes.prompt import Prompt
from genlm.bytes.prompt.prompt import as_bytes

__all__ = ["EveryChat", "EveryShortener"]


class EveryChat:
    """The chat templates of the members. What the harness is shown is the first's rendering."""

    def __init__(self, lm: AsyncEnsemble) -> None:
        self._every = [Chats(member.llm, member._open_trie) for member in lm.members]

    @property
    def tokenizer_name(self) -> str | None:
        """The tokenizers' names."""
        names = [chats.tokenizer_name for chats in self._every]
        return "+".join(name for name in names if name) or None

    def template(self, name: bool | str) -> str:
        """The templates that will be used, one after another; see `Chats.template`."""
        return "\n".join(dict.fromkeys(chats.template(name) for chats in self._every))

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> Rendered:
        """The messages as the first member reads them, without a system's if any template refuses it."""
        told: Sequence[Mapping[str, str]] = messages
        for chats in self._every:
            told = chats.render(told, add_generation_prompt).messages
        return self._every[0].render(told, add_generation_prompt)

    def context(self, context: str) -> Any:
        """A request's context as one for the ensemble: the text, or the messages for each member."""
        found = [chats.context(context) for chats in self._every]
        return Each(found) if isinstance(context, Rendered) else found[0]


class EveryShortener:
    """Makes contexts short enough for every member.

    Args:
        limit: the most tokens of a context, of any member.
    """

    def __init__(self, lm: AsyncEnsemble, limit: int | None) -> None:
        self._lm, self._limit = lm, limit
        self._every = [
            Shortener(member.llm, member._open_trie(), limit, member._begins) for member in lm.members
        ]

    def parse(self, context: Any) -> bytes | Each:
        """A context: text, or a prompt for each member."""
        return context if isinstance(context, Each) else as_bytes("prompt", context)

    def for_likelihood(self, context: bytes | Each, text: bytes) -> bytes | Each:
        """See `Shortener.for_likelihood`. Text needs nothing: windows slide over it."""
        if not isinstance(context, Each):
            return context
        return Each(one.for_likelihood(prompt, text) for one, prompt in self._pairs(context))

    def for_generation(self, context: bytes | Each, new: int) -> tuple[bytes | Each, int]:
        """See `Shortener.for_generation`; the text is cut where the member with the least room needs it."""
        if isinstance(context, Each):
            found = [one.for_generation(prompt, new) for one, prompt in self._pairs(context)]
            return Each(prompt for prompt, _ in found), min(room for _, room in found)
        texts, rooms = [], []
        for i, member in enumerate(self._lm.members):
            limit = self._limit and max(1, self._limit - self._every[i].count(self._prompt(i, b"")))
            own = Shortener(member.llm, member._open_trie(), limit, member._begins)
            shorter, room = own.for_generation(own.parse(context), new)
            texts.append(shorter.text)
            rooms.append(room)
        return min(texts, key=len), min(rooms)

    def forgotten(self, context: bytes | Each, after: Any) -> int:
        """How many tokens of a context the member that has lost most no longer has."""
        beams = zip(self._pairs(context), after.members, strict=True)
        return max(0 if beam is None else one.forgotten(prompt, beam) for (one, prompt), beam in beams)

    def lost(self, context: bytes | Each, shorter: bytes | Each) -> int:
        """How many tokens less a shortened context has, for the member that has lost most."""
        every = zip(self._pairs(context), self._pairs(shorter), strict=True)
        return max(one.lost(before, after) for (one, before), (_, after) in every)

    def _pairs(self, context: bytes | Each) -> list[tuple[Shortener, Prompt]]:
        return [(one, self._prompt(i, context)) for i, one in enumerate(self._every)]

    def _prompt(self, i: int, context: bytes | Each) -> Prompt:
        member = self._lm.members[i]
        return member._parse(self._lm._joined(i, context))
