"""A server in a process of its own, as people start it, and what it holds: memory, tasks, threads, files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from common.peers import ROOT

__all__ = ["Held", "Served"]


@dataclass(frozen=True)
class Held:
    """What a server holds at a moment.

    Attributes:
        memory: resident, in bytes.
        caches: of it, what its caches of keys, values and log-probabilities say that they take.
        tasks: of its event loop.
        threads: of the process.
        files: that are open, sockets among them.
    """

    memory: int
    caches: int
    tasks: int
    threads: int
    files: int

    @classmethod
    def median(cls, moments: Sequence[Held]) -> Held:
        """Of each over some moments: how much is in use at one hangs on the forward that runs then."""
        return cls(*(round(median(values)) for values in zip(*map(astuple, moments), strict=True)))

    @property
    def rest(self) -> int:
        """Memory beside the caches, which fill up to their bounds."""
        return self.memory - self.caches

    def cells(self) -> list[str]:
        """As the cells of a table."""
        sizes = [f"{size / 2**20:,.0f} MiB" for size in (self.memory, self.caches, self.rest)]
        return [*sizes, *(str(count) for count in (self.tasks, self.threads, self.files))]


class Served:
    """A server on a free port of this machine. Use as a context manager.

    Args:
        options: of `genlm-bytes serve`.
    """

    def __init__(self, *options: str) -> None:
        self._options = options

    def __enter__(self) -> Served:
        # This working tree, whatever is installed; it lies before what the environment names.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "genlm.bytes",
            "serve",
            "--port",
            "0",
            *self._options,
        ]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        said = re.match(r"(http://(\S+):(\d+))  page", self._process.stdout.readline())
        if said is None:
            raise RuntimeError(f"{' '.join(command)}: it does not start")
        self.url, self.host, self.port = said[1], said[2], int(said[3])
        try:
            while not self._ready():
                time.sleep(0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health") as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError:
            return False

    def metrics(self) -> dict[str, float]:
        """What it counts, by name and labels."""
        with urllib.request.urlopen(f"{self.url}/metrics") as response:
            lines = response.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def at_rest(self) -> Held:
        """What it holds once the latest connections are closed: of a second, the moment with the fewest."""
        moments = list[Held]()
        for _ in range(5):
            time.sleep(0.2)
            moments.append(self.held())
        return min(moments, key=lambda held: held.files)

    def held(self) -> Held:
        """What it holds now."""
        metrics = self.metrics()
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        sizes = {name: int(value) for name, value in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.M)}
        return Held(
            memory=1024 * sizes["VmRSS"],
            caches=int(sum(v for name, v in metrics.items() if name.startswith("genlm_bytes_cache_bytes"))),
            tasks=int(metrics["genlm_bytes_tasks"]),
            threads=sizes["Threads"],
            files=len(os.listdir(f"/proc/{self._process.pid}/fd")),
        )
