"""Chat messages as a context, through the tokenizer's own template.

The template makes one text of the messages. Up to its last special token that text is closed, and becomes
the ids that the tokenizer gives for it; what follows (the assistant's header, and what a last message of
the assistant has said so far) is open, and read by the beam. The template alone decides whether there is a
beginning-of-sequence token, as for `apply_chat_template`.

Special tokens spelled out inside a message become special tokens, as they do in `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.generate.context import Prompt

__all__ = ["parse_messages"]


def parse_messages(llm: Any, messages: Sequence[Any]) -> Prompt:
    """The context in which the assistant speaks next, or goes on with what its last message begins.

    Raises:
        ValueError: the tokenizer has no template, or the template refuses the messages.
        TypeError: a message without `role` and `content`, each a string.
    """
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            rule = "must be a message with `role` and `content`, both strings"
            raise bad_type(f"prompt[{i}]", message, rule, 'Write {"role": "user", "content": "…"}.')
    tokenizer: Any = getattr(llm, "tokenizer", None)
    if getattr(tokenizer, "chat_template", None) is None:
        rule = "this model's tokenizer has no chat template"
        raise bad_value("prompt", [m["role"] for m in messages], rule, "Write the prompt as text.")
    text = _render(tokenizer, [dict(message) for message in messages])
    end = _end_of_last_special(tokenizer, text)
    if not end:
        return Prompt(None, text.encode())
    ids = tokenizer.encode(text[:end], add_special_tokens=False)
    return Prompt(tuple(ids), text[end:].encode(), text[:end].encode())


def _render(tokenizer: Any, messages: list[dict[str, Any]]) -> str:
    last = messages[-1]
    goes_on = last["role"] == "assistant" and bool(last["content"].strip())
    if last["role"] == "assistant" and not goes_on:
        messages = messages[:-1]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on
        )
    except Exception as error:  # a template may raise anything
        roles = [message["role"] for message in messages]
        raise bad_value("prompt", roles, f"the chat template refuses these messages ({error})") from error
    if goes_on:
        # Templates strip what they are given; the end of an unfinished message is meant as it stands.
        said = last["content"]
        kept = said.rstrip()
        text = text.rstrip() + said[len(kept) :] if text.rstrip().endswith(kept) else text
    return text


def _end_of_last_special(tokenizer: Any, text: str) -> int:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    names = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    return max((text.rindex(name) + len(name) for name in names if name and name in text), default=0)
