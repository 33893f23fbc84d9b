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
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

__all__ = ["HeldError", "Locks"]

UNKNOWN = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, None}
"""What systems say that cannot lock; None is of `NotImplementedError`, which older filelocks raise."""


class HeldError(Exception):
    """Another run holds the lock of an output.

    Attributes:
        path: the output.
        lock: the file that carries the lock.
    """

    def __init__(self, path: Path, lock: Path) -> None:
        super().__init__(str(path))
        self.path, self.lock = path, lock


class Locks:
    """Locks on some outputs, all or none.

    Args:
        paths: the outputs; links are followed, so that two names of one file are one.

    Raises:
        HeldError: another run has one of them.
        OSError: the file for a lock cannot be made.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._held: list[tuple[Path, BaseFileLock]] = []
        self.missing: Path | None = None
        """An output on a file system without locks, if there is one."""
        try:
            for path in dict.fromkeys(Path(os.path.realpath(path)) for path in paths):
                self._take(path)
        except BaseException:
            self.release()
            raise

    def _take(self, path: Path) -> None:
        file = path.with_name(f".{path.name}.lock")
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise HeldError(path, file) from None
        except (OSError, NotImplementedError) as error:
            if getattr(error, "errno", None) not in UNKNOWN:
                raise
            self.missing = path
            with suppress(OSError):
                file.unlink()
            return
        self._held.append((file, lock))

    def release(self) -> None:
        """Let the locks go. The files go first: whoever opens one before finds it gone, and begins again."""
        while self._held:
            file, lock = self._held.pop()
            with suppress(OSError):  # Windows deletes no open file
                file.unlink()
            with suppress(OSError):  # it goes with the process
                lock.release(force=True)
