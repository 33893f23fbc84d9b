"""What a hypothesis of a beam carries along: the rules, and the state they are in after its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool

from genlm.bytes.canonical.rules import CanonicalRules, CanonicalState, canonical_rules
from genlm.bytes.errors import bad_value
from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.modes import EOS
from genlm.bytes.trie.token_trie import TokenByteTrie

__all__ = ["CanonicalContext"]


class CanonicalContext(NamedTuple):
    """An open sequence of tokens. A value."""

    rules: CanonicalRules
    state: CanonicalState

    @classmethod
    def initial(cls, llm: Any, trie: TokenByteTrie, initial_context: Sequence[int] | None) -> Self:
        """Where a beam starts.

        Args:
            initial_context: the token ids that precede the text; None for a text's own beginning.

        Raises:
            UnsupportedModelError: what the model's tokenizer does cannot be followed.
            ValueError: `initial_context` begins no canonical tokenization after its last special token.
        """
        rules = canonical_rules(llm, trie)
        if initial_context is None:
            return cls(rules, rules.start)
        ids = list(initial_context)
        unknown = [i for i in ids if i not in trie.spelling_of_id]
        state = None if unknown else rules.read_closed(ids)
        if state is None:
            why = f"{unknown[0]} is no token" if unknown else "the tokenizer would not cut its text so"
            raise bad_value(
                "initial_context",
                ids,
                f"must begin a canonical tokenization, with `canonical=True`, and {why}",
                "Encode the text with the model's own tokenizer, or use canonical=False.",
            )
        return cls(rules, state)

    def allowed(self) -> Bool[np.ndarray, " tokens"]:
        """The tokens that may come next, in the trie's order."""
        return self.rules.allowed(self.state)

    def reads(self, trie: TokenByteTrie, symbols: Sequence[int | bytes]) -> bool:
        """Whether some tokens that may come next, one after another, spell a text beginning with `symbols`.

        This needs no model: a hypothesis for which it is false has probability zero.
        """
        if not symbols:
            return True
        arrays, left, seen = trie.arrays, [(self, 0)], set[tuple[CanonicalState, int]]()
        while left:
            context, start = left.pop()
            if (context.state, start) in seen:
                continue
            seen.add((context.state, start))
            allowed, node = context.allowed(), ROOT
            for at in range(start, len(symbols)):
                symbol = symbols[at]
                node = node if symbol == EOS else arrays.child(node, symbol)
                if symbol == EOS or node < 0:
                    break
                first, last = int(arrays.lo[node]), int(arrays.hi[node])
                if not allowed[first:last].any():
                    break
                if at + 1 == len(symbols):
                    return True
                ending = trie.token_ids[first : first + int(arrays.ends[node])]
                afters = map(context.after, ending.tolist())
                left += [(after, at + 1) for after in afters if after is not None]
            if start < len(symbols) and symbols[start] == EOS:
                return True  # the end of the sequence is read by a token of its own
        return False

    def after(self, token_id: int) -> Self | None:
        """The context with one more token, or None if that is not open."""
        state = self.rules.after(self.state, token_id)
        return None if state is None else self._replace(state=state)

    def after_all(self, token_ids: Iterable[int]) -> Self | None:
        """The context with some more tokens, or None if they are not open."""
        state = self.rules.read(token_ids, self.state)
        return None if state is None else self._replace(state=state)
