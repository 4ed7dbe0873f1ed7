"""Fetch only the clips that some rows need: members of archives on the Hub, or files of a repository."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress
from operator import not_
from pathlib import Path

from videop2r_data.cards.hub.archives import (
    Archive,
    ForwardFile,
    Member,
    directories,
    find_archives,
    locate,
    relevant,
    single_file,
    spelled,
    unpack,
)
from videop2r_data.cards.hub.client import WORKERS, Hub, Place, Watch, in_parallel, no_watch
from videop2r_data.cards.hub.plan import LocalFile, RemoteFile, holds, list_files
from videop2r_data.cards.hub.tars import SPARE, TarPlan, fetch_tars, plan_tars
from videop2r_data.errors import HubAuthError, HubError, MediaError, SourceError
from videop2r_data.files import MEDIA_FOLDER, resolve_media
from videop2r_data.schemas import Model, safe_relative_path

# Clips become requests: neighbours in an archive share one, clips that are already here need none.

GAP = 1 << 17
"""Bytes between two clips up to which one request reads both."""
RUN = 64 << 20
"""Bytes of one request at most, unless a single clip has more."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Clip:
    """One file to fetch.

    Attributes:
        path: as the rows have it.
        target: where it goes.
        source: the file or archive that holds it.
        start, end: its bytes in the source.
        bytes: unpacked.
        content: its entry in the archive, or its digests if it is a file of its own.
    """

    path: str
    target: Path
    source: Archive
    start: int
    end: int
    bytes: int
    content: Member | RemoteFile

    @property
    def refused(self) -> str:
        """Why it cannot be unpacked, or empty."""
        return self.content.refused if isinstance(self.content, Member) else ""

    def is_here(self) -> bool:
        """Whether the target is this clip: size and digest (CRC-32 in an archive) agree."""
        if isinstance(self.content, Member):
            return holds(self.target, self.bytes, self.content.crc)
        return self.content.is_at(self.target)


Job = list[Clip]
"""One request: clips of one source, in the order of their data."""


def _range(job: Job) -> tuple[int, int]:
    """The bytes that a request asks for."""
    return job[0].start, max(clip.end for clip in job)


def _jobs(clips: Iterable[Clip]) -> Iterator[Job]:
    """Group clips into requests."""
    job: Job = []
    for clip in sorted(clips, key=lambda one: (one.source.name, one.start)):
        if job and (
            clip.source != job[0].source or clip.start - job[-1].end > GAP or clip.end - job[0].start > RUN
        ):
            yield job
            job = []
        job.append(clip)
    if job:
        yield job


# One request: its bytes are cut into clips; each is unpacked and checked, and gets its name when it is whole.


def _fetch_job(job: Job, place: Place) -> list[tuple[Clip, str]]:
    """Fetch the clips of one request.

    Returns:
        (clip, what went wrong or empty). A damaged clip fails alone; a connection that is lost for good fails
        the clips that had not arrived.

    Raises:
        HubAuthError: the repository may not be read.
        OSError: the disk is full or cannot be written.
    """
    start, end = _range(job)
    file = ForwardFile(job[0].source.open(place).stream(start, end), start)
    found, lost = [], ""
    for clip in job:
        fault = lost
        if not lost:
            try:
                _save(clip, file)
            except SourceError as error:
                fault = error.message
            except HubAuthError:
                raise
            except HubError as error:
                fault = lost = error.message
        found.append((clip, fault))
    return found


def _save(clip: Clip, source: ForwardFile) -> None:
    clip.target.parent.mkdir(parents=True, exist_ok=True)
    part = clip.target.with_name(f".{clip.target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            if isinstance(clip.content, Member):
                file.writelines(unpack(clip.content, source, clip.source.name))
            else:
                shutil.copyfileobj(source, file, _PIECE)
        if isinstance(clip.content, RemoteFile) and not clip.content.is_same(LocalFile(part)):
            raise SourceError("its digest is not the one that the Hub lists", where=clip.path)
        part.replace(clip.target)
    finally:
        part.unlink(missing_ok=True)


# The plan reads the directories of archives only, so that a person sees the cost before anything is fetched.


class MediaEstimate(Model):
    """What fetching some clips would cost."""

    repo: str
    commit: str
    wanted: int
    """Different clips of the chosen rows."""
    present: int
    """Of the wanted clips, those already here."""
    to_fetch: int
    clip_bytes: int
    """Of the clips to fetch, unpacked."""
    transfer_bytes: int
    """Bytes over the wire."""
    requests: int
    archive_bytes: int
    """Size of all archives that may hold a wanted clip."""
    directory_bytes: int
    """Bytes read from directories of archives for this estimate; 0 if they were cached."""
    missing: tuple[str, ...]
    """Clips that no file of the repository holds."""
    refused: tuple[tuple[str, str], ...]
    """(path, reason) of clips that are refused."""
    damaged: tuple[tuple[str, str], ...] = ()
    """(archive, reason) of archives that cannot be read."""
    whole: tuple[tuple[str, int], ...] = ()
    """(archive, bytes) of tar archives to read as a whole; counted in `transfer_bytes`."""
    perhaps: int = 0
    """Clips that may be in the tar archives, which have no directory."""


class MediaReport(Model):
    """What was fetched."""

    estimate: MediaEstimate
    fetched: int
    failed: tuple[tuple[str, str], ...]
    """(path, reason)."""
    missing: tuple[str, ...] = ()
    """Clips that no tar archive held."""


@dataclass(frozen=True)
class MediaPlan:
    """The requests for some clips, and their cost."""

    place: Place
    dest: Path
    estimate: MediaEstimate
    jobs: list[Job]
    tars: TarPlan
    names: Mapping[str, str]
    """Name in the repository -> path of the rows."""


def plan_media(
    paths: Iterable[str],
    repo: str,
    dest: Path,
    *,
    hub: Hub,
    cache: Path,
    revision: str | None = None,
    under: str = "",
) -> MediaPlan:
    """Find clips in a repository; only directories of archives are read.

    Args:
        paths: as the rows have them, relative to their media root; empty ones (text rows) are left out.
        repo: data set of the Hub that holds the media.
        dest: media root on this machine; a whole clip in it is not fetched again.
        hub: where.
        cache: folder for directories of archives.
        revision: commit, tag or branch; resolved to a commit once.
        under: folder of the repository that the rows' paths are relative to; empty: its root.

    Raises:
        HubError: the repository cannot be read.
    """
    place = Place.find(hub, repo, revision)
    targets, refused = _targets(paths, dest)
    files = list_files(hub, repo, "dataset", place.commit)
    wanted = {spelled(f"{under.strip('/')}/{path}" if under else path): path for path in targets}
    clips = _own_clips(files, wanted, targets)
    open_ones = {name for name, path in wanted.items() if path not in clips}
    archives = relevant(find_archives(files), open_ones)
    read = directories([one for one in archives if not one.is_tar], place, cache)
    for found in read:
        for name, m in locate(found.archive, found.members, open_ones).items():
            path = wanted[name]
            clips.setdefault(path, Clip(path, targets[path], found.archive, m.start, m.end, m.size, m))
    bad = {path: clip.refused for path, clip in clips.items() if clip.refused}
    usable = [clip for clip in clips.values() if not clip.refused]
    with ThreadPoolExecutor(WORKERS) as pool:
        here = list(pool.map(Clip.is_here, usable))
    jobs = list(_jobs(compress(usable, map(not_, here))))
    left = {name: targets[wanted[name]] for name in open_ones if wanted[name] not in clips}
    tars, present = plan_tars([one for one in archives if one.is_tar], left, cache)
    missing = left.keys() - tars.targets.keys() - present
    estimate = MediaEstimate(
        repo=repo,
        commit=place.commit,
        wanted=len(targets) + len(refused),
        present=sum(here) + len(present),
        to_fetch=sum(map(len, jobs)),
        clip_bytes=sum(clip.bytes for job in jobs for clip in job),
        transfer_bytes=sum(end - start for start, end in map(_range, jobs)) + tars.bytes,
        requests=len(jobs) + sum(len(archive.parts) for archive in tars.archives),
        archive_bytes=sum(archive.bytes for archive in archives),
        directory_bytes=sum(found.fetched for found in read),
        missing=tuple(sorted(wanted[name] for name in missing)),
        refused=tuple(sorted((refused | bad).items())),
        damaged=tuple((found.archive.name, found.fault) for found in read if found.fault),
        whole=tuple((archive.name, archive.bytes) for archive in tars.archives),
        perhaps=len(tars.targets),
    )
    return MediaPlan(place, dest, estimate, jobs, tars, wanted)


def fetch_media(plan: MediaPlan, *, watch: Watch = no_watch) -> MediaReport:
    """Fetch planned clips; every clip that arrived whole stays, whatever happens to the others.

    Args:
        plan: of `plan_media`.
        watch: called with progress.

    Raises:
        HubError: there is not enough room on the disk.
        HubAuthError: the token lost its access.
        OSError: the disk cannot be written.
    """
    estimate = plan.estimate
    plan.dest.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(plan.dest).free
    if estimate.clip_bytes + SPARE > free:
        raise HubError(
            f"the clips take {estimate.clip_bytes:,} bytes, {free:,} are free",
            where=str(plan.dest),
            hint="choose fewer rows, or another disk",
        )
    done, faults = 0, {}
    total = estimate.clip_bytes + plan.tars.bytes
    for found in in_parallel(lambda job: _fetch_job(job, plan.place), plan.jobs):
        for clip, fault in found:
            done += clip.bytes
            faults[clip.path] = fault
            watch(clip.path, done, total)
    clips, missing = fetch_tars(plan.tars, plan.place, lambda name, more: watch(name, done + more, total))
    faults |= {plan.names[name]: fault for name, fault in clips.items()}
    failed = sorted((path, fault) for path, fault in faults.items() if fault)
    return MediaReport(
        estimate=estimate,
        fetched=len(faults) - len(failed),
        failed=tuple(failed),
        missing=tuple(sorted(plan.names[name] for name in missing)),
    )


def _targets(paths: Iterable[str], dest: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """(path -> target, path -> reason of a refused path)."""
    targets: dict[str, Path] = {}
    refused: dict[str, str] = {}
    as_spelled: dict[str, str] = {}
    for raw in paths:
        if not raw or raw in refused:
            continue
        try:
            path = safe_relative_path(raw)
            if as_spelled.setdefault(spelled(path), path) != path:
                raise ValueError(
                    f"another row has the same path with its accents written another way: {path!r}"
                )
            if path not in targets:
                targets[path] = resolve_media(dest, path)
        except ValueError as error:
            refused[raw] = str(error)
        except MediaError as error:
            refused[raw] = error.message
    return targets, refused


def _own_clips(
    files: Mapping[str, RemoteFile], wanted: Mapping[str, str], targets: Mapping[str, Path]
) -> dict[str, Clip]:
    """Clips that are files of the repository: named so, or below `media/<source>/` as a push writes it."""
    found: dict[str, str] = {}
    clips: dict[str, Clip] = {}
    for file in files:
        folder, _, rest = file.partition("/")
        name = spelled(file)
        if name not in wanted and folder == MEDIA_FOLDER:
            name = spelled(rest.partition("/")[2])
        if name not in wanted:
            continue
        if found.setdefault(name, file) != file:
            told = f"{found[name]} and {file} would both become {name}"
            raise HubError(told, hint="choose rows of one source")
        path, listed = wanted[name], files[file]
        source = single_file(file, listed)
        clips[path] = Clip(path, targets[path], source, 0, listed.bytes, listed.bytes, listed)
    return clips
