"""Masses read a piece at a time: what is looked at first decides what is computed, never what comes out."""

from __future__ import annotations

import asyncio
from random import Random

import numpy as np
import pytest
import torch
from genlm.backend.tokenization import Token
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyLM

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.byte_lm.trie_state import LazyTrieState
from genlm.bytes.trie import AsyncTokenByteTrie, NodeMasses, TokenByteTrie, TrieMode
from genlm.bytes.trie.blocks import LARGE, Blocks

SPELLINGS = st.lists(st.binary(max_size=3).map(lambda s: bytes(b % 4 for b in s)), min_size=2, max_size=25)
LARGE_FROM = st.sampled_from([LARGE, 0, 1, 2, 4])
"""Tokens below a node from which on it has blocks: none, in tries as small as these, at the library's own."""
LOOKS = ("token", "ending", "node", "children", "eos", "log_masses")


def look(masses, how, at, mode, ended):
    trie = masses.trie
    if how == "token":
        return masses.token(at % len(trie.token_ids), ended)
    if how == "eos":
        return masses.eos()
    if how == "log_masses":
        return masses.log_masses(mode)
    node = at % len(trie.arrays)
    if how == "ending":
        return masses.ending(node, ended)
    return masses.node(node, mode, ended) if how == "node" else masses.children(node, mode)[1]


@given(
    SPELLINGS,
    st.lists(
        st.tuples(
            st.sampled_from(LOOKS), st.integers(0, 99), st.sampled_from(TrieMode), st.sampled_from(TrieMode)
        )
    ),
    st.integers(0, 10**6),
    LARGE_FROM,
)
def test_in_any_order(spellings, looks, seed, large):
    """As the same look at masses computed whole; ids have holes, and some have no log-probability."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(2 * len(spellings))[: len(spellings)].tolist()
    eos = [s for s in dict.fromkeys(spellings) if s][:1]
    trie = TokenByteTrie(
        [Token(i, s) for i, s in zip(ids, spellings, strict=True)], eos_byte_strings=eos, device="cpu"
    )
    trie.blocks = Blocks.of(trie.arrays, trie.eos_leaves, large)
    logps = torch.log_softmax(torch.tensor(rng.normal(size=max(ids) - seed % 2) * 3), -1).float()
    lazy = NodeMasses.from_logprobs(trie, logps)
    padded = np.append(logps.double().numpy(), [-np.inf] * 2)
    whole = NodeMasses(trie, np.exp(padded[trie.token_ids]))
    for how, at, mode, ended in looks:
        np.testing.assert_allclose(
            look(lazy, how, at, mode, ended), look(whole, how, at, mode, ended), rtol=1e-14, atol=0
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_whatever_a_model_does_with_its_buffer(dtype):
    trie = TokenByteTrie([Token(0, b"a"), Token(1, b"ab"), Token(2, b"c")], device="cpu")
    logps = torch.tensor([0.5, 0.25, 0.25]).log().to(dtype)
    masses = NodeMasses.from_logprobs(trie, logps)
    logps.fill_(-1.0)
    _, sums = masses.children(0, TrieMode.WITH_EOS)
    np.testing.assert_allclose(sums, [0.75, 0.25], rtol=1e-2)


class Defined:
    """What each look means, summed over the tokens one by one; only those in `allowed` have a probability."""

    def __init__(self, trie, probs, allowed):
        self.trie = trie
        positions = range(len(trie.token_ids))
        self.tokens = [
            (bytes(trie.decode[trie.arrays.order[i]]), probs[i] if allowed[i] else 0.0) for i in positions
        ]

    def ending(self, prefix, ended):
        ends = self.trie.eos_byte_strings if ended is TrieMode.WITH_EOS else ()
        return sum(p for s, p in self.tokens if s == prefix != b"" and s not in ends)

    def beyond(self, prefix, mode):
        ends = self.trie.eos_byte_strings if mode is TrieMode.WITH_EOS else ()
        return sum(p for s, p in self.tokens if s.startswith(prefix) and s != prefix and s not in ends)

    def eos(self):
        return sum(p for s, p in self.tokens if s in self.trie.eos_byte_strings)


@given(SPELLINGS, st.integers(0, 10**6), st.booleans(), st.booleans(), LARGE_FROM)
def test_what_each_look_means(spellings, seed, all_count, one_look_at_a_time, large):
    random = Random(seed)
    eos = [s for s in dict.fromkeys(spellings) if s][:1]
    tokens = [Token(i, s) for i, s in enumerate(spellings)]
    trie = TokenByteTrie(tokens, eos_byte_strings=eos, device="cpu")
    trie.blocks = Blocks.of(trie.arrays, trie.eos_leaves, large)
    logps = torch.log_softmax(torch.tensor([random.gauss(0, 2) for _ in tokens]).double(), -1)
    allowed = np.array([all_count or random.random() < 0.7 for _ in tokens])
    probs = np.exp(logps.numpy())[trie.token_ids]
    want = Defined(trie, probs, allowed)

    def made():
        return NodeMasses.from_logprobs(trie, logps, None if all_count else allowed)

    masses = made()
    for node in random.sample(range(len(trie.arrays)), len(trie.arrays)):
        prefix = bytes(trie.node2prefix[node])
        for mode in random.sample(list(TrieMode), 2):
            masses = made() if one_look_at_a_time else masses
            labels, sums = masses.children(node, mode)
            below = [
                want.ending(prefix + bytes([b]), mode) + want.beyond(prefix + bytes([b]), mode)
                for b in labels.tolist()
            ]
            np.testing.assert_allclose(sums, below, atol=1e-12)
            for ended in TrieMode:
                assert masses.ending(node, ended) == pytest.approx(want.ending(prefix, ended), abs=1e-12)
                if node:
                    whole = want.ending(prefix, ended) + want.beyond(prefix, mode)
                    assert masses.node(node, mode, ended) == pytest.approx(whole, abs=1e-12)
    assert masses.eos() == pytest.approx(want.eos(), abs=1e-12)
    for mode in TrieMode:
        everything = np.exp(masses.log_masses(mode))
        eos_mass = want.eos() if mode is TrieMode.WITH_EOS else 0.0
        assert everything[trie.eos_node] == pytest.approx(eos_mass, abs=1e-12)
        assert everything[0] == pytest.approx(sum(p for _, p in want.tokens), abs=1e-12)


def test_masses_of_a_context_are_shared_and_given_up_with_its_row():
    """Two candidates that stand at one context sum once; of another trie, or without the row, anew."""
    lm = ToyLM([b"a", b"b", b"ab"], seed=1)
    beam = asyncio.run(ByteBeamState.initial(lm))
    first, second = (LazyTrieState.initial(lm, beam.trie) for _ in range(2))
    others = AsyncTokenByteTrie(TokenByteTrie(lm.byte_vocab, device="cpu"))
    other = LazyTrieState.initial(lm, others)
    for state in (first, second, other):
        asyncio.run(state.materialize())
    assert first.masses is second.masses is not other.masses
    assert other.masses.trie is others.trie
    model = first.lm_state.model_cache
    model.clear_cache()
    assert first.lm_state.node.masses is None
    again = LazyTrieState.initial(lm, beam.trie)
    asyncio.run(again.materialize())
    assert again.masses is not first.masses


@pytest.mark.parametrize("shape", [lambda row: row.bfloat16(), lambda row: row[:-1]], ids=["narrow", "short"])
def test_masses_of_a_copy_are_not_kept(shape):
    """Memory for rows is bounded: what a context keeps beside its own row is small."""

    class Shaped(ToyLM):
        async def next_token_logprobs(self, token_ids):
            return shape(await super().next_token_logprobs(token_ids))

    lm = Shaped([b"a", b"b", b"ab"], seed=1)
    beam = asyncio.run(ByteBeamState.initial(lm, BeamParams(check_model=False)))
    state = LazyTrieState.initial(lm, beam.trie)
    asyncio.run(state.materialize())
    assert state.masses.node(0, TrieMode.WITHOUT_EOS, TrieMode.WITHOUT_EOS) > 0.5
    assert state.lm_state.node.logps is not None and state.lm_state.node.masses is None
