"""How many workers have died on a group of texts: to tell a text that kills workers from bad luck.

Ray Data starts an actor that has died again, and gives it the same work, without end. A group on which every
worker dies (it wants more memory than there is) would be tried for ever. So an actor of no weight keeps
count: a worker that begins a group and has not ended the one before, has died on that. Actors that are
started again keep their name.
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
        self._now: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()

    def begin(self, worker: str, group: str) -> int:
        """How many workers have died on a group that one begins now."""
        unended = self._now.get(worker)
        if unended is not None:
            self._deaths[unended] += 1
        self._now[worker] = group
        return self._deaths[group]

    def end(self, worker: str, group: str) -> None:
        """It has ended, well or not."""
        self._now.pop(worker, None)
        self._deaths.pop(group, None)


class Attempts:
    """What a worker does around each group.

    Args:
        begin: tells the tally which group, and returns the number of deaths.
        end: tells the tally.
        retries: how often a group may be begun again.
    """

    def __init__(self, begin: Callable[[str], int], end: Callable[[str], Any], retries: int) -> None:
        self._begin, self._end, self._retries = begin, end, retries

    @classmethod
    def on(cls, handle: Any, retries: int) -> Attempts:
        """With a tally that is an actor; None means that nobody counts."""
        if handle is None:
            return cls(lambda _: 0, lambda _: None, retries)
        import ray

        worker = ray.get_runtime_context().get_actor_id()

        def begin(group: str) -> int:
            found: int = ray.get(handle.begin.remote(worker, group))
            return found

        return cls(begin, lambda group: ray.get(handle.end.remote(worker, group)), retries)

    @contextmanager
    def of(self, group: str, name: str) -> Iterator[None]:
        """Around the work on a group.

        Args:
            group: what tells it from others.
            name: the same for people.
        """
        deaths = self._begin(group)
        try:
            if deaths > self._retries:
                died = f"workers died on {name}, {deaths} in a row"
                raise GenlmBytesError(
                    f"{died}. Is there enough memory? Try fewer `texts_per_group`, or a `window`."
                )
            yield
        finally:
            self._end(group)
