"""Chat messages as a context, through the tokenizer's own template.

The template makes one text of the messages. Up to its last special token that text is closed, and becomes
the ids that the tokenizer gives for it; what follows (the assistant's header, and what a last message of
the assistant has said so far) is open, and read by the beam. The template alone decides whether there is a
beginning-of-sequence token, as for `apply_chat_template`.

**What stands in a message is text.** `<|im_end|>` in one ends no turn. A template may do anything with a
message: trim it, split it, ask how it begins. So where it stands in the result does not tell it apart. Before
the template sees a message, the first character of everything in it that spells a control token is exchanged
for one that occurs nowhere else, which hides the token and changes no length; the tokens found in the result
are then the template's own; then the characters are exchanged back. So a message without such spellings
reaches the template as it is. (One that ends or begins as a token does has that character exchanged too.)
Text that spells a control token is closed even in the open end, since the beam would read the token.

Control tokens are the tokenizer's special tokens (with those that the template writes around a turn, whatever
they are called), and others that it cuts out of a text and that the template mentions (`<think>`,
`<tool_call>`). These others come from messages of the assistant, who wrote them, and of nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.prompt.prompt import Prompt, as_bytes, begun_after, tokenize
from genlm.bytes.prompt.special_tokens import SpecialToken, added_tokens, special_tokens, split_special
from genlm.bytes.trie import TokenByteTrie
from genlm.bytes.vocab import shared_trie, spell

__all__ = ["parse_messages"]

PRIVATE = range(0xE000, 0xF900)
"""Characters that no script has, of one UTF-16 unit: what stands for a hidden character, or for the end."""


def parse_messages(
    llm: Any,
    messages: Sequence[Any],
    trie: TokenByteTrie | None = None,
    start: Sequence[int] | None = None,
) -> Prompt:
    """The context in which the assistant speaks next, or goes on with what its last message begins.

    Raises:
        ValueError: the tokenizer has no template, or the template refuses the messages.
        TypeError: a message without `role` and `content`, each a string.
    """
    if not messages:
        raise bad_value("prompt", messages, "a conversation needs a message")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            rule = "must be a message with `role` and `content`, both strings"
            raise bad_type(f"prompt[{i}]", message, rule, 'Write {"role": "user", "content": "…"}.')
        as_bytes(f"prompt[{i}]", message["content"])
    trie = shared_trie(llm, (), None).trie if trie is None else trie
    tokenizer: Any = getattr(llm, "tokenizer", None)
    if getattr(tokenizer, "chat_template", None) is None:
        if type(tokenizer).__name__ == "MistralCommonBackend":
            return _encoded(llm, trie, [dict(message) for message in messages])
        rule = "this model's tokenizer has no chat template"
        raise bad_value("prompt", [m["role"] for m in messages], rule, "Write the prompt as text.")
    control = _control_tokens(llm, trie)
    hidden = _Hidden.of([*messages, str(tokenizer.chat_template)], control)
    text, said = _render(tokenizer, messages, hidden)
    return _cut(llm, trie, control, text, said, hidden, start)


def _cut(
    llm: Any,
    trie: TokenByteTrie,
    control: _Control,
    text: str,
    said: str,
    hidden: _Hidden,
    start: Sequence[int] | None,
) -> Prompt:
    """The prompt of a rendered conversation, `said` being how its open end has begun."""
    encoder = text_encoder(llm, trie)
    also = frozenset(token.token_id for token in control.every)
    parts, rest = split_special(text.removesuffix(said) if said else text, control.every)
    ids: list[int] = []
    before = b""
    for part, token in parts:
        piece = hidden.shown(part).encode()
        lead = encoder.lead_after(ids[-1]) if ids else encoder.begins(piece)
        ids += [*tokenize(llm, trie, piece, lead, also), token.token_id]
        before += piece + token.name.encode()
    spelled = hidden.spelled(rest + said)
    left = hidden.shown((rest + said)[spelled:]).encode()
    if spelled:  # closed to its end, or the beam would read the token that it spells
        piece = hidden.shown((rest + said)[:spelled]).encode()
        lead = encoder.lead_after(ids[-1]) if ids else encoder.begins(piece)
        ids = (ids or begun_after(llm, start)) + tokenize(llm, trie, piece, lead, also)
        return Prompt(tuple(ids), left, before + piece)
    if not parts:
        return Prompt(None, left, lead=encoder.begins(left))
    return Prompt(tuple(ids), left, before, lead=encoder.lead_after(ids[-1]))


# -- what must not come out of a message ------------------------------------------------------------------


@dataclass(frozen=True)
class _Control:
    """Control tokens.

    Attributes:
        always: those that no message spells.
        others: those that only the assistant's messages spell.
    """

    always: tuple[SpecialToken, ...]
    others: tuple[SpecialToken, ...]

    @property
    def every(self) -> tuple[SpecialToken, ...]:
        return self.always + self.others

    def of_role(self, role: Any) -> tuple[SpecialToken, ...]:
        return self.always if role == "assistant" else self.every


def _control_tokens(llm: Any, trie: TokenByteTrie) -> _Control:
    always = special_tokens(llm, trie)
    known = {token.token_id for token in always}
    template = str(llm.tokenizer.chat_template)
    others = (t for t in added_tokens(llm) if t.token_id not in known and not t.name.isspace())
    return _Control(tuple(always), tuple(token for token in others if token.name in template))


@dataclass(frozen=True)
class _Hidden:
    """Characters exchanged for ones that occur nowhere else.

    Attributes:
        control: the tokens whose spellings are hidden.
        private: what stands for each character.
        end: a character that occurs nowhere, to mark an end.
    """

    control: _Control
    private: Mapping[str, str]
    end: str

    @classmethod
    def of(cls, given: Sequence[Any], control: _Control) -> _Hidden:
        """What serves for some messages and a template."""
        taken = {c for string in _strings(given) for c in string}
        free = (chr(i) for i in PRIVATE if chr(i) not in taken)
        end, *private = [c for c, _ in zip(free, range(4096), strict=False)]
        firsts = dict.fromkeys(c for token in control.every for c in token.name)
        return cls(control, dict(zip(firsts, private, strict=False)), end)

    def hide(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message in which nothing spells a control token, also with what may be put beside it."""
        tokens = self.control.of_role(message.get("role"))
        names = sorted({token.name for token in tokens}, key=len, reverse=True)
        inside = re.compile("(?=" + "|".join(map(re.escape, names)) + ")" if names else "(?!)")
        starts = {name[:n] for name in names for n in range(1, len(name))}
        ends = {name[n:] for name in names for n in range(1, len(name))}
        longest = max(map(len, names), default=0)

        def string(text: str) -> str:
            places = {match.start() for match in inside.finditer(text)}
            first, last = len(text) - len(text.lstrip()), len(text.rstrip())
            lengths = range(1, min(longest, last - first + 1))
            # A token may be begun at the end of one string, and ended at the beginning of the next.
            if any(text[last - n : last] in starts for n in lengths):
                places.add(last - 1)
            if any(text[first : first + n] in ends for n in lengths):
                places.add(first)
            return hide_at(text, places)

        def role(text: str) -> str:  # templates write `<|`, a role and `|>`: what is beside it is theirs
            return hide_at(text, {match.start() for match in inside.finditer(text)})

        def hide_at(text: str, places: set[int]) -> str:
            return "".join(self.private[c] if i in places else c for i, c in enumerate(text))

        return {
            key: role(value) if key == "role" and isinstance(value, str) else _mapped(value, string)
            for key, value in message.items()
        }

    def spelled(self, text: str) -> int:
        """Where the last hidden token ends in a text; 0 if it has none."""
        marks = {i for i, c in enumerate(text) if c in self.private.values()}
        names = sorted((re.escape(t.name) for t in self.control.every), key=len, reverse=True)
        found = re.finditer(f"(?=({'|'.join(names)}))", self.shown(text)) if marks else ()
        spans = [match.span(1) for match in found]
        return max((end for start, end in spans if not marks.isdisjoint(range(start, end))), default=0)

    def shown(self, text: str) -> str:
        """The text with its own characters again."""
        return text.translate({ord(private): c for c, private in self.private.items()})


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _strings(pair)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


# -- rendering --------------------------------------------------------------------------------------------


def _render(tokenizer: Any, messages: Sequence[Any], hidden: _Hidden) -> tuple[str, str]:
    """The rendered conversation, up to where the assistant speaks, and what it has said of its message.

    Templates trim what they are given. The end of an unfinished message is meant as it stands, so a mark is
    put there, and the text is taken up to the mark. Of a message of white space, all of it is an end.
    """
    *earlier, last = (hidden.hide(message) for message in messages)
    goes_on = last["role"] == "assistant" and bool(last["content"])
    said = last["content"] if goes_on else ""
    blank = said if said.isspace() else ""
    given = [*earlier, last]
    if goes_on:
        given[-1] = {**last, "content": (said if not blank else "") + hidden.end}
    elif last["role"] == "assistant":
        given = earlier
    try:
        text: str = tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=not goes_on)
    except Exception as error:  # a template may raise anything
        roles = [message["role"] for message in messages]
        raise bad_value("prompt", roles, f"the chat template refuses these messages ({error})") from error
    if not goes_on:
        return text, ""
    end = text.rfind(hidden.end)
    if end < 0:
        raise bad_value("prompt", messages[-1], "the chat template leaves out the message to be continued")
    text = text[:end] + blank
    trimmed = said if text.endswith(said) else said.lstrip()
    return text, trimmed if text.endswith(trimmed) else ""


def _encoded(llm: Any, trie: TokenByteTrie, messages: list[dict[str, Any]]) -> Prompt:
    """The prompt of messages that mistral-common encodes, without a template or parsing special tokens."""
    last = messages[-1]
    goes_on = last["role"] == "assistant" and bool(last["content"])
    if last["role"] == "assistant" and not goes_on:
        messages = messages[:-1]
    try:
        found = llm.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=False, continue_final_message=goes_on
        )
        ids = [int(i) for i in found]
    except Exception as error:  # it validates conversations, and says what is wrong in many ways
        roles = [message["role"] for message in messages]
        raise bad_value("prompt", roles, f"mistral-common refuses these messages ({error})") from error
    encoder = text_encoder(llm, trie)
    closed = max((n + 1 for n, i in enumerate(ids) if i in encoder.special), default=0)
    text, before = b"".join(spell(llm, ids[closed:])), b"".join(spell(llm, ids[:closed]))
    return Prompt(tuple(ids[:closed]), text.removeprefix(encoder.lead), before, lead=encoder.lead)
