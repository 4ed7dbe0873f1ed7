"""Clips to fetch as requests: neighbours in an archive share one, and what is here already needs none."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from videop2r_data.cards.hub_plan import LocalFile, RemoteFile
from videop2r_data.cards.pull_archives import Archive
from videop2r_data.cards.zip_members import Member

GAP = 1 << 17
"""Bytes between two clips that are read along rather than asked for in two requests."""
RUN = 64 << 20
"""Bytes of one request, unless a single clip has more."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Clip:
    """One file to fetch.

    Attributes:
        path: of the rows.
        target: where it goes.
        bytes: unpacked.
        start, end: where it lies in the file that is read.
        member: how to unpack it, None: it is a file of its own.
        file: its digests, if it is one.
    """

    path: str
    target: Path
    bytes: int
    start: int
    end: int
    member: Member | None = None
    file: RemoteFile | None = None

    def is_here(self) -> bool:
        """Whether the target holds it, whole; its bytes are read to be sure."""
        if not self.target.is_file() or self.target.stat().st_size != self.bytes:
            return False
        if self.member is not None:
            return crc_of(self.target) == self.member.crc
        return self.file is not None and self.file.is_same(LocalFile(self.target))


@dataclass(frozen=True, slots=True)
class Job:
    """One request: a range of a file, and the clips in it by their place.

    Attributes:
        source: the file, or the archive that several make up.
        start, end: the range.
        clips: in the order of their data.
    """

    source: Archive
    start: int
    end: int
    clips: tuple[Clip, ...]


def crc_of(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def file_clip(path: str, target: Path, file: RemoteFile) -> Clip:
    """A clip that is a file of the repository."""
    return Clip(path, target, file.bytes, 0, file.bytes, file=file)


def member_clip(path: str, target: Path, member: Member) -> Clip:
    """A clip that is a member of an archive."""
    return Clip(path, target, member.size, member.start, member.end, member=member)


def make_jobs(clips: Mapping[Archive, Iterable[Clip]], *, gap: int = GAP, run: int = RUN) -> Iterator[Job]:
    """The fewest requests that read little more than the clips.

    Args:
        clips: where they lie.
        gap: bytes that may be read in vain between two of them.
        run: bytes of one request at most, unless a single clip has more.
    """
    for source, found in clips.items():
        batch: list[Clip] = []
        for clip in sorted(found, key=lambda one: one.start):
            if batch and (clip.start - batch[-1].end > gap or clip.end - batch[0].start > run):
                yield _job(source, batch)
                batch = []
            batch.append(clip)
        if batch:
            yield _job(source, batch)


def _job(source: Archive, clips: list[Clip]) -> Job:
    return Job(source, clips[0].start, max(clip.end for clip in clips), tuple(clips))
