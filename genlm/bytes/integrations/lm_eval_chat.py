"""Chat templates for the evaluation harness, whose models give a string for messages and get it back.

A string does not say which special tokens the template wrote, and which stand in a question that only talks
about them. So what is handed out is a string that keeps the messages it was made of, and what comes back is
read as these messages, by the one function that reads messages everywhere else. The harness may copy and
pickle it on the way, for its cache of requests; only a task that builds a new string from it loses the
messages, of which a warning tells: such a string is text.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genlm.bytes.errors import InvalidValueError, bad_value
from genlm.bytes.prompt.chat import parse_messages
from genlm.bytes.trie import TokenByteTrie

__all__ = ["Chats", "Rendered"]

logger = logging.getLogger(__name__)


class Rendered(str):
    """What a template makes of messages, with the messages: the attribute `messages`."""

    messages: list[dict[str, str]]

    def __new__(cls, text: str, messages: list[dict[str, str]]) -> Rendered:
        made = super().__new__(cls, text)
        made.messages = messages
        return made

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.messages)


class Chats:
    """The chat templates of one model."""

    def __init__(self, llm: Any, trie: Callable[[], TokenByteTrie]) -> None:
        self._llm, self._trie = llm, trie
        self._rendered = False
        self._said: set[str] = set()

    @property
    def tokenizer_name(self) -> str | None:
        """The tokenizer's name, fit for a file's; None if it has none."""
        name = getattr(getattr(self._llm, "tokenizer", None), "name_or_path", None)
        return str(name).replace("/", "__") if name else None

    def template(self, name: bool | str) -> str:
        """The template that will be used.

        Args:
            name: True for the tokenizer's default, or the name of one of several.
        """
        found = getattr(getattr(self._llm, "tokenizer", None), "chat_template", None)
        several = found if isinstance(found, Mapping) else {"default": found} if found else {}
        wanted = name if isinstance(name, str) else "default"
        if wanted not in several:
            known = f"its templates are {', '.join(several)}" if several else "it has no chat template"
            rule = f"this model's tokenizer has no template of this name; {known}"
            raise bad_value("apply_chat_template", name, rule, "Leave it out to write prompts as text.")
        if isinstance(found, Mapping):
            self._llm = _WithTemplate(self._llm, several[wanted])
        return str(several[wanted])

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> Rendered:
        """The messages as the model reads them, up to where the assistant speaks.

        Args:
            add_generation_prompt: False where the last message is the assistant's and goes on.

        Raises:
            ValueError: the template refuses the messages, or the last is not of the role that it must be.
        """
        told = [dict(message) for message in messages]
        goes_on = bool(told) and told[-1].get("role") == "assistant"
        if goes_on == add_generation_prompt:
            rule = f"with add_generation_prompt={add_generation_prompt} the last message must "
            rule += "not be the assistant's" if add_generation_prompt else "be the assistant's"
            raise bad_value("chat_history", [message.get("role") for message in told], rule)
        try:
            text = self.parse(told).spelled
        except InvalidValueError:
            without = [message for message in told if message.get("role") != "system"]
            if not without or len(without) == len(told):
                raise
            text, told = self.parse(without).spelled, without
            self._warn("the chat template refuses the system's message: it is left out.")
        self._rendered = True
        return Rendered(text.decode("utf-8", "replace"), told)

    def parse(self, messages: Sequence[Any]) -> Any:
        """Messages as a context."""
        return parse_messages(self._llm, messages, self._trie())

    def context(self, context: str) -> Any:
        """A request's context as one for the model: the messages behind a rendered string, or the text."""
        if isinstance(context, Rendered):
            return self.parse(context.messages)
        names = (
            getattr(getattr(self._llm, "tokenizer", None), "all_special_tokens", ()) if self._rendered else ()
        )
        if any(name in context for name in names):
            self._warn("a context spells special tokens, and is none of the chat template's: it is text.")
        return context

    def _warn(self, message: str) -> None:
        if message not in self._said:
            logger.warning(message)
        self._said.add(message)


class _WithTemplate:
    """A model whose tokenizer has another template."""

    def __init__(self, llm: Any, template: str) -> None:
        self._llm = llm
        self.tokenizer = copy.copy(llm.tokenizer)
        self.tokenizer.chat_template = template

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)
