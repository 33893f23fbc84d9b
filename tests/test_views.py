"""The trie's documented attributes do whatever the builtins do that they stand for, but change."""

from __future__ import annotations

import copy
import json
import operator
import pickle
from collections.abc import Mapping, Sequence
from itertools import islice

import pytest
from genlm.backend.tokenization import Token
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY

from genlm.bytes import AsyncTokenByteTrie, LazyTrieState, TokenByteTrie
from genlm.bytes.trie import EOS

MUTATING = {
    list: "append clear extend insert pop remove reverse sort __setitem__ __delitem__ __iadd__ __imul__",
    dict: "clear pop popitem setdefault update __setitem__ __delitem__ __ior__",
}
"""What a view has not: nothing could change with it."""

OBJECTS_OWN = {*dir(object), "__class_getitem__", "fromkeys"}

tries = st.builds(
    lambda words, unit, eos: TokenByteTrie(
        [Token(3 * i, w) for i, w in enumerate(words)],
        device="cpu",
        atomic_byte_strings=[words[unit % len(words)]],
        eos_byte_strings=[words[eos % len(words)]],
    ),
    st.lists(
        st.binary(min_size=1, max_size=3) | st.text("ab", min_size=1, max_size=3).map(str.encode), min_size=1
    ),
    st.integers(0),
    st.integers(0),
)


@pytest.fixture
def toy():
    return TokenByteTrie(
        [Token(i, w) for i, w in enumerate(TOY)], device="cpu", eos_byte_strings=[EOS_STRING]
    )


def plain(trie):
    """What the views stand for, by the arrays alone."""
    arrays, leaves = trie.arrays, range(trie.eos_node + 1, trie.node_count)
    token = {leaf: trie.decode[arrays.order[leaf - leaves.start]] for leaf in leaves}
    children = [dict[object, int]() for _ in range(trie.node_count)]
    for node in range(1, trie.eos_node):
        prefix = arrays.prefix(node, trie.decode)
        unit = [u for u, n in arrays.unit_node.items() if n == node]
        children[arrays.parent[node]][unit[0] if unit else prefix[-1]] = node
    children[0][EOS] = trie.eos_node
    for leaf, spelled in token.items():
        (node,) = [
            n
            for n in range(trie.eos_node)
            if arrays.lo[n] <= leaf - leaves.start < arrays.lo[n] + arrays.ends[n]
        ]
        children[node][None, spelled.token_id] = leaf
    prefixes = {n: list(arrays.prefix(n, trie.decode)) for n in range(trie.eos_node)}
    prefixes |= {trie.eos_node: [EOS]} | {leaf: list(bytes(t)) for leaf, t in token.items()}
    return children, prefixes, {(bytes(t), t.token_id): leaf for leaf, t in token.items()}


@given(tries)
def test_equal_to_the_builtins_both_ways(trie):
    children, prefixes, leaves = plain(trie)
    for view, builtin in [
        (trie.children, children),
        (trie.node2prefix, prefixes),
        (trie.word2leaf, leaves),
        (trie.leaf2word, {leaf: word for word, leaf in leaves.items()}),
        (trie.leaf2token_id, {leaf: token_id for (_, token_id), leaf in leaves.items()}),
        (trie.lookup, {(bytes(t), t.token_id): t.token_id for t in trie.decode}),
    ]:
        assert view == builtin and builtin == view and not view != builtin and not builtin != view
        assert len(view) == len(builtin)
        for other in (copy.copy(view), copy.deepcopy(view), pickle.loads(pickle.dumps(view)), view.copy()):
            assert other == builtin and isinstance(other, type(builtin))
        assert eval(repr(view)) == builtin
        assert view != list(builtin)[1:] and view != 0 and view is not None


@pytest.mark.parametrize("name", ["children", "node2prefix", "word2leaf", "leaf2word", "leaf2token_id"])
def test_every_method_of_the_builtin(toy, name):
    view = getattr(toy, name)
    kind = list if name == "children" else dict
    wanted = set(dir(kind)) - OBJECTS_OWN - set(MUTATING[kind].split())
    assert not [method for method in sorted(wanted) if not hasattr(view, method)]
    with pytest.raises(TypeError, match="unhashable"):
        hash(view)
    assert isinstance(view, Sequence if kind is list else Mapping)


SOME = [{}, {257: 9}, 3, None]


@pytest.mark.parametrize(
    "look",
    [
        len,
        list,
        tuple,
        repr,
        str,
        bool,
        lambda v: list(reversed(v)),
        lambda v: list(islice(v, 3)),
        lambda v: [v[i] for i in (0, -1, 4, True)],
        lambda v: [v[s] for s in (slice(2, 9, 3), slice(None, None, -1), slice(-3, None), slice(99, 3))],
        lambda v: [x in v for x in SOME],
        lambda v: [v.count(x) for x in SOME],
        lambda v: v.index({}),
        lambda v: v.index({}, 11),
        lambda v: v.index({}, -4, -1),
        lambda v: v.index("absent"),
        lambda v: v[999],
        lambda v: v["a"],
        lambda v: v[1.0],
        lambda v: v + [1],  # noqa: RUF005
        lambda v: [1] + v,  # noqa: RUF005
        lambda v: v + v,
        lambda v: v + (1,),  # noqa: RUF005
        lambda v: [*v, *v],
        lambda v: v * 2,
        lambda v: 2 * v,
        lambda v: v.copy(),
        lambda v: v < [{}],
        lambda v: [v <= v, v >= v, v < v, v > v],
        lambda v: [] < v,
        lambda v: [v == [*v], v == v[1:], v == tuple(v), [*v] == v, v != [*v]],
        lambda v: json.dumps([{str(k): x for k, x in edges.items()} for edges in v]),
    ],
)
def test_children_as_a_list(toy, look):
    assert outcome(look, toy.children) == outcome(look, list(toy.children))


@pytest.mark.parametrize(
    "look",
    [
        len,
        list,
        dict,
        repr,
        str,
        bool,
        lambda v: list(reversed(v)),
        lambda v: {**v},
        lambda v: [v.get(n) for n in (0, 9, 16, 17, -1, "a", None, 2.0, 2.5, True)],
        lambda v: [v.get(n, n) for n in (17, (b"", 1))],
        lambda v: [n in v for n in (0, 9, 16, 17, -1, "a", None, 2.0, 2.5, (1, 2))],
        lambda v: list(v.items()),
        lambda v: (3 in v.keys(), v.keys() & {1, 2, 99}, len(v.items())),
        lambda v: list(v.values()),
        lambda v: v[17],
        lambda v: v[[]],
        lambda v: v.get([]),
        lambda v: [] in v,
        lambda v: v | {0: "x", "new": 1},
        lambda v: {0: "x", "new": 1} | v,
        lambda v: v | v,
        lambda v: v | [],
        lambda v: [] | v,
        lambda v: v < v,
        lambda v: v.copy(),
        lambda v: [v == {**v}, v == [*v], v == {}, {**v} == v, v != {**v}],
    ],
)
@pytest.mark.parametrize("name", ["node2prefix", "word2leaf", "leaf2word", "leaf2token_id"])
def test_mappings_as_dicts(toy, name, look):
    view = getattr(toy, name)
    assert outcome(look, view) == outcome(look, dict(view.items()))


def outcome(look, view):
    """What a call gives, or the kind of its error. A view in a result is the builtin it equals."""
    try:
        return look(view)
    except Exception as error:
        return type(error)


def test_numpy_integers_are_nodes(toy):
    leaf = toy.token_id_to_leaf[1, 1]
    assert (
        toy.node2prefix[leaf] == list(b"ab")
        and toy.children[leaf] == {}
        and toy.leaf2word[leaf] == (b"ab", 1)
    )


@pytest.mark.parametrize("change", ["append", "pop", "update", "__setitem__", "clear"])
def test_views_of_the_arrays_cannot_be_changed(toy, change):
    for view in (toy.children, toy.node2prefix):
        assert not hasattr(view, change)


def test_two_tries_over_one_vocabulary_have_equal_views(toy):
    other = TokenByteTrie(toy.decode, device="cpu")
    assert toy.children == other.children and toy.children <= other.children
    assert toy.node2prefix == other.node2prefix and toy.word2leaf == other.word2leaf
    assert toy.children != TokenByteTrie(toy.decode[1:], device="cpu").children
    assert operator.add(toy.children, other.children) == [*toy.children] * 2


def test_bare_byte_strings_are_found_and_are_no_keys(toy):
    words = toy.word2leaf
    assert words[b"ab"] == words.get(b"ab") == words.get(toy.decode[1]) == words[b"ab", 1] and b"ab" in words
    assert words.get(b"a") is None and words.get(b"a", 7) == 7 and b"a" not in words
    assert b"ab" not in list(words) and b"ab" not in words.copy()


def test_a_candidate_shows_its_tries_root_and_children(toy):
    class Model:
        async def logp_next(self):
            raise AssertionError("nobody asked for it")

    state = LazyTrieState(Model(), AsyncTokenByteTrie(toy), toy.root, 0.0)
    assert state.root == toy.root and state.children is toy.children
    assert state.children[state.root][EOS] == toy.eos_node
