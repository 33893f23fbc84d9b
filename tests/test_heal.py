"""Healing: finds a split whenever there is one within the limits, and weighs it like any candidate."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from toy import FixedLM, ToyLM, vocabularies

from genlm.bytes import AsyncTokenByteTrie, BeamParams, ByteBeamState, LazyTrieState
from genlm.bytes.byte_lm.heal import MAX_TRIED, TokenHealer
from genlm.bytes.trie import EOS, TrieMode


def run(coroutine):
    return asyncio.run(coroutine)


async def state_after(lm, text, eos=(), **opts):
    """A candidate inside one token, whose bytes so far are `text`."""
    trie = AsyncTokenByteTrie.from_vocab(lm.byte_vocab, eos_byte_strings=list(eos), device="cpu", **opts)
    state = await LazyTrieState.initial(lm, trie).materialize()
    for symbol in text:
        state = state << symbol
    return state


def splits(lm, text, max_backoff, max_splits):
    """All token sequences that cover all but the last byte of `text`, within the limits, and leave a
    token that can begin with the rest; by the documented rules, by brute force."""
    words = {t.token_id: bytes(t) for t in lm.byte_vocab if bytes(t)}
    found = []

    def go(at, committed):
        if committed and any(w.startswith(text[at:]) for w in words.values()):
            found.append(committed)
        for token, word in words.items():
            end = at + len(word)
            first = not committed
            if end >= len(text) or text[at:end] != word:
                continue
            if first and max_backoff is not None and end < len(text) - 1 - max_backoff:
                continue
            if not first and max_splits is not None and len(committed) > max_splits:
                continue
            go(end, (*committed, token))

    go(0, ())
    return found


def weight_of(lm, tokens, text):
    """log P(tokens) + log mass of the tokens that begin with what they leave of `text`."""
    log, at = 0.0, 0
    for i, token in enumerate(tokens):
        log += math.log(lm.probs(tokens[:i])[token])
        at += len(bytes(lm.byte_vocab[token]))
    p = lm.probs(tokens)
    return log + math.log(sum(p[t.token_id] for t in lm.byte_vocab if bytes(t).startswith(text[at:])))


limits = st.sampled_from([None, 0, 1, 2, 3])


@given(vocabularies(complete=False, longest=5), st.data(), limits, limits, st.integers(0, 999))
@examples(150)
def test_finds_a_split_whenever_there_is_one(words, data, max_backoff, max_splits, seed):
    lm = ToyLM(words, seed=seed)
    word = data.draw(st.sampled_from(words))
    partial = word[: data.draw(st.integers(1, len(word)))]
    text = partial + bytes([data.draw(st.sampled_from(b"abc"))])

    async def go():
        state = await state_after(lm, partial)
        healed = await TokenHealer(max_backoff, max_splits).try_heal(state, text[-1])
        possible = splits(lm, text, max_backoff, max_splits)
        if not possible:
            assert healed is None
            return
        tokens = tuple(healed.lm_state.context)
        assert tokens in possible
        longest = max(len(bytes(lm.byte_vocab[p[0]])) for p in possible)
        assert len(bytes(lm.byte_vocab[tokens[0]])) == longest
        assert healed.weight == pytest.approx(weight_of(lm, tokens, text), abs=1e-9)
        assert healed.materialized and bytes(healed.partial) == text[sum(len(words[t]) for t in tokens) :]
        assert len(lm.asked) == 1 + len(tokens)  # no distribution is asked for twice or for nothing

    run(go())


def test_every_id_of_a_spelling_is_tried():
    """Both tokens spell `a`; after the likelier one, `b` is impossible."""
    lm = FixedLM(
        [b"ax", b"a", b"a", b"b"],
        rule=lambda c: (
            [0.1, 0.6, 0.3, 0.0] if not c else ([0.5, 0.5, 0.0, 0.0] if c[-1] == 1 else [0.0, 0.0, 0.0, 1.0])
        ),
    )

    async def go():
        healed = await TokenHealer().try_heal(await state_after(lm, b"a"), ord("b"))
        assert healed.lm_state.context == [2] and math.exp(healed.weight) == pytest.approx(0.3)

    run(go())


def test_turning_back_is_bounded():
    """`b` has probability zero after anything: 2^39 splits of the a's must not all be tried."""
    words = [b"a" * n for n in range(1, 41)] + [b"b"]
    lm = FixedLM(words, rule=lambda c: [1 / 40] * 40 + [0.0])

    async def go():
        state = await state_after(lm, b"a" * 40)
        assert await TokenHealer().try_heal(state, ord("b")) is None
        assert len(lm.asked) <= MAX_TRIED + 1

    run(go())


@pytest.mark.parametrize("limit", [None, 5])
def test_what_the_vocabulary_closes_is_not_tried(limit):
    """No token begins with `z`: that is known without asking the model."""
    lm = ToyLM([b"a" * n for n in range(1, 9)], seed=1)

    async def go():
        state = await state_after(lm, b"a" * 8)
        assert await TokenHealer(max_splits=limit).try_heal(state, ord("z")) is None
        assert len(lm.asked) == 1

    run(go())


def test_nothing_to_heal():
    lm = ToyLM([b"a", b"b", b"<e>"], seed=1)

    async def go():
        healer = TokenHealer()
        root = await state_after(lm, b"", eos=[b"<e>"])
        assert await healer.try_heal(root, ord("z")) is None
        assert await healer.try_heal(root << EOS, ord("a")) is None
        # An end-of-sequence token is never committed as text …
        inside = (await state_after(lm, b"", eos=[b"<e>"])).with_mode(TrieMode.WITHOUT_EOS) << ord("<")
        assert await healer.try_heal(inside, ord("a")) is None

    run(go())


def test_heals_to_the_end_of_the_sequence():
    lm = ToyLM([b"ab", b"a", b"b", b"<e>"], seed=2)

    async def go():
        state = await state_after(lm, b"ab", eos=[b"<e>"])
        healed = await TokenHealer().try_heal(state, EOS)
        assert healed.terminated and healed.lm_state.context == [0]

    run(go())


def test_heals_to_an_atomic_unit():
    lm = ToyLM([b"abc", b"ab", b"<s>"], seed=2)

    async def go():
        state = await state_after(lm, b"ab", atomic_byte_strings=[b"<s>"])
        healed = await TokenHealer().try_heal(state, b"<s>")
        assert healed.lm_state.context == [1] and bytes(healed.partial) == b"<s>"
        again = await TokenHealer().try_heal(healed, ord("a"))
        assert again.lm_state.context == [1, 2] and bytes(again.partial) == b"a"

    run(go())


def test_very_long_partial():
    words = [b"x" * 1000 + b"y", *[b"x" * n for n in (1, 7, 990)], b"z"]
    lm = ToyLM(words, seed=0)

    async def go():
        state = await state_after(lm, b"x" * 1000)
        healed = await TokenHealer().try_heal(state, ord("z"))
        assert healed is not None and healed.lm_state.context[0] == 3

    run(go())


class TestInTheBeam:
    lm = ToyLM([b"abcd", b"a", b"b", b"bc", b"c", b"x"], seed=6)

    def read(self, text, **params):
        async def go():
            beam = await ByteBeamState.initial(self.lm, BeamParams(1, **params))
            for symbol in text:
                beam = await (beam.prune() << symbol)
            return beam

        return run(go())

    def test_healing_is_the_last_resort(self, monkeypatch):
        seen = []
        real = TokenHealer.try_heal

        async def spy(self, state, symbol):
            seen.append((bytes(state.partial), symbol))
            return await real(self, state, symbol)

        monkeypatch.setattr(TokenHealer, "try_heal", spy)
        assert len(self.read(b"a", prune_threshold=0.5)) and not seen
        healed = self.read(b"abcx", prune_threshold=0.9)
        assert len(healed) == 1 and seen and seen[-1][1] == ord("x")

    def test_off(self):
        assert len(self.read(b"abcx", prune_threshold=0.9, heal=False)) == 0

    def test_limits_are_passed_on(self):
        assert len(self.read(b"abcx", prune_threshold=0.9, heal_max_backoff=0, heal_max_splits=0)) == 0

    def test_an_impossible_byte_empties_the_beam(self):
        assert len(self.read(b"abz")) == 0

    def test_verbose_logs(self, caplog):
        with caplog.at_level(logging.INFO, "genlm.bytes"):
            self.read(b"abcx", prune_threshold=0.9, verbose=True)
            self.read(b"ad", verbose=True)
        text = caplog.text
        assert "healed" in text and "no split of" in text and "after" in text


@pytest.mark.parametrize("limit, heals", [(0, False), (1, False), (2, True), (None, True)])
async def test_a_way_round_what_is_impossible_counts_its_commitments(limit, heals):
    """`a`, `bc` would do with one more token, and is impossible; `a`, `b`, `c` needs two."""
    possible = {(): [1, 1, 1, 1, 1, 1], (1,): [1, 1, 1, 1, 0, 1]}
    lm = FixedLM(
        [b"abcq", b"a", b"b", b"c", b"bc", b"d"],
        rule=lambda context: [p / 6 for p in possible.get(tuple(context), possible[()])],
    )
    state = await state_after(lm, b"abc")
    healed = await TokenHealer(max_splits=limit).try_heal(state, ord("d"))
    assert (healed.lm_state.context if healed else None) == ([1, 2, 3] if heals else None)


@pytest.mark.parametrize("limit", [-1, True, 1.5, "2"])
@pytest.mark.parametrize("name", ["max_backoff", "max_splits"])
def test_bad_limits(name, limit):
    with pytest.raises(ValueError, match=f"`{name}` is .*integer of at least 0, or None"):
        TokenHealer(**{name: limit})


async def test_an_end_is_read_between_tokens_only():
    """`ab` inside `abc`, and then the end: after `a` the `b` begins `bc`, which has not ended. Nothing is
    asked."""
    lm = FixedLM([b"abc", b"a", b"bc", b"<e>"], rule=lambda _: [0.4, 0.3, 0.2, 0.1])
    state = await state_after(lm, b"ab", eos=[b"<e>"])
    lm.asked.clear()
    assert await TokenHealer().try_heal(state, EOS) is None and not lm.asked
