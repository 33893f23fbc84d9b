"""Programs over the documented surface, drawn by hypothesis: `SCENARIOS[name](draw)` is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from release.programs import Array, Builtin, Function, Mode, Program, Ref, Slice, Tok

__all__ = ["SCENARIOS"]

Draw = Callable[[st.SearchStrategy[Any]], Any]
SCENARIOS: dict[str, Callable[[Draw], Program]] = {}

INF = math.inf
MODES = [None, Mode("with_eos"), Mode("without_eos")]
ALPHABET = [b"a", b"b", b"c", b"\xc3", b"\xa4"]


def scenario(make: Callable[[Program, Draw], None]) -> Callable[[Program, Draw], None]:
    def program(draw: Draw) -> Program:
        made = Program()
        make(made, draw)
        return made

    SCENARIOS[make.__name__] = program
    return make


# -- what is drawn ---------------------------------------------------------------------------------------

byte = st.sampled_from(ALPHABET)
word = st.lists(byte, min_size=1, max_size=4).map(b"".join) | st.sampled_from(
    [b"<e>", b"<eos>", b"ab", b"abab", b"aba"]
)


@st.composite
def vocabularies(draw: Draw, complete: bool | None = None) -> list[Tok]:
    """Repeated spellings, overlaps, strings that end a text, and ids with holes."""
    words = draw(st.lists(word, min_size=1, max_size=7))
    if complete or (complete is None and draw(st.booleans())):
        words = [*ALPHABET[: draw(st.integers(1, len(ALPHABET)))], *words]
    words = draw(st.permutations(words))
    return [Tok(i, w) for i, w in enumerate(words)]


def some_of(vocab: list[Tok], most: int = 2) -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.sampled_from([t.byte_string for t in vocab]), max_size=most, unique=True)


def ends(vocab: list[Tok]) -> st.SearchStrategy[list[bytes]]:
    """Strings that end a sequence: none, in half of the programs."""
    return st.booleans().flatmap(lambda any_: some_of(vocab) if any_ else st.just([]))


def texts(vocab: list[Tok], most: int = 8) -> st.SearchStrategy[bytes]:
    """Bytes that tokens spell, cut anywhere; now and then others."""
    spelled = st.lists(st.sampled_from([t.byte_string for t in vocab]), min_size=1, max_size=4).map(b"".join)
    cut = st.builds(lambda text, n: text[: n % (len(text) + 1)], spelled, st.integers(0, 50))
    return st.one_of(spelled, cut, st.lists(byte, max_size=5).map(b"".join)).map(lambda text: text[:most])


def numbers(n: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.integers(0, 64).map(lambda i: i / 16), min_size=n, max_size=n)


def trie_of(p: Program, draw: Draw, vocab: list[Tok], eos: list[bytes] | None = None, **more: Any) -> Ref:
    eos = draw(ends(vocab)) if eos is None else eos
    opts: dict[str, Any] = {
        "device": "cpu",
        "eos_byte_strings": eos or draw(st.sampled_from([None, []])),
        **more,
    }
    if draw(st.booleans()):
        opts["max_batch_size"] = draw(st.integers(1, 5))
    return p.new("trie:TokenByteTrie", vocab, **opts)


def array(draw: Draw, values: Any) -> Any:
    kind = draw(st.sampled_from(["ndarray", "tensor", "tensor32"]))
    return Array(kind, values)


def params_of(p: Program, draw: Draw, eos: list[bytes]) -> Ref:
    opts: dict[str, Any] = {
        "K": draw(st.integers(1, 6)),
        "prune_threshold": draw(st.sampled_from([0.0, 0.0, 0.03, 0.2])),
    }
    if eos:
        opts["eos_byte_strings"] = eos
    if draw(st.booleans()):
        opts["heal"] = draw(st.booleans())
        opts["heal_max_backoff"] = draw(st.sampled_from([None, 0, 1, 3]))
        opts["heal_max_splits"] = draw(st.sampled_from([None, 0, 1, 2]))
    return p.new(":BeamParams", **opts)


def model_of(p: Program, draw: Draw, vocab: list[Tok]) -> Ref:
    ids = [t.token_id for t in vocab]
    return p.model(
        vocab,
        seed=draw(st.integers(0, 99)),
        bos=draw(st.sampled_from(ids)),
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )


# -- the trie ----------------------------------------------------------------------------------------------


@scenario
def trie_structure(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    atomic = draw(some_of(vocab))
    sentinel = draw(st.sampled_from([None, "end", b"\x00eot"]))
    trie = trie_of(p, draw, vocab, atomic_byte_strings=atomic or None, eot_sentinel=sentinel)
    for name in (
        "decode",
        "device",
        "eos_byte_strings",
        "eot_sentinel",
        "max_batch_size",
        "eos_token_ids",
        "lookup",
    ):
        p.get(trie, name)
    for name, form in [
        ("root", "node"),
        ("eos_node", "node"),
        ("children", "sequence"),
        ("node2prefix", "keys"),
        ("word2leaf", "values"),
        ("leaf2word", "keys"),
        ("leaf2token_id", "keys"),
        ("token_id_to_leaf", "seconds"),
    ]:
        p.get(trie, name, nodes=(form, trie))
    p.op("getitem", p.get(trie, "token_id_to_leaf", opaque=True), 0, opaque=True)
    p.op("repr", trie)
    p.op("len", p.get(p.get(trie, "token_id_to_leaf", opaque=True), "shape"))


@scenario
def trie_attributes_as_builtins(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    trie = trie_of(p, draw, vocab)
    spelled = [draw(st.sampled_from(vocab)).byte_string, b"absent"]
    node = p.node(trie)
    leaf = p.op(
        "getitem",
        p.get(trie, "word2leaf", opaque=True),
        (vocab[0].byte_string, vocab[0].token_id),
        nodes=("node", trie),
    )
    children = p.get(trie, "children", nodes=("sequence", trie))
    p.op("len", children)
    p.op("getitem", children, node, nodes=("values", trie))
    for index in (10**6, "a", None, 1.5):
        p.op("getitem", children, index)
    for part in (Slice(0, 0), Slice(-1, None, -1)):
        p.op("len", p.op("getitem", children, part, opaque=True))
    p.op("isinstance", children, Builtin("list"))
    whole = p.op("list", children, nodes=("sequence", trie))
    p.op("len", p.op("reversed", children, opaque=True))
    for name in ("eq", "req", "ne", "lt", "ge"):
        p.op(name, children, whole)
    p.op("eq", children, [])
    p.op("len", p.op("add", children, whole, opaque=True))
    p.op("len", p.op("mul", children, 2, opaque=True))
    p.op("contains", children, {})
    p.op("contains", children, p.op("getitem", children, node, opaque=True))
    p.call(children, "count", "no such entry")
    p.call(children, "index", p.op("getitem", children, node, opaque=True), nodes=("node", trie))
    p.call(children, "index", "no such entry")
    p.op("eq", p.call(children, "copy", opaque=True), whole)
    p.op("hash", children)
    for how in ("copy", "deepcopy", "pickle"):
        p.op("eq", p.op(how, children, opaque=True), whole)
    edges = p.op("getitem", children, node, nodes=("values", trie))
    p.op("contains", edges, 97)
    p.op("list", p.call(edges, "keys"), opaque=True)
    p.op("isinstance", edges, Builtin("dict"))
    for name in ("node2prefix", "word2leaf", "leaf2word", "leaf2token_id"):
        view = p.get(trie, name, opaque=True)
        form = "values" if name == "word2leaf" else "keys"
        builtin = p.op("dict", view, nodes=(form, trie))
        key = (vocab[0].byte_string, vocab[0].token_id) if name == "word2leaf" else leaf
        as_node = {"nodes": ("node", trie)} if name == "word2leaf" else {}
        p.op("len", view)
        p.op("isinstance", view, Builtin("dict"))
        p.op("getitem", view, key, **as_node)
        for absent in (10**6, -1, "a", (b"absent", 0), b"", [], 0.5):
            p.op("getitem", view, absent)
            p.op("contains", view, absent)
            p.call(view, "get", absent)
            p.call(view, "get", absent, "a default")
        p.call(view, "get", key, **as_node)
        p.op("contains", view, key)
        p.op("len", p.op("list", view, opaque=True))
        p.op("len", p.op("list", p.call(view, "keys", opaque=True), opaque=True))
        p.op(
            "sorted",
            p.call(view, "values", opaque=True),
            **({"nodes": ("nodes", trie), "opaque": True} if as_node else {}),
        )
        p.op("len", p.op("list", p.call(view, "items", opaque=True), opaque=True))
        for op in ("eq", "req", "ne", "lt"):
            p.op(op, view, builtin)
        p.op("eq", view, {})
        p.op("hash", view)
        p.op(
            "eq",
            p.op("dict", p.op("or", view, {"new": 1}, opaque=True), opaque=True),
            p.op("or", builtin, {"new": 1}, opaque=True),
        )
        p.op("len", p.op("ror", view, {"new": 1}, opaque=True))
        p.op("len", p.op("reversed", view, opaque=True))
        p.op("eq", p.call(view, "copy", opaque=True), builtin)
        for how in ("copy", "deepcopy", "pickle"):
            p.op("eq", p.op(how, view, opaque=True), builtin)
    for bare in spelled:
        p.op("getitem", p.get(trie, "word2leaf", opaque=True), bare, nodes=("node", trie))


@scenario
def trie_sums(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    trie = trie_of(p, draw, vocab, atomic_byte_strings=draw(some_of(vocab)) or None)
    n = len(vocab)
    ws = draw(numbers(n))
    for mode in [*MODES, draw(st.sampled_from(["with_eos", "without_eos"]))]:
        p.call(trie, "weight_sum", array(draw, ws), mode, nodes=("vector", trie))
    p.call(trie, "weight_sum", array(draw, ws), mode=draw(st.sampled_from(MODES)), nodes=("vector", trie))
    p.call(trie, "weight_sum", ws, nodes=("vector", trie))
    p.call(trie, "weight_max", array(draw, ws), nodes=("vector", trie))
    p.call(trie, "weight_max", ws, nodes=("vector", trie))
    total = p.call(trie, "weight_sum", array(draw, ws), opaque=True)
    p.op("getitem", total, p.get(trie, "root", nodes=("node", trie)))
    for name in ("dtype", "shape", "device"):
        p.op("str", p.get(total, name))
    rows = draw(st.lists(numbers(n), min_size=1, max_size=4))
    p.call(trie, "batch_weight_sum", array(draw, rows), draw(st.sampled_from(MODES)), nodes=("matrix", trie))
    p.call(trie, "batch_weight_sum", rows, nodes=("matrix", trie))
    p.call(trie, "batch_weight_max", array(draw, rows), nodes=("matrix", trie))
    p.call(trie, "batch_weight_max", rows, nodes=("matrix", trie))
    p.call(trie, "batch_weight_max", [array(draw, row) for row in rows], nodes=("matrix", trie))
    p.op("str", p.get(p.call(trie, "batch_weight_max", array(draw, rows), opaque=True), "dtype"))
    for wrong in (n - 1, n + 1):
        for name in ("weight_sum", "weight_max"):
            p.call(trie, name, Array("tensor32", [0.5] * wrong))
        for name in ("batch_weight_sum", "batch_weight_max"):
            p.call(trie, name, Array("tensor32", [[0.5] * wrong]))
    for unknown in ("no_such_mode", 7, "WITH_EOS"):
        p.call(trie, "weight_sum", Array("tensor32", ws), unknown)
        p.call(trie, "batch_weight_sum", Array("tensor32", [ws]), unknown)


@scenario
def trie_drawing(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    trie = trie_of(p, draw, vocab, eot_sentinel=draw(st.sampled_from([None, b"eot"])))
    p.call(trie, "visualize", opaque=True)
    p.call(trie, "visualize", p.do("number_of_nodes", trie, 0.5, opaque=True), opaque=True)
    p.call(
        trie,
        "visualize",
        p.call(trie, "weight_sum", Array("tensor32", [0.5] * len(vocab)), opaque=True),
        opaque=True,
    )
    p.call(trie, "visualize", [0.5] * 3 * (len(vocab) + 9) * 9, opaque=True)
    p.call(trie, "visualize", [], opaque=True)


@scenario
def trie_mistakes(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    make = p.find("trie", "TokenByteTrie")
    p.call(make, None, [])
    p.call(make, None, [t.byte_string for t in vocab], device="cpu")
    for other in ("text", 3, None):
        p.call(make, None, [other], device="cpu")
        p.call(make, None, [*vocab, other], device="cpu")
    p.call(make, None, vocab, device="no such device")
    p.call(make, None, vocab, device="cpu", eos_byte_strings=[b"absent"])
    p.call(make, None, vocab, device="cpu", atomic_byte_strings=[b"absent"])
    p.call(make, None)
    p.call(make, None, vocab, "cpu", None, None, None, 3, 4)
    p.call(make, None, vocab, no_such_argument=1)
    p.get(p.call(make, None, vocab, "cpu", None, None, None, 3), "max_batch_size")


@scenario
def ids_in_another_order(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies(complete=True).flatmap(st.permutations))
    trie = trie_of(p, draw, vocab, eos=[])
    for name in ("decode", "lookup"):
        p.get(trie, name)
    p.get(trie, "token_id_to_leaf", nodes=("seconds", trie))
    p.get(trie, "leaf2token_id", nodes=("keys", trie))
    ws = draw(numbers(len(vocab)))
    p.call(trie, "weight_sum", array(draw, ws), nodes=("vector", trie))
    p.call(trie, "weight_max", ws, nodes=("vector", trie))
    p.call(trie, "batch_weight_sum", [ws, ws], nodes=("matrix", trie))
    p.call(p.new("trie:AsyncTokenByteTrie", trie), "weight_sum", array(draw, ws), nodes=("vector", trie))
    beam = p.call(p.find("", "ByteBeamState"), "initial", model_of(p, draw, vocab), params_of(p, draw, []))
    for symbol in draw(texts(vocab, most=4)):
        beam = p.op("lshift", beam, symbol)
        p.call(beam, "logp_next")


@scenario
def ids_with_holes(p: Program, draw: Draw) -> None:
    vocab = [*draw(vocabularies())[:5], Tok(7, b"ab")]
    trie = trie_of(p, draw, vocab)
    p.call(trie, "weight_sum", draw(numbers(len(vocab))), nodes=("vector", trie))


@scenario
def async_trie(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    eos = draw(ends(vocab))
    if draw(st.booleans()):
        service = p.call(
            p.find("", "AsyncTokenByteTrie"), "from_vocab", vocab, device="cpu", eos_byte_strings=eos
        )
    else:
        service = p.new("trie:AsyncTokenByteTrie", trie_of(p, draw, vocab, eos))
    trie = p.get(service, "trie")
    ws = [draw(numbers(len(vocab))) for _ in range(3)]
    p.op("repr", service)
    p.call(service, "start")
    p.call(service, "start")
    p.call(service, "weight_sum", array(draw, ws[0]), nodes=("vector", trie))
    p.call(service, "weight_sum", array(draw, ws[0]), draw(st.sampled_from(MODES)), nodes=("vector", trie))
    p.call(service, "weight_max", array(draw, ws[1]), nodes=("vector", trie))
    both = p.gather(
        (service, "weight_sum", [array(draw, ws[0])]),
        (service, "weight_sum", [array(draw, ws[1]), Mode("with_eos")]),
        (service, "weight_max", [array(draw, ws[2])]),
        (service, "weight_sum", [array(draw, ws[2]), Mode("with_eos")]),
    )
    for i in range(4):
        p.op("getitem", p.op("getitem", both, i, opaque=True), p.get(trie, "root", nodes=("node", trie)))
    p.call(service, "cleanup")
    p.call(service, "cleanup")
    p.call(service, "weight_sum", array(draw, ws[0]), nodes=("vector", trie))
    p.call(service, "shutdown")
    p.call(service, "shutdown")
    p.call(service, "weight_max", array(draw, ws[0]), nodes=("vector", trie))


# -- a token model after a context, and a candidate --------------------------------------------------------


@scenario
def token_states(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    model, ids = model_of(p, draw, vocab), st.sampled_from([t.token_id for t in vocab])
    make = p.find("byte_lm", "StatefulTokenizedLM")
    begin = draw(st.lists(ids, min_size=1, max_size=3))
    for state in (
        p.call(make, "initial", model),
        p.call(make, "initial", model, begin),
        p.call(make, None, model, begin, 3),
        p.call(make, "initial", model, initial_context=begin, max_context_length=draw(st.integers(6, 9))),
    ):
        for name in ("context", "max_context_length"):
            p.get(state, name)
        p.op("eq", p.get(state, "model", opaque=True), model)
        p.op("repr", state)
        p.call(state, "logp_next")
        after = state
        for _ in range(3):
            after = p.op("lshift", after, draw(ids))
            p.call(after, "logp_next")
        p.op("repr", after)
        p.get(state, "context")
        p.get(after, "max_context_length")
    p.op("lshift", state, "no token")
    p.call(make, "initial")
    p.call(make, None, model)


def look_at(p: Program, state: Ref, trie: Ref) -> None:
    p.get(state, "partial")
    p.get(state, "weight")
    p.get(state, "node", nodes=("node", trie))
    p.get(state, "mode")
    p.get(state, "terminated")
    p.get(state, "lm_state")
    p.get(state, "logp_next")
    p.get(state, "mass", nodes=("vector", trie))
    p.call(state, "actions", nodes=("values", trie))
    p.call(state, "get_all_EOT", nodes=("firsts", trie))
    p.op("repr", state)


@scenario
def candidates(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies())
    eos = draw(ends(vocab))
    model = model_of(p, draw, vocab)
    service = p.call(
        p.find("", "AsyncTokenByteTrie"), "from_vocab", vocab, device="cpu", eos_byte_strings=eos
    )
    make = p.find("byte_lm.trie_state", "LazyTrieState")
    begin = p.call(make, "initial", model, service)
    for name in ("mass", "logp_next"):
        p.get(begin, name)
    p.op("lshift", begin, 97)
    p.call(begin, "actions", nodes=("values", service))
    p.get(begin, "root", nodes=("node", service))
    p.get(begin, "children", nodes=("sequence", service))
    p.op("eq", p.get(begin, "trie", opaque=True), service)
    p.op("repr", begin)
    state = p.call(begin, "materialize")
    p.call(state, "materialize")
    look_at(p, state, service)
    text = draw(texts(vocab))
    for symbol in [*text, *draw(st.sampled_from([[], [257], [97]]))]:
        extended = p.call(state, "extend_all")
        p.op("len", extended)
        where = draw(st.sampled_from(["on", "on", "extended"]))
        if where == "extended":
            p.op("sorted", extended, opaque=True)
            first = p.op("getitem", extended, 0, opaque=True)
            state = p.call(first, "materialize", opaque=True)
        state = p.op("lshift", state, symbol)
        look_at(p, state, service)
        p.call(state, "extend_all")
    p.call(p.call(state, "with_mode", draw(st.sampled_from(MODES[1:]))), "materialize", opaque=True)
    p.call(state, "cleanup")
    p.op("lshift", begin, 257)
    p.op("lshift", begin, 7)
    p.op("lshift", begin, "a")
    p.op("lshift", begin, 300)
    p.op("lshift", begin, -1)


@scenario
def candidates_placed_by_hand(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies(complete=True))
    eos = draw(ends(vocab))
    model = model_of(p, draw, vocab)
    service = p.call(
        p.find("", "AsyncTokenByteTrie"), "from_vocab", vocab, device="cpu", eos_byte_strings=eos
    )
    make = p.find("", "LazyTrieState")
    root = p.node(service)
    mode = draw(st.sampled_from(MODES[1:]))
    lm = p.call(p.find("", "StatefulTokenizedLM"), "initial", model)
    duck = p.do("duck", model)
    for lm_state in (lm, duck):
        state = p.call(make, None, lm_state, service, root, -0.5, mode=mode)
        p.call(state, "materialize")
        look_at(p, state, service)
        after = p.op("lshift", state, vocab[0].byte_string[0])
        look_at(p, after, service)
        p.call(after, "extend_all")
        mass = p.get(state, "mass", nodes=("vector", service))
        given = p.call(make, None, lm_state, service, root, -0.5, mass, mode, False)
        look_at(p, given, service)
        look_at(p, p.op("lshift", given, vocab[0].byte_string[0]), service)
    over = p.call(make, None, lm, service, root, -0.5, None, mode, True)
    p.call(over, "materialize")
    p.op("lshift", over, 97)
    p.call(over, "extend_all")
    p.get(over, "terminated")
    for value in ("with_eos", "without_eos"):
        p.call(p.call(make, "initial", model, service, Mode(value)), "materialize")
        p.call(p.call(make, "initial", model, service, mode=Mode(value)), "materialize")
    for unknown in ("no_such_mode", 3):
        p.call(p.call(make, "initial", model, service, unknown, opaque=True), "materialize", opaque=True)


# -- the beam ------------------------------------------------------------------------------------------------


@scenario
def params(p: Program, draw: Draw) -> None:
    make = p.find("", "BeamParams")
    eos = draw(st.lists(word, max_size=3))
    made = [
        p.call(make, None, K=draw(st.integers(1, 9))),
        p.call(make, None, draw(st.integers(1, 9)), draw(st.sampled_from([0.0, 0.01, 0.5])), False, eos),
        p.call(make, None, 3, 0.25, True, eos, False, 2, 1),
        p.call(make, None, K=5, eos_tokens=eos or [b"e"]),
    ]
    for one in made:
        for name in (
            "K",
            "prune_threshold",
            "log_prune_threshold",
            "verbose",
            "eos_byte_strings",
            "eos_tokens",
        ):
            p.get(one, name)
        for name in ("heal", "heal_max_backoff", "heal_max_splits"):
            p.get(one, name)
        p.op("repr", one)
        p.op("eq", one, made[0])
        p.op("ne", one, made[0])
        p.op("hash", one)
        p.op("copy", one)
        p.op("pickle", one)
    p.set(made[0], "verbose", True)
    p.get(made[0], "verbose")
    p.call(make, None, 5, eos_byte_strings=[b"a"], eos_tokens=[b"a"])
    for wrong in (-0.1, -1, "a"):
        p.call(make, None, 5, wrong)
    p.call(make, None, 5, no_such_argument=1)
    for name in (
        "eos_byte_strings",
        "eos_tokens",
        "heal",
        "heal_max_backoff",
        "heal_max_splits",
        "prune_threshold",
        "verbose",
    ):
        p.get(make, name)
    for K in (0, -1, 2.5, "a"):
        p.call(make, None, K)
    for threshold in (1.0, 2.0, math.nan):
        p.call(make, None, 5, threshold)


def start(p: Program, draw: Draw, complete: bool | None = None) -> tuple[Ref, list[Tok], list[bytes]]:
    vocab = draw(vocabularies(complete))
    eos = draw(ends(vocab))
    model = model_of(p, draw, vocab)
    opts = draw(st.sampled_from([[], [{}], [{"max_batch_size": 3}], [None]]))
    beam = p.call(p.find("byte_lm.beam", "ByteBeamState"), "initial", model, params_of(p, draw, eos), *opts)
    return beam, vocab, eos


def look_at_beam(p: Program, beam: Ref) -> None:
    p.get(beam, "logZ")
    p.op("len", beam)
    p.call(beam, "logp_next")
    p.op("repr", beam)


@scenario
def beams(p: Program, draw: Draw) -> None:
    beam, vocab, _ = start(p, draw)
    p.get(beam, "params")
    look_at_beam(p, beam)
    for symbol in draw(texts(vocab)):
        if draw(st.booleans()):
            beam = p.call(beam, "prune")
        p.call(beam, "extend", p.get(beam, "logZ"), opaque=True)
        beam = p.op("lshift", beam, symbol)
        look_at_beam(p, beam)
        p.op("len", p.op("list", beam, opaque=True))
    p.op("lshift", p.call(beam, "prune"), 257)
    p.op("getitem", p.get(beam, "states", opaque=True), 0)
    p.op("float", p.get(beam, "logZ"))
    p.op("format", p.get(beam, "logZ"), ".2f")
    p.op("add", p.get(beam, "logZ"), 1)
    p.op("lt", p.get(beam, "logZ"), 1)
    p.call(beam, "cleanup")
    p.call(beam, "cleanup")


@scenario
def extensions(p: Program, draw: Draw) -> None:
    beam, vocab, _ = start(p, draw)
    for symbol in draw(st.sampled_from(vocab)).byte_string:
        beam = p.op("lshift", beam, symbol)
    for logZ in (p.get(beam, "logZ"), -3.0, INF * -1):
        extended = p.call(beam, "extend", logZ, opaque=True)
        p.op("len", extended)
        made = p.new(":ByteBeamState", extended, p.get(beam, "params"))
        look_at_beam(p, made)
        look_at_beam(p, p.call(made, "prune"))


@scenario
def reading_a_context(p: Program, draw: Draw) -> None:
    beam, vocab, _ = start(p, draw)
    text = draw(texts(vocab, most=10))
    after = p.call(beam, "prefill", text)
    look_at_beam(p, after)
    p.call(after, "prune")
    for symbol in draw(texts(vocab, most=3)):
        after = p.op("lshift", p.call(after, "prune"), symbol)
        look_at_beam(p, after)
    p.call(beam, "prefill", b"")
    p.call(beam, "prefill", list(text))


@scenario
def modes_of_a_beam(p: Program, draw: Draw) -> None:
    beam, vocab, _ = start(p, draw)
    for mode in draw(st.permutations(MODES[1:])):
        beam = p.call(beam, "with_mode", mode)
        for symbol in draw(texts(vocab, most=3)):
            beam = p.op("lshift", beam, symbol)
            look_at_beam(p, beam)


@scenario
def whole_texts(p: Program, draw: Draw) -> None:
    beam, vocab, _ = start(p, draw, complete=True)
    text = draw(texts(vocab, most=4))
    steps = draw(st.integers(0, 4))
    p.call(beam, "greedy", text, steps)
    p.call(beam, "greedy", context=text, steps=steps)
    p.call(beam, "sample", text, steps, Function("likeliest"))
    p.call(beam, "sample", text, steps, draw=Function("likeliest"))
    p.call(beam, "sample", text, 0)


@scenario
def beams_of_ones_own(p: Program, draw: Draw) -> None:
    """A beam made of candidates by hand, and what is wrong with a beam of none."""
    vocab = draw(vocabularies(complete=True))
    model = model_of(p, draw, vocab)
    service = p.call(p.find("", "AsyncTokenByteTrie"), "from_vocab", vocab, device="cpu")
    make, root = p.find("", "LazyTrieState"), p.node(service)
    params = params_of(p, draw, [])
    duck = p.do("duck", model)
    states = [p.call(p.call(make, None, duck, service, root, w), "materialize") for w in (-2.0, -0.5, -1.0)]
    beam = p.new(":ByteBeamState", states, params)
    p.get(beam, "states")
    p.op("list", beam)
    look_at_beam(p, beam)
    p.call(beam, "prune")
    for symbol in draw(st.sampled_from(vocab)).byte_string:
        beam = p.op("lshift", beam, symbol)
        look_at_beam(p, beam)
    empty = p.new(":ByteBeamState", [], params)
    p.op("len", empty)
    p.op("list", empty)
    p.get(empty, "logZ")
    p.call(empty, "prune")
    p.op("lshift", empty, 97)
    p.call(empty, "cleanup")


@scenario
def healing(p: Program, draw: Draw) -> None:
    vocab = draw(vocabularies(complete=draw(st.booleans())))
    model = model_of(p, draw, vocab)
    service = p.call(p.find("", "AsyncTokenByteTrie"), "from_vocab", vocab, device="cpu")
    state = p.call(p.call(p.find("", "LazyTrieState"), "initial", model, service), "materialize")
    for symbol in draw(st.sampled_from(vocab)).byte_string:
        state = p.op("lshift", state, symbol)
    limits = {
        "max_backoff": draw(st.sampled_from([None, 0, 1, 2, 3])),
        "max_splits": draw(st.sampled_from([None, 0, 1, 2])),
    }
    healer = p.new("byte_lm.heal:TokenHealer", **limits)
    for name in ("max_backoff", "max_splits", "verbose"):
        p.get(healer, name)
    p.op("repr", healer)
    for symbol in (97, 98, 99):
        healed = p.call(healer, "try_heal", state, symbol)
        p.get(healed, "logp_next")
    p.new("byte_lm.heal:TokenHealer", 1, 2, False)


@scenario
def a_model_of_ones_own(p: Program, draw: Draw) -> None:
    own = p.do("own")
    text, steps = draw(st.binary(max_size=4)), draw(st.integers(0, 4))
    p.call(own, "greedy", text, steps)
    p.call(own, "sample", text, steps, Function("likeliest"))
    p.call(own, "prune")
    p.call(own, "cleanup")
    p.call(own, "logp_next")
    p.op("lshift", own, 97)
    base = p.find("byte_lm.lm_state", "StatefulByteLM")
    p.call(base, None)
    p.op("sorted", p.get(base, "__abstractmethods__"))


@scenario
def what_is_seldom_drawn(p: Program, draw: Draw) -> None:
    ended = p.new(
        "trie:TokenByteTrie", [Tok(0, b"a"), Tok(1, b"<e>")], device="cpu", eos_byte_strings=[b"<e>"]
    )
    p.call(ended, "weight_sum", Array("tensor", [1.0, 2.0]), "with_eos", nodes=("vector", ended))
    p.call(ended, "visualize", [0.5] * 7, opaque=True)
    p.op("getitem", p.get(ended, "word2leaf", opaque=True), b"a", nodes=("node", ended))
    for seed in range(4):
        # The end is the likeliest after some.
        ending = p.model([Tok(0, b"a"), Tok(1, b"<e>")], seed=seed)
        settings = p.new(":BeamParams", 3, eos_byte_strings=[b"<e>"])
        beam = p.call(p.find("", "ByteBeamState"), "initial", ending, settings)
        p.call(beam, "greedy", b"a", 4)
        # Three spellings alike: none of them is heavier than the threshold.
        model = p.model([Tok(i, b"a") for i in range(3)], seed=seed)
        beam = p.call(p.find("", "ByteBeamState"), "initial", model, p.new(":BeamParams", 3, 0.4))
        p.call(p.op("lshift", beam, 97), "logp_next")
        # After `ab` comes no `c`, but after either `a` comes `bc`.
        vocab = [Tok(0, b"a"), Tok(1, b"a"), Tok(2, b"ab"), Tok(3, b"bc")]
        service = p.call(p.find("", "AsyncTokenByteTrie"), "from_vocab", vocab, device="cpu")
        state = p.call(p.find("", "LazyTrieState"), "initial", p.model(vocab, seed=seed), service)
        state = p.op("lshift", p.op("lshift", p.call(state, "materialize"), 97), 98)
        p.call(p.new("byte_lm.heal:TokenHealer"), "try_heal", state, 99)


# -- util ---------------------------------------------------------------------------------------------


@scenario
def distributions(p: Program, draw: Draw) -> None:
    ps = [i / 1000 for i in draw(st.permutations(range(258)))]
    for given in (ps, Array("ndarray", ps), Array("tensor", ps)):
        probs = p.new("util:LazyByteProbs", given, *draw(st.sampled_from([[], [True], [False]])))
        p.get(probs, "log_space")
        p.get(probs, "ps")
        for symbol in (0, 97, 255, None, 257):
            p.op("getitem", probs, symbol)
        for wrong in (258, -1, "a", 1.5):
            p.op("getitem", probs, wrong)
        p.op("getitem", probs, 256)
        for name in ("materialize", "pretty"):
            chart = p.call(probs, name)
            p.op("len", chart)
            p.call(chart, "argmax")
            p.call(chart, "top", 3)
    p.op("eq", p.get(p.new("util:LazyByteProbs", ps), "ps"), ps)
    for n in (0, 1, 256, 257, 259):
        p.new("util:LazyByteProbs", [0.5] * n)


keys = st.sampled_from(["a", "b", "ab", "c"])
values = st.integers(-8, 8).map(lambda i: i / 2)
charts = st.dictionaries(keys, values, max_size=4)


def make_chart(p: Program, draw: Draw, zero: Any) -> Ref:
    entries = draw(charts)
    given = draw(st.sampled_from([entries, [tuple(pair) for pair in entries.items()]]))
    return p.new("util:Chart", zero, given)


@scenario
def chart_arithmetic(p: Program, draw: Draw) -> None:
    a, b = make_chart(p, draw, draw(values)), make_chart(p, draw, draw(values))
    for name in ("add", "mul"):
        p.op(name, a, b)
        p.op(name, b, a)
        p.op(name, a, p.call(b, "to_dict", opaque=True))
        p.op(name, a, 3)
    p.call(a, "metric", b)
    p.call(a, "metric", a)
    p.call(a, "compare", b)
    p.call(a, "compare", b, domain=["a", "z"])
    p.call(a, "assert_equal", a)
    p.call(a, "assert_equal", b)
    p.call(a, "assert_equal", b, tol=100)
    p.call(a, "assert_equal", b, domain=["a"], tol=1.0)
    p.call(a, "assert_equal", b, verbose=True, throw=False)
    p.call(a, "assert_equal", b, verbose=False, throw=False)
    for name in ("eq", "ne"):
        p.op(name, a, b)


@scenario
def chart_methods(p: Program, draw: Draw) -> None:
    zero = draw(st.sampled_from([0, 0.0, 1.5, -INF]))
    chart = make_chart(p, draw, zero)
    p.get(chart, "zero")
    for name in ("copy", "spawn", "trim", "to_dict", "sum", "normalize", "argmax", "argmin", "max", "min"):
        p.call(chart, name)
    for name in ("sort", "sort_descending"):
        p.call(p.call(chart, name), "sum")
    p.op("list", p.call(chart, "sort"))
    p.op("list", p.call(chart, "sort", key=Function("length")))
    p.op("list", p.call(chart, "sort", reverse=True))
    p.op("list", p.call(p.call(chart, "sort_descending"), "values"))
    for k in (0, 1, 2, 9):
        p.op("list", p.call(p.call(chart, "top", k), "values"))
    p.call(chart, "filter", Function("is_a"))
    p.call(chart, "map_keys", Function("upper"))
    p.call(chart, "map_values", Function("double"))
    p.call(chart, "project", Function("first"))
    p.op("str", chart)
    p.call(chart, "__str__", Function("style"))
    p.call(chart, "__str__", style_value=Function("style"))
    p.op("repr", chart)
    p.call(chart, "_repr_html_")
    p.op("getitem", chart, "absent")
    p.call(chart, "__missing__", "absent")
    p.op("contains", chart, "absent")
    p.op("len", chart)
    p.op("bool", chart)


@scenario
def charts_as_dicts(p: Program, draw: Draw) -> None:
    chart, other = make_chart(p, draw, 0), make_chart(p, draw, 1)
    for name in ("keys", "values", "items"):
        p.call(chart, name)
    p.op("list", chart)
    p.op("reversed", chart)
    p.call(chart, "get", "a")
    p.call(chart, "get", "absent", 3)
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "or", "ror", "ior"):
        p.op(name, chart, other)
    p.op("contains", chart, "a")
    p.op("hash", chart)
    p.op("copy", chart)
    p.op("deepcopy", chart)
    p.op("setitem", chart, "z", 4.0)
    p.call(chart, "setdefault", "y", 2.0)
    p.call(chart, "pop", "z")
    p.call(chart, "pop", "absent", 7)
    p.call(chart, "pop", "absent")
    p.call(chart, "update", {"q": 1.0})
    p.op("delitem", chart, "q")
    p.op("delitem", chart, "absent")
    p.call(chart, "popitem")
    p.call(chart, "fromkeys", ["a", "b"])
    p.op("dict", chart)
    p.call(chart, "clear")
    p.op("len", chart)
    p.call(chart, "popitem")
    for name in ("argmax", "argmin", "max", "min", "sum", "normalize"):
        p.call(chart, name)
    p.new("util:Chart", 0)
    p.new("util:Chart")


@scenario
def small_functions(p: Program, draw: Draw) -> None:
    logs = draw(st.lists(st.integers(-40, 4).map(float), min_size=1, max_size=6))
    for given in (logs, Array("ndarray", logs), [*logs, -INF]):
        p.new("util:logsumexp", given)
    p.new("util:logsumexp", [-INF, -INF])
    p.new("util:logsumexp", [])
    for text in (
        draw(st.binary(max_size=6)),
        draw(st.text("aé \n\t\x00\\", max_size=6)),
        draw(st.integers(0, 255)),
    ):
        p.new("util:escape", text)
    for value in (97, 10, 0, 255, draw(st.integers(0, 255)), 256, 257, None):
        p.new("util:format_byte", value)
    rows = draw(st.lists(st.tuples(st.sampled_from(["x", "<b>", "a & b"]), st.integers(0, 9)), max_size=3))
    for headings in ([], [["key", "value"]], [None]):
        p.new("util:format_table", [list(row) for row in rows], *headings)


@scenario
def enums(p: Program, draw: Draw) -> None:
    for name, members in (("TrieMode", ("WITH_EOS", "WITHOUT_EOS")), ("TrieOp", ("SUM", "MAX"))):
        kind = p.find("trie", name)
        p.op("len", p.op("list", kind, opaque=True))
        for member in members:
            one = p.get(kind, member)
            for attribute in ("name", "value"):
                p.get(one, attribute)
            p.op("repr", one)
            p.op("eq", p.call(kind, None, p.get(one, "value")), one)
            p.op("eq", p.op("getitem", kind, member), one)
            p.op("eq", p.op("pickle", one), one)
            p.op("contains", kind, one)
        p.call(kind, None, "no such member")
        p.op("len", kind)
        p.op("list", p.get(kind, "__members__"))
    p.find("trie", "EOS")
    p.find("byte_lm.trie_state", "EOS")
