"""One run at a time on an output: a lock beside it, held by the system, so that no killed run leaves one.

The lock is the system's own (`flock`; `LockFileEx` on Windows), which goes with the process that held it,
however that ended. The file `.<name>.lock` only carries it: one that is left behind locks nothing.

On network file systems: NFS from version 3 with its lock service, NFS 4, SMB, Lustre mounted with `flock`,
and GPFS lock between machines. Lustre mounted with `localflock`, and some FUSE systems, lock on each
machine by itself: two machines are not told of each other there. Where there are no locks at all we go on
and say so.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genlm.bytes.errors import bad_value

__all__ = ["Locks"]

UNKNOWN = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, None}
"""What systems say that cannot lock; None is of `NotImplementedError`, which older filelocks raise."""


class Locks:
    """Locks on some outputs, all or none.

    Args:
        paths: the outputs, each with the argument that asks for it; links are followed, so that two names of
            one file are one.

    Raises:
        ValueError: another run has one of them.
        OSError: the file for a lock cannot be made.
    """

    def __init__(self, paths: Mapping[Path, str]) -> None:
        self._held: list[tuple[Path, Any]] = []
        self.missing: Path | None = None
        """An output on a file system without locks, if there is one."""
        try:
            for path, option in {Path(os.path.realpath(path)): name for path, name in paths.items()}.items():
                self._take(path, option)
        except BaseException:
            self.release()
            raise

    def _take(self, path: Path, option: str) -> None:
        from filelock import FileLock, Timeout

        file = path.with_name(f".{path.name}.lock")
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
            self._held.append((file, lock))
        except Timeout:
            instead = f"Wait for it, or give another name. If no run is alive, delete {str(file)!r}."
            raise bad_value(option, str(path), "is being written by another run", instead) from None
        except (OSError, NotImplementedError) as error:
            if getattr(error, "errno", None) not in UNKNOWN:
                raise
            self.missing = path
            with suppress(OSError):
                file.unlink()

    def release(self) -> None:
        """Let the locks go. The files go first: whoever opens one before finds it gone, and begins again."""
        while self._held:
            file, lock = self._held.pop()
            with suppress(OSError):  # Windows deletes no open file
                file.unlink()
            with suppress(OSError):  # it goes with the process
                lock.release(force=True)
