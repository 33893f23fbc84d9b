"""The trie: its shape, its documented views, its sums; against obvious definitions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from budget import examples
from genlm.backend.tokenization import Token
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY

from genlm.bytes import TokenByteTrie
from genlm.bytes.errors import GenlmBytesError, InvalidValueError
from genlm.bytes.trie import EOS, TrieArrays, TrieMode, TrieOp
from genlm.bytes.trie.torch_sums import Levels, below_torch

WITH, WITHOUT = TrieMode.WITH_EOS, TrieMode.WITHOUT_EOS

words = st.lists(st.binary(max_size=5) | st.text("ab", max_size=4).map(str.encode), min_size=1, max_size=12)


def tokens(spellings, ids=None):
    return [Token(i, w) for i, w in zip(ids or range(len(spellings)), spellings, strict=True)]


def make(spellings, **opts):
    return TokenByteTrie(tokens(spellings), device="cpu", **opts)


@pytest.fixture
def toy():
    return make(TOY, eos_byte_strings=[EOS_STRING])


def walk(trie, text):
    node = trie.root
    for symbol in text:
        node = trie.children[node][symbol]
    return node


class TestShape:
    def test_toy_by_hand(self, toy):
        # Sorted: <e> a a ab abc b c; depth first: root, <, <e, <e>, a, ab, abc, b, c.
        a = toy.arrays
        assert a.order.tolist() == [6, 0, 4, 1, 2, 3, 5]
        assert a.lo.tolist() == [0, 0, 0, 0, 1, 3, 4, 5, 6]
        assert a.hi.tolist() == [7, 1, 1, 1, 5, 5, 5, 6, 7]
        assert a.ends.tolist() == [0, 0, 0, 1, 2, 1, 1, 1, 1]
        assert a.depth.tolist() == [0, 1, 2, 3, 1, 2, 3, 1, 1]
        assert a.parent.tolist() == [-1, 0, 1, 2, 0, 4, 5, 0, 0]
        assert toy.eos_node == 9 and toy.node_count == 17

    @given(words, st.data())
    def test_nodes_are_the_prefixes(self, spellings, data):
        units = frozenset(data.draw(st.lists(st.sampled_from(spellings), max_size=2))) - {b""}
        a = TrieArrays.build(spellings, units)
        symbols = [((s,) if s in units else tuple(s)) for s in spellings]
        prefixes = {s[:i] for s in symbols for i in range(len(s) + 1)}
        assert len(a) == len(prefixes)
        for prefix in prefixes:
            node = 0
            for symbol in prefix:
                node = a.child(node, symbol)
                assert node > 0
            below = [i for i, s in enumerate(symbols) if s[: len(prefix)] == prefix]
            assert sorted(a.order[a.lo[node] : a.hi[node]].tolist()) == below
            assert a.ends[node] == sum(s == prefix for s in symbols)
            assert a.child(node, 0xFE) == -1 or (*prefix, 0xFE) in prefixes
            spelled = b"".join(s if isinstance(s, bytes) else bytes([s]) for s in prefix)
            assert a.prefix(node, spellings) == spelled

    def test_long_tokens_and_a_deep_chain(self):
        chain = [b"x" * n for n in range(1, 1500)]
        a = TrieArrays.build([*chain, b"y" * 5000])
        assert len(a) == 1 + 1499 + 5000 and a.depth.max() == 5000
        trie = make(chain)
        assert trie.weight_sum(np.ones(1499))[trie.root] == 1499

    def test_frozen(self, toy):
        with pytest.raises(ValueError, match="read-only"):
            toy.arrays.lo[0] = 1
        with pytest.raises(AttributeError):
            toy.arrays.lo = None

    @pytest.mark.parametrize("name", ["lo", "hi", "ends", "parent", "depth", "edge_child", "edge_start"])
    def test_validate_notices_damage(self, toy, name):
        from dataclasses import replace

        toy.validate()
        damaged = getattr(toy.arrays, name).copy()
        damaged[-1] += 1
        with pytest.raises((AssertionError, IndexError)):
            replace(toy.arrays, **{name: damaged}).validate()

    def test_validate_notices_unsorted_siblings(self, toy):
        from dataclasses import replace

        with pytest.raises(AssertionError):
            replace(toy.arrays, edge_label=toy.arrays.edge_label[::-1].copy()).validate()

    def test_same_vocabulary_shares_arrays(self):
        one, other = make(TOY), make(TOY, eos_byte_strings=[EOS_STRING])
        assert one.arrays is other.arrays
        assert make([*TOY, b"z"]).arrays is not one.arrays
        assert make(TOY, atomic_byte_strings=[b"ab"]).arrays is not one.arrays

    def test_same_bytes_cut_differently_are_different(self):
        one, other = make([b"ab", b"c"]), make([b"a", b"bc"])
        assert one.arrays is not other.arrays


class TestViews:
    def test_children(self, toy):
        root = toy.children[toy.root]
        assert {k for k in root if isinstance(k, int)} == {*b"<abc", EOS}
        assert root[EOS] == toy.eos_node
        a = toy.children[root[ord("a")]]
        assert set(a) == {ord("b"), (None, 0), (None, 4)}
        assert toy.leaf2token_id[a[None, 4]] == 4
        leaf = a[None, 0]
        assert toy.children[leaf] == {} and toy.children[toy.eos_node] == {}
        assert len(toy.children) == toy.node_count and toy.children[-1] == {}
        assert toy.children[0:2] == [toy.children[0], toy.children[1]]
        with pytest.raises(IndexError):
            toy.children[toy.node_count]

    def test_eot_sentinel(self):
        trie = make([b"a"], eot_sentinel="end")
        assert trie.eot_sentinel == trie.eot_token == "end"
        assert ("end", 0) in trie.children[walk(trie, b"a")]

    def test_words_and_leaves(self, toy):
        leaf = toy.word2leaf[b"ab", 1]
        assert toy.word2leaf[b"ab"] == toy.word2leaf[toy.decode[1], 1] == toy.word2leaf[toy.decode[1]] == leaf
        assert toy.leaf2word[leaf] == (b"ab", 1) and toy.leaf2token_id[leaf] == 1
        assert set(toy.word2leaf) == {(bytes(t), t.token_id) for t in toy.decode}
        assert len(toy.word2leaf) == 7 and repr(toy.word2leaf) == repr(dict(toy.word2leaf))
        with pytest.raises(KeyError, match=r"2 tokens spell it.*\[0, 4\]"):
            toy.word2leaf[b"a"]
        for missing in (b"zz", "a", (b"ab", 7), (1, 2, 3)):
            with pytest.raises(KeyError):
                toy.word2leaf[missing]
        assert b"ab" in toy.word2leaf and b"zz" not in toy.word2leaf
        assert toy.token_id_to_leaf.tolist() == [[i, toy.word2leaf[w, i]] for i, w in enumerate(TOY)]

    def test_prefixes(self, toy):
        assert toy.node2prefix[toy.root] == [] and toy.node2prefix[toy.eos_node] == [EOS]
        assert toy.node2prefix[walk(toy, b"ab")] == list(b"ab")
        assert toy.node2prefix[toy.word2leaf[b"abc"]] == list(b"abc")
        assert len(toy.node2prefix) == toy.node_count and next(iter(toy.node2prefix.items())) == (0, [])

    def test_eos(self, toy):
        assert toy.eos_token_ids == [6] and toy.eos_byte_strings == toy.eos_tokens == {EOS_STRING}

    def test_atomic_units(self):
        trie = make([b"a", b"<s>", b"<", b"<s>"], atomic_byte_strings=[b"<s>"])
        root = trie.children[trie.root]
        assert set(root) == {ord("a"), ord("<"), b"<s>", EOS}
        unit = root[b"<s>"]
        assert trie.node2prefix[unit] == list(b"<s>") and ord("s") not in trie.children[root[ord("<")]]
        assert set(trie.children[unit]) == {(None, 1), (None, 3)}
        assert trie.weight_sum([0.1, 0.2, 0.3, 0.4])[unit] == pytest.approx(0.6)
        assert trie.atomic_tokens == {b"<s>"}
        assert trie.arrays.child(unit, b"<s>") == -1

    def test_repr_and_size(self, toy):
        assert repr(toy) == "TokenByteTrie(7 tokens, 17 nodes, cpu)"
        before = toy.nbytes
        toy.weight_sum(np.ones(7))
        assert toy.nbytes > before > 0


class TestArguments:
    def test_older_names(self):
        trie = make(TOY, eos_tokens=[b"<e>"], atomic_tokens=[b"ab"], eot_token=0)
        assert trie.eos_byte_strings == {b"<e>"} and trie.atomic_byte_strings == {b"ab"}
        assert trie.eot_sentinel == 0
        with pytest.raises(TypeError, match=r"eos_tokens.*eos_byte_strings"):
            make(TOY, eos_tokens=[b"<e>"], eos_byte_strings=[b"<e>"])

    def test_plain_bytes(self):
        with pytest.warns(DeprecationWarning, match="Passing plain bytes"):
            trie = TokenByteTrie([b"a", b"b", b"a"], device="cpu")
        assert trie.decode == [Token(0, b"a"), Token(1, b"b"), Token(2, b"a")]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make([b"a"])

    @pytest.mark.parametrize(
        ("kind", "match", "args", "opts"),
        [
            (ValueError, "decode cannot be empty", ([],), {}),
            (TypeError, "decode must contain Token objects, got str", (["a"],), {}),
            (
                ValueError,
                "EOS byte string b'z' not in vocabulary",
                (tokens(TOY),),
                {"eos_byte_strings": [b"z"]},
            ),
            (ValueError, "Atomic byte string b'z' not", (tokens(TOY),), {"atomic_byte_strings": [b"z"]}),
            (TypeError, r"`eos_byte_strings`.*Pass \[b'<e>'\]", (tokens(TOY),), {"eos_byte_strings": b"<e>"}),
            (TypeError, "each entry must be bytes", (tokens(TOY),), {"eos_byte_strings": ["<e>"]}),
            (ValueError, "neither atomic nor", (tokens([b"", b"a"]),), {"eos_byte_strings": [b""]}),
            (ValueError, "Invalid device: tpu", (tokens(TOY),), {"device": "tpu"}),
            (ValueError, "`max_batch_size` is 0", (tokens(TOY),), {"max_batch_size": 0}),
            (ValueError, "`max_batch_size` is True", (tokens(TOY),), {"max_batch_size": True}),
        ],
    )
    def test_mistakes(self, kind, match, args, opts):
        with pytest.raises(kind, match=match) as caught:
            TokenByteTrie(*args, **opts)
        assert isinstance(caught.value, GenlmBytesError)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
    def test_cuda_without_cuda(self):
        with pytest.raises(ValueError, match="no CUDA device"):
            TokenByteTrie(tokens(TOY), device="cuda")
        assert TokenByteTrie(tokens(TOY)).device == "cpu"

    @pytest.mark.parametrize("method", ["weight_sum", "weight_max"])
    def test_wrong_number_of_weights(self, toy, method):
        with pytest.raises(ValueError, match=r"\[6\].*7 tokens.*\[7\]"):
            getattr(toy, method)(np.ones(6))
        with pytest.raises(ValueError, match=r"\[batch, 7\]"):
            getattr(toy, "batch_" + method)(np.ones(7))


def below(trie, weights, mode, reduce):
    """Totals by the definition: over the tokens whose symbols begin with the node's."""
    eos = [bytes(t) in trie.eos_byte_strings and mode is WITH for t in trie.decode]
    units = trie.atomic_byte_strings
    out = []
    for node in range(trie.node_count):
        prefix = bytes(trie.node2prefix[node]) if node != trie.eos_node else None
        if node == trie.root:
            got = list(weights)
        elif node == trie.eos_node:
            got = [w for w, e in zip(weights, eos, strict=True) if e]
        elif node > trie.eos_node:
            i = [t.token_id for t in trie.decode].index(trie.leaf2token_id[node])
            got = [0.0 if eos[i] else weights[i]]
        else:
            got = [
                0.0 if e else w
                for t, w, e in zip(trie.decode, weights, eos, strict=True)
                if (
                    prefix == bytes(t)
                    if bytes(t) in units or prefix in units
                    else bytes(t).startswith(prefix)
                )
            ]
        out.append(reduce(got) if got else 0.0)
    return out


class TestSums:
    @given(words, st.data())
    def test_definition(self, spellings, data):
        pick = st.lists(st.sampled_from(spellings), max_size=2)
        eos = [s for s in data.draw(pick) if s]
        # A unit that is a proper prefix of a token's bytes would need symbols to define: see TestShape.
        trie = make(spellings, eos_byte_strings=eos)
        weights = data.draw(
            st.lists(st.floats(0, 1, width=32), min_size=len(spellings), max_size=len(spellings))
        )
        for mode in (WITH, WITHOUT):
            np.testing.assert_allclose(
                trie.weight_sum(weights, mode), below(trie, weights, mode, sum), rtol=1e-6
            )
        np.testing.assert_allclose(trie.weight_sum(weights), trie.weight_sum(weights, WITHOUT))
        np.testing.assert_array_equal(trie.weight_max(weights), below(trie, weights, WITHOUT, max))

    @given(words, st.integers(1, 5), st.data())
    @examples(30)
    def test_torch_levels_agree(self, spellings, rows, data):
        """The path that a GPU takes, run on CPU tensors."""
        trie = make(spellings, eos_byte_strings=[s for s in spellings[:1] if s])
        weights = np.random.default_rng(data.draw(st.integers(0, 99))).random((rows, len(spellings)))
        levels, eos = Levels(trie.arrays, "cpu"), torch.from_numpy(trie.eos_leaves)
        for mode, leaves in ((WITH, eos), (WITHOUT, eos[:0])):
            got = below_torch(levels, torch.from_numpy(weights), leaves, TrieOp.SUM)
            torch.testing.assert_close(got, trie.batch_weight_sum(weights, mode))
        got = below_torch(levels, torch.from_numpy(weights), eos[:0], TrieOp.MAX)
        torch.testing.assert_close(got, trie.batch_weight_max(weights))

    def test_batches_are_worked_in_pieces_on_a_gpu(self, toy, monkeypatch):
        """`device="cuda"` cannot be had here; everything but the device is the same."""
        monkeypatch.setattr(toy, "max_batch_size", 2)
        weights = np.random.default_rng(0).random((5, 7))
        want = toy.batch_weight_sum(weights, WITH)
        monkeypatch.setattr(toy, "device", torch.device("cpu"))  # not the string: takes the torch path
        torch.testing.assert_close(toy.batch_weight_sum(weights, WITH), want)
        assert toy.batch_weight_sum(np.ones((0, 7))).shape == (0, 17)

    @pytest.mark.parametrize("rows", [1, 2, 3, 5, 64])
    def test_rows_are_independent(self, toy, rows):
        weights = np.random.default_rng(rows).random((rows, 7))
        batch = toy.batch_weight_sum(weights, WITH)
        assert batch.shape == (rows, 17) and batch.dtype == torch.float32
        for row, got in zip(weights, batch, strict=True):
            torch.testing.assert_close(got, toy.weight_sum(row, WITH))

    def test_inputs(self, toy):
        want = toy.weight_sum(np.full(7, 0.5, np.float32))
        for ws in ([0.5] * 7, (0.5,) * 7, torch.full((7,), 0.5), torch.full((7,), 0.5, dtype=torch.bfloat16)):
            torch.testing.assert_close(toy.weight_sum(ws), want)
        torch.testing.assert_close(toy.batch_weight_sum([torch.full((7,), 0.5)] * 3)[2], want)
        assert toy.weight_sum([1] * 7)[toy.root] == 7

    def test_small_masses_survive(self):
        """Sums of children, never differences of a running total: 1e-30 beside 1 is still 1e-30."""
        trie = make([b"a", b"ba", b"bb", b"c"])
        sums = trie.weight_sum(torch.tensor([1.0, 1e-30, 2e-30, 1.0], dtype=torch.float64))
        assert sums[walk(trie, b"b")].item() == pytest.approx(3e-30, rel=1e-6)

    def test_a_held_result_is_never_overwritten(self):
        """The memory of a large result is used again only when nobody holds it."""
        trie = make([bytes([a, b]) for a in range(256) for b in range(256)])
        rng = np.random.default_rng(0)
        weights = rng.random((8, 65536))
        first = trie.batch_weight_sum(weights)
        copy = first.clone()
        view = trie.batch_weight_sum(2 * weights)[3]
        kept = view.clone()
        trie.batch_weight_sum(rng.random((8, 65536)))
        trie.batch_weight_sum(rng.random((8, 65536)))
        assert torch.equal(first, copy) and torch.equal(view, kept)

    def test_without_a_folder_for_compiled_code(self, monkeypatch):
        import numba

        from genlm.bytes.trie import sums

        real = numba.njit

        def refuse(*args, cache=False, **opts):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return real(*args, **opts)

        monkeypatch.setattr(numba, "njit", refuse)
        sums._compiled.cache_clear()
        try:
            assert make(TOY).weight_sum(np.ones(7))[0] == 7
        finally:
            sums._compiled.cache_clear()


class TestDrawing:
    def test_visualize(self, toy):
        source = toy.visualize(toy.weight_sum(np.ones(7))).source
        assert source.count("->") == toy.node_count - 1
        for label in ("label=a", "label=EOS", 'label="EOT 4"', 'label="0\n7"'):
            assert label in source
        assert 'label="\\\\xff"' in make([b"\xff"]).visualize().source

    @pytest.mark.parametrize("n", [0, 7, 16, 18])
    def test_one_weight_a_node(self, toy, n):
        with pytest.raises(InvalidValueError, match=rf"\[{n}\].*17 nodes"):
            toy.visualize([0.5] * n)

    def test_without_graphviz(self, toy, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "graphviz", None)
        with pytest.raises(ImportError, match=r"pip install 'genlm-bytes\[viz\]'"):
            toy.visualize()
