"""What the world does to a journal: other hosts, other users, a disk that says no."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from videop2r_data.backends.journal import Journal
from videop2r_data.backends.segments import is_held
from videop2r_data.errors import JournalError, MediaError
from videop2r_data.schemas import digest

A, B, C = (digest(x) for x in "abc")


def test_the_newest_media_record_counts_also_from_an_earlier_segment(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    second.put_media(A, {"n": "old"})
    first.close()
    third = Journal(tmp_path)  # goes on with the first segment: the second is held
    third.put_media(A, {"n": "new"})
    assert third.media(A) == {"n": "new"}
    third.close()
    second.close()
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.media(A) == {"n": "new"}


def test_a_full_disk_at_the_end_is_told_and_frees_the_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.put_call(A, {"text": "a"}, nusd=0)

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(JournalError, match="No space left"):
            journal.close()
    journal.close()
    with Journal(tmp_path) as again:
        assert again.call(A) == {"text": "a"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_sync_that_failed_is_never_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the system calls the next one a success, although pages were dropped."""
    journal = Journal(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(5, "I/O error")))
        journal.put_call(A, {}, nusd=0)
        with pytest.raises(JournalError, match="I/O error"):
            journal.append_batch_event({"event": "x"})
    with pytest.raises(JournalError, match="I/O error"):
        journal.put_call(B, {}, nusd=0)
    with pytest.raises(JournalError, match="I/O error"):
        journal.close()


def test_the_first_error_is_the_one_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError), Journal(tmp_path):
        monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(5, "I/O")))
        raise MediaError("first", reason="media_missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_without_rights_is_a_named_error(tmp_path: Path, mode: int) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put_call(A, {}, nusd=0)
    segment = next((tmp_path / "j").iterdir())
    segment.chmod(0o400)
    (tmp_path / "j").chmod(mode)
    try:
        with pytest.raises(JournalError, match="j"):
            Journal(tmp_path / "j")
        if mode:
            with Journal(tmp_path / "j", readonly=True) as journal:
                assert journal.has_call(A)
        else:
            with pytest.raises(JournalError):
                Journal(tmp_path / "j", readonly=True)
    finally:
        (tmp_path / "j").chmod(0o700)


def test_no_right_to_write_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def deny(path: str, flags: int, *mode: int) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", path)
        return real(path, flags, *mode)

    with Journal(tmp_path) as journal:
        journal.put_call(A, {"n": 1}, nusd=0)
    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(JournalError, match="Read-only file system"):
        Journal(tmp_path)
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.call(A) == {"n": 1}


def test_another_users_segment_is_read_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path) as journal:
        journal.put_call(A, {"n": 1}, nusd=0)
    theirs = next(tmp_path.iterdir())
    real = os.open

    def deny(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR and not flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *mode)

    before = theirs.read_bytes()
    monkeypatch.setattr(os, "open", deny)
    with Journal(tmp_path) as journal:
        assert journal.call(A) == {"n": 1}
        journal.put_call(B, {"n": 2}, nusd=0)
    assert theirs.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_a_segment_cut_under_a_reader_is_an_error_not_an_answer(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.put_call(A, {"text": "x" * 100}, nusd=0)
    with Journal(tmp_path, readonly=True) as journal:
        os.truncate(next(tmp_path.iterdir()), 120)
        with pytest.raises(JournalError, match="gone"):
            journal.call(A)


def test_a_failed_opening_frees_the_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path) as journal:
        journal.append_batch_event({"event": "x"})

    def explode(self: Journal, path: Path) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_scan", explode)
        with pytest.raises(ValueError, match="a bug"):
            Journal(tmp_path)
    with Journal(tmp_path) as journal:
        journal.put_call(C, {}, nusd=0)
    assert len(list(tmp_path.iterdir())) == 1


def test_who_looks_whether_a_segment_is_held_keeps_no_writer_from_it(tmp_path: Path) -> None:
    """A new segment is seen by others before its writer has locked it."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for path in tmp_path.glob("segment-*"):
                is_held(path)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for thread in lookers:
        thread.start()
    try:
        journals = [Journal(tmp_path) for _ in range(40)]
        assert len({journal.segment for journal in journals}) == 40
    finally:
        stop.set()
        for thread in lookers:
            thread.join()
    for journal in journals:
        journal.close()
