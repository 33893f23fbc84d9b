"""What the fuzzer plays on: awkward vocabularies, models of every temper, settings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from test_canonical_beam import PRE_TOKENIZERS, USUAL, build
from toy import TOY, BatchingToy, ToyLM

from genlm.bytes import BeamParams

__all__ = ["VOCABULARIES", "Vocabulary", "make_model", "make_params"]


@dataclass(frozen=True)
class Vocabulary:
    """Tokens, and what a fuzzer needs to know of them.

    Attributes:
        words: spellings.
        letters: bytes to write with; some of them in no token.
        eos: spellings that may end a sequence.
        units: spellings that may be atomic units.
        ids: token ids, where they are not 0, 1, 2 …
        logits: how many logits the model has, where not one per id.
        bos: whether there may be a beginning of sequence.
    """

    words: Sequence[bytes]
    letters: bytes
    eos: tuple[bytes, ...] = ()
    units: tuple[bytes, ...] = ()
    ids: Sequence[int] | None = None
    logits: int | None = None
    bos: bool = True


_EVERY = [bytes([b]) for b in range(256)]

VOCABULARIES: dict[str, Vocabulary] = {
    "plain": Vocabulary(TOY, b"abc", (b"<e>",)),
    "duplicates": Vocabulary(
        [b"a", b"a", b"b", b"ab", b"ab", b"ab", b"ba", b"<e>", b"<e>"], b"ab", (b"<e>",)
    ),
    "split utf-8": Vocabulary(
        [
            b"\xc3",
            b"\xa9",
            b"\xc3\xa9",
            b"a",
            b"a\xc3",
            b"\xe2\x82",
            b"\xac",
            b"\xe2",
            b"\x82\xac",
            b"\x82",
            b"<e>",
        ],
        b"\xc3\xa9a\xe2\x82\xac",
        (b"<e>",),
    ),
    "holes": Vocabulary(
        [b"a", b"b", b"", b"ab", b"c", b"<e>"], b"abc", (b"<e>",), ids=[7, 2, 9, 0, 4, 12], logits=15
    ),
    "beyond the logits": Vocabulary([b"a", b"b", b"ab", b"<e>", b"ba", b"c"], b"abc", (b"<e>",), logits=4),
    "ends are text": Vocabulary([b"a", b"b", b"ab", b"abb", b"ba", b"bb"], b"ab", (b"ab", b"bb"), bos=False),
    "ends in pieces": Vocabulary(
        [b"<", b"e", b">", b"<e>", b"c<", b"e>c", b"c", b"cc"], b"<e>c", (b"<e>", b"cc")
    ),
    "ends inside": Vocabulary(
        [b"x", b"<e>", b"x<e>", b"<e>y", b"y", b"<", b"x<e>y", b"e>"], b"xy<e>", (b"<e>",)
    ),
    # Nothing else begins as the ends do: where a prompt ends inside one, its candidate weighs nothing.
    "ends alone": Vocabulary([b"a", b"b", b"ab", b"<e>", b"b<e>", b"<e>a"], b"ab<e>", (b"<e>", b"b<e>")),
    "long tokens": Vocabulary([b"ab" * 500, b"ab" * 499 + b"b", b"a", b"b", b"abab"], b"ab"),
    "byte fallback": Vocabulary([*_EVERY, b"ab", b"abc", b"\x00\xff", b"<e>"], b"ab\x00\xffc", (b"<e>",)),
    "units": Vocabulary([b"a", b"b", b"c", b"ab", b"abc", b"bc", b"<e>"], b"abc", (b"<e>",), (b"ab", b"abc")),
    "units overlap": Vocabulary([b"a", b"b", b"aba", b"bab", b"ab", b"abab"], b"ab", (), (b"aba", b"bab")),
    "single": Vocabulary([b"a"], b"ab"),
    "bytes missing": Vocabulary([b"ab", b"ba", b"aab", b"bb", b"<e>"], b"abc", (b"<e>",)),
    # Made by a tokenizer, so that canonical tokenizations can be asked for; its words are its own.
    "tokenizer": Vocabulary([], "abs' 1é".encode(), (b"<e>",)),
    "chain": Vocabulary([b"a" * n for n in range(1, 7)] + [b"ab", b"<e>"], b"aaab", (b"<e>",)),
}


@dataclass(eq=False)
class _Tempered:
    """`probs` by a temper, each context once; counts what is asked and stops what never ends."""

    temper: str = "ordinary"
    limit: int = 20_000
    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)
    asked_now: int = 0

    def probs(self, context: Sequence[int]) -> np.ndarray:
        key = tuple(context)
        if key not in self.known:
            self.known[key] = self._probs(key)
        return self.known[key]

    def _probs(self, context: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([self.seed, *(i + 1 for i in context)])  # type: ignore[attr-defined]
        size: int = self.size  # type: ignore[attr-defined]
        if self.temper == "flat":
            p = np.ones(size)
        elif self.temper == "sure":
            p = np.full(size, 1e-9)
            p[rng.integers(size)] = 1.0
        else:
            p = rng.dirichlet(np.full(size, 0.7)) + 1e-6
        if self.temper == "zeros":
            p[rng.random(size) < 0.4] = 0.0
            p[rng.integers(size)] += 1e-3
        return np.asarray(p / p.sum())

    def count(self) -> None:
        self.asked_now += 1
        if self.asked_now > self.limit:
            raise AssertionError(f"more than {self.limit} contexts in one operation")


@dataclass(eq=False)
class Plain(_Tempered, ToyLM):
    async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
        self.count()
        with np.errstate(divide="ignore"):
            return await ToyLM.next_token_logprobs(self, token_ids)


@dataclass(eq=False)
class Batching(Plain, BatchingToy):
    pass


TEMPERS = ("ordinary", "ordinary", "flat", "sure", "zeros")


def make_model(rng: random.Random, vocabulary: Vocabulary) -> Any:
    """Makes a model over a vocabulary, the same one at each call, and says which covers are canonical."""
    options = {
        "words": vocabulary.words,
        "ids": vocabulary.ids,
        "logits": vocabulary.logits,
        "seed": rng.randrange(2**20),
        "temper": rng.choice(TEMPERS),
        "bos": rng.choice([None, 0 if vocabulary.ids is None else vocabulary.ids[0]])
        if vocabulary.bos
        else None,
    }
    kind = rng.choice([Plain, Batching])
    if vocabulary.words:
        return lambda: (kind(**options), None)
    name = rng.choice(sorted(PRE_TOKENIZERS))
    some = {key: options[key] for key in ("seed", "temper")}

    def build_canonical() -> Any:
        llm, brute = build(USUAL, name, kind, **some)
        return llm, brute.counts

    return build_canonical


def make_params(rng: random.Random, vocabulary: Vocabulary) -> BeamParams:
    """Settings of a beam."""
    rule: dict[str, Any] = rng.choice(
        [
            {"exact": True, "max_candidates": 3000},
            {"exact": True, "max_candidates": 3000},
            {"K": rng.choice([1, 2, 5]), "prune_threshold": rng.choice([0.0, 0.0, 0.05, 0.3])},
            {"tolerance": rng.choice([0.3, 0.02, 1e-3, 1e-9]), "K": rng.choice([None, None, 1, 3])},
            {},
        ]
    )
    if rng.random() < 0.6:
        rule["heal"] = False
    elif rng.random() < 0.5:
        rule["heal_max_backoff"] = rng.choice([0, 1, 2, None])
        rule["heal_max_splits"] = rng.choice([0, 1, None])
    eos = [string for string in vocabulary.eos if rng.random() < 0.8]
    if not vocabulary.words and rng.random() < 0.7:
        rule["canonical"] = True
    return BeamParams(eos_byte_strings=eos, **rule)
