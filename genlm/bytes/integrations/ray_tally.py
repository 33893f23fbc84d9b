"""How often a group of texts has been begun and not ended: what tells a text that kills workers from bad luck.

Ray Data starts an actor that has died again, and gives it the same work, without end. A group on which every
actor dies (it wants more memory than there is) would be tried for ever. So an actor of no weight keeps count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from genlm.bytes.errors import GenlmBytesError

__all__ = ["Attempts", "Tally"]


class Tally:
    """The count. It runs as an actor; if that is lost, the count begins again."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """How often it has been begun, this time included, since it last ended."""
        self._begun[key] += 1
        return self._begun[key]

    def end(self, key: str) -> None:
        """It has ended, well or not."""
        self._begun.pop(key, None)


class Attempts:
    """What a worker does around each group.

    Args:
        begin: tells the tally, and returns its count.
        end: tells the tally.
        retries: how often a group may be begun again.
    """

    def __init__(self, begin: Callable[[str], int], end: Callable[[str], Any], retries: int) -> None:
        self._begin, self._end, self._retries = begin, end, retries

    @classmethod
    def on(cls, handle: Any, retries: int) -> Attempts:
        """With a tally that is an actor; None means that nobody counts."""
        if handle is None:
            return cls(lambda _: 1, lambda _: None, retries)

        def begin(key: str) -> int:
            import ray

            found: int = ray.get(handle.begin.remote(key))
            return found

        return cls(begin, lambda key: handle.end.remote(key), retries)

    @contextmanager
    def of(self, key: str, name: str) -> Iterator[None]:
        """Around the work on a group.

        Args:
            key: the group's.
            name: the group's, for people.

        Raises:
            GenlmBytesError: it has been begun too often.
        """
        count = self._begin(key)
        try:
            if count > self._retries + 1:
                died = f"{count - 1} workers have died on {name}, one after another"
                raise GenlmBytesError(
                    f"{died}. Is there enough memory? Try fewer `texts_per_group`, or a `window`."
                )
            yield
        finally:
            self._end(key)
