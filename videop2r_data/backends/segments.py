"""The files that a journal is made of, each written by one process under its lock."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import ClassVar, Self

from videop2r_data.errors import JournalError

# `flock` instead of lock files: the system frees it when the process ends, after `kill -9` too, so nothing is
# left that a person would have to delete.


_LOCK_TRIES, _PAUSE_S = 100, 0.01


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
        """Write `data` at `offset`; the rest of the file stays."""
        os.pwrite(self._fd, data, offset)

    def read(self, length: int, offset: int = 0) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end of the file."""
        return os.pread(self._fd, length, offset)

    def release(self) -> None:
        """Free it; safe to call twice."""
        if self._fd >= 0:
            self._held.discard(self)
            os.close(self._fd)
            self._fd = -1

    @classmethod
    def forget_all(cls) -> None:
        """Release every lock in a forked child: its copies would outlive the process that took them."""
        for lock in list(cls._held):
            lock.release()


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting; False: another process has the lock.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_soon(fd: int) -> bool:
    """Lock an open file, trying for a second: `is_held` of another process takes the lock for a moment.

    Raises:
        OSError: the file system has no locks.
    """
    for _ in range(_LOCK_TRIES):
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


# The files of a journal: segments that anyone reads and one process writes.


SYNC_S = 0.05
SEGMENT_BYTES = 256 * 2**20
_TRIES = 16


BLOCK = 4096
"""Records of a block of an index."""
_HEAD = Struct("<QQII")
"""Of a block: begin and end of the stretch of the segment that it is about, CRC-32 of this stretch and of the
rows, and how many rows follow."""
_ROW = Struct("<32s8sQQI")

Row = tuple[bytes, bytes, int, int, int]
"""A record: key, kind, nusd, offset and length of its data; an index fills its kind up with zeros."""


class Segment:
    """One file of the journal, for reading, and `segment-*.idx` beside it: where the records of it are.

    The index is a row of blocks, each of `BLOCK` records, from the begin of the segment on. A block is
    believed only if the segment still has the bytes that it is about: an index that is torn, of another
    segment, or of one that was changed since costs time, never an answer. What no block is about is read line
    by line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0
        self.keeps = False
        """Whether this process adds to the index."""
        self._rows, self._rows_from = bytearray(), 0
        """Records behind the last block."""
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(f"cannot open a segment: {error}", where=str(path)) from None

    def new_lines(self) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of each complete line since the last call; a torn tail is left for the next."""
        with open(self._fd, "rb", buffering=1 << 20, closefd=False) as file:
            file.seek(self._seen)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset = self._seen
                self._seen += len(line)
                yield offset, line

    def known(self) -> Iterator[Row]:
        """What the index says of records of which nothing was read yet; what is not good in it is cut off."""
        data, at, size = b"", 0, os.fstat(self._fd).st_size
        with suppress(OSError):
            data = self._index.read_bytes()
        while len(data) - at >= _HEAD.size:
            start, end, crc, count = _HEAD.unpack_from(data, at)
            rows = data[at + _HEAD.size : at + _HEAD.size + count * _ROW.size]
            if not self._seen == start < end <= size or crc != self._check(start, end, rows):
                break
            yield from _ROW.iter_unpack(rows)
            self._seen = end
            at += _HEAD.size + len(rows)
        self._rows_from = self._seen
        if self.keeps and at < len(data):
            with suppress(OSError):
                os.truncate(self._index, at)

    def note(self, row: Row, end: int) -> None:
        """Take the next record into the index, if this process keeps it; its line ends at `end`."""
        if not self.keeps:
            return
        self._rows += _ROW.pack(*row)
        if len(self._rows) < BLOCK * _ROW.size:
            return
        rows, start = bytes(self._rows), self._rows_from
        self._rows, self._rows_from = bytearray(), end
        head = _HEAD.pack(start, end, self._check(start, end, rows), BLOCK)
        try:
            with self._index.open("ab", buffering=0) as file:
                file.write(head + rows)
        except OSError:
            self.keeps = False  # an index is done without

    @property
    def _index(self) -> Path:
        return self.path.with_suffix(".idx")

    def _check(self, start: int, end: int, rows: bytes) -> int:
        return zlib.crc32(rows, zlib.crc32(self.read(start, end - start)))

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer if the file was cut."""
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Writer:
    """The one writer of a segment, with a thread that brings it to the disk."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._end = os.fstat(fd).st_size
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._keep_synced, name="journal-sync", daemon=True)
        self._thread.start()

    @property
    def end(self) -> int:
        """Where the next line will stand, in bytes."""
        return self._end

    @classmethod
    def take_over(cls, folder: Path, names: list[Path]) -> Writer:
        """Go on with the newest segment that no living writer holds, or begin a new one.

        Raises:
            JournalError: the folder cannot be written, or its file system has no locks.
        """
        try:
            for path in reversed(names):
                fd = _open_to_write(path)
                if fd is None:
                    continue
                if os.fstat(fd).st_size < SEGMENT_BYTES and try_lock(fd):
                    cut_torn_tail(fd)
                    return cls(path, fd)
                os.close(fd)
            path, fd = begin_segment(folder, names)
        except OSError as error:
            raise JournalError(
                f"cannot be written: {error}",
                where=str(folder),
                hint="the journal needs a folder that can be written, on a file system with locks (flock)",
            ) from None
        return cls(path, fd)

    def write(self, line: bytes) -> int:
        """Append one line and return its offset.

        Raises:
            JournalError: the disk is full or broken; nothing of the line remains.
        """
        if self._failure is not None:
            raise self._broken("cannot be brought to the disk", self._failure)
        offset = self._end
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written: the disk is full")
        except OSError as error:
            with suppress(OSError):  # what cannot be cut off here is cut when the segment is next taken over
                os.ftruncate(self._fd, offset)
            raise self._broken("cannot write", error) from None
        self._end += len(line)
        if not self._dirty.is_set():  # it is cleared before a sync, which then has this line
            self._dirty.set()
        return offset

    def sync(self) -> None:
        """Bring everything to the disk.

        Raises:
            JournalError: that failed, now or before. A second try proves nothing: the system may have dropped
                what it could not write, and then says that all is well.
        """
        try:
            self._sync()
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is not None:
            raise self._broken("cannot be brought to the disk", self._failure)

    async def settled(self) -> None:
        """Wait until what was written may be used; here at once: the system has it."""

    def close(self) -> None:
        """Sync and free the segment, also if the sync fails.

        Raises:
            JournalError: as `sync`.
        """
        self._stop.set()
        self._dirty.set()
        self._thread.join()
        try:
            self.sync()
        finally:
            os.close(self._fd)

    def _sync(self) -> None:
        self._dirty.clear()
        os.fsync(self._fd)

    def _broken(self, what: str, error: OSError) -> JournalError:
        return JournalError(
            f"{what}: {error}", where=str(self.path), hint="free some space and run the same command"
        )

    def _keep_synced(self) -> None:
        while not self._stop.is_set():
            self._dirty.wait()
            if self._stop.wait(SYNC_S):
                return
            try:
                self._sync()
            except OSError as error:
                self._failure = error
                return


Begin = Callable[..., Writer]
"""As `begin_segment`, and opens it."""


def begin_segment(folder: Path, names: list[Path], origin: str = "") -> tuple[Path, int]:
    """A new segment behind these, locked; `origin`: who wrote its lines, if not this writer."""
    last = max((int(p.name[8:14]) for p in names if p.name[8:14].isdigit()), default=0)
    for _ in range(_TRIES):
        path = folder / f"segment-{last + 1:06d}-{origin or secrets.token_hex(4)}.jsonl"
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        if lock_soon(fd):
            sync(folder)
            return path, fd
        os.close(fd)  # another process, started at the same time, found the new file first and locked it
    raise JournalError("every new segment is locked at once by another process", where=str(folder))


def _open_to_write(path: Path) -> int | None:
    """None: this process may only read it (another user's on a shared disk), or it was just moved away."""
    try:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ENOENT):
            return None
        raise


def cut_torn_tail(fd: int) -> None:
    """A killed writer may leave half a line: cut it, so that the next record starts on a line of its own."""
    size = os.fstat(fd).st_size
    end = size
    while end > 0:
        start = max(0, end - (1 << 16))
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
        os.fsync(fd)


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
