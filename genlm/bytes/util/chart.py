"""A dictionary with a default that can be added and multiplied: a sparse vector with named axes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from genlm.bytes.errors import bad_asserted, bad_type, bad_value, optional
from genlm.bytes.util.text import format_table

__all__ = ["Chart"]

logger = logging.getLogger(__name__)

_DIFFERENCES_SHOWN = 20
_value = itemgetter(1)


class Chart(dict[Any, Any]):
    """A dictionary whose missing keys have a value, with the arithmetic of sparse vectors.

    Reading a missing key gives `zero` and inserts nothing. Methods that return charts return new ones,
    with the same `zero`, and leave this one as it is. `repr` and the notebook view omit zero entries.

    Args:
        zero: the value of a missing key.
        vals: a mapping, or pairs of key and value.

    Examples:
        >>> counts = Chart(0, {"a": 1, "b": 2})
        >>> counts["c"], len(counts)
        (0, 2)
        >>> counts + {"b": 1, "c": 5}
        {'a': 1, 'b': 3, 'c': 5}
    """

    def __init__(self, zero: Any, vals: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(vals)
        self.zero = zero

    def __missing__(self, k: Any) -> Any:
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
        """The products `self[k] * other[k]` for the keys of this chart; those equal to `zero` are left out.

        A key that `other` lacks has its `zero` there, or, in a plain mapping, the `zero` of this chart.

        Examples:
            >>> Chart(0, {"a": 2, "b": 3}) * Chart(10, {"a": 5})
            {'a': 10, 'b': 30}
        """
        if not isinstance(other, Mapping):
            return NotImplemented
        other = self._as_chart(other)
        return Chart(self.zero, {k: v * other[k] for k, v in self.items()}).trim()

    def sum(self) -> Any:
        """The sum of the values; 0 if there are none."""
        return sum(self.values())

    def normalize(self) -> Chart:
        """The values divided by their sum (also where they are logarithms); unchanged if the sum is 0.

        Examples:
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

        Examples:
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

        Examples:
            >>> Chart(0, {"a": 1, "b": 3, "c": 2}).top(2)
            {'b': 3, 'c': 2}
        """
        if not isinstance(k, int | np.integer):
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

        Examples:
            >>> Chart(0, {"a": 1, "b": 2}).metric({"b": 5})
            3
        """
        other = self._as_chart(other)
        return max([0, *(_gap(self[k], other[k]) for k in _union(self, other))])

    def compare(self, other: Mapping[Any, Any], *, domain: Iterable[Any] | None = None) -> Any:
        """Both charts and their absolute differences (see `metric`) as a table.

        Args:
            other: a chart or mapping to compare with.
            domain: the keys to compare, None for those of either.

        Returns:
            A pandas `DataFrame` with the columns `key`, `self`, `other` and `metric`, one row a key.

        Raises:
            ImportError: pandas is not installed.

        Examples:
            >>> print(Chart(0, {"a": 1}).compare({"a": 3}))
              key  self  other  metric
            0   a     1      3       2
        """
        pd = optional("pandas", "`Chart.compare`", "pandas")
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
            ValueError: neither `verbose` nor `throw`, so that no one would learn the result. (An
                `AssertionError`, too.)

        Examples:
            >>> Chart(0.0, {"a": 0.5}).assert_equal({"a": 0.25}, tol=0.5)
        """
        if not (verbose or throw):
            raise bad_asserted(
                "throw", throw, "without `verbose` the result would be lost", "Set one of them."
            )
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

    def __str__(self, style_value: Callable[[Any, Any], str] = lambda k, v: str(v)) -> str:
        """The entries that are not zero, a line each, the largest value first.

        Args:
            style_value: the text of a value, given its key and itself.

        Examples:
            >>> print(Chart(0, {"a": 0.25, "b": 0.75}).__str__(style_value=lambda k, v: f"{v:.0%}"))
            Chart {
              'b': 75%,
              'a': 25%,
            }
        """
        entries = self.trim().sort_descending()
        return "\n".join(["Chart {", *(f"  {k!r}: {style_value(k, v)}," for k, v in entries.items()), "}"])

    def _repr_html_(self) -> str:
        table = format_table(self.trim().items(), headings=["key", "value"])
        return f'<div style="font-family: Monospace;">{table}</div>'


def _union(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[Any, Any]:
    """The keys of `a`, then those of `b` alone."""
    return dict.fromkeys([*a, *b])


def _gap(x: Any, y: Any) -> Any:
    if x == y:
        return x - x if x not in (math.inf, -math.inf) else 0.0
    if x != x and y != y:
        return 0.0
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
