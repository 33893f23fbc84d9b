"""Contexts longer than the model reads: the latest tokens are kept, and it is said how many were not.

A likelihood is read through the sliding window of `genlm.bytes.score.window`, which forgets open text by
itself; what a chat has closed is shortened here. A generation begins after a prompt that leaves room for what
is to be generated.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.byte_lm.context_limits import depth
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.tokenized_prefill import KEPT_OPEN, LONGEST_WORD
from genlm.bytes.prompt import Prompt, parse_context
from genlm.bytes.prompt.prompt import begun_after
from genlm.bytes.trie import TokenByteTrie

__all__ = ["Dropped", "Shortener"]

logger = logging.getLogger(__name__)


class Dropped:
    """Counts what contexts have lost, and says it once for all."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._counts: list[int] = []

    def note(self, count: int) -> None:
        """One context has lost so many tokens."""
        if count > 0:
            self._counts.append(count)

    def say(self, requests: int) -> None:
        """A warning, if anything was lost."""
        if self._counts:
            logger.warning(
                "%d of %d contexts were too long for the %s tokens that are read: the latest were kept, and "
                "%d dropped in all, at most %d of one context.",
                *(len(self._counts), requests, self._limit, sum(self._counts), max(self._counts)),
            )


class Shortener:
    """Makes prompts of one model short enough."""

    def __init__(
        self, llm: Any, trie: TokenByteTrie, limit: int | None, start: Sequence[int] | None = None
    ) -> None:
        self._llm, self._trie, self._limit, self._start = llm, trie, limit, start

    def parse(self, context: Any) -> Prompt:
        """A context in one form."""
        return parse_context(self._llm, self._trie, context, self._start)

    def for_likelihood(self, prompt: Prompt, text: bytes) -> Prompt:
        """A prompt whose closed tokens leave a text room: they are what a sliding window never forgets."""
        if self._limit is None or prompt.ids is None:
            return prompt
        # Hypotheses can cut a text into more tokens than the tokenizer does; the window allows for twice.
        need = 2 * len(self._guess(prompt.lead + prompt.text + text))
        over = len(prompt.ids) - max(self._limit - need, self._limit // 4)
        return self._without(prompt, over)

    def for_generation(self, prompt: Prompt, new: int) -> tuple[Prompt, int]:
        """A prompt's latest tokens, and how many new ones there is then room for, at most `new`.

        However much is to be generated, half of what is read is the prompt's.
        """
        if self._limit is None:
            return prompt, new
        # The end that the beam reads may be cut into single bytes.
        ending = self._open(prompt)[-KEPT_OPEN - LONGEST_WORD :]
        spare = self._length(ending) - len(ending)
        room = max(self._limit - max(new, spare), self._limit // 2)
        shorter = self._without(prompt, self.count(prompt) - room)
        return shorter, max(1, min(new, self._limit - self.count(shorter)))

    def forgotten(self, prompt: Prompt, after: ByteBeamState) -> int:
        """How many tokens of a prompt the heaviest hypothesis no longer has, by the tokenizer's count."""
        state = after.states[0]
        return max(0, self.count(prompt) - depth(state.lm_state) - bool(state.partial))

    def lost(self, prompt: Prompt, shorter: Prompt) -> int:
        """How many tokens less a shortened prompt has."""
        return max(0, self.count(prompt) - self.count(shorter))

    def _without(self, prompt: Prompt, over: int) -> Prompt:
        """Without its oldest tokens, closed ones first; what begins the sequence stays."""
        if over <= 0:
            return prompt
        begun, first = self._begun(prompt), begun_after(self._llm, self._start)
        kept = len(first) if begun[: len(first)] == first else 0
        closed = min(over, len(begun) - kept)
        cut = self._length(self._open(prompt)[: over - closed])
        ids = None if prompt.ids is None else (*begun[:kept], *begun[kept + closed :])
        if not cut:
            return dataclasses.replace(prompt, ids=ids)
        return dataclasses.replace(prompt, ids=ids, lead=b"", text=(prompt.lead + prompt.text)[cut:])

    def _begun(self, prompt: Prompt) -> list[int]:
        return begun_after(self._llm, self._start) if prompt.ids is None else list(prompt.ids)

    def count(self, prompt: Prompt) -> int:
        """How many tokens a prompt has."""
        return len(self._begun(prompt)) + len(self._open(prompt))

    def _open(self, prompt: Prompt) -> list[int]:
        return self._guess(prompt.lead + prompt.text)

    def _guess(self, text: bytes) -> list[int]:
        return draft_tokens(self._llm, self._trie, text)

    def _length(self, tokens: list[int]) -> int:
        return sum(len(self._trie.spelling_of_id[token]) for token in tokens)
