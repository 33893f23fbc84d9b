"""Charts, distributions over next bytes, log-sums, and how bytes and tables are shown."""

from __future__ import annotations

import copy
import importlib.util
import logging
import math
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genlm.bytes import util
from genlm.bytes.errors import (
    AssertedValueError,
    GenlmBytesError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
)
from genlm.bytes.trie.modes import EOS, EOT
from genlm.bytes.util import (
    Chart,
    LazyByteProbs,
    escape,
    format_byte,
    format_table,
    logsumexp,
    probs,
    sample_dict,
)

INF, NAN = math.inf, math.nan

keys = st.sampled_from("abcdef")
counts = st.dictionaries(keys, st.integers(-5, 5))
charts = counts.map(lambda vals: Chart(0, vals))
ps258 = st.lists(st.floats(0, 1), min_size=258, max_size=258)


def entries(chart: Any) -> list[tuple[Any, Any]]:
    """The entries in order: `repr` and `==` would hide zeros and the order."""
    return list(dict.items(chart))


# -- Chart: a dictionary with a default ---------------------------------------------------------------


def test_a_missing_key_has_the_default_and_is_not_inserted() -> None:
    chart = Chart(0.0, {"a": 1.0})
    assert (chart["a"], chart["z"], chart.get("z"), len(chart), "z" in chart) == (1.0, 0.0, None, 1, False)


@pytest.mark.parametrize("vals", [{"a": 1}, [("a", 1)], Chart(9, {"a": 1})])
def test_a_chart_is_made_of_a_mapping_or_of_pairs(vals: Any) -> None:
    assert Chart(0, vals) == {"a": 1} and Chart(zero=0, vals=vals).zero == 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)), Chart.copy])
def test_copies_keep_the_default_and_are_independent(clone: Callable[[Chart], Chart]) -> None:
    chart = Chart(-1, {"a": 1})
    other = clone(chart)
    other["a"] = 2
    assert (type(other), other.zero, chart["a"]) == (Chart, -1, 1)


def test_spawn_and_to_dict() -> None:
    chart = Chart(7, {"a": 1, "b": 7})
    assert (chart.spawn().zero, len(chart.spawn())) == (7, 0)
    assert type(chart.to_dict()) is dict and chart.to_dict() == {"a": 1, "b": 7}


# Each line: the call, its result for {b: 3, a: 0, c: -1} over 0, in order.
METHODS: list[tuple[str, tuple[Any, ...], list[tuple[Any, Any]]]] = [
    ("copy", (), [("b", 3), ("a", 0), ("c", -1)]),
    ("trim", (), [("b", 3), ("c", -1)]),
    ("filter", (lambda k: k > "a",), [("b", 3), ("c", -1)]),
    ("map_keys", (str.upper,), [("B", 3), ("A", 0), ("C", -1)]),
    ("map_keys", (lambda k: "x",), [("x", -1)]),
    ("map_values", (lambda v: 2 * v,), [("b", 6), ("a", 0), ("c", -2)]),
    ("project", (lambda k: k < "c",), [(True, 3), (False, -1)]),
    ("sort", (), [("a", 0), ("b", 3), ("c", -1)]),
    ("sort_descending", (), [("b", 3), ("a", 0), ("c", -1)]),
    ("top", (2,), [("b", 3), ("a", 0)]),
    ("top", (0,), []),
    ("top", (np.int64(9),), [("b", 3), ("a", 0), ("c", -1)]),
    ("normalize", (), [("b", 1.5), ("a", 0.0), ("c", -0.5)]),
]


@pytest.mark.parametrize(("method", "args", "want"), METHODS)
def test_methods_that_return_a_new_chart(method: str, args: tuple[Any, ...], want: list[Any]) -> None:
    chart = Chart(0, {"b": 3, "a": 0, "c": -1})
    result = getattr(chart, method)(*args)
    assert (entries(result), type(result), result.zero) == (want, Chart, 0)
    assert entries(chart) == [("b", 3), ("a", 0), ("c", -1)]


def test_sort_takes_the_arguments_of_sorted() -> None:
    chart = Chart(0, {"b": 1, "aa": 2})
    assert list(chart.sort(key=len)) == ["b", "aa"]
    assert list(chart.sort(reverse=True)) == ["b", "aa"]


def test_map_values_maps_the_default_too() -> None:
    assert Chart(-INF, {"a": 0.0}).map_values(math.exp)["missing"] == 0.0


def test_extremes_take_the_first_of_several() -> None:
    chart = Chart(0, {"x": 1, "a": 2, "b": 2, "y": 1})
    assert (chart.argmax(), chart.argmin(), chart.max(), chart.min(), chart.sum()) == ("a", "x", 2, 1, 6)


def test_the_empty_chart() -> None:
    empty = Chart(0)
    assert (empty.sum(), empty.metric({}), empty.normalize()) == (0, 0, {})
    for method in ("argmax", "argmin", "max", "min"):
        with pytest.raises(InvalidValueError, match=f"{method} needs at least one entry"):
            getattr(empty, method)()


def test_a_sum_of_zero_is_not_divided_by() -> None:
    assert Chart(0, {"a": -1, "b": 1}).normalize() == {"a": -1, "b": 1}


@pytest.mark.parametrize(
    ("k", "error"), [(-1, InvalidValueError), (1.0, InvalidTypeError), (None, InvalidTypeError)]
)
def test_top_refuses_what_is_no_count(k: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`k` is"):
        Chart(0, {"a": 1}).top(k)


@given(charts, charts)
def test_addition_is_by_key_and_commutes(a: Chart, b: Chart) -> None:
    assert a + b == b + a == a + b.to_dict()
    assert list(a + b) == [*a, *(k for k in b if k not in a)]
    assert all((a + b)[k] == a[k] + b[k] for k in "abcdef")
    assert sum([a, b], Chart(0)) == a + b


@given(charts, charts, charts)
def test_multiplication_is_by_key_and_distributes(a: Chart, b: Chart, c: Chart) -> None:
    assert a * b == b * a == a * b.to_dict() == (a * b).trim()
    assert all((a * b)[k] == a[k] * b[k] for k in "abcdef")
    assert (a * (b + c)).trim() == ((a * b) + (a * c)).trim()


@given(charts, charts, st.integers(-2, 2), st.integers(-2, 2))
def test_multiplication_is_over_the_left_and_each_default(a: Chart, b: Chart, x: int, y: int) -> None:
    left, right = Chart(x, a), Chart(y, b)
    product = left * right
    assert product == {k: left[k] * right[k] for k in left if left[k] * right[k] != x} and product.zero == x
    assert left * dict(right) == left * Chart(x, right)


@pytest.mark.parametrize("other", [3, None, [("a", 1)]])
def test_arithmetic_with_something_else_is_a_type_error(other: Any) -> None:
    with pytest.raises(TypeError):
        Chart(0, {"a": 1}) + other
    with pytest.raises(TypeError):
        Chart(0, {"a": 1}) * other


def test_addition_uses_each_default_once() -> None:
    total = Chart(1, {"a": 10}) + Chart(2, {"b": 20})
    assert (entries(total), total.zero) == ([("a", 12), ("b", 21)], 1)


@given(charts)
def test_trim_changes_no_value(a: Chart) -> None:
    assert all(a.trim()[k] == a[k] for k in "abcdef") and 0 not in a.trim().values()
    assert a.trim().metric(a) == 0


@given(charts, charts, charts)
def test_metric_is_a_metric(a: Chart, b: Chart, c: Chart) -> None:
    assert a.metric(b) == b.metric(a) == a.metric(b.to_dict())
    assert a.metric(b) == max([abs(a[k] - b[k]) for k in "abcdef"])
    assert (a.metric(b) == 0) == (a.trim() == b.trim())
    assert a.metric(c) <= a.metric(b) + b.metric(c)


@given(charts, st.integers(0, 8))
def test_top_is_the_head_of_the_sorted_chart(a: Chart, k: int) -> None:
    top, rest = entries(a.top(k)), entries(a.sort_descending())[k:]
    assert top == entries(a.sort_descending())[:k]
    assert all(x >= y for _, x in top for _, y in rest)
    assert Counter(top + rest) == Counter(entries(a))


@given(charts)
def test_sorting_changes_the_order_only(a: Chart) -> None:
    assert a.sort() == a == a.sort_descending()
    assert list(a.sort()) == sorted(a)
    assert list(a.sort_descending().values()) == sorted(a.values(), reverse=True)


@given(charts, st.dictionaries(keys, st.integers(0, 2)))
def test_project_adds_what_falls_together(a: Chart, image: dict[str, int]) -> None:
    projected = a.project(image.get)
    assert projected.sum() == a.sum()
    assert set(projected) == {image.get(k) for k in a}
    for target in projected:
        assert projected[target] == a.filter(lambda k, t=target: image.get(k) == t).sum()


@given(st.dictionaries(keys, st.fractions(0, 9)))
def test_normalize_sums_to_one(vals: dict[str, Fraction]) -> None:
    chart = Chart(Fraction(0), vals)
    assert chart.normalize().sum() == (1 if chart.sum() else 0)


# -- Chart: comparison --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
@pytest.mark.parametrize(
    ("x", "y", "gap"),
    [
        (1.0, 3.0, 2.0),
        (INF, INF, 0.0),
        (-INF, -INF, 0.0),
        (INF, -INF, INF),
        (-INF, 0.0, INF),
        (NAN, NAN, 0.0),
        (NAN, 0.0, INF),
        (0.0, NAN, INF),
        (-INF, NAN, INF),
    ],
)
def test_metric_of_special_numbers(number: type, x: float, y: float, gap: float) -> None:
    a, b = Chart(0.0, {"k": number(x), "l": 1.0}), Chart(0.0, {"k": number(y), "l": 1.0})
    assert a.metric(b) == gap


def test_each_chart_lacks_its_own_default_and_a_mapping_that_of_the_chart() -> None:
    assert Chart(-INF, {"a": -1.0}).metric(Chart(-INF, {"a": -1.0, "b": -INF})) == 0
    assert Chart(0, {"a": 1}).metric(Chart(7, {"b": 1})) == 6
    assert Chart(5, {"a": 1}).metric({"a": 1, "b": 6}) == 1


@pytest.mark.parametrize("method", ["metric", "compare", "assert_equal"])
def test_comparison_with_something_else_is_refused(method: str) -> None:
    with pytest.raises(InvalidTypeError, match="a chart or another mapping"):
        getattr(Chart(0, {"a": 1}), method)([("a", 1)])


def test_compare_is_a_table() -> None:
    frame = Chart(0, {"a": 1, "b": 5}).compare({"c": 2, "a": 4})
    assert frame.to_dict("list") == {
        "key": ["a", "b", "c"],
        "self": [1, 5, 0],
        "other": [4, 0, 2],
        "metric": [3, 5, 2],
    }
    assert list(Chart(0, {"a": 1}).compare({}, domain=iter("za"))["key"]) == ["z", "a"]
    assert list(Chart(0).compare({}).columns) == ["key", "self", "other", "metric"]


def test_compare_without_pandas_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas") as caught:
        Chart(0).compare({})
    assert isinstance(caught.value, ImportError)


def test_assert_equal_is_silent_when_all_is_well(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    chart = Chart(-INF, {"a": 1.0, "b": -INF})
    chart.assert_equal(Chart(-INF, {"a": 1.0 + 1e-06}))
    chart.assert_equal({"a": 1.5}, tol=0.5)
    chart.assert_equal({"a": 9.0}, domain=["b", "z"])
    assert not caplog.records and capsys.readouterr() == ("", "")


def test_assert_equal_shows_what_differs_the_worst_first() -> None:
    with pytest.raises(AssertionError) as caught:
        Chart(0.0, {"a": 1.0, "b": 2.0, "c": 3.0}).assert_equal({"a": 1.5, "b": 2.0, "c": 5.0})
    assert str(caught.value).splitlines() == [
        "2 of 3 values differ by more than 1e-05:",
        "  key  self  want  difference",
        "  'c'  3.0   5.0   2",
        "  'a'  1.0   1.5   0.5",
    ]


def test_assert_equal_shows_at_most_twenty() -> None:
    with pytest.raises(AssertionError, match=r"23 of 23 values") as caught:
        Chart(0, dict.fromkeys(range(23), 1)).assert_equal({})
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (23, "  … and 3 more")


@pytest.mark.parametrize("throw", [True, False])
def test_assert_equal_verbose_logs_each_key(
    throw: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="genlm.bytes.util")
    chart = Chart(0, {"a": 1, "b": 2})
    if throw:
        with pytest.raises(AssertionError):
            chart.assert_equal({"a": 1}, verbose=True)
    else:
        chart.assert_equal({"a": 1}, verbose=True, throw=False)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "'a': 1 == 1"),
        ("WARNING", "'b': 2 != 0"),
    ]
    assert capsys.readouterr() == ("", "")


def test_assert_equal_refuses_to_say_nothing() -> None:
    with pytest.raises(InvalidValueError, match="the result would be lost"):
        Chart(0).assert_equal({}, throw=False)


# -- Chart: display -----------------------------------------------------------------------------------


def test_repr_and_str_omit_zeros_and_str_sorts() -> None:
    chart = Chart(0, {"a": 1.5, "z": 0, "b": 2})
    assert repr(chart) == "{'a': 1.5, 'b': 2}"
    assert str(chart) == f"{chart}" == "Chart {\n  'b': 2,\n  'a': 1.5,\n}"


def test_notebook_view_of_a_chart() -> None:
    text = Chart(0, {"<": 1, "z": 0})._repr_html_()
    assert text == (
        '<div style="font-family: Monospace;"><table><tr style="font-weight: bold;"><td>key</td>'
        "<td>value</td></tr><tr><td><pre>&lt;</pre></td><td><pre>1</pre></td></tr></table></div>"
    )


# -- LazyByteProbs ------------------------------------------------------------------------------------

RAMP = [i / 1000 for i in range(258)]


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        np.array,
        torch.tensor,
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x, dtype=torch.float64),
        lambda x: np.array(x, dtype=np.float32),
    ],
)
def test_probabilities_are_read_by_symbol(convert: Callable[[list[float]], Any]) -> None:
    ps = convert(RAMP)
    p = LazyByteProbs(ps, log_space=False)
    assert p.ps is ps
    for symbol, index in [(0, 0), (255, 255), (None, EOT), (EOT, EOT), (EOS, EOS), (np.int64(3), 3)]:
        assert p[symbol] == pytest.approx(RAMP[index]) and type(p[symbol]) is float
    assert {type(v) for v in p.materialize().values()} == {float}


def test_what_is_given_is_kept_and_whole_numbers_become_floats() -> None:
    ps = np.zeros(258)
    assert LazyByteProbs(ps).ps is ps
    assert LazyByteProbs(RAMP).ps == RAMP
    assert type(LazyByteProbs([0] * 258)[0]) is float
    assert LazyByteProbs(torch.zeros(258, dtype=torch.bfloat16))[0] == 0.0
    assert LazyByteProbs(ps).log_space is True and LazyByteProbs(ps, False).log_space is False


@pytest.mark.parametrize("units", [None, {b"ab": 0.5}])
@pytest.mark.parametrize("b", [258, -1, np.int64(258), "a", b"a", b"", 97.0, True, (97,), np.float64(97), []])
def test_anything_else_is_no_symbol(b: Any, units: Any) -> None:
    with pytest.raises(InvalidValueError, match="`b` is"):
        LazyByteProbs(RAMP, units=units)[b]


@pytest.mark.parametrize("n", [0, 1, 256, 257, 259])
def test_wrong_length_names_both_numbers(n: int) -> None:
    with pytest.raises(AssertedValueError, match=rf"\({n},\): must be \(258,\)") as caught:
        LazyByteProbs(np.zeros(n))
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, AssertionError)


@pytest.mark.parametrize("shape", [(), (258, 1), (1, 258)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match=r"must be \(258,\)"):
        LazyByteProbs(np.zeros(shape))


@pytest.mark.parametrize(
    "ps", [["a"] * 258, [None] * 258, np.zeros(258, dtype=complex), None, "x" * 258, [[1], [1, 2]]]
)
def test_what_is_no_number_is_refused(ps: Any) -> None:
    with pytest.raises(InvalidTypeError, match="real numbers"):
        LazyByteProbs(ps)


@given(ps258)
def test_materialize_has_every_symbol_in_order(ps: list[float]) -> None:
    p = LazyByteProbs(ps, log_space=False)
    chart = p.materialize()
    assert entries(chart) == list(zip([*range(256), None, EOS], ps, strict=True))
    assert all(chart[b] == p[b] for b in chart)
    assert (chart.zero, LazyByteProbs(ps).materialize().zero) == (0.0, -INF)


@given(ps258)
def test_pretty_has_the_same_values_under_other_keys(ps: list[float]) -> None:
    p = LazyByteProbs(ps, log_space=False)
    want = [*(bytes([b]) for b in range(256)), "EOT", "EOS"]
    assert entries(p.pretty()) == list(zip(want, p.materialize().values(), strict=True))
    assert (p.pretty().zero, LazyByteProbs(ps).pretty().zero) == (0.0, -INF)


def test_atomic_units() -> None:
    given_units = {b"<|sep|>": 0.25, b"a": np.float32(0.5)}
    p = LazyByteProbs(RAMP, log_space=False, units=given_units)
    given_units.clear()
    assert (p[b"<|sep|>"], p[b"a"], p[97]) == (0.25, 0.5, 0.097)
    assert type(p[b"a"]) is float
    assert entries(p.materialize())[-4:] == [(None, 0.256), (257, 0.257), (b"<|sep|>", 0.25), (b"a", 0.5)]
    assert entries(p.pretty())[-3:] == [("EOS", 0.257), (b"<|sep|>", 0.25), ("unit b'a'", 0.5)]
    assert len(p.pretty()) == len(p.materialize()) == 260
    with pytest.raises(InvalidValueError, match=r"one of \[b'<\|sep\|>', b'a'\]"):
        p[b"sep"]


@pytest.mark.parametrize(
    ("units", "error"),
    [
        ({"ab": 0.5}, InvalidTypeError),
        ([b"ab"], InvalidTypeError),
        ({b"": 0.5}, InvalidValueError),
    ],
)
def test_units_are_checked(units: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`units` is"):
        LazyByteProbs(RAMP, units=units)


def test_repr_is_the_top_five() -> None:
    ps = np.full(258, -INF)
    assert repr(LazyByteProbs(ps)) == "<LazyByteProbs logp: nothing possible>"
    ps[[97, 98, EOT]] = np.log([0.5, 0.25, 0.125])
    assert repr(LazyByteProbs(ps)) == "<LazyByteProbs logp: b'a' -0.6931, b'b' -1.386, EOT -2.079>"
    text = repr(LazyByteProbs(RAMP, log_space=False, units={b"ab": 0.9}))
    assert text == r"<LazyByteProbs p: b'ab' 0.9, EOS 0.257, EOT 0.256, b'\xff' 0.255, b'\xfe' 0.254>"


# -- logsumexp ----------------------------------------------------------------------------------------

CONTAINERS: list[Callable[[list[float]], Any]] = [list, tuple, iter, np.array, torch.tensor]
SIZES = [1, 5, 33, 300]  # below and above the length at which arrays are worked by numpy


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("arr", "want"),
    [
        ([], -INF),
        ([2.5], 2.5),
        ([0.0, 0.0], math.log(2)),
        ([-INF, -INF], -INF),
        ([-INF, 1.0], 1.0),
        ([1000.0, 1000.0], 1000 + math.log(2)),
        ([-1000.0, -1000.0], -1000 + math.log(2)),
        ([0.0, -2000.0], 0.0),
        ([INF, 1.0], INF),
        ([INF, -INF, INF], INF),
    ],
)
def test_logsumexp(container: Callable[[list[float]], Any], arr: list[float], want: float) -> None:
    for copies in SIZES if len(set(arr)) == 1 else [1]:
        result = logsumexp(container(arr * copies))
        assert type(result) is float
        assert result == pytest.approx(want + math.log(copies), rel=1e-6)


@pytest.mark.parametrize("filler", [0.0, -INF, INF])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_nan_stays_nan(container: Callable[[list[float]], Any], n: int, filler: float) -> None:
    for position in (0, n - 1):
        arr = [filler] * n
        arr[position] = NAN
        assert math.isnan(logsumexp(container(arr)))


@given(st.lists(st.one_of(st.floats(-1e4, 1e4), st.just(-INF)), max_size=100))
def test_logsumexp_agrees_with_exact_arithmetic(arr: list[float]) -> None:
    top = max(arr, default=-INF)
    want = top if top == -INF else top + math.log(math.fsum(math.exp(x - top) for x in arr))
    for container in (list, np.array):
        assert logsumexp(container(arr)) == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_logsumexp_takes_whatever_holds_numbers() -> None:
    want = math.log(4)
    assert logsumexp(np.zeros((2, 2))) == logsumexp([[0, 0], [0, 0]]) == want
    assert logsumexp({1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}.values()) == want
    assert logsumexp([np.float32(0)] * 4) == logsumexp(np.zeros(4, dtype=int)) == want
    assert logsumexp(torch.zeros(100, dtype=torch.bfloat16)) == pytest.approx(math.log(100))
    assert logsumexp(np.full(100, 3, dtype=np.float16)) == pytest.approx(3 + math.log(100))


def test_logsumexp_changes_nothing_in_place() -> None:
    for n in (3, 300):
        arr = np.ones(n)
        logsumexp(arr)
        assert (arr == 1).all()


@pytest.mark.parametrize("arr", [1.0, None, ["a"], ["1"], [None, 1.0], "ab", np.array(["a"]), [1j]])
def test_logsumexp_of_something_else(arr: Any) -> None:
    with pytest.raises(InvalidTypeError, match="`arr` is"):
        logsumexp(arr)


# -- Tables and bytes ---------------------------------------------------------------------------------


class Drawn:
    """Something that draws itself by the method named."""

    def __init__(self, method: str) -> None:
        setattr(self, method, lambda: f"<i>{method}</i>")


@pytest.mark.parametrize(
    ("cell", "want"),
    [
        (1, "<pre>1</pre>"),
        (None, "<pre>None</pre>"),
        ("a<b>&\n", "<pre>a&lt;b&gt;&amp;\n</pre>"),
        (b"a", "<pre>b&#x27;a&#x27;</pre>"),
        (Drawn("_repr_html_"), "<i>_repr_html_</i>"),
        (Drawn("_repr_svg_"), "<i>_repr_svg_</i>"),
        (Drawn("_repr_image_svg_xml"), "<i>_repr_image_svg_xml</i>"),
        (Chart, "<pre>&lt;class &#x27;genlm.bytes.util.chart.Chart&#x27;&gt;</pre>"),
    ],
)
def test_cells_draw_themselves_or_are_escaped(cell: Any, want: str) -> None:
    assert format_table([[cell]]) == f"<table><tr><td>{want}</td></tr></table>"


def test_tables() -> None:
    assert format_table([]) == format_table([], headings=[]) == "<table></table>"
    assert format_table(iter([iter([1, 2]), iter([3])]), headings=iter(["<x>", 1])) == (
        '<table><tr style="font-weight: bold;"><td>&lt;x&gt;</td><td>1</td></tr>'
        "<tr><td><pre>1</pre></td><td><pre>2</pre></td></tr><tr><td><pre>3</pre></td></tr></table>"
    )


@pytest.mark.parametrize(
    ("x", "want"),
    [
        (b"", ""),
        (b"a\n\xff", r"a\n\xff"),
        (bytearray(b"ab"), "ab"),
        (b"\\", r"\\"),
        (b"a b\t ", r"a␣b\t␣"),
        ("a\n\xff", "a\\nÿ"),
        ("'", "'"),
        (" ", "␣"),
        (97, "a"),
        (3, r"\x03"),
        (np.int64(32), "␣"),
    ],
)
def test_escape(x: Any, want: str) -> None:
    assert escape(x) == want


@given(st.binary())
def test_escape_is_one_line_and_can_be_undone(bs: bytes) -> None:
    text = escape(bs)
    assert text.isprintable() and text.isascii() == (b" " not in bs)
    assert text.replace("␣", " ").encode().decode("unicode_escape").encode("latin-1") == bs


@pytest.mark.parametrize(
    ("x", "error"),
    [(256, InvalidValueError), (-1, InvalidValueError), (None, InvalidTypeError), (1.5, InvalidTypeError)],
)
def test_escape_refuses_the_rest(x: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`x` is"):
        escape(x)


@pytest.mark.parametrize(
    ("byte", "want"),
    [
        *((b, repr(bytes([b]))) for b in range(256)),
        (np.int64(97), "b'a'"),
        (256, "256"),
        (257, "257"),
        (-1, "-1"),
        (None, "None"),
        ("a", "a"),
        (b"ab", "b'ab'"),
    ],
)
def test_format_byte(byte: Any, want: str) -> None:
    assert format_byte(byte) == want


# -- sample_dict and the module -----------------------------------------------------------------------


def test_sample_dict_draws_by_weight() -> None:
    weights = {b"a": 1.0, None: 0.0, 257: 3.0}
    assert [sample_dict(weights, u=u) for u in (0.1, 0.24, 0.26, 0.99)] == [b"a", b"a", 257, 257]
    assert list(sample_dict(weights, 2, u=np.array([0.1, 0.9]))) == [b"a", 257]
    assert {sample_dict(weights) for _ in range(100)} <= {b"a", 257}
    assert len(sample_dict(weights, size=7)) == 7


def test_the_documented_names_are_exported() -> None:
    assert set(util.__all__) == {
        "Chart",
        "LazyByteProbs",
        "escape",
        "format_byte",
        "format_table",
        "logsumexp",
        "sample_dict",
    }
    assert issubclass(InvalidValueError, GenlmBytesError) and issubclass(InvalidValueError, ValueError)
    assert (probs.EOT, probs.EOS) == (EOT, EOS)


def test_the_module_loads_numpy_and_nothing_else() -> None:
    """Loaded under other names, so that `genlm.bytes` itself, which loads torch, stays out of it."""
    assert util.__file__ is not None
    code = (
        "import importlib.util, sys, types\n"
        "for name in ('genlm', 'genlm.bytes'): sys.modules[name] = types.ModuleType(name)\n"
        "def load(name, path):\n"
        "    spec = importlib.util.spec_from_file_location(name, path)\n"
        "    sys.modules[name] = module = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(module)\n"
        "load('genlm.bytes.errors', sys.argv[1]); load('genlm.bytes.util', sys.argv[2])\n"
        "tops = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "assert tops & {'torch', 'pandas', 'arsenal', 'matplotlib', 'scipy', 'rich'} == set(), tops\n"
    )
    errors = importlib.util.find_spec("genlm.bytes.errors")
    assert errors is not None and errors.origin is not None
    subprocess.run([sys.executable, "-c", code, errors.origin, util.__file__], check=True, timeout=60)
