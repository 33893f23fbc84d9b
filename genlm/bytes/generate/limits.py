"""Where a completion stops: a stop string, a number of bytes, the model's longest context."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["StopFinder", "context_is_full", "depth", "longest_context"]


class _Found(NamedTuple):
    start: int
    end: int


class StopFinder:
    """Finds the first stop string in a growing text.

    The first is the one that is complete first, byte by byte; of those complete at the same byte the
    longest. So the answer does not depend on how the text grows.

    Args:
        stops: the strings; none of them empty.

    Examples:
        >>> finder = StopFinder([b"END", b"ND."])
        >>> finder.find(b"the EN"), finder.held(b"the EN"), finder.find(b"the END.")
        (None, 2, _Found(start=4, end=7))
    """

    def __init__(self, stops: tuple[bytes, ...] | list[bytes]) -> None:
        self.stops = tuple(stops)
        self._longest = max(map(len, self.stops), default=0)

    def find(self, text: bytes | bytearray, since: int = 0) -> _Found | None:
        """The first stop string in `text` that ends after offset `since`."""
        first: _Found | None = None
        for stop in self.stops:
            start = text.find(stop, max(0, since - len(stop) + 1))
            if start >= 0:
                found = _Found(start, start + len(stop))
                if first is None or (found.end, found.start) < (first.end, first.start):
                    first = found
        return first

    def held(self, text: bytes | bytearray) -> int:
        """The length of the longest end of `text` that a stop string may begin with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = bytes(text[-length:])
            if any(stop.startswith(end) for stop in self.stops):
                return length
        return 0


def longest_context(lm_state: Any) -> int | None:
    """The most tokens that a state's model reads, if it says; None for a state that forgets the oldest."""
    if lm_state.max_context_length is not None:
        return None
    config = getattr(getattr(lm_state.model, "model", None), "config", None)
    if config is None:
        return None
    text_config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    longest: int | None = getattr(text_config, "max_position_embeddings", None)
    return longest


def depth(lm_state: Any) -> int:
    """How many tokens a token-level state has read."""
    node = lm_state.node
    return len(lm_state.context) if node is None else int(node.depth)


def context_is_full(beam: Any) -> bool:
    """Whether the next token of a candidate might not fit into the model's context."""
    states = getattr(beam, "states", ())
    if not states:
        return False
    longest = longest_context(states[0].lm_state)
    return longest is not None and max(depth(state.lm_state) for state in states) >= longest
