"""Episodes of the fuzzer by their seeds, outside of pytest.

PYTHONPATH=tests python -m fuzz.play 17             # one, with all that it does
PYTHONPATH=tests python -m fuzz.play 0 1000         # many, with what fails, by where it fails
PYTHONPATH=tests python -m fuzz.play 0 1000 cancelled    # or `failing`: what befalls a beam
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import defaultdict
from typing import Any

from fuzz.episode import Episode
from fuzz.harm import cancelled, failing

OPERATIONS = 25
"""Operations of an episode."""


async def operations(seed: int, tell: Any = lambda _: None) -> int:
    """An episode of random operations; how many."""
    return await Episode(seed, tell).play(OPERATIONS)


WHAT = {"operations": operations, "cancelled": cancelled, "failing": failing}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    first = int(sys.argv[1])
    if len(sys.argv) == 2:
        asyncio.run(operations(first, say))
        return
    play = WHAT[sys.argv[3] if len(sys.argv) > 3 else "operations"]
    failed: dict[str, list[tuple[int, str]]] = defaultdict(list)
    done = 0
    for seed in range(first, int(sys.argv[2])):
        try:
            done += asyncio.run(play(seed))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            where = " ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames)
            failed[f"{type(error).__name__} {where}"].append((seed, str(error)))
    say(f"{done} {play.__name__}, {sum(map(len, failed.values()))} seeds fail")
    for where, found in sorted(failed.items(), key=lambda item: -len(item[1])):
        say(f"{len(found)} times {where}")
        for seed, message in found[:3]:
            say(f"    seed {seed}: {message[:400]}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
