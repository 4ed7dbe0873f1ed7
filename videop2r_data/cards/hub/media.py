"""Fetch only the clips that some rows need: members of archives on the Hub, or files of a repository."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from videop2r_data.cards.card.metadata import MEDIA
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
from videop2r_data.cards.hub.client import Hub, check_repo_id
from videop2r_data.cards.hub.plan import LocalFile, RemoteFile, Watch, crc_of, list_files
from videop2r_data.cards.hub.tars import SPARE, Place, TarPlan, fetch_tars, plan_tars
from videop2r_data.errors import HubAuthError, HubError, MediaError, SourceError
from videop2r_data.files import resolve_media
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
        bytes: unpacked.
        start, end: its bytes in the file that is read.
        member: its entry in an archive; None: a file of its own.
        file: its digests, if it is a file of its own.
    """

    path: str
    target: Path
    bytes: int
    start: int
    end: int
    member: Member | None = None
    file: RemoteFile | None = None

    def is_here(self) -> bool:
        """Whether the target is this clip: size and digest (CRC-32 in an archive) agree."""
        if not self.target.is_file() or self.target.stat().st_size != self.bytes:
            return False
        if self.member is not None:
            return crc_of(self.target) == self.member.crc
        return self.file is not None and self.file.is_same(LocalFile(self.target))


@dataclass(frozen=True, slots=True)
class Job:
    """One request: a range of a file, and the clips in it.

    Attributes:
        source: the file or archive.
        start, end: the range.
        clips: in the order of their data.
    """

    source: Archive
    start: int
    end: int
    clips: tuple[Clip, ...]


def file_clip(path: str, target: Path, file: RemoteFile) -> Clip:
    """A clip that is a file of the repository."""
    return Clip(path, target, file.bytes, 0, file.bytes, file=file)


def member_clip(path: str, target: Path, member: Member) -> Clip:
    """A clip that is a member of an archive."""
    return Clip(path, target, member.size, member.start, member.end, member=member)


def make_jobs(clips: Mapping[Archive, Iterable[Clip]], *, gap: int = GAP, run: int = RUN) -> Iterator[Job]:
    """Group clips into requests.

    Args:
        clips: by the file or archive that holds them.
        gap: as `GAP`.
        run: as `RUN`.
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


# One request: its bytes are cut into clips; each is unpacked and checked, and gets its name when it is whole.


def fetch_job(job: Job, hub: Hub, repo: str, commit: str) -> Iterator[tuple[Clip, str]]:
    """Fetch the clips of one request.

    Yields:
        (clip, what went wrong or empty). A damaged clip fails alone; a connection that is lost for good fails
        the clips that had not arrived.

    Raises:
        HubAuthError: the repository may not be read.
        OSError: the disk is full or cannot be written.
    """
    source = job.source.open(hub, repo, commit)
    file = ForwardFile(source.stream(job.start, job.end), job.start)
    lost = ""
    for clip in job.clips:
        if lost:
            yield clip, lost
            continue
        try:
            _save(clip, file, job.source.name)
            yield clip, ""
        except SourceError as error:
            yield clip, error.message
        except HubAuthError:
            raise
        except HubError as error:
            lost = error.message
            yield clip, lost


def _save(clip: Clip, source: ForwardFile, where: str) -> None:
    clip.target.parent.mkdir(parents=True, exist_ok=True)
    part = clip.target.with_name(f".{clip.target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            if clip.member is not None:
                file.writelines(unpack(clip.member, source, where))
            else:
                shutil.copyfileobj(source, file, _PIECE)
        if clip.file is not None:
            _check_file(clip, part)
        part.replace(clip.target)
    finally:
        part.unlink(missing_ok=True)


def _check_file(clip: Clip, part: Path) -> None:
    if clip.file is not None and not clip.file.is_same(LocalFile(part)):
        raise SourceError("its digest is not the one that the Hub lists", where=clip.path)


# The plan reads the directories of archives only, so that a person sees the cost before anything is fetched.

WORKERS = 4


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

    hub: Hub
    dest: Path
    estimate: MediaEstimate
    jobs: tuple[Job, ...]
    tars: TarPlan = field(default_factory=TarPlan)
    names: Mapping[str, str] = field(default_factory=dict)
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
    check_repo_id(repo)
    commit = hub.call(lambda: hub.api.dataset_info(repo, revision=revision).sha or "", repo)
    targets, refused = _targets(paths, dest)
    files = list_files(hub, repo, "dataset", commit)
    wanted = {spelled(f"{under.strip('/')}/{path}" if under else path): path for path in targets}
    clips: dict[str, tuple[Archive, Clip]] = {}
    for name, file in _own_files(files, wanted).items():
        path = wanted[name]
        clips[path] = (single_file(file, files[file]), file_clip(path, targets[path], files[file]))
    open_ones = {name for name, path in wanted.items() if path not in clips}
    archives = relevant(find_archives(files), open_ones)
    read = directories([one for one in archives if not one.is_tar], hub, repo, commit, cache)
    for found in read:
        for name, member in locate(found.archive, found.members, open_ones).items():
            path = wanted[name]
            clips.setdefault(path, (found.archive, member_clip(path, targets[path], member)))
    jobs, here, bad = _jobs(clips)
    left = {name: targets[wanted[name]] for name in open_ones if wanted[name] not in clips}
    tars, present = plan_tars([one for one in archives if one.is_tar], files, left, cache)
    missing = left.keys() - tars.targets.keys() - present
    estimate = MediaEstimate(
        repo=repo,
        commit=commit,
        wanted=len(targets) + len(refused),
        present=here + len(present),
        to_fetch=sum(len(job.clips) for job in jobs),
        clip_bytes=sum(clip.bytes for job in jobs for clip in job.clips),
        transfer_bytes=sum(job.end - job.start for job in jobs) + tars.bytes,
        requests=len(jobs) + sum(len(one.archive.parts) for one in tars.streams),
        archive_bytes=sum(archive.bytes for archive in archives),
        directory_bytes=sum(found.fetched for found in read),
        missing=tuple(sorted(wanted[name] for name in missing)),
        refused=tuple(sorted((refused | bad).items())),
        damaged=tuple((found.archive.name, found.fault) for found in read if found.fault),
        whole=tuple((one.archive.name, one.archive.bytes) for one in tars.streams),
        perhaps=len(tars.targets),
    )
    return MediaPlan(hub, dest, estimate, jobs, tars, wanted)


def fetch_media(plan: MediaPlan, *, watch: Watch | None = None) -> MediaReport:
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
    done, fetched = 0, 0
    failed: list[tuple[str, str]] = []
    total = estimate.clip_bytes + plan.tars.bytes
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [
            pool.submit(lambda job: list(fetch_job(job, plan.hub, estimate.repo, estimate.commit)), job)
            for job in plan.jobs
        ]
        try:
            for future in as_completed(futures):
                for clip, fault in future.result():
                    done += clip.bytes
                    fetched += not fault
                    failed += [(clip.path, fault)] if fault else []
                    if watch is not None:
                        watch(clip.path, done, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    place = Place(plan.hub, estimate.repo, estimate.commit)
    clips, missing = fetch_tars(plan.tars, place, lambda name, more: _tell(watch, name, done + more, total))
    failed += [(plan.names[name], fault) for name, fault in clips.items() if fault]
    return MediaReport(
        estimate=estimate,
        fetched=fetched + sum(not fault for fault in clips.values()),
        failed=tuple(sorted(failed)),
        missing=tuple(sorted(plan.names[name] for name in missing)),
    )


def _tell(watch: Watch | None, name: str, done: int, total: int) -> None:
    if watch is not None:
        watch(name, done, total)


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


def _own_files(files: Mapping[str, RemoteFile], wanted: Collection[str]) -> dict[str, str]:
    """Wanted name -> file of the repository: of that name, or below `media/<source>/` as a push writes it."""
    found: dict[str, str] = {}
    for file in files:
        folder, _, rest = file.partition("/")
        name = spelled(file)
        if name not in wanted and folder == MEDIA:
            name = spelled(rest.partition("/")[2])
        if name in wanted and found.setdefault(name, file) != file:
            raise HubError(
                f"{found[name]} and {file} would both become {name}", hint="choose rows of one source"
            )
    return found


def _jobs(clips: Mapping[str, tuple[Archive, Clip]]) -> tuple[tuple[Job, ...], int, dict[str, str]]:
    """(requests, clips already here, path -> reason of clips that cannot be unpacked)."""
    bad = {p: clip.member.refused for p, (_, clip) in clips.items() if clip.member and clip.member.refused}
    usable = [found for path, found in clips.items() if path not in bad]
    with ThreadPoolExecutor(WORKERS) as pool:
        here = list(pool.map(lambda found: found[1].is_here(), usable))
    by_archive: dict[Archive, list[Clip]] = {}
    for (archive, clip), is_here in zip(usable, here, strict=True):
        if not is_here:
            by_archive.setdefault(archive, []).append(clip)
    return tuple(make_jobs(by_archive)), sum(here), bad
