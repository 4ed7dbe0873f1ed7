"""Locks on files that the system frees when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from pathlib import Path
from typing import ClassVar, Self

_TRIES, _PAUSE_S = 100, 0.01


class FileLock:
    """An advisory lock (`flock`) on an open file, and the file's text for whoever finds it taken.

    Freed by `release`, at the end of the process, by `kill -9` and by a crash of the machine alike.
    """

    _held: ClassVar[weakref.WeakSet[FileLock]] = weakref.WeakSet()

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._held.add(self)

    @classmethod
    def take(cls, path: Path, *, shared: bool = False) -> Self | None:
        """Take the lock at once; the file is made if it is missing.

        Args:
            path: the file, in a folder that exists.
            shared: among others that share it; else alone.

        Returns:
            The lock; None: somebody else has it.

        Raises:
            OSError: the file cannot be written, or its file system has no locks.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if try_lock(fd, shared=shared):
                return cls(path, fd)
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def write(self, data: bytes, offset: int = 0) -> None:
        """Put these bytes into the file; what stood behind them stays."""
        os.pwrite(self._fd, data, offset)

    def read(self, length: int, offset: int = 0) -> bytes:
        """As many bytes as are there."""
        return os.pread(self._fd, length, offset)

    def release(self) -> None:
        """Free it; safe to call twice."""
        if self._fd >= 0:
            self._held.discard(self)
            os.close(self._fd)
            self._fd = -1

    @classmethod
    def forget_all(cls) -> None:
        """In a forked child: its copies of the locks would outlive the process that took them."""
        for lock in list(cls._held):
            lock.release()


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file at once; False: somebody else has it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_soon(fd: int) -> bool:
    """Lock an open file that nobody else keeps: who only looks whether it is held, holds it for a moment.

    Raises:
        OSError: the file system has no locks.
    """
    for _ in range(_TRIES):
        if try_lock(fd):
            return True
        time.sleep(_PAUSE_S)
    return False


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of a file alone; when that cannot be told, it counts as held.

    >>> is_held(Path("no-such-file"))
    False
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not try_lock(fd, shared=True)
    except OSError:
        return True
    finally:
        os.close(fd)


os.register_at_fork(after_in_child=FileLock.forget_all)
