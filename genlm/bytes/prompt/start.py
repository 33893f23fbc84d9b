"""The token that texts begin after, chosen by name.

The first word of a text depends on it more than any other. SmolLM2-135M-Instruct says that a sequence begins
with its chat marker, and after that hardly any text is plain prose ("The" costs 20 bits); after
`<|endoftext|>`, which stood between documents in training, it costs 7.
"""

from __future__ import annotations

from typing import Any

from genlm.bytes.errors import bad_type, bad_value, called
from genlm.bytes.prompt.prompt import special_token
from genlm.bytes.prompt.special_tokens import added_tokens
from genlm.bytes.util.numbers import as_index
from genlm.bytes.vocab import byte_vocab, check_token_ids

__all__ = ["start_ids"]

SHOWN = 12


def start_ids(llm: Any, start: Any) -> list[int]:
    """The ids that a sequence begins with.

    Args:
        start: a token's name, or its id.

    Raises:
        ValueError: the model has no such token; special ones that it has are said.
        TypeError: neither a name nor an id.
    """
    if not isinstance(start, str) and as_index(start) is None:
        raise bad_type("start", start, "must be a token's name, or its id")
    with called(name="start", ids="start"):
        found = special_token(llm, start)
        if found is not None and check_token_ids("ids", [found])[0] in {t.token_id for t in byte_vocab(llm)}:
            return [found]
    names = [token.name for token in added_tokens(llm)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    there = f"Its special tokens: {', '.join(map(repr, names[:SHOWN]))}{more}." if names else ""
    raise bad_value("start", start, "this model has no such token", there)
