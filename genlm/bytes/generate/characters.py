"""The next whole character, from distributions of the next byte.

A character is up to four bytes, so its probability is a product of up to four next-byte probabilities,
each from a beam one byte further. Prefixes are expanded likeliest first: a prefix is at least as likely
as any character it begins, so the characters come out in order, and a few beams serve for the likeliest
few. (The bytes that cannot continue a character have no part in this; their probability is left over.)
"""

from __future__ import annotations

import heapq
import math
from typing import Any

from genlm.bytes.util import Chart, LazyByteProbs, utf8
from genlm.bytes.util.symbols import EOS

__all__ = ["next_characters"]


async def next_characters(beam: Any, logp: LazyByteProbs, text: bytes, top: int | None = None) -> Chart:
    """Natural log-probabilities of the next character, likeliest first.

    Args:
        text: the bytes it has read. A character that they leave unfinished is the next one.
        top: how many characters to find; None finds all of positive probability, at the price of a beam
            for each of their beginnings.

    Returns:
        A chart from characters, and `"EOS"`, to log-probabilities.
    """
    begun = utf8.unfinished(text)
    found: Chart = Chart(-math.inf)
    # Entries: minus the log-probability, a counter that settles ties, bytes, the beam before the last one.
    queue: list[tuple[float, int, bytes, Any]] = []
    count = 0

    def push(distribution: LazyByteProbs, prefix: bytes, weight: float, at: Any) -> None:
        nonlocal count
        for byte in utf8.allowed(utf8.advance(utf8.START, prefix)).nonzero()[0].tolist():
            p = distribution[byte]
            if p > -math.inf:
                heapq.heappush(queue, (-(weight + p), count, prefix + bytes([byte]), at))
                count += 1

    push(logp, begun, 0.0, beam)
    if not begun and logp[EOS] > -math.inf:
        heapq.heappush(queue, (-logp[EOS], -1, b"", None))
    while queue and (top is None or len(found) < top):
        minus, _, prefix, at = heapq.heappop(queue)
        if not prefix:
            found["EOS"] = -minus
        elif utf8.advance(utf8.START, prefix) == utf8.START:
            found[prefix.decode()] = -minus
        else:
            after = await (at.prune() << prefix[-1])
            if len(after):
                push(await after.logp_next(), prefix, -minus, after)
    return found
