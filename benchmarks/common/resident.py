"""The peak of this process's memory over a stretch of work."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import torch

__all__ = ["Peak"]


class Peak:
    """`before` and `most`, in bytes: the resident set (Linux, glibc), or what torch holds on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> Peak:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self.before = torch.cuda.memory_allocated(self._device)
        else:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.before = pages * os.sysconf("SC_PAGE_SIZE")
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.most = torch.cuda.max_memory_allocated(self._device)
        else:
            lines = Path("/proc/self/status").read_text().splitlines()
            peak = next(line for line in lines if line.startswith("VmHWM"))
            self.most = 1024 * int(peak.split()[1])
