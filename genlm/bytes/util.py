"""Small things that the whole library shares: a distribution over next bytes, a dictionary with a default
that can be added and multiplied, a log-sum of a few numbers, and how bytes are shown to people.

A distribution over next bytes is 258 numbers: one a byte, then one for the end of the token, then one for
the end of the sequence. `LazyByteProbs` keeps them as the array that they were computed in and makes the
dictionary of 258 entries, a `Chart`, for those who ask: a search asks for single bytes only.

Importing this module loads numpy and the standard library, nothing else.
"""

from __future__ import annotations

import html
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from genlm.bytes.errors import MissingDependencyError, bad_type, bad_value

__all__ = [
    "Chart",
    "LazyByteProbs",
    "escape",
    "format_byte",
    "format_table",
    "logsumexp",
    "sample_dict",
]

logger = logging.getLogger(__name__)

# `trie.EOT` and `trie.EOS`, written out: importing `genlm.bytes.trie` would load torch.
_EOT, _EOS = 256, 257
_SIZE = 258
_INTEGERS = (int, np.integer)

_BYTE_KEYS = (*range(256), None, _EOS)
_PRETTY_KEYS = (*(bytes([b]) for b in range(256)), "EOT", "EOS")

# Up to this length a Python loop over an array is as fast as numpy: 4 µs either way at 32 numbers.
_LOOP_MAX = 32

_DIFFERENCES_SHOWN = 20


class Chart(dict[Any, Any]):
    """A dictionary whose missing keys have a value, with the arithmetic of sparse vectors.

    Reading a missing key gives `zero` and inserts nothing. Methods that return charts return new ones,
    with the same `zero`, and leave this one as it is. `repr` and the notebook view omit zero entries.

    Args:
        zero: the value of a missing key.
        vals: a mapping, or pairs of key and value.

    >>> counts = Chart(0, {"a": 1, "b": 2})
    >>> counts["c"], len(counts)
    (0, 2)
    >>> counts + {"b": 1, "c": 5}
    {'a': 1, 'b': 3, 'c': 5}
    """

    def __init__(self, zero: Any, vals: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(vals)
        self.zero = zero

    def __missing__(self, key: Any) -> Any:
        return self.zero

    def spawn(self) -> Chart:
        """An empty chart with the same `zero`."""
        return Chart(self.zero)

    def copy(self) -> Chart:
        """A chart with the same entries."""
        return Chart(self.zero, self)

    def to_dict(self) -> dict[Any, Any]:
        """A plain `dict` with the same entries; a missing key is a `KeyError` again."""
        return dict(self)

    # Arithmetic

    def __add__(self, other: Mapping[Any, Any]) -> Chart:
        """The sums `self[k] + other[k]` for the keys of either."""
        if not isinstance(other, Mapping):
            return NotImplemented
        other = self._as_chart(other)
        return Chart(self.zero, {k: self[k] + other[k] for k in _union(self, other)})

    def __mul__(self, other: Mapping[Any, Any]) -> Chart:
        """The products `self[k] * other[k]` for the keys of both; products equal to `zero` are left out."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return Chart(self.zero, {k: v * other[k] for k, v in self.items() if k in other}).trim()

    def sum(self) -> Any:
        """The sum of the values; 0 if there are none."""
        return sum(self.values())

    def normalize(self) -> Chart:
        """The values divided by their sum (also where they are logarithms); unchanged if the sum is 0.

        >>> Chart(0, {"a": 1, "b": 3}).normalize()
        {'a': 0.25, 'b': 0.75}
        """
        total = self.sum()
        return Chart(self.zero, {k: v / total for k, v in self.items()}) if total != 0 else self.copy()

    # Entries chosen or renamed

    def filter(self, f: Callable[[Any], Any]) -> Chart:
        """The entries whose key satisfies `f`."""
        return Chart(self.zero, {k: v for k, v in self.items() if f(k)})

    def trim(self) -> Chart:
        """The entries whose value is not `zero`."""
        return Chart(self.zero, {k: v for k, v in self.items() if v != self.zero})

    def map_keys(self, f: Callable[[Any], Any]) -> Chart:
        """The values under the keys `f(key)`; of keys that become equal the last stays (cf. `project`)."""
        return Chart(self.zero, {f(k): v for k, v in self.items()})

    def map_values(self, f: Callable[[Any], Any]) -> Chart:
        """The values `f(value)` under the same keys; a missing key has `f(zero)`."""
        return Chart(f(self.zero), {k: f(v) for k, v in self.items()})

    def project(self, f: Callable[[Any], Any]) -> Chart:
        """The values under the keys `f(key)`; those of keys that become equal are added.

        >>> Chart(0, {"ant": 1, "bee": 2, "ape": 3}).project(lambda word: word[0])
        {'a': 4, 'b': 2}
        """
        out = self.spawn()
        for k, v in self.items():
            image = f(k)
            out[image] = out[image] + v if image in out else v
        return out

    # Order

    def sort(self, **kwargs: Any) -> Chart:
        """The entries in the order of their keys; `kwargs` (`key`, `reverse`) are those of `sorted`."""
        return Chart(self.zero, ((k, self[k]) for k in sorted(self, **kwargs)))

    def sort_descending(self) -> Chart:
        """The entries by value, the largest first; ties keep their order."""
        return Chart(self.zero, sorted(self.items(), key=_value, reverse=True))

    def top(self, k: int) -> Chart:
        """The `k` entries of the largest values, the largest first; all of them if there are fewer.

        Raises:
            ValueError: `k` is negative.
            TypeError: `k` is not an integer.

        >>> Chart(0, {"a": 1, "b": 3, "c": 2}).top(2)
        {'b': 3, 'c': 2}
        """
        if not isinstance(k, _INTEGERS):
            raise bad_type("k", k, "must be an integer")
        if k < 0:
            raise bad_value("k", k, "must not be negative")
        return Chart(self.zero, sorted(self.items(), key=_value, reverse=True)[:k])

    def argmax(self) -> Any:
        """The key of the largest value, the first of several; `ValueError` if there are no entries."""
        return max(self._entries("argmax"), key=_value)[0]

    def argmin(self) -> Any:
        """The key of the smallest value, the first of several; `ValueError` if there are no entries."""
        return min(self._entries("argmin"), key=_value)[0]

    def max(self) -> Any:
        """The largest value; `ValueError` if there are no entries."""
        return max(self._entries("max"), key=_value)[1]

    def min(self) -> Any:
        """The smallest value; `ValueError` if there are no entries."""
        return min(self._entries("min"), key=_value)[1]

    def _entries(self, wanted: str) -> Iterable[tuple[Any, Any]]:
        if not self:
            raise bad_value("chart", self.to_dict(), f"{wanted} needs at least one entry")
        return self.items()

    # Comparison

    def metric(self, other: Mapping[Any, Any]) -> Any:
        """The largest absolute difference between values, over the keys of either.

        Equal infinities differ by 0, and so do two NaNs; a NaN and a number differ by infinity. What a
        chart lacks is its `zero`; what a plain mapping lacks is the `zero` of this chart.

        >>> Chart(0, {"a": 1, "b": 2}).metric({"b": 5})
        3
        """
        other = self._as_chart(other)
        return max((_gap(self[k], other[k]) for k in _union(self, other)), default=0)

    def compare(self, other: Mapping[Any, Any], *, domain: Iterable[Any] | None = None) -> Any:
        """Both charts and their absolute differences (see `metric`) as a table.

        Args:
            other: a chart or mapping to compare with.
            domain: the keys to compare, None for those of either.

        Returns:
            A pandas `DataFrame` with the columns `key`, `self`, `other` and `metric`, one row a key.

        Raises:
            ImportError: pandas is not installed.

        >>> print(Chart(0, {"a": 1}).compare({"a": 3}))
          key  self  other  metric
        0   a     1      3       2
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError(
                "`Chart.compare` returns a pandas DataFrame and pandas is not installed: pip install pandas"
            ) from error
        return pd.DataFrame(self._rows(other, domain), columns=["key", "self", "other", "metric"])

    def assert_equal(
        self,
        want: Mapping[Any, Any],
        *,
        domain: Iterable[Any] | None = None,
        tol: float = 1e-05,
        verbose: bool = False,
        throw: bool = True,
    ) -> None:
        """Checks that no value differs from the one wanted by more than `tol`.

        Args:
            want: the chart or mapping that this one should be.
            domain: the keys to compare, None for those of either.
            tol: the largest absolute difference allowed (see `metric`).
            verbose: log each key to `genlm.bytes.util`: a difference as a warning, the others as info.
            throw: raise if there is a difference. With False, `verbose` must be True.

        Raises:
            AssertionError: a value differs; the message is a table of those that do, the worst first.
            ValueError: neither `verbose` nor `throw`, so that no one would learn the result.

        >>> Chart(0.0, {"a": 0.5}).assert_equal({"a": 0.25}, tol=0.5)
        """
        if not (verbose or throw):
            raise bad_value("throw", throw, "without `verbose` the result would be lost", "Set one of them.")
        rows = self._rows(want, domain)
        wrong = sorted((row for row in rows if row[3] > tol), key=lambda row: row[3], reverse=True)
        if verbose:
            for key, have, wanted, gap in rows:
                level, sign = (logging.WARNING, "!=") if gap > tol else (logging.INFO, "==")
                logger.log(level, "%r: %r %s %r", key, have, sign, wanted)
        if wrong and throw:
            raise AssertionError(
                f"{len(wrong)} of {len(rows)} values differ by more than {tol}:\n{_text_table(wrong)}"
            )

    def _rows(self, other: Mapping[Any, Any], domain: Iterable[Any] | None) -> list[tuple[Any, ...]]:
        other = self._as_chart(other)
        keys = _union(self, other) if domain is None else domain
        return [(k, self[k], other[k], _gap(self[k], other[k])) for k in keys]

    def _as_chart(self, other: Mapping[Any, Any]) -> Chart:
        if isinstance(other, Chart):
            return other
        if not isinstance(other, Mapping):
            raise bad_type("other", other, "must be a chart or another mapping")
        return Chart(self.zero, other)

    # Display

    def __repr__(self) -> str:
        return repr(self.trim().to_dict())

    def __str__(self) -> str:
        entries = self.trim().sort_descending()
        return "\n".join(["Chart {", *(f"  {k!r}: {v}," for k, v in entries.items()), "}"])

    def _repr_html_(self) -> str:
        table = format_table(self.trim().items(), headings=["key", "value"])
        return f'<div style="font-family: Monospace;">{table}</div>'


class LazyByteProbs:
    """A distribution over next bytes, by byte. The dictionary of all of them is made on demand.

    Indexed by a byte 0..255, by None for the end of the token (256 is the same), by 257 for the end of
    the sequence, and by the `bytes` of an atomic unit.

    Args:
        ps: 258 numbers: an array, sequence or tensor.
        log_space: whether they are natural logarithms of probabilities.
        units: the probabilities (or their logarithms, like `ps`) of the units that are read in one step
            although they are several bytes.

    Attributes:
        ps: the numbers as a numpy array; the one given, if it was one.
        log_space: as given.
        units: as given, or an empty dictionary.

    Raises:
        ValueError: the number of numbers is not 258; an empty unit.
        TypeError: something other than numbers; a unit that is not `bytes`.

    >>> ps = LazyByteProbs([0.75 if b == ord("a") else 0.0 for b in range(257)] + [0.25], log_space=False)
    >>> ps
    <LazyByteProbs p: b'a' 0.75, EOS 0.25>
    >>> ps[97], ps[None], ps[257]
    (0.75, 0.0, 0.25)
    >>> ps.pretty().top(2)
    {b'a': 0.75, 'EOS': 0.25}
    """

    def __init__(
        self,
        ps: np.ndarray | Sequence[float] | Any,
        log_space: bool = True,
        *,
        units: Mapping[bytes, float] | None = None,
    ) -> None:
        self.ps = _numbers(ps)
        self.log_space = log_space
        self.units: dict[bytes, float] = {} if not units else _checked_units(units)

    def __getitem__(self, b: int | bytes | None) -> float:
        if b is None:
            return float(self.ps[_EOT])
        if isinstance(b, _INTEGERS) and not isinstance(b, bool) and 0 <= b < _SIZE:
            return float(self.ps[b])
        if isinstance(b, bytes) and b in self.units:
            return self.units[b]
        if isinstance(b, bytes):
            known = f"an atomic unit, one of {sorted(self.units)}" if self.units else "an integer"
            raise bad_value("b", b, f"must be {known}", "Ask for a single byte by its number: p[97].")
        raise bad_value("b", b, "must be a byte 0..255, None or 256 (end of token) or 257 (end of sequence)")

    def materialize(self) -> Chart:
        """All of them: keys 0..255, None (end of token), 257 (end of sequence), then the atomic units.

        A key that is missing has probability 0: `-inf` in log space.
        """
        chart = Chart(self._zero, zip(_BYTE_KEYS, self.ps.tolist(), strict=True))
        chart.update(self.units)
        return chart

    def pretty(self) -> Chart:
        """All of them under keys for people: `b'a'`, `'EOT'`, `'EOS'`, then the atomic units.

        An atomic unit of a single byte has the key `"unit b'a'"`, since `b'a'` is the byte's.
        """
        chart = Chart(self._zero, zip(_PRETTY_KEYS, self.ps.tolist(), strict=True))
        chart.update((u if len(u) > 1 else f"unit {u!r}", p) for u, p in self.units.items())
        return chart

    @property
    def _zero(self) -> float:
        return -math.inf if self.log_space else 0.0

    def __repr__(self) -> str:
        top = self.pretty().trim().top(5).items()
        shown = ", ".join(f"{k if isinstance(k, str) else repr(k)} {p:.4g}" for k, p in top)
        return f"<LazyByteProbs {'logp' if self.log_space else 'p'}: {shown or 'nothing possible'}>"


def logsumexp(arr: Iterable[float]) -> float:
    """The logarithm of the sum of exponentials, natural, without overflow.

    Args:
        arr: numbers: a sequence, array or any iterable; all entries of an array with several axes.

    Returns:
        A Python float: `-inf` for no numbers and for none but `-inf`, NaN if any number is NaN.

    Raises:
        TypeError: something other than numbers.

    >>> logsumexp([math.log(0.25), math.log(0.5)]) == math.log(0.75)
    True
    >>> logsumexp([])
    -inf
    """
    if not isinstance(arr, list | tuple):
        if hasattr(arr, "__array__"):
            array = _as_array("arr", arr)
            if array.size > _LOOP_MAX:
                return _logsumexp_array(array)
            arr = array.ravel().tolist()
        else:
            arr = _listed(arr)
    if not arr:
        return -math.inf
    exp = math.exp
    try:
        top = float(max(arr))
        if top - top == 0.0:  # neither infinite nor NaN
            return top + math.log(sum([exp(x - top) for x in arr]))
    except (TypeError, ValueError):
        return logsumexp(_as_array("arr", arr))
    return math.nan if any(x != x for x in arr) else top


def sample_dict(x: Mapping[Any, float], *args: Any, **kwargs: Any) -> Any:
    """Draws a key of `x` with probability proportional to its value: `arsenal.maths.sample_dict`.

    Here, since importing arsenal loads pandas and matplotlib: this imports it at the first draw.

    Args:
        x: a mapping from keys to weights.
        *args, **kwargs: passed on: `size`, the number of draws; `u`, the uniform number(s) to use in
            place of numpy's global random numbers.

    >>> sample_dict({"a": 0.25, "b": 0.75}, u=0.5)
    'b'
    """
    from arsenal.maths import sample_dict as draw

    return draw(x, *args, **kwargs)


def format_table(rows: Iterable[Iterable[Any]], headings: Iterable[Any] | None = None) -> str:
    """An HTML table for notebooks.

    A cell that can draw itself (`_repr_html_`, `_repr_svg_`, `_repr_image_svg_xml`) does; of any other
    value, and of headings, the text is shown, escaped.

    Args:
        rows: the rows, each as its cells.
        headings: a bold first row, none if None or empty.

    >>> format_table([["<b>", 1]])
    '<table><tr><td><pre>&lt;b&gt;</pre></td><td><pre>1</pre></td></tr></table>'
    """
    head = "".join(f"<td>{html.escape(str(h))}</td>" for h in headings or ())
    lines = [f'<tr style="font-weight: bold;">{head}</tr>'] if head else []
    lines += ["<tr>" + "".join(f"<td>{_cell(x)}</td>" for x in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def escape(x: bytes | str | int) -> str:
    r"""A text in one visible line: a space becomes `␣`, and what cannot be printed an escape sequence.

    Args:
        x: bytes, a string, or one byte as its number.

    Raises:
        ValueError: a number that is no byte.
        TypeError: any other type.

    >>> print(escape(b"a b\n\xff"), escape("\u00ff\t"), escape(97))
    a␣b\n\xff ÿ\t a
    """
    if isinstance(x, _INTEGERS):
        if not 0 <= x < 256:
            raise bad_value("x", x, "a number must be a byte 0..255")
        x = bytes([x])
    if isinstance(x, bytes | bytearray):
        return repr(bytes(x))[2:-1].replace(" ", "␣")
    if isinstance(x, str):
        return repr(x)[1:-1].replace(" ", "␣")
    raise bad_type("x", x, "must be bytes, a string, or a byte as its number")


def format_byte(byte_val: int) -> str:
    r"""A byte as Python writes it; anything that is no byte, as `str` does.

    >>> print(format_byte(97), format_byte(10), format_byte(257))
    b'a' b'\n' 257
    """
    is_byte = isinstance(byte_val, _INTEGERS) and 0 <= byte_val < 256
    return repr(bytes([byte_val])) if is_byte else str(byte_val)


def _value(entry: tuple[Any, Any]) -> Any:
    return entry[1]


def _union(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[Any, Any]:
    """The keys of `a`, then those of `b` alone."""
    return dict.fromkeys([*a, *b])


def _gap(x: Any, y: Any) -> Any:
    if x == y or (x != x and y != y):
        return 0
    gap = abs(x - y)
    return gap if gap == gap else math.inf


def _text_table(rows: Sequence[tuple[Any, ...]]) -> str:
    cells = [("key", "self", "want", "difference")]
    cells += [(repr(k), repr(x), repr(y), f"{gap:.3g}") for k, x, y, gap in rows[:_DIFFERENCES_SHOWN]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    if len(rows) > _DIFFERENCES_SHOWN:
        lines.append(f"  … and {len(rows) - _DIFFERENCES_SHOWN} more")
    return "\n".join(lines)


def _cell(x: Any) -> str:
    for method in ("_repr_html_", "_repr_svg_", "_repr_image_svg_xml"):
        draw = None if isinstance(x, type) else getattr(x, method, None)
        if draw is not None:
            return str(draw())
    return f"<pre>{html.escape(str(x))}</pre>"


def _as_array(name: str, x: Any) -> np.ndarray:
    """Floats as an array; the same one if `x` is one. Tensors of any device and type become float64."""
    if hasattr(x, "detach"):
        x = x.detach().cpu().double().numpy()
    try:
        array = np.asarray(x)
        return array if array.dtype.kind == "f" else array.astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise bad_type(name, x, "must hold nothing but real numbers") from error


def _numbers(ps: Any) -> np.ndarray:
    array = _as_array("ps", ps)
    if array.shape != (_SIZE,):
        rule = f"must be ({_SIZE},): 256 bytes, the end of the token, the end of the sequence"
        raise bad_value("ps.shape", array.shape, rule)
    return array


def _checked_units(units: Mapping[bytes, float]) -> dict[bytes, float]:
    if not isinstance(units, Mapping):
        raise bad_type("units", units, "must be a mapping from bytes to numbers")
    for unit in units:
        if not isinstance(unit, bytes):
            raise bad_type("units", unit, "the key of a unit must be bytes")
        if not unit:
            raise bad_value("units", units, "a unit must not be empty")
    return {unit: float(p) for unit, p in units.items()}


def _listed(arr: Any) -> list[float]:
    try:
        return list(arr)
    except TypeError as error:
        raise bad_type("arr", arr, "must be numbers") from error


def _logsumexp_array(array: np.ndarray) -> float:
    array = array.astype(np.float64, copy=False)
    top = float(array.max())
    if top - top != 0.0:
        return top
    return top + math.log(np.exp(array - top).sum())
