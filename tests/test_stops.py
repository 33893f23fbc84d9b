"""Stop strings: found where comparing each of them says, at a price that their number does not decide."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genlm.bytes.generate.stops import StopFinder


class Obvious:
    """Every stop string compared at every step."""

    def __init__(self, stops):
        self.stops = tuple(stops)
        self._longest = max(map(len, self.stops), default=0)

    def find(self, text, since=0):
        first = None
        for stop in self.stops:
            start = text.find(stop, max(0, since - len(stop) + 1))
            if start >= 0:
                found = (start, start + len(stop))
                if first is None or (found[1], found[0]) < (first[1], first[0]):
                    first = found
        return first

    def held(self, text):
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = bytes(text[-length:])
            if any(stop.startswith(end) for stop in self.stops):
                return length
        return 0


def texts(letters, most):
    return st.lists(st.sampled_from(letters), max_size=most).map(bytes)


@pytest.mark.parametrize("letters", [b"ab", b"abc", bytes([0, 127, 255])])
@given(data=st.data())
def test_as_comparing_each(letters, data):
    stops = data.draw(st.lists(texts(letters, 6).filter(bool), max_size=8))
    text = data.draw(texts(letters, 40))
    finder, obvious = StopFinder(stops), Obvious(stops)
    since = 0
    while since < len(text):
        upto = data.draw(st.integers(since + 1, len(text)), label="upto")
        found = finder.feed(text[since:upto])
        assert found == obvious.find(text[:upto], since)
        if found is not None:
            assert finder.held == 0
            return
        assert finder.held == obvious.held(text[:upto])
        since = upto


def strings(kind):
    rng = random.Random(1)
    if kind == "random":
        return [rng.randbytes(100) for _ in range(10_000)]
    if kind == "alike":  # each state's end is the beginning of many
        return [b"a" * (99 - len(tail)) + tail + b"!" for tail in (b"%d" % i for i in range(10_000))]
    return [b"a" * n + b"z" for n in range(1, 3000)]  # a chain of links as long as the longest


@pytest.mark.parametrize("kind", ["random", "alike", "nested"])
def test_steps_do_not_grow_with_the_strings(kind):
    """Steps are counted: some for each byte read, and each state that is made, once."""
    stops = strings(kind)
    finder = StopFinder(stops)
    text = (stops[7][:-1] + b"b" + b"a" * 150) * 20
    assert finder.feed(text) is None
    longest = max(map(len, stops))
    assert 0 < finder.steps <= 4 * len(text) + 2 * longest
    before = finder.steps
    assert finder.feed(text) is None
    assert finder.steps - before <= 3 * len(text)
    found = finder.feed(b"b" + stops[-1])
    assert found is not None and found.end - found.start == len(stops[-1])


def test_a_chain_of_links_is_no_recursion():
    finder = StopFinder(b"a" * n + b"z" for n in range(1, 5_000))
    assert finder.feed(b"a" * 4_999) is None
    assert finder.held == 4_999
    assert finder.feed(b"z") == (0, 5_000)
