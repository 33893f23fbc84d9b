"""What a benchmark ran on, in words. No host names."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

__all__ = ["cores", "hardware", "machine", "versions"]


def machine(ours: dict[str, str], theirs: dict[str, str] | None = None) -> list[str]:
    """Lines that name the machine and the versions on each side (`worker.versions`)."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    lines = [
        f"{datetime.date.today().isoformat()}; {hardware()}; load average at the end {load}",
        "ours, this working tree: " + versions(ours),
    ]
    return lines if theirs is None else [*lines, "theirs: " + versions(theirs)]


def hardware() -> str:
    """The processor, how many of its cores this process may use, the memory, the system."""
    return f"{_cpu()}, {cores()} core{'s' * (cores() != 1)}, {_memory()} RAM, {platform.system()}"


def versions(found: dict[str, str]) -> str:
    """A worker's versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in found.items())


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"
