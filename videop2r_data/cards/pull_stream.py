"""Carry out one request: cut its bytes into clips, unpack and check each, name it only when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from videop2r_data.cards.hub_client import Hub
from videop2r_data.cards.hub_plan import LocalFile
from videop2r_data.cards.pull_jobs import Clip, Job
from videop2r_data.cards.zip_members import unpack
from videop2r_data.errors import HubAuthError, HubError, SourceError


class _Cursor:
    """Bytes of a range, taken from left to right."""

    def __init__(self, chunks: Iterable[bytes], at: int) -> None:
        self._chunks = iter(chunks)
        self._rest = b""
        self.at = at

    def until(self, end: int) -> Iterator[bytes]:
        """The bytes from here to `end`."""
        while self.at < end:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                return
            take, self._rest = chunk[: end - self.at], chunk[end - self.at :]
            self.at += len(take)
            yield take

    def skip(self, end: int) -> None:
        """Throw away what lies before `end`."""
        for _ in self.until(end):
            pass


def fetch_job(job: Job, hub: Hub, repo: str, commit: str) -> Iterator[tuple[Clip, str]]:
    """Fetch the clips of one request.

    Yields:
        Each clip, with what went wrong or an empty text. A damaged clip costs only itself; a connection that
        is lost for good costs the clips that had not come yet.

    Raises:
        HubAuthError: no clip of this repository can be had.
        OSError: the disk is full, or may not be written.
    """
    source = job.source.open(hub, repo, commit)
    cursor = _Cursor(source.stream(job.start, job.end), job.start)
    lost = ""
    for clip in job.clips:
        if lost:
            yield clip, lost
            continue
        try:
            cursor.skip(clip.start)
            _save(clip, cursor.until(clip.end), job.source.name)
            yield clip, ""
        except SourceError as error:
            yield clip, error.message
        except HubAuthError:
            raise
        except HubError as error:
            lost = error.message
            yield clip, lost


def _save(clip: Clip, chunks: Iterable[bytes], where: str) -> None:
    clip.target.parent.mkdir(parents=True, exist_ok=True)
    part = clip.target.with_name(f".{clip.target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for data in unpack(clip.member, chunks, where) if clip.member is not None else chunks:
                file.write(data)
        if clip.file is not None:
            _check_file(clip, part)
        part.replace(clip.target)
    finally:
        part.unlink(missing_ok=True)


def _check_file(clip: Clip, part: Path) -> None:
    if clip.file is not None and not clip.file.is_same(LocalFile(part)):
        raise SourceError("its digest is not the one that the Hub lists", where=clip.path)
